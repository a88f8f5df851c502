//! Requests and responses as bytes: V1 and V2 JSON, and V2's binary tensors.

mod v1;
mod v2;

pub use v1::{Wanted, read_v1, write_records, write_v1};
pub use v2::{Encoded, read_v2, unknown_output, write_model, write_v2};

use crate::json::ArrayError;
use crate::protocol::{ElementProblem, InferError, JsonProblem};

/// Either the text is not JSON, or what it says is wrong.
#[derive(Debug)]
enum Refusal {
    Json(JsonProblem),
    Content(InferError),
}

impl From<JsonProblem> for Refusal {
    fn from(problem: JsonProblem) -> Self {
        Self::Json(problem)
    }
}

impl From<InferError> for Refusal {
    fn from(error: InferError) -> Self {
        Self::Content(error)
    }
}

impl Refusal {
    fn into_error(self, text: &[u8]) -> InferError {
        match self {
            Self::Json(problem) => InferError::json(&problem, text),
            Self::Content(error) => error,
        }
    }
}

/// Says what an array does wrong; `expected` names the type in the reader's words.
fn array_text(error: ArrayError, expected: &str) -> Result<String, JsonProblem> {
    Ok(match error {
        ArrayError::Json(problem) => return Err(problem),
        ArrayError::Element { index, text, problem } => match problem {
            ElementProblem::Kind => format!("element {index} is {text}, expected {expected}"),
            ElementProblem::Range => format!("element {index} is {text}, which {expected} cannot hold"),
            ElementProblem::Fraction => format!("element {index} is {text}, but {expected} has no fractions"),
        },
        ArrayError::Ragged { path, first, here } => {
            format!(
                "lists are irregular: at {} there is {here} where others have {first}",
                if path.is_empty() { "some place" } else { &path }
            )
        }
    })
}
