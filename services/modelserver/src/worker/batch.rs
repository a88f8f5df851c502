//! Requests joined into calls, and answers taken apart.

use super::process::Process;
use crate::protocol::{Data, Datatype, Fault, InferError, Tensor};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::oneshot;

/// What a request asks of the model.
#[derive(Debug)]
pub struct Work {
    /// Tensors; empty when `json` is there.
    pub inputs: Vec<Tensor>,
    /// Instances as JSON text.
    pub json: Option<Vec<u8>>,
    /// Whether the tensors are columns of a table.
    pub table: bool,
    /// Outputs asked for; empty means the default.
    pub outputs: Vec<String>,
}

impl Work {
    /// Rows of the input.
    pub fn rows(&self) -> usize {
        self.inputs
            .first()
            .and_then(|input| input.shape.first())
            .copied()
            .unwrap_or(1)
    }
}

/// A request that waits for its answer.
#[derive(Debug)]
pub struct Job {
    pub work: Work,
    pub reply: oneshot::Sender<Result<Vec<Tensor>, InferError>>,
    /// Workers that ended on it.
    pub attempts: u32,
}

impl Job {
    /// Answers; a client that hung up is nobody to tell.
    pub fn answer(self, answer: Result<Vec<Tensor>, InferError>) {
        let _gone = self.reply.send(answer);
    }

    /// Whether two requests can be one call: single arrays that differ in nothing but their rows. One that a worker ended on
    /// goes alone.
    pub fn joins(&self, other: &Self) -> bool {
        let (a, b) = (&self.work, &other.work);
        let arrays = a.json.is_none() && b.json.is_none() && !a.table && !b.table;
        arrays
            && self.attempts == 0
            && other.attempts == 0
            && a.outputs == b.outputs
            && matches!((a.inputs.as_slice(), b.inputs.as_slice()), ([x], [y])
                if x.shape.len() == 2 && y.shape.len() == 2 && x.shape[1] == y.shape[1]
                    && x.data.datatype() == y.data.datatype())
    }
}

/// The worker is not usable any more.
pub struct Broken {
    pub reason: String,
    pub unanswered: Vec<Job>,
}

#[derive(Serialize)]
struct Request<'a> {
    kind: &'a str,
    inputs: Vec<Spec>,
    outputs: &'a [String],
}

#[derive(Serialize, Deserialize)]
struct Spec {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    size: usize,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    outputs: Vec<Spec>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    client: bool,
}

/// Refuses all.
pub fn refuse(jobs: Vec<Job>, error: &InferError) {
    for job in jobs {
        job.answer(Err(error.clone()));
    }
}

/// Runs jobs that go together. An error of a joined call is not told to all of them: each is run alone then.
pub async fn run(process: &mut Process, jobs: Vec<Job>, patience: Duration) -> Result<(), Broken> {
    if jobs.len() > 1 {
        match call(process, &jobs, patience).await {
            Ok(Ok(outputs)) => match split(&outputs, &jobs) {
                Some(answers) => {
                    for (job, answer) in jobs.into_iter().zip(answers) {
                        job.answer(Ok(answer));
                    }
                    return Ok(());
                }
                None => tracing::debug!("the model's answer has other rows than its input; no joining"),
            },
            Ok(Err(_)) => {}
            Err(reason) => {
                return Err(Broken {
                    reason,
                    unanswered: jobs,
                });
            }
        }
    }
    let mut jobs = jobs.into_iter();
    while let Some(job) = jobs.next() {
        match call(process, std::slice::from_ref(&job), patience).await {
            Ok(answer) => job.answer(answer),
            Err(reason) if reason == TOO_LATE => {
                let text = format!("the model did not answer within {} s", patience.as_secs());
                job.answer(Err(InferError::new(Fault::Timeout, text)));
                return Err(Broken {
                    reason,
                    unanswered: jobs.collect(),
                });
            }
            Err(reason) => {
                let unanswered = std::iter::once(job).chain(jobs).collect();
                return Err(Broken { reason, unanswered });
            }
        }
    }
    Ok(())
}

const TOO_LATE: &str = "no answer in time";

/// One call for all of the jobs. The outer error means that the process is lost.
async fn call(
    process: &mut Process,
    jobs: &[Job],
    patience: Duration,
) -> Result<Result<Vec<Tensor>, InferError>, String> {
    let Some(first) = jobs.first() else {
        return Ok(Ok(Vec::new()));
    };
    let work = &first.work;
    let blobs: Vec<Vec<u8>> = match &work.json {
        Some(_) => Vec::new(),
        None => jobs
            .iter()
            .flat_map(|job| &job.work.inputs)
            .map(|input| input.data.to_le_bytes())
            .collect(),
    };
    let inputs = work.inputs.iter().enumerate().map(|(at, input)| {
        let mut shape = input.shape.clone();
        let mut size = blobs.get(at).map_or(0, Vec::len);
        if jobs.len() > 1 {
            shape[0] = jobs.iter().map(|job| job.work.rows()).sum();
            size = blobs.iter().map(Vec::len).sum();
        }
        Spec {
            name: input.name.clone(),
            datatype: input.data.datatype().name().into(),
            shape,
            size,
        }
    });
    let kind = match (&work.json, work.table) {
        (Some(_), _) => "json",
        (None, true) => "table",
        (None, false) => "array",
    };
    let request = Request {
        kind,
        inputs: inputs.collect(),
        outputs: &work.outputs,
    };
    let payload: Vec<&[u8]> = match &work.json {
        Some(text) => vec![text],
        None => blobs.iter().map(Vec::as_slice).collect(),
    };
    let answered = tokio::time::timeout(patience, process.call::<Answer>(&request, &payload)).await;
    let (answer, bytes) = match answered {
        Ok(Ok(answered)) => answered,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err(TOO_LATE.into()),
    };
    if let Some(error) = answer.error {
        let fault = if answer.client {
            Fault::BadRequest
        } else {
            Fault::Internal
        };
        return Ok(Err(InferError::new(fault, error)));
    }
    let mut outputs = Vec::with_capacity(answer.outputs.len());
    let mut rest = bytes.as_slice();
    for spec in answer.outputs {
        let decoded = rest.split_at_checked(spec.size).and_then(|(blob, after)| {
            rest = after;
            Some((Datatype::from_name(spec.datatype.as_bytes())?, blob))
        });
        let Some((datatype, blob)) = decoded else {
            return Err("the worker's answer is torn".into());
        };
        let data = Data::from_le_bytes(datatype, blob)?;
        outputs.push(Tensor {
            name: spec.name,
            shape: spec.shape,
            data,
        });
    }
    Ok(Ok(outputs))
}

/// Gives each job its rows, if the outputs have as many rows as the inputs.
fn split(outputs: &[Tensor], jobs: &[Job]) -> Option<Vec<Vec<Tensor>>> {
    let total: usize = jobs.iter().map(|job| job.work.rows()).sum();
    if outputs.iter().any(|output| output.shape.first() != Some(&total)) {
        return None;
    }
    let mut start = 0;
    let mut answers = Vec::with_capacity(jobs.len());
    for job in jobs {
        let rows = job.work.rows();
        answers.push(outputs.iter().map(|output| output.rows(start, rows)).collect());
        start += rows;
    }
    Some(answers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(shape: &[usize], data: Data, outputs: &[&str]) -> Job {
        let (reply, _) = oneshot::channel();
        let input = Tensor {
            name: "x".into(),
            shape: shape.to_vec(),
            data,
        };
        let outputs = outputs.iter().map(|name| (*name).to_owned()).collect();
        Job {
            work: Work {
                inputs: vec![input],
                json: None,
                table: false,
                outputs,
            },
            reply,
            attempts: 0,
        }
    }

    #[test]
    fn only_like_requests_join() {
        let a = job(&[1, 2], Data::Fp32(vec![1.0, 2.0]), &[]);
        assert!(a.joins(&job(&[2, 2], Data::Fp32(vec![0.0; 4]), &[])));
        assert!(!a.joins(&job(&[1, 3], Data::Fp32(vec![0.0; 3]), &[])));
        assert!(!a.joins(&job(&[1, 2], Data::Fp64(vec![0.0; 2]), &[])));
        assert!(!a.joins(&job(&[1, 2], Data::Fp32(vec![0.0; 2]), &["predict_proba"])));
        let mut ended = job(&[1, 2], Data::Fp32(vec![0.0; 2]), &[]);
        ended.attempts = 1;
        assert!(!a.joins(&ended));
    }

    #[test]
    fn answers_are_split_by_rows() {
        let jobs = [
            job(&[1, 2], Data::Fp32(vec![0.0; 2]), &[]),
            job(&[2, 2], Data::Fp32(vec![0.0; 4]), &[]),
        ];
        let output = |shape: &[usize], data| Tensor {
            name: "y".into(),
            shape: shape.to_vec(),
            data,
        };
        let outputs = [
            output(&[3], Data::Int64(vec![7, 8, 9])),
            output(&[3, 2], Data::Fp32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
        ];
        let answers = split(&outputs, &jobs).unwrap();
        assert_eq!(
            answers[0],
            [
                output(&[1], Data::Int64(vec![7])),
                output(&[1, 2], Data::Fp32(vec![1.0, 2.0]))
            ]
        );
        assert_eq!(answers[1][0], output(&[2], Data::Int64(vec![8, 9])));
        assert!(split(&[output(&[2], Data::Int64(vec![1, 2]))], &jobs).is_none());
    }
}
