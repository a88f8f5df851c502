//! Sends metrics to the tuning service: in batches, soon, and until they have arrived.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ferroflow_telemetry::Place;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::Metric;
use crate::http::{Body, Client};

/// Metrics that wait to be sent; more wait in the command's pipe.
const QUEUE: usize = 100_000;
/// Metrics of one request.
const BATCH: usize = 1000;
/// How long metrics are gathered for one request.
const GATHER: Duration = Duration::from_millis(200);
/// How long the server may be away after the command has ended.
const PATIENCE: Duration = Duration::from_secs(600);
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Metric>,
    over: bool,
    /// The command has ended; give up then.
    deadline: Option<Instant>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends metrics from a thread of its own.
pub struct Reporter {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<Result<(), String>>>>,
}

impl Reporter {
    /// Reports to the tuning service at `host:port`.
    pub fn start(server: &str, trial: &str, place: Place) -> Self {
        let shared = Arc::new(Shared::default());
        let trial = utf8_percent_encode(trial, NON_ALPHANUMERIC);
        let path = format!("/apis/ferroflow/v1/tuning/trials/{trial}/observations");
        let (mut client, thread_shared) = (Client::new(server), shared.clone());
        client.trace(place);
        let thread = std::thread::spawn(move || send_all(&thread_shared, client, &path));
        Self {
            shared,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Sends a metric later. Waits while very many wait already.
    pub fn add(&self, metric: Metric) {
        let mut queue = self.shared.lock();
        while queue.waiting.len() >= QUEUE && !queue.over {
            queue = self
                .shared
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
        queue.waiting.push_back(metric);
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Waits until everything has arrived.
    ///
    /// # Errors
    /// What the server last said when it has not come back in time, or that it refuses what it was sent.
    pub fn finish(&self) -> Result<(), String> {
        self.shared.lock().deadline = Some(Instant::now() + PATIENCE);
        self.shared.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread.map_or(Ok(()), |thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err("the reporter panicked".to_owned()))
        })
    }
}

fn send_all(shared: &Shared, mut client: Client, path: &str) -> Result<(), String> {
    let mut pause = Duration::from_millis(100);
    let result = loop {
        let batch = next(shared);
        if batch.is_empty() {
            break Ok(());
        }
        match send(&mut client, path, &batch) {
            Ok(()) => {
                shared.lock().waiting.drain(..batch.len());
                shared.changed.notify_all();
                pause = Duration::from_millis(100);
            }
            Err(Refusal::Final(text)) => break Err(text),
            Err(Refusal::Later(text)) => {
                if shared
                    .lock()
                    .deadline
                    .is_some_and(|deadline| Instant::now() > deadline)
                {
                    break Err(text);
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
    };
    shared.lock().over = true;
    shared.changed.notify_all();
    result
}

/// The next metrics, gathered for a moment while the command runs; none when it has ended and all are sent.
fn next(shared: &Shared) -> Vec<Metric> {
    let mut queue = shared.lock();
    while queue.waiting.is_empty() && queue.deadline.is_none() {
        queue = shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
    let until = Instant::now() + GATHER;
    while queue.deadline.is_none() && queue.waiting.len() < BATCH {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        queue = shared
            .changed
            .wait_timeout(queue, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
    queue.waiting.iter().take(BATCH).cloned().collect()
}

enum Refusal {
    Later(String),
    Final(String),
}

fn send(client: &mut Client, path: &str, batch: &[Metric]) -> Result<(), Refusal> {
    let line = |m: &Metric| json!({"time": m.time, "name": m.name, "value": m.value});
    let body = json!({"metrics": batch.iter().map(line).collect::<Vec<_>>()}).to_string();
    let mut headers = vec![("content-type", "application/json")];
    // the token is renewed from time to time
    let token = std::fs::read_to_string(TOKEN)
        .ok()
        .map(|token| format!("Bearer {}", token.trim()));
    if let Some(token) = &token {
        headers.push(("authorization", token));
    }
    let later = |error: io::Error| Refusal::Later(error.to_string());
    let answer = client
        .send("POST", path, &headers, Body::Bytes(body.as_bytes()))
        .map_err(later)?;
    let status = answer.status;
    if (200..300).contains(&status) {
        return Ok(());
    }
    let body = answer.bytes(64 * 1024).unwrap_or_default();
    let text = format!("status {status}: {}", String::from_utf8_lossy(&body).trim());
    // what is wrong with the request stays wrong; everything else may be because the server is starting
    Err(if matches!(status, 400 | 413 | 422) {
        Refusal::Final(text)
    } else {
        Refusal::Later(text)
    })
}
