//! Recurring runs, and the clock that makes their runs.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use ferroflow_auth::{Caller, Principal};
use ferroflow_kernel::{Error, Result, new_id};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::query::list_query;
use super::runs::{Reference, Request as RunRequest, RuntimeConfig, Scheduled};
use super::{Api, Queried, answer, body, id_and_verb, json as shape, namespace};
use crate::domain::run::derived_id;
use crate::domain::validate::arguments;
use crate::store::RecurringRow;

/// What clients may send; the rest is output.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    display_name: String,
    #[serde(default, rename = "description")]
    _description: Option<String>,
    #[serde(default)]
    experiment_id: Option<String>,
    #[serde(default, rename = "pipeline_spec")]
    _pipeline_spec: Option<Value>,
    #[serde(default, rename = "pipeline_version_id")]
    _pipeline_version_id: Option<String>,
    #[serde(default, rename = "pipeline_version_reference")]
    _pipeline_version_reference: Option<Value>,
    #[serde(default, rename = "runtime_config")]
    _runtime_config: Option<Value>,
    #[serde(default, rename = "service_account")]
    _service_account: Option<String>,
    #[serde(default)]
    max_concurrency: Option<Value>,
    #[serde(default)]
    trigger: Option<Trigger>,
    #[serde(default)]
    mode: Option<String>,
    #[serde(default, rename = "no_catchup")]
    _no_catchup: Option<bool>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default, rename = "plugins_input")]
    _plugins_input: Option<Value>,
    #[serde(default, rename = "recurring_run_id")]
    _recurring_run_id: Option<Value>,
    #[serde(default, rename = "created_at")]
    _created_at: Option<Value>,
    #[serde(default, rename = "updated_at")]
    _updated_at: Option<Value>,
    #[serde(default, rename = "status")]
    _status: Option<Value>,
    #[serde(default, rename = "error")]
    _error: Option<Value>,
}

/// When runs are made: exactly one of the two.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trigger {
    #[serde(default)]
    cron_schedule: Option<Cron>,
    #[serde(default)]
    periodic_schedule: Option<Periodic>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cron {
    #[serde(default)]
    start_time: Option<Timestamp>,
    #[serde(default)]
    end_time: Option<Timestamp>,
    #[serde(default)]
    cron: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Periodic {
    #[serde(default)]
    start_time: Option<Timestamp>,
    #[serde(default)]
    end_time: Option<Timestamp>,
    #[serde(default)]
    interval_second: Option<Value>,
}

pub(super) async fn create(State(api): State<Api>, caller: Caller, bytes: Bytes) -> Response {
    answer(api.create_recurring(&caller, &bytes).await)
}

pub(super) async fn list(State(api): State<Api>, caller: Caller, params: Queried) -> Response {
    let listed = async {
        let experiment = params.get("experiment_id").cloned().unwrap_or_default();
        let namespace = match api.store.experiment(&experiment).await {
            Ok(row) if !experiment.is_empty() => row.namespace,
            _ => namespace(&caller, params.get("namespace")).to_owned(),
        };
        api.allow(&caller, &namespace, "list", "recurringruns").await?;
        let page = api
            .store
            .list_recurring(&namespace, &experiment, &list_query(&params)?)
            .await?;
        // The odd one out: this list's key is in camel case.
        Ok(shape::page("recurringRuns", &page, json_of))
    };
    answer(listed.await)
}

pub(super) async fn get(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let found = async { Ok(json_of(&api.recurring(&caller, &id, "get").await?)) };
    answer(found.await)
}

pub(super) async fn delete(State(api): State<Api>, caller: Caller, Path(id): Path<String>) -> Response {
    let deleted = async {
        api.recurring(&caller, &id, "delete").await?;
        api.store.delete_recurring(&id).await?;
        Ok(json!({}))
    };
    answer(deleted.await)
}

pub(super) async fn verb(State(api): State<Api>, caller: Caller, Path(text): Path<String>) -> Response {
    let (id, verb) = id_and_verb(&text);
    let done = async {
        let enable = match verb {
            "enable" => true,
            "disable" => false,
            other => return Err(Error::not_found("verb", other)),
        };
        let mut row = api.recurring(&caller, id, "update").await?;
        let now = api.clock.now();
        row.updated_at = now;
        if enable && !row.enabled {
            row.next_at = next_time(&row.spec["trigger"], now)?;
        }
        row.enabled = enable;
        api.store.update_recurring(&row).await?;
        api.scheduler.reschedule();
        Ok(json!({}))
    };
    answer(done.await)
}

fn json_of(row: &RecurringRow) -> Value {
    let mut fields = row.spec.as_object().cloned().unwrap_or_default();
    let own = json!({
        "recurring_run_id": row.id,
        "display_name": row.display_name,
        "experiment_id": row.experiment_id,
        "namespace": row.namespace,
        "created_at": shape::time(row.created_at),
        "updated_at": shape::time(row.updated_at),
        "status": if row.enabled { "ENABLED" } else { "DISABLED" },
        "mode": if row.enabled { "ENABLE" } else { "DISABLE" },
    });
    fields.extend(own.as_object().cloned().unwrap_or_default());
    shape::compact(Value::Object(fields))
}

/// A 64 bit integer, which protobuf's JSON writes as text.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// The first moment after `after` at which a trigger makes a run; the far future for none.
///
/// # Errors
/// A cron line that cannot be read, or no trigger.
pub fn next_time(trigger: &Value, after: Timestamp) -> Result<Timestamp> {
    let trigger: Trigger = serde_json::from_value(trigger.clone())
        .map_err(|error| Error::field("trigger", error.to_string()))?;
    let (end, next) = match (&trigger.cron_schedule, &trigger.periodic_schedule) {
        (Some(cron), None) => {
            let start = cron.start_time.unwrap_or(Timestamp::UNIX_EPOCH);
            (cron.end_time, next_cron(&cron.cron, after.max(start))?)
        }
        (None, Some(periodic)) => {
            let every = periodic
                .interval_second
                .as_ref()
                .and_then(integer)
                .filter(|s| *s > 0)
                .ok_or_else(|| {
                    Error::field(
                        "trigger.periodic_schedule.interval_second",
                        "is missing or not positive; write seconds",
                    )
                })?;
            let start = periodic.start_time.unwrap_or(Timestamp::UNIX_EPOCH);
            let passed = after.as_second().saturating_sub(start.as_second()).max(0);
            let seconds = start
                .as_second()
                .saturating_add((passed / every).saturating_add(1).saturating_mul(every));
            let next = if after < start {
                start
            } else {
                Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
            };
            (periodic.end_time, next)
        }
        _ => {
            return Err(Error::field(
                "trigger",
                "must have exactly one of cron_schedule and periodic_schedule",
            ));
        }
    };
    Ok(if end.is_some_and(|end| next > end) {
        Timestamp::MAX
    } else {
        next
    })
}

fn next_cron(line: &str, after: Timestamp) -> Result<Timestamp> {
    let bad = |why: String| {
        Error::field(
            "trigger.cron_schedule.cron",
            format!("{line:?} cannot be read: {why}; write six fields such as \"0 */5 * * * *\""),
        )
    };
    let parser = croner::parser::CronParser::builder()
        .seconds(croner::parser::Seconds::Optional)
        .build();
    let cron = parser
        .parse(&line.replace('?', "*"))
        .map_err(|error| bad(error.to_string()))?;
    let after = after.to_zoned(jiff::tz::TimeZone::UTC);
    let next = cron
        .find_next_occurrence(&after, false)
        .map_err(|error| bad(error.to_string()))?;
    Ok(next.timestamp())
}

impl Api {
    async fn recurring(&self, caller: &Caller, id: &str, verb: &str) -> Result<RecurringRow> {
        let row = self.store.recurring(id).await?;
        self.allow(caller, &row.namespace, verb, "recurringruns").await?;
        Ok(row)
    }

    async fn create_recurring(&self, caller: &Caller, bytes: &[u8]) -> Result<Value> {
        let request: Request = body(bytes)?;
        let experiment = match request.experiment_id.as_deref() {
            None | Some("") => {
                let namespace = namespace(caller, request.namespace.as_ref());
                self.allow(caller, namespace, "create", "recurringruns").await?;
                self.default_experiment(namespace).await?
            }
            Some(id) => self.store.experiment(id).await?,
        };
        self.allow(caller, &experiment.namespace, "create", "recurringruns")
            .await?;
        let most = request.max_concurrency.as_ref().and_then(integer).unwrap_or(1);
        if !(1..=10).contains(&most) {
            return Err(Error::field(
                "max_concurrency",
                format!("{most} is not allowed; use 1 to 10"),
            ));
        }
        if request.trigger.is_none() {
            return Err(Error::field(
                "trigger",
                "must have exactly one of cron_schedule and periodic_schedule",
            ));
        }
        let raw: Map<String, Value> = body(bytes)?;
        let now = self.clock.now();
        let next_at = next_time(raw.get("trigger").unwrap_or(&Value::Null), now)?;
        let (run, _) = run_request(&raw, now, 1)?;
        let (package, ..) = self.source(caller, &run).await?;
        arguments(&package.spec, &run.runtime_config.unwrap_or_default().parameters)?;
        let enabled = request.mode.as_deref() != Some("DISABLE");
        let mut spec = raw;
        for field in [
            "recurring_run_id",
            "display_name",
            "experiment_id",
            "namespace",
            "created_at",
            "updated_at",
            "status",
            "mode",
        ] {
            spec.remove(field);
        }
        spec.insert("max_concurrency".to_owned(), json!(most.to_string()));
        let row = RecurringRow {
            id: new_id(),
            namespace: experiment.namespace,
            experiment_id: experiment.id,
            display_name: request.display_name,
            created_at: now,
            updated_at: now,
            enabled,
            spec: Value::Object(spec),
            next_at,
            last_at: Timestamp::UNIX_EPOCH,
            fired: 0,
        };
        self.store.create_recurring(&row).await?;
        self.scheduler.reschedule();
        Ok(json_of(&row))
    }

    /// Makes the runs that are due; gives when the next one is.
    pub(crate) async fn make_due_runs(&self) -> Result<Option<Timestamp>> {
        let now = self.clock.now();
        for mut row in self.store.due_recurring(now).await? {
            let most = integer(&row.spec["max_concurrency"]).unwrap_or(1);
            if self.store.active_runs_of(&row.id).await? >= most {
                // It is asked again when a run ends, or a little later.
                row.next_at = now
                    .checked_add(SignedDuration::from_secs(5))
                    .unwrap_or(Timestamp::MAX);
                self.store.update_recurring(&row).await?;
                continue;
            }
            let at = row.next_at;
            let number = row.fired + 1;
            if let Err(error) = self.make_run(&row, at, number).await {
                tracing::warn!(recurring_run = row.id, %error, "a recurring run could not make its run");
            }
            let catchup = row.spec["no_catchup"] != Value::Bool(true);
            row.next_at =
                next_time(&row.spec["trigger"], if catchup { at } else { now }).unwrap_or(Timestamp::MAX);
            row.last_at = at;
            row.fired = number;
            self.store.update_recurring(&row).await?;
        }
        self.store.next_recurring().await
    }

    async fn make_run(&self, row: &RecurringRow, at: Timestamp, number: i64) -> Result<()> {
        let spec = row.spec.as_object().cloned().unwrap_or_default();
        let (mut request, _) = run_request(&spec, at, number)?;
        request.experiment_id = Some(row.experiment_id.clone());
        request.display_name = format!("{}-{number}", row.display_name);
        // The same moment makes the same run, also after a crash in between.
        let run_id = derived_id(&["recurring", &row.id, &number.to_string()]);
        let scheduled = Scheduled {
            run_id,
            at,
            recurring_run_id: row.id.clone(),
        };
        let caller = Caller {
            principal: Principal::service_account(ferroflow_kernel::PLATFORM_NAMESPACE, "pipelines"),
            namespace: row.namespace.clone(),
        };
        self.create_run(&caller, request, Some(scheduled))
            .await
            .map(|_| ())
    }
}

/// The run that a recurring run makes, with the macros in its parameters replaced.
fn run_request(spec: &Map<String, Value>, at: Timestamp, number: i64) -> Result<(RunRequest, i64)> {
    let field = |name: &str| spec.get(name).filter(|v| !v.is_null()).cloned();
    let read = |name: &'static str, error: serde_json::Error| Error::field(name, error.to_string());
    let mut config: RuntimeConfig = match field("runtime_config") {
        Some(value) => serde_json::from_value(value).map_err(|e| read("runtime_config", e))?,
        None => RuntimeConfig::default(),
    };
    for value in config.parameters.values_mut() {
        if let Value::String(text) = value {
            let moment = at.strftime("%Y%m%d%H%M%S").to_string();
            *text = text
                .replace("[[Index]]", &number.to_string())
                .replace("[[ScheduledTime]]", &moment)
                .replace("[[CurrentTime]]", &moment);
        }
    }
    let reference: Option<Reference> = match field("pipeline_version_reference") {
        Some(value) => {
            Some(serde_json::from_value(value).map_err(|e| read("pipeline_version_reference", e))?)
        }
        None => None,
    };
    let text = |name: &str| field(name).and_then(|v| v.as_str().map(str::to_owned));
    let request = RunRequest {
        pipeline_spec: field("pipeline_spec"),
        pipeline_version_id: text("pipeline_version_id"),
        pipeline_version_reference: reference,
        runtime_config: Some(config),
        service_account: text("service_account"),
        description: text("description"),
        ..RunRequest::default()
    };
    Ok((request, number))
}
