//! From the log of a trial to its observation.

use ferroflow_api::crd::tuning::{Metric, MetricStrategy, ObjectiveSpec, Observation, Trial};
use jiff::Timestamp;

/// What stands for a value that was never reported.
pub const UNAVAILABLE: &str = "unavailable";

/// One line of a log, in the order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// When.
    pub time: Timestamp,
    /// Name of the metric.
    pub name: String,
    /// Value, as text.
    pub value: String,
}

/// Smallest, largest and latest value of each metric. The latest is the one with the latest time; of equal times, the
/// last that arrived. What is no number can only be latest.
#[must_use]
pub fn observe(log: &[Report], strategies: &[MetricStrategy]) -> Observation {
    let metrics = strategies.iter().map(|strategy| {
        let mut metric = Metric {
            name: strategy.name.clone(),
            min: UNAVAILABLE.to_owned(),
            max: UNAVAILABLE.to_owned(),
            latest: UNAVAILABLE.to_owned(),
        };
        let (mut bounds, mut last): (Option<(f64, f64)>, Option<Timestamp>) = (None, None);
        for report in log.iter().filter(|r| r.name == strategy.name) {
            if let Ok(value) = report.value.trim().parse::<f64>()
                && !value.is_nan()
            {
                let (min, max) = bounds.unwrap_or((f64::INFINITY, f64::NEG_INFINITY));
                if bounds.is_none() || value < min {
                    metric.min.clone_from(&report.value);
                }
                if bounds.is_none() || value > max {
                    metric.max.clone_from(&report.value);
                }
                bounds = Some((min.min(value), max.max(value)));
            }
            if last.is_none_or(|last| report.time >= last) {
                last = Some(report.time);
                metric.latest.clone_from(&report.value);
            }
        }
        metric
    });
    Observation {
        metrics: metrics.collect(),
    }
}

/// Whether the objective was reported.
#[must_use]
pub fn is_available(objective: Option<&ObjectiveSpec>, observation: Option<&Observation>) -> bool {
    let (Some(objective), Some(observation)) = (objective, observation) else {
        return false;
    };
    let metric = observation
        .metrics
        .iter()
        .find(|m| m.name == objective.objective_metric_name);
    metric.is_some_and(|m| m.latest != UNAVAILABLE && !m.latest.is_empty())
}

/// The value of the objective by its strategy, as text; `None` where there is none.
#[must_use]
pub fn objective_value(trial: &Trial) -> Option<&str> {
    let objective = trial.spec.objective.as_ref()?;
    let name = &objective.objective_metric_name;
    let strategy = objective
        .metric_strategies
        .iter()
        .flatten()
        .find(|s| s.name == *name)?;
    let observation = trial.status.as_ref()?.observation.as_ref()?;
    let metric = observation.metrics.iter().find(|m| m.name == *name)?;
    let value = match strategy.value.as_str() {
        "min" if metric.min != UNAVAILABLE => &metric.min,
        "max" if metric.max != UNAVAILABLE => &metric.max,
        _ => &metric.latest,
    };
    (value != UNAVAILABLE && !value.is_empty()).then_some(value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(second: i64, value: &str) -> Report {
        Report {
            time: Timestamp::from_second(second).unwrap(),
            name: "loss".into(),
            value: value.into(),
        }
    }

    #[test]
    fn min_max_and_latest() {
        let strategies = [MetricStrategy {
            name: "loss".into(),
            value: "min".into(),
        }];
        let log = [
            report(5, "0.5"),
            report(9, "0.10"),
            report(7, "0.9"),
            report(9, "0.3"),
        ];
        let observation = observe(&log, &strategies);
        let metric = &observation.metrics[0];
        assert_eq!(
            (metric.min.as_str(), metric.max.as_str(), metric.latest.as_str()),
            ("0.10", "0.9", "0.3")
        );
        let nothing = observe(&[], &strategies);
        assert_eq!(nothing.metrics[0].latest, UNAVAILABLE);
        let words = observe(&[report(1, "good")], &strategies);
        assert_eq!(
            (words.metrics[0].min.as_str(), words.metrics[0].latest.as_str()),
            (UNAVAILABLE, "good")
        );
    }
}
