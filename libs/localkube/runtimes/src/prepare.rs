//! From an image name to a container that can start.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;

use crate::{
    BUILTIN_NAMES, BindMount, ContainerRuntime, ImageError, OpenError, PrepareRequest, RuntimeKind,
    RuntimesConfig, builtin, cache, catalog, change, command_line, container, environments, interpreters,
    packages, reference, resource, uv,
};

/// How long a missing `uv` or Python is believed to be missing.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// Turns images into runtimes. Cheap to clone.
#[derive(Clone)]
pub struct Runtimes {
    inner: Arc<Inner>,
}

struct Inner {
    config: RuntimesConfig,
    cache: cache::Cache,
    client: Option<Client>,
    defaults: Vec<catalog::Entry>,
    /// Links to Ferroflow's executable, and the folder of `pip`'s modules.
    links: PathBuf,
    stubs: PathBuf,
    indexes: packages::Indexes,
    machine: tokio::sync::Mutex<Option<(Instant, Arc<Machine>)>>,
    /// Builds are heavy on disk and processor: a few at a time.
    builds: tokio::sync::Semaphore,
}

/// What is found out when the first Python image is prepared.
struct Machine {
    interpreters: Vec<interpreters::Interpreter>,
    uv: Result<uv::Uv, String>,
}

impl Runtimes {
    /// Opens the cache and reads the defaults. Starts no process: interpreters and `uv` are looked for when first needed.
    pub async fn open(config: RuntimesConfig, client: Client) -> Result<Self, OpenError> {
        Self::open_with(config, Some(client)).await
    }

    /// Without an API server: only the defaults that ship with Ferroflow map images.
    pub async fn open_detached(config: RuntimesConfig) -> Result<Self, OpenError> {
        Self::open_with(config, None).await
    }

    async fn open_with(config: RuntimesConfig, client: Option<Client>) -> Result<Self, OpenError> {
        let defaults = catalog::defaults()?;
        let fail = |source| OpenError::CacheDir {
            path: config.cache_dir.clone(),
            source,
        };
        let cache = cache::Cache::open(&config.cache_dir).map_err(fail)?;
        let links = builtin::links(&cache, &config.executable).map_err(fail)?;
        let stubs = builtin::stubs(&cache, &config.executable).map_err(fail)?;
        let indexes = packages::Indexes::from_environment().or(&packages::Indexes::from_pip_conf());
        let sweeping = cache.clone();
        tokio::task::spawn_blocking(move || sweeping.sweep());
        let inner = Inner {
            config,
            cache,
            client,
            defaults,
            links,
            stubs,
            indexes,
            machine: tokio::sync::Mutex::default(),
            builds: tokio::sync::Semaphore::new(4),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Finds out what stands for an image and makes it ready for one container.
    pub async fn prepare(&self, req: PrepareRequest) -> Result<ContainerRuntime, ImageError> {
        let image = reference::Reference::parse(&req.image);
        let entry = self.entry(&req.image, &image).await?;
        let spec = &entry.spec;
        let mut runtime = ContainerRuntime {
            env: spec.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            path: Vec::new(),
            mounts: Vec::new(),
            entrypoint: spec.entrypoint.clone().unwrap_or_default(),
            cmd: spec.cmd.clone().unwrap_or_default(),
            working_dir: spec.working_dir.as_ref().map(PathBuf::from),
            kind: RuntimeKind::Host,
            image_id: format!("ferroflow://host/{}", entry.name),
            warnings: Vec::new(),
        };
        if let Some(python) = &spec.python {
            self.prepare_python(&entry.name, &image, python, &req.container_dir, &mut runtime)
                .await?;
        } else if let Some(builtin) = &spec.builtin {
            let name = self.builtin_name(&req.image, &image, builtin)?;
            runtime.kind = RuntimeKind::Builtin;
            runtime.image_id = format!("ferroflow://builtin/{name}");
            runtime.path = vec![self.inner.links.clone()];
            runtime
                .mounts
                .push(at_its_own_path(self.inner.cache.root(), true));
            if spec.entrypoint.is_none() {
                runtime.entrypoint = vec![self.inner.links.join(name).display().to_string()];
            }
        } else if spec.engine.is_some() {
            return Err(no_engine(&req.image, &entry.name));
        }
        Ok(runtime)
    }

    /// The folder that a Kubernetes image volume of a builtin image shows: a link for each of Ferroflow's executables.
    pub async fn image_volume(&self, reference: &str) -> Result<PathBuf, ImageError> {
        let image = reference::Reference::parse(reference);
        let entry = self.entry(reference, &image).await?;
        match &entry.spec.builtin {
            Some(builtin) => self
                .builtin_name(reference, &image, builtin)
                .map(|_| self.inner.links.clone()),
            None => Err(ImageError::Failed(format!(
                "image volume \"{reference}\": RuntimeImage {} is not builtin; only ghcr.io/ferroflow/* images can be mounted as volumes here",
                entry.name
            ))),
        }
    }

    /// Builds ahead of time what containers of `image` will ask for: each of `installs` is the argument list of one `pip install`,
    /// in the order in which the container will run them.
    pub async fn prebuild(&self, image: &str, installs: &[Vec<String>]) -> Result<(), ImageError> {
        let parsed = reference::Reference::parse(image);
        let entry = self.entry(image, &parsed).await?;
        let Some(spec) = &entry.spec.python else {
            return Ok(());
        };
        let (plan, _) = self.plan(&entry.name, &parsed, spec).await?;
        let mut changes = plan.changes.clone();
        for arguments in installs {
            changes.push(command_line::change_of(arguments, &plan.indexes).map_err(ImageError::Failed)?);
        }
        self.build(plan.interpreter, plan.uv, changes, format!("image \"{image}\""))
            .await
            .map(drop)
    }

    async fn entry(&self, text: &str, image: &reference::Reference) -> Result<catalog::Entry, ImageError> {
        let users = self.user_entries().await;
        catalog::choose(image, &users, &self.inner.defaults)
            .cloned()
            .ok_or_else(|| catalog::not_mapped(text))
    }

    async fn user_entries(&self) -> Vec<catalog::Entry> {
        let Some(client) = self.inner.client.clone() else {
            return Vec::new();
        };
        let api: kube::Api<resource::RuntimeImage> = kube::Api::all(client);
        match api.list(&kube::api::ListParams::default()).await {
            Ok(list) => list
                .items
                .into_iter()
                .map(|i| catalog::Entry {
                    name: i.metadata.name.unwrap_or_default(),
                    spec: i.spec,
                })
                .collect(),
            Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
            Err(e) => {
                tracing::warn!(error = %e, "cannot list runtimeimages; only the built-in ones are used");
                Vec::new()
            }
        }
    }

    fn builtin_name<'a>(
        &self,
        text: &str,
        image: &'a reference::Reference,
        spec: &'a resource::BuiltinRuntime,
    ) -> Result<&'a str, ImageError> {
        let name = spec.name.as_deref().unwrap_or_else(|| image.last());
        if BUILTIN_NAMES.contains(&name) {
            return Ok(name);
        }
        Err(ImageError::Failed(format!(
            "image \"{text}\": ferroflow has no part named {name}; it has {}",
            BUILTIN_NAMES.join(", ")
        )))
    }

    /// Looks once; looks again where something was missing a while ago and may have been installed since.
    async fn machine(&self) -> Result<Arc<Machine>, ImageError> {
        let mut known = self.inner.machine.lock().await;
        if let Some((_, machine)) = known
            .as_ref()
            .filter(|(at, m)| m.uv.is_ok() || at.elapsed() < LOOK_AGAIN)
        {
            return Ok(machine.clone());
        }
        let inner = self.inner.clone();
        let look = move || {
            let interpreters = interpreters::discover(&inner.cache.root().join("interpreters.json"));
            let uv = match interpreters.first() {
                Some(python) => uv::Uv::find(inner.config.uv.as_deref(), &inner.cache, python),
                None => Err("no python3 on PATH".to_owned()),
            };
            Machine { interpreters, uv }
        };
        let found = tokio::task::spawn_blocking(look).await;
        let machine = Arc::new(found.map_err(|e| ImageError::Failed(format!("looking for python: {e}")))?);
        *known = Some((Instant::now(), machine.clone()));
        Ok(machine)
    }

    async fn plan(
        &self,
        name: &str,
        image: &reference::Reference,
        spec: &resource::PythonRuntime,
    ) -> Result<(Plan, Option<String>), ImageError> {
        let machine = self.machine().await?;
        let wish = spec.version.clone().or_else(|| image.python_version());
        let choice = interpreters::choose(&machine.interpreters, wish.as_deref())
            .map_err(|e| ImageError::Failed(format!("runtime image {name}: {e}")))?;
        let indexes = packages::Indexes {
            index_url: spec.index_url.clone(),
            extra_index_urls: spec.extra_index_urls.clone(),
            find_links: spec.find_links.clone(),
            ..packages::Indexes::default()
        }
        .or(&self.inner.indexes);
        let version = image.version();
        let packages: Vec<String> = spec
            .packages
            .iter()
            .map(|p| with_version(p, version.as_deref()))
            .collect();
        let changes = if packages.is_empty() {
            Vec::new()
        } else {
            vec![change::Change::install(&packages, indexes.clone())]
        };
        Ok((
            Plan {
                interpreter: choice.interpreter,
                uv: machine.uv.clone(),
                indexes,
                changes,
            },
            choice.warning,
        ))
    }

    async fn build(
        &self,
        python: interpreters::Interpreter,
        uv: Result<uv::Uv, String>,
        changes: Vec<change::Change>,
        what: String,
    ) -> Result<environments::Environment, ImageError> {
        let failed = |e: String| ImageError::Failed(e);
        // what is built already never waits behind what is being built
        let here = environments::Environments {
            cache: &self.inner.cache,
            python: &python,
            uv: uv.as_ref().map_err(String::as_str),
        };
        if let Some(known) = here.known(&changes) {
            return Ok(known);
        }
        let _permit = self
            .inner
            .builds
            .acquire()
            .await
            .map_err(|e| failed(e.to_string()))?;
        let inner = self.inner.clone();
        let work = move || {
            let uv = uv.as_ref().map_err(String::as_str);
            let environments = environments::Environments {
                cache: &inner.cache,
                python: &python,
                uv,
            };
            let mut environment = environments.base()?;
            for change in &changes {
                let private = inner.cache.unfinished("private");
                environment = environments.apply(&environment, change, &private, &mut |line| {
                    tracing::debug!(line, "uv");
                })?;
            }
            Ok::<_, environments::BuildError>(environment)
        };
        let built = tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| failed(e.to_string()))?;
        built.map_err(|e| failed(format!("{what}: python environment cannot be built: {}", e.0)))
    }

    async fn prepare_python(
        &self,
        name: &str,
        image: &reference::Reference,
        spec: &resource::PythonRuntime,
        container_dir: &Path,
        runtime: &mut ContainerRuntime,
    ) -> Result<(), ImageError> {
        let (plan, warning) = self.plan(name, image, spec).await?;
        let environment = self
            .build(
                plan.interpreter.clone(),
                plan.uv.clone(),
                plan.changes,
                format!("runtime image {name}"),
            )
            .await?;
        runtime.kind = RuntimeKind::Python;
        runtime.image_id = format!(
            "ferroflow://python/{}/{}",
            plan.interpreter.version(),
            environment.key
        );
        runtime.warnings.extend(warning);
        let state = container::State {
            cache_dir: self.inner.cache.root().to_owned(),
            python: plan.interpreter,
            uv: plan.uv,
            indexes: plan.indexes,
            environment,
            stubs: self.inner.stubs.clone(),
        };
        let root = container_dir.join("python");
        let created = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(root.parent().unwrap_or(&root))?;
            container::ContainerPython::create(&root, state)
        });
        let fail = |e: String| {
            ImageError::Failed(format!(
                "python environment of the container in {}: {e}",
                container_dir.display()
            ))
        };
        let python = created
            .await
            .map_err(|e| fail(e.to_string()))?
            .map_err(|e| fail(e.to_string()))?;
        runtime.path = python.path();
        // pip inside the container builds shared environments
        runtime
            .mounts
            .push(at_its_own_path(self.inner.cache.root(), false));
        let uv_cache = python
            .state
            .uv
            .as_ref()
            .ok()
            .and_then(|uv| uv.env.get("UV_CACHE_DIR"))
            .map(PathBuf::from);
        if let Some(dir) = uv_cache.filter(|d| d.is_dir() && !d.starts_with(self.inner.cache.root())) {
            runtime.mounts.push(at_its_own_path(&dir, false));
        }
        let mut set = |key: &str, value: String| {
            if !runtime.env.iter().any(|(k, _)| k == key) {
                runtime.env.push((key.to_owned(), value));
            }
        };
        set("VIRTUAL_ENV", python.root().display().to_string());
        set("PYTHONNOUSERSITE", "1".to_owned());
        // as in the official images
        set("LANG", "C.UTF-8".to_owned());
        set("PYTHON_VERSION", python.state.python.version());
        Ok(())
    }
}

fn at_its_own_path(dir: &Path, read_only: bool) -> BindMount {
    BindMount {
        source: dir.to_owned(),
        target: dir.to_owned(),
        read_only,
    }
}

/// What an image's Python is made of.
struct Plan {
    interpreter: interpreters::Interpreter,
    uv: Result<uv::Uv, String>,
    indexes: packages::Indexes,
    changes: Vec<change::Change>,
}

/// Puts the image's version into a requirement, or leaves the version out.
fn with_version(requirement: &str, version: Option<&str>) -> String {
    match version {
        Some(version) => requirement.replace("{version}", version),
        None => ["==", "~=", ">=", "<="]
            .iter()
            .fold(requirement.to_owned(), |r, op| {
                r.replace(&format!("{op}{{version}}"), "")
            }),
    }
}

fn no_engine(image: &str, name: &str) -> ImageError {
    let found = std::env::var_os("PATH").and_then(|p| {
        std::env::split_paths(&p).find_map(|f| ["podman", "docker"].into_iter().find(|e| f.join(e).is_file()))
    });
    ImageError::Failed(match found {
        Some(engine) => format!(
            "image \"{image}\": RuntimeImage {name} asks for a container engine; {engine} is installed, but running Pods by an engine is not supported yet; \
             map the image to `python` or `host` instead"
        ),
        None => format!(
            "image \"{image}\": RuntimeImage {name} asks for a container engine, and neither podman nor docker is on PATH; \
             map the image to `python` or `host` instead"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_goes_into_requirements_or_out_of_them() {
        assert_eq!(
            with_version("tensorflow=={version}; x", Some("2.13.0")),
            "tensorflow==2.13.0; x"
        );
        assert_eq!(with_version("tensorflow=={version}; x", None), "tensorflow; x");
        assert_eq!(with_version("numpy", Some("1")), "numpy");
    }
}
