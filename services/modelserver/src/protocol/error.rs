use std::fmt;

/// What is wrong with JSON text, and where.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{problem} at byte {byte}")]
pub struct JsonProblem {
    /// Offset of the first byte that cannot be used.
    pub byte: usize,
    /// What is wrong there.
    pub problem: String,
}

impl JsonProblem {
    /// Names the position as line and column too (both from 1), as editors count them.
    pub fn locate(&self, text: &[u8]) -> String {
        let before = &text[..self.byte.min(text.len())];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let column = before.len()
            - before
                .iter()
                .rposition(|byte| *byte == b'\n')
                .map_or(0, |at| at + 1)
            + 1;
        format!(
            "{} at line {line} column {column} (byte {})",
            self.problem, self.byte
        )
    }
}

/// Whose fault an error is; decides the HTTP and gRPC codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The request is wrong: 400, INVALID_ARGUMENT.
    BadRequest,
    /// Nothing with this name: 404, NOT_FOUND.
    NotFound,
    /// The method is not allowed on this path: 405, UNIMPLEMENTED.
    MethodNotAllowed,
    /// The body is larger than the limit: 413, RESOURCE_EXHAUSTED.
    TooLarge,
    /// A content encoding that is not understood: 415, INVALID_ARGUMENT.
    UnsupportedMedia,
    /// More requests than the queue holds: 429, RESOURCE_EXHAUSTED.
    Overloaded,
    /// The model is not loaded yet or is going away: 503, UNAVAILABLE.
    Unavailable,
    /// The model took too long: 504, DEADLINE_EXCEEDED.
    Timeout,
    /// The model failed on a request that looked right: 500, INTERNAL.
    Internal,
}

impl Fault {
    /// HTTP status code.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::TooLarge => 413,
            Self::UnsupportedMedia => 415,
            Self::Overloaded => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Timeout => 504,
        }
    }
}

/// A request that cannot be answered: whose fault, and a text for the client that names model, tensor and field.
#[derive(Debug, Clone, PartialEq)]
pub struct InferError {
    /// Whose fault it is.
    pub fault: Fault,
    /// Text for the client.
    pub text: String,
}

impl InferError {
    /// An error of any fault.
    pub fn new(fault: Fault, text: impl Into<String>) -> Self {
        Self {
            fault,
            text: text.into(),
        }
    }

    /// The request is wrong.
    pub fn bad(text: impl Into<String>) -> Self {
        Self::new(Fault::BadRequest, text)
    }

    /// A field of a tensor is wrong: `tensor "x", field "shape": ...`.
    pub fn tensor(name: &str, field: &str, problem: impl fmt::Display) -> Self {
        Self::bad(format!("tensor {name:?}, field {field:?}: {problem}"))
    }

    /// A field of the request is wrong: `field "inputs": ...`.
    pub fn field(field: &str, problem: impl fmt::Display) -> Self {
        Self::bad(format!("field {field:?}: {problem}"))
    }

    /// JSON that does not parse, with its place in `text`.
    pub fn json(problem: &JsonProblem, text: &[u8]) -> Self {
        Self::bad(format!(
            "request body is not valid JSON: {}",
            problem.locate(text)
        ))
    }

    /// The model failed.
    pub fn internal(text: impl Into<String>) -> Self {
        Self::new(Fault::Internal, text)
    }

    /// Puts the model's name before the text.
    #[must_use]
    pub fn of_model(mut self, model: &str) -> Self {
        self.text = format!("model {model:?}: {}", self.text);
        self
    }
}

impl fmt::Display for InferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for InferError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_counts_lines_and_columns_from_one() {
        let problem = JsonProblem {
            byte: 7,
            problem: "expected a value".into(),
        };
        assert_eq!(
            problem.locate(b"{\n \"a\":}"),
            "expected a value at line 2 column 6 (byte 7)"
        );
        let start = JsonProblem {
            byte: 0,
            problem: "expected an object".into(),
        };
        assert_eq!(
            start.locate(b"[]"),
            "expected an object at line 1 column 1 (byte 0)"
        );
    }
}
