//! What may be written, beyond the kind's own rules.

pub mod allocate;
pub mod builtin;
pub mod call;
pub mod conditions;
pub mod quota;
pub mod webhooks;

/// The operation that admission is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}
