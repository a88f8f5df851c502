//! Errors of fields in the words that Kubernetes uses for them.

/// A field that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// Absent.
    #[error("{field}: Required value: {detail}")]
    Required {
        /// Path of the field.
        field: String,
        /// What to do.
        detail: String,
    },
    /// Present and wrong.
    #[error("{field}: Invalid value: {value:?}: {detail}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// What it holds.
        value: String,
        /// What to do.
        detail: String,
    },
    /// Present where it must not be.
    #[error("{field}: Forbidden: {detail}")]
    Forbidden {
        /// Path of the field.
        field: String,
        /// What to do.
        detail: String,
    },
    /// Not one of the known values.
    #[error(
        "{field}: Unsupported value: {value:?}: supported values: {}",
        quoted(supported)
    )]
    NotSupported {
        /// Path of the field.
        field: String,
        /// What it holds.
        value: String,
        /// What it may hold.
        supported: Vec<String>,
    },
}

fn quoted(values: &[String]) -> String {
    values
        .iter()
        .map(|v| format!("{v:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

impl FieldError {
    /// See [`FieldError::Required`].
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Required {
            field: field.into(),
            detail: detail.into(),
        }
    }
    /// See [`FieldError::Invalid`].
    pub fn invalid(field: impl Into<String>, value: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            value: value.into(),
            detail: detail.into(),
        }
    }
    /// See [`FieldError::Forbidden`].
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Forbidden {
            field: field.into(),
            detail: detail.into(),
        }
    }
    /// See [`FieldError::NotSupported`].
    pub fn not_supported(field: impl Into<String>, value: impl Into<String>, supported: &[&str]) -> Self {
        Self::NotSupported {
            field: field.into(),
            value: value.into(),
            supported: supported.iter().map(ToString::to_string).collect(),
        }
    }
}

/// One text of several errors, as an aggregate of Kubernetes reads; `None` when there are none.
#[must_use]
pub fn aggregate(errors: &[FieldError]) -> Option<String> {
    match errors {
        [] => None,
        [one] => Some(one.to_string()),
        many => Some(format!(
            "[{}]",
            many.iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        )),
    }
}
