//! PersistentVolumeClaims of the local storage class: each gets a folder of its own.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    HostPathVolumeSource, ObjectReference, PersistentVolume, PersistentVolumeClaim,
    PersistentVolumeClaimStatus, PersistentVolumeSpec, PersistentVolumeStatus,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::{DeleteParams, Patch};
use serde_json::json;

use crate::context::Context;
use crate::informer::{Key, already_exists, is_not_found};
use crate::quantity::Amount;
use crate::queue::Queue;

const COMPONENT: &str = "persistentvolume-controller";
/// Name of the provisioner of the local class.
pub const PROVISIONER: &str = "ferroflow.github.io/local";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";

/// A claim, or a volume whose claim may be gone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Item {
    /// a claim
    Claim(Key),
    /// a volume
    Volume(String),
}

/// Runs the controller until cancelled.
pub async fn run(context: Context, queue: Queue<Item>) {
    let cancel = context.cancel.clone();
    if let Err(error) = ensure_class(&context).await {
        tracing::warn!(%error, class = %context.config.storage_class, "storage class not created");
    }
    queue
        .drive(COMPONENT, 4, cancel, move |item| {
            let context = context.clone();
            async move {
                match item {
                    Item::Claim(key) => claim(&context, &key).await,
                    Item::Volume(name) => volume(&context, &name).await,
                }
            }
        })
        .await;
}

/// Connects the queue to what it depends on; call before the caches start.
#[must_use]
pub fn watch(context: &Context) -> Queue<Item> {
    let queue = Queue::new();
    let claims = queue.clone();
    let volumes_of = context.volumes.clone();
    context.claims.listen(move |change| {
        if let Some(claim) = change.latest() {
            claims.add(Item::Claim(Key::of(&**claim)));
            if change.new.is_none() {
                for volume in volumes_of.all() {
                    if claim_ref(&volume).is_some_and(|owner| owner.uid == claim.metadata.uid) {
                        claims.add(Item::Volume(volume.metadata.name.clone().unwrap_or_default()));
                    }
                }
            }
        }
    });
    let volumes = queue.clone();
    let waiting = context.claims.clone();
    context.volumes.listen(move |change| {
        if let Some(volume) = &change.new {
            volumes.add(Item::Volume(volume.metadata.name.clone().unwrap_or_default()));
            if claim_ref(volume).is_none() {
                for claim in waiting.all() {
                    if phase(&claim) != "Bound" {
                        volumes.add(Item::Claim(Key::of(&*claim)));
                    }
                }
            }
        }
    });
    let released = queue.clone();
    context.pods.listen(move |change| {
        // A claim that is being deleted goes once no Pod uses it.
        let ended = change.new.as_ref().is_none_or(|pod| crate::pods::finished(pod));
        if let Some(pod) = change.latest().filter(|_| ended) {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
                if let Some(source) = &volume.persistent_volume_claim {
                    released.add(Item::Claim(Key::new(namespace, &source.claim_name)));
                }
            }
        }
    });
    queue
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or("Pending")
}

fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Whether a volume was made here.
fn provisioned(volume: &PersistentVolume) -> bool {
    let by = volume
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(PROVISIONED_BY));
    by.map(String::as_str) == Some(PROVISIONER)
}

async fn ensure_class(context: &Context) -> anyhow::Result<()> {
    let name = &context.config.storage_class;
    if context.storage_classes.get(&Key::new("", name)).is_some() {
        return Ok(());
    }
    let class = StorageClass {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(
                [(
                    "storageclass.kubernetes.io/is-default-class".to_owned(),
                    "true".to_owned(),
                )]
                .into(),
            ),
            ..ObjectMeta::default()
        },
        provisioner: PROVISIONER.to_owned(),
        reclaim_policy: Some("Delete".to_owned()),
        volume_binding_mode: Some("Immediate".to_owned()),
        ..StorageClass::default()
    };
    match context.storage_classes.create("", &class).await {
        Err(error) if !already_exists(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

async fn claim(context: &Context, key: &Key) -> anyhow::Result<()> {
    let Some(claim) = context.claims.get(key) else {
        return Ok(());
    };
    if claim.metadata.deletion_timestamp.is_some() {
        return unprotect(context, &claim).await;
    }
    let spec = claim.spec.clone().unwrap_or_default();
    if let Some(name) = spec.volume_name.filter(|name| !name.is_empty()) {
        return match context.volumes.get(&Key::new("", &name)) {
            Some(volume) => bind(context, &claim, &volume).await,
            None if phase(&claim) == "Bound" => {
                set_phase(
                    context,
                    &claim,
                    PersistentVolumeClaimStatus {
                        phase: Some("Lost".to_owned()),
                        ..Default::default()
                    },
                )
                .await
            }
            None => Ok(()),
        };
    }
    if let Some(volume) = existing(context, &claim) {
        return bind(context, &claim, &volume).await;
    }
    let class = spec.storage_class_name.unwrap_or_default();
    let ours = context
        .storage_classes
        .get(&Key::new("", &class))
        .is_some_and(|class| class.provisioner == PROVISIONER);
    if !ours {
        if class.is_empty() {
            let text = "no persistent volumes available for this claim and no storage class is set";
            context.events.normal(COMPONENT, &*claim, "FailedBinding", text);
        } else if context.storage_classes.get(&Key::new("", &class)).is_none() {
            context.events.warning(
                COMPONENT,
                &*claim,
                "ProvisioningFailed",
                format!("storageclass.storage.k8s.io \"{class}\" not found"),
            );
        }
        return Ok(());
    }
    let volume = provision(context, &claim).await?;
    bind(context, &claim, &volume).await
}

/// A volume that was made for this claim, or a free one that is large enough.
fn existing(context: &Context, claim: &PersistentVolumeClaim) -> Option<Arc<PersistentVolume>> {
    let spec = claim.spec.clone().unwrap_or_default();
    let wanted = spec
        .resources
        .as_ref()
        .and_then(|all| all.requests.as_ref())
        .and_then(|all| all.get("storage"))
        .map(Amount::of)
        .unwrap_or_default();
    let modes = spec.access_modes.unwrap_or_default();
    context
        .volumes
        .all()
        .into_iter()
        .filter(|volume| {
            let own = volume.spec.clone().unwrap_or_default();
            let capacity = own
                .capacity
                .as_ref()
                .and_then(|all| all.get("storage"))
                .map(Amount::of)
                .unwrap_or_default();
            let free = match &own.claim_ref {
                None => true,
                Some(reference) => {
                    reference.name == claim.metadata.name
                        && reference.namespace == claim.metadata.namespace
                        && (reference.uid.is_none() || reference.uid == claim.metadata.uid)
                }
            };
            let class = own.storage_class_name.unwrap_or_default()
                == spec.storage_class_name.clone().unwrap_or_default();
            free && class
                && volume.metadata.deletion_timestamp.is_none()
                && capacity >= wanted
                && modes
                    .iter()
                    .all(|mode| own.access_modes.iter().flatten().any(|own| own == mode))
        })
        .min_by_key(|volume| {
            let capacity = volume
                .spec
                .as_ref()
                .and_then(|spec| spec.capacity.as_ref())
                .and_then(|all| all.get("storage"))
                .map(Amount::of)
                .unwrap_or_default();
            (claim_ref(volume).is_none(), capacity)
        })
}

async fn provision(
    context: &Context,
    claim: &PersistentVolumeClaim,
) -> anyhow::Result<Arc<PersistentVolume>> {
    let uid = claim.metadata.uid.clone().unwrap_or_default();
    let name = format!("pvc-{uid}");
    let folder = context.config.volumes_dir.join(&name);
    tokio::fs::create_dir_all(&folder)
        .await
        .map_err(|error| anyhow::anyhow!("folder {} of a volume: {error}", folder.display()))?;
    let spec = claim.spec.clone().unwrap_or_default();
    let volume = PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name),
            annotations: Some([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: spec.resources.and_then(|all| all.requests),
            claim_ref: Some(reference(claim)),
            host_path: Some(HostPathVolumeSource {
                path: folder.display().to_string(),
                type_: Some("DirectoryOrCreate".to_owned()),
            }),
            persistent_volume_reclaim_policy: Some("Delete".to_owned()),
            storage_class_name: spec.storage_class_name,
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    };
    let made = match context.volumes.create("", &volume).await {
        Ok(made) => made,
        Err(error) if already_exists(&error) => anyhow::bail!(
            "volume {} of the claim is not in the cache yet",
            volume.metadata.name.unwrap_or_default()
        ),
        Err(error) => return Err(error.into()),
    };
    let text = format!(
        "Successfully provisioned volume {}",
        made.metadata.name.as_deref().unwrap_or_default()
    );
    context
        .events
        .normal(PROVISIONER, claim, "ProvisioningSucceeded", text);
    Ok(made)
}

fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        resource_version: claim.metadata.resource_version.clone(),
        ..claim.object_ref(&())
    }
}

async fn bind(
    context: &Context,
    claim: &PersistentVolumeClaim,
    volume: &PersistentVolume,
) -> anyhow::Result<()> {
    let name = volume.metadata.name.clone().unwrap_or_default();
    let mut volume = Arc::new(volume.clone());
    if claim_ref(&volume).and_then(|owner| owner.uid.clone()) != claim.metadata.uid {
        if claim_ref(&volume).is_some_and(|owner| owner.uid.is_some()) {
            context.events.warning(
                COMPONENT,
                claim,
                "FailedBinding",
                format!("volume \"{name}\" already bound to a different claim."),
            );
            return Ok(());
        }
        let mut changed = (*volume).clone();
        changed.spec.get_or_insert_default().claim_ref = Some(reference(claim));
        changed
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        volume = context.volumes.replace(&changed).await?;
    }
    if volume.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
        let mut changed = (*volume).clone();
        changed.status = Some(PersistentVolumeStatus {
            phase: Some("Bound".to_owned()),
            ..PersistentVolumeStatus::default()
        });
        volume = context.volumes.replace_status(&changed).await?;
    }
    let mut claim = Arc::new(claim.clone());
    let done = claim
        .metadata
        .annotations
        .as_ref()
        .is_some_and(|all| all.contains_key(BIND_COMPLETED));
    if claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) != Some(&name) || !done {
        let mut changed = (*claim).clone();
        let annotations = changed.metadata.annotations.get_or_insert_default();
        annotations.insert(BIND_COMPLETED.to_owned(), "yes".to_owned());
        if changed.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()) != Some(&name) {
            annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
        if provisioned(&volume) {
            annotations.insert(STORAGE_PROVISIONER.to_owned(), PROVISIONER.to_owned());
        }
        changed.spec.get_or_insert_default().volume_name = Some(name);
        claim = context.claims.replace(&changed).await?;
    }
    let spec = volume.spec.clone().unwrap_or_default();
    let status = PersistentVolumeClaimStatus {
        phase: Some("Bound".to_owned()),
        access_modes: spec.access_modes,
        capacity: spec.capacity,
        ..PersistentVolumeClaimStatus::default()
    };
    if claim.status.as_ref() == Some(&status) {
        Ok(())
    } else {
        set_phase(context, &claim, status).await
    }
}

async fn set_phase(
    context: &Context,
    claim: &PersistentVolumeClaim,
    status: PersistentVolumeClaimStatus,
) -> anyhow::Result<()> {
    let mut changed = claim.clone();
    changed.status = Some(status);
    context.claims.replace_status(&changed).await?;
    Ok(())
}

/// Takes the protection off a deleted claim that no running Pod uses.
async fn unprotect(context: &Context, claim: &PersistentVolumeClaim) -> anyhow::Result<()> {
    let held = claim
        .metadata
        .finalizers
        .iter()
        .flatten()
        .any(|one| one == CLAIM_PROTECTION);
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let used = context
        .pods
        .in_namespace(claim.metadata.namespace.as_deref().unwrap_or_default())
        .iter()
        .any(|pod| {
            let mounts = |spec: &k8s_openapi::api::core::v1::PodSpec| {
                spec.volumes.iter().flatten().any(|volume| {
                    volume
                        .persistent_volume_claim
                        .as_ref()
                        .is_some_and(|source| source.claim_name == name)
                })
            };
            !crate::pods::finished(pod) && pod.spec.as_ref().is_some_and(mounts)
        });
    if !held || used {
        return Ok(());
    }
    let patch = json!({"metadata": {"uid": claim.metadata.uid, "$deleteFromPrimitiveList/finalizers": [CLAIM_PROTECTION]}});
    match context
        .claims
        .patch(&Key::of(claim), &Patch::Strategic(patch))
        .await
    {
        Err(error) if !is_not_found(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// A volume is available, or its claim is gone: then it is released, and deleted with its folder when that is its policy.
async fn volume(context: &Context, name: &str) -> anyhow::Result<()> {
    let Some(volume) = context.volumes.get(&Key::new("", name)) else {
        return Ok(());
    };
    let now = volume
        .status
        .as_ref()
        .and_then(|status| status.phase.clone())
        .unwrap_or_default();
    let wanted = match claim_ref(&volume) {
        None => "Available",
        Some(owner) => {
            let key = Key::new(
                owner.namespace.clone().unwrap_or_default(),
                owner.name.clone().unwrap_or_default(),
            );
            match context.claims.get(&key) {
                Some(claim) if owner.uid.is_none() || claim.metadata.uid == owner.uid => return Ok(()),
                _ if owner.uid.is_none() => "Available",
                _ => "Released",
            }
        }
    };
    let ours = provisioned(&volume);
    let spec = volume.spec.clone().unwrap_or_default();
    if wanted == "Released" && ours && spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete") {
        if let Some(path) = spec.host_path.map(|source| source.path)
            && Path::new(&path).parent() == Some(&context.config.volumes_dir)
        {
            match tokio::fs::remove_dir_all(&path).await {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    anyhow::bail!("folder {path} of a released volume: {error}")
                }
                _ => {}
            }
        }
        return Ok(context
            .volumes
            .delete(&volume, DeleteParams::background())
            .await?);
    }
    if now != wanted {
        let mut changed = (*volume).clone();
        changed.status = Some(PersistentVolumeStatus {
            phase: Some(wanted.to_owned()),
            ..PersistentVolumeStatus::default()
        });
        context.volumes.replace_status(&changed).await?;
    }
    Ok(())
}
