//! What a request and a response are, apart from how they travel.

mod datatype;
mod error;
mod tensor;

pub use datatype::{Datatype, NAMES as DATATYPE_NAMES};
pub use error::{Fault, InferError, JsonProblem};
pub use tensor::{Data, Element, ElementProblem, Tensor, shape_text};

/// Description of one input or output tensor of a model; `-1` in a shape is a dimension of any length.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorSpec {
    /// Name of the tensor.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Shape, `-1` for a dimension of any length.
    pub shape: Vec<i64>,
}

/// What a model tells about itself (`GET /v2/models/{name}`).
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// Engine and format, for example `xgboost_json`.
    pub platform: &'static str,
    /// Inputs in the order the model takes them.
    pub inputs: Vec<TensorSpec>,
    /// Outputs in the order the model gives them.
    pub outputs: Vec<TensorSpec>,
}

/// One output that the client asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestedOutput {
    /// Name of the output.
    pub name: String,
    /// `parameters.binary_data`, if given.
    pub binary: Option<bool>,
}

/// A decoded V2 request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct InferRequest {
    /// Echoed in the response.
    pub id: Option<String>,
    /// Input tensors.
    pub inputs: Vec<Tensor>,
    /// Outputs asked for; empty means all.
    pub outputs: Vec<RequestedOutput>,
    /// `parameters.binary_data_output`.
    pub binary_output: bool,
    /// `parameters.content_type` or the first input's, which the Python worker reads.
    pub content_type: Option<String>,
}

/// V1 `instances`, decoded as far as the model wants them.
#[derive(Debug, Clone, PartialEq)]
pub enum Instances {
    /// A regular numeric array; its first dimension counts the instances.
    Numeric(Tensor),
    /// Anything else (records, strings, ragged lists) as the bytes of its JSON text.
    Json(Vec<u8>),
}
