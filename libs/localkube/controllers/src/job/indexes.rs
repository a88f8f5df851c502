//! Sets of completion indexes in the notation of `status.completedIndexes`: `1,3-5,7`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;

/// Annotation and label that hold a Pod's completion index.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Reads the notation, dropping indexes that are not below `completions` and what cannot be read.
#[must_use]
pub fn parse(text: &str, completions: i32) -> BTreeSet<i32> {
    let mut indexes = BTreeSet::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            indexes.extend(first.max(0)..=last.min(completions - 1));
        }
    }
    indexes
}

/// Writes the notation; two neighbours are joined by a comma, three or more by a dash.
#[must_use]
pub fn format(indexes: &BTreeSet<i32>) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut push = |first: i32, last: i32| match last - first {
        0 => parts.push(first.to_string()),
        1 => parts.push(format!("{first},{last}")),
        _ => parts.push(format!("{first}-{last}")),
    };
    let mut run: Option<(i32, i32)> = None;
    for index in indexes {
        run = match run {
            Some((first, last)) if last + 1 == *index => Some((first, *index)),
            Some((first, last)) => {
                push(first, last);
                Some((*index, *index))
            }
            None => Some((*index, *index)),
        };
    }
    if let Some((first, last)) = run {
        push(first, last);
    }
    parts.join(",")
}

/// The completion index that a Pod carries.
#[must_use]
pub fn of(pod: &Pod) -> Option<i32> {
    pod.metadata
        .annotations
        .as_ref()?
        .get(COMPLETION_INDEX)?
        .parse()
        .ok()
        .filter(|index| *index >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn notation() {
        assert_eq!(format(&[0, 1, 3, 4, 5, 7].into()), "0,1,3-5,7");
        assert_eq!(parse("0,1,3-5,7", 5), [0, 1, 3, 4].into());
        assert_eq!(format(&BTreeSet::new()), "");
    }

    proptest! {
        #[test]
        fn round_trip(set in proptest::collection::btree_set(0i32..60, 0..40)) {
            prop_assert_eq!(parse(&format(&set), 60), set);
        }
    }
}
