//! Whose is an object? The tenants share buckets, because KFP writes all namespaces' artifacts below
//! `mlpipeline/v2/artifacts/<pipeline>/<run>/` with no namespace in the key.
//!
//! So the service keeps *claims*: (bucket, prefix) -> namespace. A claim is made before the first byte is written, never
//! moves to another namespace, and is never given up, so that a name cannot change hands and take old readers with it.
//! Of all claims on a key the outermost holds. What is claimed first:
//! - in a bucket that is not shared: the whole bucket;
//! - in a shared one: the run's folder for keys of KFP's layout, otherwise the one key;
//! - `private/<namespace>/` and `private-artifacts/<namespace>/` of a shared bucket belong to that namespace by their name
//!   (Kubeflow's layout for several users), without a row.

/// The namespace that a key belongs to by its spelling alone.
pub fn owner_by_name(shared: bool, key: &str) -> Option<&str> {
    let mut parts = key.splitn(3, '/');
    let (first, second) = (parts.next()?, parts.next()?);
    let named = shared && matches!(first, "private" | "private-artifacts") && parts.next().is_some();
    (named && !second.is_empty()).then_some(second)
}

/// Prefixes that may carry a claim on `key`, outermost first: the bucket, each folder, and the key itself.
pub fn candidates(key: &str) -> Vec<String> {
    let folders = key.match_indices('/').map(|(at, _)| key[..=at].to_owned());
    let mut all = vec![String::new()];
    all.extend(folders);
    if all.last().is_none_or(|last| last != key) {
        all.push(key.to_owned());
    }
    all
}

/// What to claim when the first object with this key is written.
pub fn unit(shared: bool, key: &str) -> String {
    if !shared {
        return String::new();
    }
    let parts: Vec<&str> = key.split('/').collect();
    match parts.as_slice() {
        ["v2", "artifacts", pipeline, run, _, ..] => format!("v2/artifacts/{pipeline}/{run}/"),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outermost_candidate_comes_first() {
        assert_eq!(candidates("a/b/c"), ["", "a/", "a/b/", "a/b/c"]);
        assert_eq!(candidates("a/b/"), ["", "a/", "a/b/"]);
        assert_eq!(candidates("x"), ["", "x"]);
    }

    #[test]
    fn a_run_is_claimed_as_a_whole_and_other_keys_one_by_one() {
        assert_eq!(unit(true, "v2/artifacts/p/r/task/uuid/out"), "v2/artifacts/p/r/");
        assert_eq!(unit(true, "v2/artifacts/p/r"), "v2/artifacts/p/r");
        assert_eq!(unit(true, "data/x.csv"), "data/x.csv");
        assert_eq!(unit(false, "data/x.csv"), "");
    }

    #[test]
    fn private_folders_belong_to_the_namespace_in_their_name() {
        assert_eq!(owner_by_name(true, "private-artifacts/team/v2/x"), Some("team"));
        assert_eq!(owner_by_name(true, "private/team/x"), Some("team"));
        assert_eq!(owner_by_name(true, "private/team"), None);
        assert_eq!(owner_by_name(true, "private//x"), None);
        assert_eq!(owner_by_name(false, "private/team/x"), None);
    }
}
