//! Which objects a controller's selector and owner references give it: orphans that match are adopted,
//! owned ones that no longer match are let go.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Resource;
use kube::api::Patch;
use serde_json::json;

use crate::informer::{Informer, Key, Kind, controller_of, is_not_found};
use crate::pods::{controller_reference, selects};
use crate::queue::Queue;

/// Puts owners in their queue when a child of theirs changes, or an orphan that their selector matches.
pub fn follow<C: Kind, O: Kind>(
    children: &Informer<C>,
    owners: &Informer<O>,
    queue: &Queue<Key>,
    kind: &'static str,
    selector: fn(&O) -> Option<&LabelSelector>,
) {
    let (owners, queue) = (owners.clone(), queue.clone());
    children.listen(move |change| {
        for object in change.old.iter().chain(&change.new) {
            if let Some(owner) = controller_of(&**object)
                && owner.kind == kind
            {
                queue.add(Key::new(
                    object.meta().namespace.clone().unwrap_or_default(),
                    &owner.name,
                ));
            }
        }
        if let Some(orphan) = change
            .new
            .as_ref()
            .filter(|object| controller_of(&***object).is_none())
        {
            for owner in owners.in_namespace(orphan.meta().namespace.as_deref().unwrap_or_default()) {
                if selector(&owner).is_some_and(|selector| selects(selector, orphan.meta().labels.as_ref())) {
                    queue.add(Key::of(&*owner));
                }
            }
        }
    });
}

/// What to do with one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relation {
    Keep,
    Adopt,
    Release,
    Other,
}

fn relation<K: Resource>(object: &K, owner: &str, owner_stays: bool, selector: &LabelSelector) -> Relation {
    let matches = selects(selector, object.meta().labels.as_ref());
    let leaving = object.meta().deletion_timestamp.is_some();
    match controller_of(object) {
        Some(reference) if reference.uid == owner => {
            if matches || !owner_stays {
                Relation::Keep
            } else {
                Relation::Release
            }
        }
        None if matches && !leaving && owner_stays => Relation::Adopt,
        _ => Relation::Other,
    }
}

/// The objects of `owner`, after adopting and releasing; `fits` refuses orphans that match for another reason.
pub async fn claim<O, K>(
    cache: &Informer<K>,
    owner: &O,
    selector: &LabelSelector,
    fits: impl Fn(&K) -> bool,
) -> kube::Result<Vec<Arc<K>>>
where
    O: Resource<DynamicType = ()>,
    K: Kind,
{
    let uid = owner.meta().uid.as_deref().unwrap_or_default();
    let stays = owner.meta().deletion_timestamp.is_none();
    let empty = selector
        .match_labels
        .as_ref()
        .is_none_or(std::collections::BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty);
    let mut claimed = Vec::new();
    for object in cache.in_namespace(owner.meta().namespace.as_deref().unwrap_or_default()) {
        let patch = match relation(&*object, uid, stays && !empty, selector) {
            Relation::Keep => {
                claimed.push(object);
                continue;
            }
            Relation::Adopt if fits(&object) => {
                json!({"metadata": {"uid": object.meta().uid, "ownerReferences": [controller_reference(owner)]}})
            }
            Relation::Release => {
                json!({"metadata": {"uid": object.meta().uid, "ownerReferences": [{"$patch": "delete", "uid": uid}]}})
            }
            _ => continue,
        };
        match cache.patch(&Key::of(&*object), &Patch::Strategic(patch)).await {
            Ok(changed) if controller_of(&*changed).is_some() => claimed.push(changed),
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(claimed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    #[test]
    fn relations() {
        let selector: LabelSelector = serde_json::from_value(json!({"matchLabels": {"a": "b"}})).unwrap();
        let pod = |labels: serde_json::Value, owner: Option<&str>| -> Pod {
            let owners = owner.map(
                |uid| json!([{"apiVersion": "v1", "kind": "K", "name": "o", "uid": uid, "controller": true}]),
            );
            serde_json::from_value(json!({"metadata": {"labels": labels, "ownerReferences": owners}}))
                .unwrap()
        };
        let of = |labels, owner| relation(&pod(labels, owner), "me", true, &selector);
        assert_eq!(of(json!({"a": "b"}), Some("me")), Relation::Keep);
        assert_eq!(of(json!({"a": "c"}), Some("me")), Relation::Release);
        assert_eq!(of(json!({"a": "b"}), None), Relation::Adopt);
        assert_eq!(of(json!({"a": "b"}), Some("you")), Relation::Other);
        assert_eq!(of(json!({"a": "c"}), None), Relation::Other);
        assert_eq!(
            relation(&pod(json!({"a": "b"}), None), "me", false, &selector),
            Relation::Other
        );
    }
}
