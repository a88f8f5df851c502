//! A loaded model, whatever runs it.

mod find;
mod native;
mod onnx;
mod xgboost;

pub use find::{FindError, Format, find};
pub use native::{Native, Runner};
pub use onnx::OnnxModel;
pub use xgboost::XgboostModel;

use crate::codec::Wanted;
use crate::protocol::{Data, InferError, InferRequest, Instances, ModelSpec, Tensor};
use crate::worker::Workers;
use std::sync::Arc;

/// What a V1 request is answered with.
#[derive(Debug)]
pub enum Predictions {
    /// An array, written as nested lists.
    Tensor(Tensor),
    /// Several outputs, written as one object per row.
    Records(Vec<Tensor>),
}

/// A model that is ready to answer.
pub enum Model {
    /// Runs inside this process.
    Native(Runner),
    /// Runs in Python processes.
    Python(Workers),
}

impl Model {
    /// Wraps an engine of this process.
    pub fn native(engine: Arc<dyn Native>) -> Self {
        Self::Native(Runner::new(engine))
    }

    /// What the model takes and gives.
    pub fn spec(&self) -> &ModelSpec {
        match self {
            Self::Native(runner) => runner.spec(),
            Self::Python(workers) => workers.spec(),
        }
    }

    /// How V1 instances are to be read for it.
    pub fn wanted(&self) -> Wanted {
        match self {
            Self::Native(runner) => Wanted::Numbers(
                runner
                    .spec()
                    .inputs
                    .first()
                    .map_or(crate::protocol::Datatype::Fp32, |input| input.datatype),
            ),
            Self::Python(_) => Wanted::Any,
        }
    }

    /// Whether it can answer now.
    pub fn ready(&self) -> bool {
        match self {
            Self::Native(_) => true,
            Self::Python(workers) => workers.ready(),
        }
    }

    /// Answers a V2 request.
    pub async fn infer(&self, request: &mut InferRequest) -> Result<Vec<Tensor>, InferError> {
        match self {
            Self::Native(runner) => runner.run(std::mem::take(&mut request.inputs)).await,
            Self::Python(workers) => workers.infer(request).await,
        }
    }

    /// Answers a V1 request.
    pub async fn predict(&self, instances: Instances) -> Result<Predictions, InferError> {
        match self {
            Self::Native(runner) => {
                let Instances::Numeric(tensor) = instances else {
                    return Err(InferError::field("instances", "expected lists of numbers"));
                };
                if runner.spec().inputs.len() > 1 {
                    let names: Vec<&str> = runner
                        .spec()
                        .inputs
                        .iter()
                        .map(|input| input.name.as_str())
                        .collect();
                    let text = format!(
                        "the model has several inputs ({}), which V1 cannot name; use V2",
                        names.join(", ")
                    );
                    return Err(InferError::field("instances", text));
                }
                let outputs = runner
                    .run(vec![tensor])
                    .await
                    .map_err(|error| v1_words(error, &runner.spec().inputs))?;
                let first = outputs.into_iter().next();
                first
                    .map(Predictions::Tensor)
                    .ok_or_else(|| InferError::internal("the model gave no output"))
            }
            Self::Python(workers) => workers.predict(instances).await,
        }
    }

    /// Number of the features a row of the first input has, where it is fixed.
    pub fn columns(&self) -> usize {
        let shape = self.spec().inputs.first().map_or(&[][..], |input| &input.shape);
        shape
            .get(1)
            .and_then(|length| usize::try_from(*length).ok())
            .unwrap_or(0)
    }
}

/// A V1 client has sent `instances`, not a tensor with fields.
fn v1_words(mut error: InferError, inputs: &[crate::protocol::TensorSpec]) -> InferError {
    if let Some(input) = inputs.first() {
        for field in ["shape", "data", "datatype"] {
            let prefix = format!("tensor {:?}, field {field:?}: ", input.name);
            if let Some(rest) = error.text.strip_prefix(&prefix) {
                error.text = format!("field \"instances\": {rest}");
                break;
            }
        }
    }
    error
}

/// Elements as single floats, or a complaint about the type.
fn floats(tensor: Tensor) -> Result<(Vec<usize>, Vec<f32>), InferError> {
    let Tensor { name, shape, data } = tensor;
    if matches!(data, Data::Bytes(_)) {
        return Err(InferError::tensor(
            &name,
            "datatype",
            "BYTES is not a number; the model takes FP32 or another numeric type",
        ));
    }
    Ok((shape, data.into_f32().unwrap_or_default()))
}
