//! A Pod's volumes: each becomes a folder (or file) on the machine, which its containers see at their mount paths.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, PersistentVolume, PersistentVolumeClaim, Pod,
    Secret, ServiceAccount, Volume,
};
use kube::api::{Api, PostParams};
use localkube_runtimes::Runtimes;

use super::env::{self, Keys, Sources};
use crate::plan::Mount;

/// A volume that is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    pub path: PathBuf,
    pub read_only: bool,
}

/// What volumes are made from.
#[derive(Clone)]
pub struct Builder {
    pub client: kube::Client,
    pub runtimes: Runtimes,
}

/// Seconds a token lives when the volume does not say, and the least that is asked for.
const TOKEN_LIFE: i64 = 3600;
const SHORTEST_TOKEN_LIFE: i64 = 600;

impl Builder {
    /// Makes (or refreshes) all volumes of a Pod below `folder`. The error is a message for the Pod's events.
    pub async fn prepare(
        &self,
        pod: &Pod,
        folder: &Path,
        sources: &Sources,
    ) -> Result<HashMap<String, Ready>, String> {
        let volumes = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.volumes.as_deref())
            .unwrap_or_default();
        let all = volumes.iter().map(|volume| async {
            let ready = self.one(pod, volume, folder, sources).await.map_err(|error| {
                format!(
                    "MountVolume.SetUp failed for volume \"{}\" : {error}",
                    volume.name
                )
            })?;
            Ok::<_, String>((volume.name.clone(), ready))
        });
        futures::future::try_join_all(all)
            .await
            .map(|ready| ready.into_iter().collect())
    }

    async fn one(
        &self,
        pod: &Pod,
        volume: &Volume,
        folder: &Path,
        sources: &Sources,
    ) -> Result<Ready, String> {
        let path = folder.join("volumes").join(&volume.name);
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let writable = |path: PathBuf| Ready {
            path,
            read_only: false,
        };
        let text = |error: io::Error| error.to_string();
        if let Some(empty) = &volume.empty_dir {
            let path = if empty.medium.as_deref() == Some("Memory") {
                in_memory(pod, &volume.name).unwrap_or(path)
            } else {
                path
            };
            fs::create_dir_all(&path).map_err(text)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(text)?;
            return Ok(writable(path));
        }
        if let Some(host) = &volume.host_path {
            check_host_path(Path::new(&host.path), host.type_.as_deref().unwrap_or("")).map_err(text)?;
            return Ok(writable(PathBuf::from(&host.path)));
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            let path = self.claim(namespace, &claim.claim_name).await?;
            return Ok(Ready {
                path,
                read_only: claim.read_only == Some(true),
            });
        }
        if volume.ephemeral.is_some() {
            let name = format!(
                "{}-{}",
                pod.metadata.name.as_deref().unwrap_or_default(),
                volume.name
            );
            return Ok(writable(self.claim(namespace, &name).await?));
        }
        if let Some(image) = &volume.image {
            let reference = image.reference.as_deref().unwrap_or_default();
            let path = self
                .runtimes
                .image_volume(reference)
                .await
                .map_err(|error| error.to_string())?;
            return Ok(Ready {
                path,
                read_only: true,
            });
        }
        let mut files = Files::default();
        if let Some(map) = &volume.config_map {
            let keys = self.config_map(namespace, &map.name).await?;
            let mode = map.default_mode.unwrap_or(0o644);
            files.keys(
                "configmap",
                &map.name,
                keys,
                map.items.as_deref(),
                map.optional == Some(true),
                mode,
            )?;
        } else if let Some(secret) = &volume.secret {
            let name = secret.secret_name.as_deref().unwrap_or_default();
            let keys = self.secret(namespace, name).await?;
            let mode = secret.default_mode.unwrap_or(0o644);
            files.keys(
                "secret",
                name,
                keys,
                secret.items.as_deref(),
                secret.optional == Some(true),
                mode,
            )?;
        } else if let Some(downward) = &volume.downward_api {
            files.fields(
                pod,
                downward.items.as_deref().unwrap_or_default(),
                sources,
                downward.default_mode.unwrap_or(0o644),
            )?;
        } else if let Some(projected) = &volume.projected {
            let mode = projected.default_mode.unwrap_or(0o644);
            for source in projected.sources.iter().flatten() {
                if let Some(map) = &source.config_map {
                    let keys = self.config_map(namespace, &map.name).await?;
                    files.keys(
                        "configmap",
                        &map.name,
                        keys,
                        map.items.as_deref(),
                        map.optional == Some(true),
                        mode,
                    )?;
                }
                if let Some(secret) = &source.secret {
                    let keys = self.secret(namespace, &secret.name).await?;
                    files.keys(
                        "secret",
                        &secret.name,
                        keys,
                        secret.items.as_deref(),
                        secret.optional == Some(true),
                        mode,
                    )?;
                }
                if let Some(downward) = &source.downward_api {
                    files.fields(pod, downward.items.as_deref().unwrap_or_default(), sources, mode)?;
                }
                if let Some(token) = &source.service_account_token {
                    let audience = token.audience.clone().filter(|audience| !audience.is_empty());
                    let life = token
                        .expiration_seconds
                        .unwrap_or(TOKEN_LIFE)
                        .max(SHORTEST_TOKEN_LIFE);
                    let text = self.token(pod, audience, life).await?;
                    files.put(&token.path, text.into_bytes(), 0o600)?;
                }
            }
        } else {
            return Err("this kind of volume is not supported by this node; use emptyDir, hostPath, a claim, configMap, secret, projected or image".to_owned());
        }
        tokio::task::spawn_blocking({
            let path = path.clone();
            move || files.store(&path)
        })
        .await
        .map_err(|error| error.to_string())?
        .map_err(text)?;
        Ok(Ready {
            path,
            read_only: true,
        })
    }

    async fn claim(&self, namespace: &str, name: &str) -> Result<PathBuf, String> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        let claim = claims
            .get_opt(name)
            .await
            .map_err(|error| error.to_string())?
            .ok_or_else(|| format!("persistentvolumeclaim \"{name}\" not found"))?;
        let volume = claim
            .spec
            .and_then(|spec| spec.volume_name)
            .filter(|volume| !volume.is_empty())
            .ok_or_else(|| format!("persistentvolumeclaim \"{name}\" is not bound"))?;
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let spec = volumes
            .get(&volume)
            .await
            .map_err(|error| error.to_string())?
            .spec
            .unwrap_or_default();
        let path = spec
            .host_path
            .map(|host| host.path)
            .or_else(|| spec.local.map(|local| local.path))
            .ok_or_else(|| format!("persistentvolume \"{volume}\" has neither hostPath nor local"))?;
        fs::create_dir_all(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(PathBuf::from(path))
    }

    pub async fn config_map(&self, namespace: &str, name: &str) -> Result<Keys, String> {
        let found = self.config_map_object(namespace, name).await?;
        Ok(found.map(|map| {
            let bytes = map.binary_data.into_iter().flatten();
            texts(map.data)
                .chain(bytes.map(|(key, value)| (key, value.0)))
                .collect()
        }))
    }

    /// What a ConfigMap gives to environments: its texts only.
    pub async fn config_texts(&self, namespace: &str, name: &str) -> Result<Keys, String> {
        let found = self.config_map_object(namespace, name).await?;
        Ok(found.map(|map| texts(map.data).collect()))
    }

    async fn config_map_object(&self, namespace: &str, name: &str) -> Result<Option<ConfigMap>, String> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        maps.get_opt(name).await.map_err(|error| error.to_string())
    }

    pub async fn secret(&self, namespace: &str, name: &str) -> Result<Keys, String> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = secrets.get_opt(name).await.map_err(|error| error.to_string())?;
        Ok(found.map(|secret| {
            secret
                .data
                .into_iter()
                .flatten()
                .map(|(key, value)| (key, value.0))
                .collect()
        }))
    }

    async fn token(&self, pod: &Pod, audience: Option<String>, life: i64) -> Result<String, String> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let account = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.as_deref())
            .unwrap_or("default");
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: audience.into_iter().collect(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
                expiration_seconds: Some(life),
            },
            ..TokenRequest::default()
        };
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(|error| format!("failed to fetch token: {error}"))?;
        answer
            .status
            .map(|status| status.token)
            .ok_or_else(|| "failed to fetch token: the answer has none".to_owned())
    }
}

/// The files of a ConfigMap, Secret or projected volume: path in the volume, content, mode.
#[derive(Debug, Default)]
struct Files(BTreeMap<PathBuf, (Vec<u8>, u32)>);

impl Files {
    fn put(&mut self, path: &str, content: Vec<u8>, mode: i32) -> Result<(), String> {
        let path = PathBuf::from(path);
        if path.as_os_str().is_empty()
            || path
                .components()
                .any(|part| !matches!(part, Component::Normal(_)))
        {
            return Err(format!("path {} must be relative and without ..", path.display()));
        }
        self.0
            .insert(path, (content, u32::try_from(mode).unwrap_or(0o644)));
        Ok(())
    }

    fn keys(
        &mut self,
        kind: &str,
        name: &str,
        keys: Keys,
        items: Option<&[KeyToPath]>,
        optional: bool,
        mode: i32,
    ) -> Result<(), String> {
        let Some(mut keys) = keys else {
            return if optional {
                Ok(())
            } else {
                Err(format!("{kind} \"{name}\" not found"))
            };
        };
        match items {
            Some(items) if !items.is_empty() => {
                for item in items {
                    match keys.get(&item.key) {
                        Some(content) => self.put(&item.path, content.clone(), item.mode.unwrap_or(mode))?,
                        None if optional => {}
                        None => {
                            return Err(format!(
                                "{kind} \"{name}\" references non-existent key: {}",
                                item.key
                            ));
                        }
                    }
                }
            }
            _ => {
                while let Some((key, content)) = keys.pop_first() {
                    self.put(&key, content, mode)?;
                }
            }
        }
        Ok(())
    }

    fn fields(
        &mut self,
        pod: &Pod,
        items: &[DownwardAPIVolumeFile],
        sources: &Sources,
        mode: i32,
    ) -> Result<(), String> {
        for item in items {
            let mode = item.mode.unwrap_or(mode);
            let text = if let Some(field) = &item.field_ref {
                env::field_value(pod, &field.field_path, &sources.pod_ip, &sources.host_ip)?
            } else if let Some(wanted) = &item.resource_field_ref {
                let name = wanted.container_name.as_deref().unwrap_or_default();
                let spec = pod.spec.as_ref();
                let container =
                    spec.and_then(|spec| spec.containers.iter().find(|container| container.name == name));
                let container = container.ok_or_else(|| format!("container {name} not found"))?;
                env::resource_value(container, &wanted.resource, wanted.divisor.as_ref(), sources)?
            } else {
                continue;
            };
            self.put(&item.path, text.into_bytes(), mode)?;
        }
        Ok(())
    }

    /// Replaces the folder's content at once, in the way of the kubelet: `..data` links to a folder of this version, and
    /// each name links into `..data`, so a reader never sees half of an update.
    fn store(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let data = folder.join("..data");
        let old = fs::read_link(&data).ok();
        if old.as_ref().is_some_and(|old| self.same(&folder.join(old))) {
            return Ok(());
        }
        let version = format!("..{}", jiff::Timestamp::now().as_nanosecond());
        let fresh = folder.join(&version);
        fs::create_dir(&fresh)?;
        for (path, (content, mode)) in &self.0 {
            let file = fresh.join(path);
            if let Some(parent) = file.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&file, content)?;
            fs::set_permissions(&file, fs::Permissions::from_mode(*mode))?;
        }
        let next = folder.join("..data_tmp");
        drop(fs::remove_file(&next));
        symlink(&version, &next)?;
        fs::rename(&next, &data)?;
        let mut names: Vec<_> = self
            .0
            .keys()
            .filter_map(|path| path.components().next())
            .map(|part| part.as_os_str().to_owned())
            .collect();
        names.dedup();
        for name in &names {
            if fs::symlink_metadata(folder.join(name)).is_err() {
                symlink(Path::new("..data").join(name), folder.join(name))?;
            }
        }
        for entry in fs::read_dir(folder)?.flatten() {
            let name = entry.file_name();
            if !name.to_string_lossy().starts_with("..") && !names.contains(&name) {
                fs::remove_file(entry.path())?;
            }
        }
        if let Some(old) = old {
            drop(fs::remove_dir_all(folder.join(old)));
        }
        Ok(())
    }

    fn same(&self, folder: &Path) -> bool {
        fn count(folder: &Path) -> usize {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .map(|entry| {
                    if entry.path().is_dir() {
                        count(&entry.path())
                    } else {
                        1
                    }
                })
                .sum()
        }
        count(folder) == self.0.len()
            && self
                .0
                .iter()
                .all(|(path, (content, _))| fs::read(folder.join(path)).is_ok_and(|found| found == *content))
    }
}

fn texts(data: Option<BTreeMap<String, String>>) -> impl Iterator<Item = (String, Vec<u8>)> {
    let all = data.into_iter().flatten();
    all.map(|(key, value)| (key, value.into_bytes()))
}

fn in_memory(pod: &Pod, volume: &str) -> Option<PathBuf> {
    let shared = Path::new("/dev/shm");
    let uid = pod.metadata.uid.as_deref()?;
    shared
        .is_dir()
        .then(|| shared.join(format!("ferroflow-{uid}")).join(volume))
}

/// Removes what is not in the Pod's folder.
pub fn remove_outside(uid: &str) {
    drop(fs::remove_dir_all(
        Path::new("/dev/shm").join(format!("ferroflow-{uid}")),
    ));
}

fn check_host_path(path: &Path, kind: &str) -> io::Result<()> {
    let wrong = |wanted: &str| {
        Err(io::Error::other(format!(
            "hostPath type check failed: {} is not a {wanted}",
            path.display()
        )))
    };
    match kind {
        "DirectoryOrCreate" => fs::create_dir_all(path),
        "FileOrCreate" => fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map(drop),
        "Directory" if !path.is_dir() => wrong("directory"),
        "File" if !path.is_file() => wrong("file"),
        // Container runtimes make a folder that is missing.
        "" if !path.exists() => fs::create_dir_all(path),
        _ => Ok(()),
    }
}

/// Where a container sees the volumes.
pub fn mounts(
    container: &Container,
    volumes: &HashMap<String, Ready>,
    env: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let mut result = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes
            .get(&mount.name)
            .ok_or_else(|| format!("volume {} not found", mount.name))?;
        let sub = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(text), _) if !text.is_empty() => env::expand(text, env),
            (_, Some(text)) => text.clone(),
            _ => String::new(),
        };
        let mut source = volume.path.clone();
        if !sub.is_empty() {
            if Path::new(&sub)
                .components()
                .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
            {
                return Err(format!("subPath {sub} must be relative and without .."));
            }
            source.push(&sub);
            if !source.exists() {
                fs::create_dir_all(&source).map_err(|error| format!("{}: {error}", source.display()))?;
            }
        }
        let target = Path::new("/").join(&mount.mount_path);
        result.push(Mount {
            source,
            target,
            read_only: volume.read_only || mount.read_only == Some(true),
        });
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(pairs: &[(&str, &str)]) -> Files {
        let mut files = Files::default();
        for (path, content) in pairs {
            files.put(path, content.as_bytes().to_vec(), 0o644).unwrap();
        }
        files
    }

    #[test]
    fn an_update_replaces_all_files_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).ok();
        files(&[("a", "1"), ("deep/b", "2")])
            .store(folder.path())
            .unwrap();
        assert_eq!(
            (read("a").as_deref(), read("deep/b").as_deref()),
            (Some("1"), Some("2"))
        );
        let version = fs::read_link(folder.path().join("..data")).unwrap();
        files(&[("a", "1"), ("deep/b", "2")])
            .store(folder.path())
            .unwrap();
        assert_eq!(
            fs::read_link(folder.path().join("..data")).unwrap(),
            version,
            "nothing changed"
        );
        files(&[("a", "3"), ("c", "4")]).store(folder.path()).unwrap();
        assert_eq!(
            (read("a").as_deref(), read("deep/b"), read("c").as_deref()),
            (Some("3"), None, Some("4"))
        );
        assert!(!folder.path().join(version).exists());
    }

    #[test]
    fn a_path_that_leaves_the_volume_is_refused() {
        for path in ["../x", "/x", "a/../../x", ""] {
            assert!(Files::default().put(path, Vec::new(), 0o644).is_err(), "{path}");
        }
    }
}
