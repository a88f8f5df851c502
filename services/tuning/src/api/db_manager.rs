//! `api.v1.beta1.DBManager`: what trials report. The protocol has no namespace: it is the caller's own.

use std::sync::Arc;

use ferroflow_api::api::v1::beta1 as katib;
use ferroflow_api::api::v1::beta1::db_manager_server::DbManager;
use ferroflow_auth::{AccessReview, Authorizer, Caller};
use ferroflow_kernel::Error;
use jiff::Timestamp;
use tonic::{Request, Response, Status};

use crate::domain::observation::Report;
use crate::store::{LogQuery, ObservationLogs};

/// Metrics in one request.
const MOST: usize = 100_000;
/// Bytes of a name or value.
const LONGEST: usize = 64 * 1024;

/// The service.
#[derive(Clone)]
pub struct DbManagerService {
    logs: ObservationLogs,
    authorizer: Arc<dyn Authorizer>,
}

impl DbManagerService {
    /// Serves these logs to whom `authorizer` lets.
    #[must_use]
    pub fn new(logs: ObservationLogs, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { logs, authorizer }
    }

    /// Appends to the log of a trial in the caller's namespace.
    pub(super) async fn report(
        &self,
        caller: &Caller,
        trial: &str,
        reports: Vec<Report>,
    ) -> Result<(), Error> {
        named(trial)?;
        if reports.len() > MOST {
            return Err(Error::field(
                "observation_log",
                format!("holds {} metrics; send {MOST} at most", reports.len()),
            ));
        }
        if let Some(long) = reports
            .iter()
            .find(|r| r.name.len() > LONGEST || r.value.len() > LONGEST)
        {
            let name: String = long.name.chars().take(40).collect();
            return Err(Error::field(
                "observation_log",
                format!("metric {name:?} is longer than {LONGEST} bytes"),
            ));
        }
        self.authorize(caller, "update").await?;
        self.logs
            .append(&caller.namespace, trial, &reports)
            .await
            .map_err(Error::from)
    }

    /// Trials run as service accounts that have no rights at all, and speak for themselves: a service account may always
    /// report to its own namespace. Anybody else needs the right to do so to Trials.
    async fn authorize(&self, caller: &Caller, verb: &str) -> Result<(), Error> {
        let own = caller
            .principal
            .as_service_account()
            .is_some_and(|(namespace, _)| namespace == caller.namespace);
        if own && verb != "delete" {
            return Ok(());
        }
        let review = AccessReview::new(&caller.namespace, verb, "kubeflow.org", "trials");
        self.authorizer.authorize(&caller.principal, &review).await
    }
}

fn named(trial: &str) -> Result<(), Error> {
    if trial.is_empty() {
        return Err(Error::field("trial_name", "is empty; name the trial"));
    }
    Ok(())
}

/// Reads an RFC 3339 time.
pub(super) fn time(field: &str, text: &str) -> Result<Timestamp, Error> {
    text.parse().map_err(|_| {
        Error::field(
            field,
            format!("{text:?} is no RFC 3339 time, such as 2026-01-02T03:04:05Z"),
        )
    })
}

#[tonic::async_trait]
impl DbManager for DbManagerService {
    async fn report_observation_log(
        &self,
        request: Request<katib::ReportObservationLogRequest>,
    ) -> Result<Response<katib::ReportObservationLogReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let mut reports = Vec::new();
        for log in request
            .observation_log
            .into_iter()
            .flat_map(|log| log.metric_logs)
        {
            // as Katib: a metric without a time is none
            let (Some(metric), false) = (log.metric, log.time_stamp.is_empty()) else {
                continue;
            };
            let time = time("observation_log.metric_logs.time_stamp", &log.time_stamp)?;
            reports.push(Report {
                time,
                name: metric.name,
                value: metric.value,
            });
        }
        self.report(&caller, &request.trial_name, reports).await?;
        Ok(Response::new(katib::ReportObservationLogReply {}))
    }

    async fn get_observation_log(
        &self,
        request: Request<katib::GetObservationLogRequest>,
    ) -> Result<Response<katib::GetObservationLogReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        named(&request.trial_name)?;
        self.authorize(&caller, "get").await?;
        let optional = |field: &str, text: &str| (!text.is_empty()).then(|| time(field, text)).transpose();
        let query = LogQuery {
            metric: request.metric_name,
            start: optional("start_time", &request.start_time)?,
            end: optional("end_time", &request.end_time)?,
        };
        let reports = self
            .logs
            .read(&caller.namespace, &request.trial_name, &query)
            .await
            .map_err(Error::from)?;
        let metric_logs = reports.into_iter().map(|report| katib::MetricLog {
            time_stamp: report.time.to_string(),
            metric: Some(katib::Metric {
                name: report.name,
                value: report.value,
            }),
        });
        let observation_log = Some(katib::ObservationLog {
            metric_logs: metric_logs.collect(),
        });
        Ok(Response::new(katib::GetObservationLogReply { observation_log }))
    }

    async fn delete_observation_log(
        &self,
        request: Request<katib::DeleteObservationLogRequest>,
    ) -> Result<Response<katib::DeleteObservationLogReply>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        named(&request.trial_name)?;
        self.authorize(&caller, "delete").await?;
        self.logs
            .delete(&caller.namespace, &request.trial_name)
            .await
            .map_err(Error::from)?;
        Ok(Response::new(katib::DeleteObservationLogReply {}))
    }
}
