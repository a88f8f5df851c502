//! Which keys are possible.

use crate::BlobError;

/// The longest key, as in S3.
pub const MAX_KEY_BYTES: usize = 1024;

/// The folder in a root where writes are prepared; keys below it are refused and never listed.
pub const STAGING: &str = ".staging";

/// Refuses keys that would leave the root, that two backends would understand differently, or that cannot be files.
pub fn check_key(key: &str) -> Result<(), BlobError> {
    let invalid = |reason: &str| BlobError::InvalidKey {
        key: key.to_owned(),
        reason: reason.to_owned(),
    };
    if key.is_empty() {
        return Err(invalid("it is empty"));
    }
    if key.ends_with('/') {
        return Err(invalid(
            "it ends with a slash; folders are not objects here, write a file below it",
        ));
    }
    check_prefix(key)?;
    let first = key.split('/').next().unwrap_or_default();
    if first == STAGING {
        return Err(invalid("it begins with a reserved name"));
    }
    Ok(())
}

/// Refuses prefixes below which no key can lie. A prefix may be empty and may end anywhere.
pub fn check_prefix(prefix: &str) -> Result<(), BlobError> {
    let invalid = |reason: &str| BlobError::InvalidKey {
        key: prefix.to_owned(),
        reason: reason.to_owned(),
    };
    if prefix.len() > MAX_KEY_BYTES {
        return Err(invalid("it is longer than 1024 bytes"));
    }
    if prefix.chars().any(char::is_control) {
        return Err(invalid("it has a control character"));
    }
    let parts: Vec<&str> = prefix.split('/').collect();
    for (index, part) in parts.iter().enumerate() {
        let last = index + 1 == parts.len();
        if part.is_empty() && !last {
            return Err(invalid(
                "it has an empty part (a leading slash or two slashes in a row)",
            ));
        }
        if *part == "." || *part == ".." {
            return Err(invalid("it has a part that is . or .."));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_leave_the_root_are_refused() {
        for key in [
            "",
            "/a",
            "a//b",
            "../a",
            "a/../b",
            "a/.",
            ".staging/x",
            "a/",
            "a\0b",
            "a\nb",
            &"x".repeat(1025),
        ] {
            assert!(check_key(key).is_err(), "{key:?} must be refused");
        }
        for key in [
            "a",
            "a/b",
            "a b/ü%2F#1?",
            ".hidden",
            "a/.staging",
            "..a",
            "x/".repeat(500).trim_end_matches('/'),
        ] {
            assert!(check_key(key).is_ok(), "{key:?} must be accepted");
        }
    }

    #[test]
    fn prefixes_may_end_anywhere() {
        for prefix in ["", "a", "a/", "a/b"] {
            assert!(check_prefix(prefix).is_ok(), "{prefix:?}");
        }
        for prefix in ["/", "a//", "../"] {
            assert!(check_prefix(prefix).is_err(), "{prefix:?}");
        }
    }
}
