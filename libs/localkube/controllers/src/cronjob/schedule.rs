//! When a CronJob runs: pure.

use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::jiff::{Timestamp, tz::TimeZone};

/// Missed runs beyond which only the latest is thought of.
const MANY: usize = 100;

/// Why a CronJob cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// the five fields or the macro
    #[error("unparseable schedule: {schedule}: {reason}")]
    Schedule {
        /// as written
        schedule: String,
        /// what is wrong with it
        reason: String,
    },
    /// the zone
    #[error("unknown time zone {0}")]
    Zone(String),
}

/// A schedule in its time zone.
pub struct Schedule {
    when: When,
    zone: TimeZone,
}

enum When {
    Cron(Cron),
    /// `@every 1h30m`: seconds between runs
    Every(i64),
}

/// Seconds of Go's notation (`1h30m`, `45s`), at least one.
fn go_seconds(text: &str) -> Option<i64> {
    let mut total = 0.0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total)
        .ok()
        .and_then(|total| i64::try_from(total.as_secs()).ok())
        .map(|seconds| seconds.max(1))
}

impl Schedule {
    /// Reads `spec.schedule` and `spec.timeZone`.
    pub fn of(cron_job: &CronJob) -> Result<Self, ScheduleError> {
        let spec = cron_job.spec.clone().unwrap_or_default();
        let unreadable = |reason: String| ScheduleError::Schedule {
            schedule: spec.schedule.clone(),
            reason,
        };
        let when = match spec.schedule.strip_prefix("@every ") {
            Some(text) => When::Every(
                go_seconds(text).ok_or_else(|| unreadable(format!("{text} is no duration such as 1h30m")))?,
            ),
            None => {
                When::Cron(Cron::from_str(&spec.schedule).map_err(|error| unreadable(error.to_string()))?)
            }
        };
        let zone = match spec.time_zone.as_deref() {
            None | Some("") => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_owned()))?,
        };
        Ok(Self { when, zone })
    }

    /// The first time after `after`.
    #[must_use]
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.when {
            When::Every(seconds) => Timestamp::from_second(after.as_second() + seconds).ok(),
            When::Cron(cron) => {
                let start = after.to_zoned(self.zone.clone());
                cron.find_next_occurrence(&start, false)
                    .ok()
                    .map(|found| found.timestamp())
            }
        }
    }

    /// The latest time in (`since`, `now`], and whether many were missed before it.
    #[must_use]
    pub fn latest(&self, since: Timestamp, now: Timestamp) -> Option<(Timestamp, bool)> {
        let mut found = None;
        let mut at = since;
        let mut count = 0;
        while let Some(next) = self.next(at).filter(|next| *next <= now) {
            found = Some(next);
            at = next;
            count += 1;
            if count > MANY {
                // Far behind: only the last day and the last hour can matter for frequent schedules.
                for back in [3_600i64, 86_400, 31 * 86_400] {
                    let start = Timestamp::from_second(now.as_second() - back)
                        .unwrap_or(since)
                        .max(since);
                    let mut at = start;
                    let mut last = None;
                    for _ in 0..4_000 {
                        match self.next(at).filter(|next| *next <= now) {
                            Some(next) => {
                                last = Some(next);
                                at = next;
                            }
                            None => break,
                        }
                    }
                    if last.is_some() {
                        return last.map(|last| (last, true));
                    }
                }
                break;
            }
        }
        found.map(|found| (found, count > MANY))
    }
}

/// The time after which runs may be due: the last run, or the creation, but not before the starting deadline.
#[must_use]
pub fn earliest(cron_job: &CronJob, now: Timestamp) -> Timestamp {
    let last = cron_job
        .status
        .as_ref()
        .and_then(|status| status.last_schedule_time.as_ref())
        .map(|time| time.0);
    let created = cron_job.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let earliest = last.or(created).unwrap_or(now);
    match cron_job
        .spec
        .as_ref()
        .and_then(|spec| spec.starting_deadline_seconds)
    {
        Some(seconds) => {
            Timestamp::from_second(now.as_second() - seconds).map_or(earliest, |limit| limit.max(earliest))
        }
        None => earliest,
    }
}

/// Name of the Job of a run: the minute of the run makes it unique.
#[must_use]
pub fn job_name(cron_job: &CronJob, at: Timestamp) -> String {
    format!(
        "{}-{}",
        cron_job.metadata.name.as_deref().unwrap_or_default(),
        at.as_second() / 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cron_job(schedule: &str, zone: Option<&str>) -> CronJob {
        serde_json::from_value(
            json!({"metadata": {"name": "c", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"schedule": schedule, "timeZone": zone, "jobTemplate": {}}}),
        )
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn next_and_latest() {
        let schedule = Schedule::of(&cron_job("*/10 * * * *", None)).unwrap();
        assert_eq!(
            schedule.next(at("2026-01-01T00:00:00Z")),
            Some(at("2026-01-01T00:10:00Z"))
        );
        assert_eq!(
            schedule.latest(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:25:00Z")),
            Some((at("2026-01-01T00:20:00Z"), false))
        );
        assert_eq!(
            schedule.latest(at("2026-01-01T00:00:00Z"), at("2026-01-01T00:09:00Z")),
            None
        );
        let (latest, many) = schedule
            .latest(at("2025-01-01T00:00:00Z"), at("2026-01-01T00:25:00Z"))
            .unwrap();
        assert_eq!((latest, many), (at("2026-01-01T00:20:00Z"), true));
    }

    #[test]
    fn zones() {
        let schedule = Schedule::of(&cron_job("0 9 * * *", Some("Europe/Berlin"))).unwrap();
        assert_eq!(
            schedule.next(at("2026-01-01T00:00:00Z")),
            Some(at("2026-01-01T08:00:00Z"))
        );
        assert!(Schedule::of(&cron_job("0 9 * * *", Some("Mars/Base"))).is_err());
    }

    #[test]
    fn every_so_often() {
        let schedule = Schedule::of(&cron_job("@every 1h30m", None)).unwrap();
        assert_eq!(
            schedule.next(at("2026-01-01T00:00:00Z")),
            Some(at("2026-01-01T01:30:00Z"))
        );
        assert_eq!(go_seconds("90s"), Some(90));
        assert_eq!(go_seconds("0.5s"), Some(1));
        assert_eq!(go_seconds("5"), None);
        assert!(Schedule::of(&cron_job("@every day", None)).is_err());
    }

    #[test]
    fn bad_schedules_are_refused() {
        assert!(Schedule::of(&cron_job("99 * * * *", None)).is_err());
    }

    #[test]
    fn names_by_the_minute() {
        assert_eq!(
            job_name(&cron_job("* * * * *", None), at("2026-01-01T00:10:00Z")),
            "c-29453770"
        );
    }
}
