//! scikit-learn models run in a Python process of their own, which this module starts, feeds and replaces.
//!
//! - The worker gets no token and no credentials: its environment is a short list of harmless names.
//! - Requests wait in one bounded queue. A worker that is free takes what waits, and joins requests of one kind into one
//!   call (`predict` costs about the same for one row and for a hundred).
//! - A worker that dies is started again, and what it was working on is tried once more; one that does not answer in time
//!   is killed.

mod batch;
mod process;

use crate::model::Predictions;
use crate::protocol::{Datatype, Fault, InferError, InferRequest, Instances, ModelSpec, Tensor, TensorSpec};
use batch::{Job, Work};
use parking_lot::Mutex;
use process::{Hello, Process};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};

/// Requests that may wait.
const QUEUE: usize = 2048;
/// Rows that are joined into one call.
const MAX_ROWS: usize = 1024;
/// Between attempts to start a worker that cannot start.
const RESTART: Duration = Duration::from_secs(2);

/// How to run the workers.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// The model file.
    pub path: PathBuf,
    /// The interpreter.
    pub python: String,
    /// Number of processes.
    pub processes: usize,
    /// Time that loading may take.
    pub load: Duration,
    /// Time that a call may take.
    pub call: Duration,
    /// Bytes of data that a process may hold; 0 for no limit.
    pub memory: u64,
    /// Answer with probabilities where only `output-0` is asked for.
    pub proba: bool,
}

/// Workers of one model.
pub struct Workers {
    spec: ModelSpec,
    queue: Arc<Queue>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    added: Notify,
    /// Whether some worker has its model loaded.
    alive: AtomicBool,
}

impl Workers {
    /// Starts the workers and waits until the first has loaded its model.
    pub async fn start(options: WorkerOptions) -> anyhow::Result<Self> {
        let (first, hello) = Process::start(&options).await?;
        let queue = Arc::new(Queue {
            jobs: Mutex::new(VecDeque::new()),
            added: Notify::new(),
            alive: AtomicBool::new(true),
        });
        let mut tasks = vec![tokio::spawn(work(queue.clone(), options.clone(), Some(first)))];
        for _ in 1..options.processes.max(1) {
            tasks.push(tokio::spawn(work(queue.clone(), options.clone(), None)));
        }
        Ok(Self {
            spec: spec(&hello, options.proba),
            queue,
            tasks,
        })
    }

    /// What the model takes and gives, as far as it says.
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// Whether a worker is up.
    pub fn ready(&self) -> bool {
        self.queue.alive.load(Ordering::Relaxed)
    }

    /// Answers a V2 request.
    pub async fn infer(&self, request: &mut InferRequest) -> Result<Vec<Tensor>, InferError> {
        let inputs = std::mem::take(&mut request.inputs);
        let table = request.content_type.as_deref() == Some("pd") || inputs.len() > 1;
        let outputs = request.outputs.iter().map(|output| output.name.clone()).collect();
        self.run(Work {
            inputs,
            json: None,
            table,
            outputs,
        })
        .await
    }

    /// Answers a V1 request.
    pub async fn predict(&self, instances: Instances) -> Result<Predictions, InferError> {
        let work = match instances {
            Instances::Numeric(tensor) => Work {
                inputs: vec![tensor],
                json: None,
                table: false,
                outputs: Vec::new(),
            },
            Instances::Json(text) => Work {
                inputs: Vec::new(),
                json: Some(text),
                table: false,
                outputs: Vec::new(),
            },
        };
        let mut outputs = self.run(work).await?;
        if outputs.len() == 1 {
            return Ok(Predictions::Tensor(outputs.remove(0)));
        }
        Ok(Predictions::Records(outputs))
    }

    async fn run(&self, work: Work) -> Result<Vec<Tensor>, InferError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut jobs = self.queue.jobs.lock();
            if jobs.len() >= QUEUE {
                let text = format!("{QUEUE} requests are waiting for the model; try again later");
                return Err(InferError::new(Fault::Overloaded, text));
            }
            jobs.push_back(Job {
                work,
                reply,
                attempts: 0,
            });
        }
        self.queue.added.notify_one();
        match answer.await {
            Ok(answer) => answer,
            Err(_) => Err(InferError::new(Fault::Unavailable, "the server is stopping")),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// One worker's life: take what waits, run it, and begin again when the process is gone.
async fn work(queue: Arc<Queue>, options: WorkerOptions, mut process: Option<Process>) {
    loop {
        let jobs = next(&queue).await;
        let mut running = match process.take() {
            Some(running) => running,
            None => match Process::start(&options).await {
                Ok((started, _)) => {
                    queue.alive.store(true, Ordering::Relaxed);
                    started
                }
                Err(error) => {
                    tracing::error!(
                        error = format!("{error:#}"),
                        "cannot start the python worker again"
                    );
                    queue.alive.store(false, Ordering::Relaxed);
                    let text = format!("the python worker cannot start: {error:#}");
                    batch::refuse(jobs, &InferError::new(Fault::Unavailable, text));
                    tokio::time::sleep(RESTART).await;
                    continue;
                }
            },
        };
        match batch::run(&mut running, jobs, options.call).await {
            Ok(()) => process = Some(running),
            Err(batch::Broken { reason, unanswered }) => {
                let status = running.end().await;
                tracing::warn!(reason, status, "the python worker is gone; starting another");
                let mut jobs = queue.jobs.lock();
                for mut job in unanswered.into_iter().rev() {
                    job.attempts += 1;
                    if job.attempts < 2 {
                        jobs.push_front(job);
                    } else {
                        let text = format!("the python worker ended twice on this request ({status})");
                        job.answer(Err(InferError::internal(text)));
                    }
                }
                drop(jobs);
                queue.added.notify_one();
            }
        }
    }
}

/// Waits for jobs and takes those that can go together.
async fn next(queue: &Queue) -> Vec<Job> {
    loop {
        let added = queue.added.notified();
        {
            let mut jobs = queue.jobs.lock();
            // A client that hung up needs no answer.
            while jobs.front().is_some_and(|job| job.reply.is_closed()) {
                jobs.pop_front();
            }
            if let Some(first) = jobs.pop_front() {
                let mut rows = first.work.rows();
                let mut together = vec![first];
                while let Some(job) = jobs.front() {
                    let fits = rows + job.work.rows() <= MAX_ROWS && together[0].joins(job);
                    if !fits {
                        break;
                    }
                    rows += job.work.rows();
                    together.extend(jobs.pop_front());
                }
                if !jobs.is_empty() {
                    queue.added.notify_one();
                }
                return together;
            }
        }
        added.await;
    }
}

fn spec(hello: &Hello, proba: bool) -> ModelSpec {
    let features = hello
        .features
        .and_then(|features| i64::try_from(features).ok())
        .unwrap_or(-1);
    let inputs = vec![TensorSpec {
        name: "input-0".into(),
        datatype: Datatype::Fp64,
        shape: vec![-1, features],
    }];
    let output = Datatype::from_name(hello.output.as_bytes()).unwrap_or(Datatype::Fp64);
    let classes = hello
        .classes
        .and_then(|classes| i64::try_from(classes).ok())
        .unwrap_or(-1);
    let first = if proba && hello.proba {
        TensorSpec {
            name: "output-0".into(),
            datatype: Datatype::Fp64,
            shape: vec![-1, classes],
        }
    } else {
        TensorSpec {
            name: "output-0".into(),
            datatype: output,
            shape: vec![-1],
        }
    };
    ModelSpec {
        platform: "sklearn",
        inputs,
        outputs: vec![first],
    }
}
