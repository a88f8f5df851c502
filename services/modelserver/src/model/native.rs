use crate::protocol::{InferError, ModelSpec, Tensor};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::Semaphore;

/// A call that is expected to take longer leaves the thread that serves connections.
const INLINE_NANOS: u64 = 300_000;

/// An engine that runs inside this process.
pub trait Native: Send + Sync + 'static {
    /// What the model takes and gives.
    fn spec(&self) -> &ModelSpec;

    /// Runs the model. Inputs are complete tensors; everything about them besides that is for the engine to check.
    fn infer(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, InferError>;
}

/// Runs an engine where it disturbs least: short calls at once, long ones on a thread of their own, as many at a time
/// as there are processors.
pub struct Runner {
    engine: Arc<dyn Native>,
    /// Nanoseconds per input element, smoothed, in 1/256.
    cost: AtomicU64,
    permits: Arc<Semaphore>,
}

impl Runner {
    /// Starts with no idea of the engine's speed, and learns it from the calls.
    pub fn new(engine: Arc<dyn Native>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            engine,
            cost: AtomicU64::new(0),
            permits: Arc::new(Semaphore::new(processors)),
        }
    }

    /// What the model takes and gives.
    pub fn spec(&self) -> &ModelSpec {
        self.engine.spec()
    }

    /// Runs the model.
    pub async fn run(&self, inputs: Vec<Tensor>) -> Result<Vec<Tensor>, InferError> {
        let elements = inputs.iter().map(|input| input.data.len()).sum::<usize>().max(1) as u64;
        let expected = self.cost.load(Ordering::Relaxed).saturating_mul(elements) >> 8;
        // Before the first call nothing is known, so a large one is not risked here.
        let inline = expected < INLINE_NANOS && (expected > 0 || elements < 4096);
        if inline {
            let start = Instant::now();
            let outputs = self.engine.infer(inputs);
            self.learn(start, elements);
            return outputs;
        }
        let Ok(permit) = self.permits.clone().acquire_owned().await else {
            return Err(InferError::new(
                crate::protocol::Fault::Unavailable,
                "the server is stopping",
            ));
        };
        let engine = self.engine.clone();
        let task = tokio::task::spawn_blocking(move || {
            let start = Instant::now();
            let outputs = engine.infer(inputs);
            drop(permit);
            (outputs, start)
        });
        match task.await {
            Ok((outputs, start)) => {
                self.learn(start, elements);
                outputs
            }
            Err(error) => Err(InferError::internal(format!("the engine stopped: {error}"))),
        }
    }

    fn learn(&self, start: Instant, elements: u64) {
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let sample = nanos.saturating_mul(256) / elements;
        let old = self.cost.load(Ordering::Relaxed);
        // A race loses a sample, which does no harm.
        let new = if old == 0 {
            sample
        } else {
            old - old / 8 + sample / 8
        };
        self.cost.store(new.max(1), Ordering::Relaxed);
    }
}
