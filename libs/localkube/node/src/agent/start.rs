//! Getting a Pod ready to run: its turn, its address and shim, its volumes, images and environments.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use localkube_runtimes::{ContainerRuntime, PrepareRequest};
use tokio::sync::mpsc;

use super::Agent;
use super::env::{self, Sources};
use super::quantity;
use super::queue::{Demand, Slot};
use super::status::{self, Hold};
use super::volumes::{self, Ready};
use crate::nursery::ShimLink;
use crate::plan::{ContainerPlan, ContainerSpec, Identity, Mount, PodNetwork, PodPlan, RestartPolicy, Role};
use crate::shim::PLAN;
use crate::state::PodState;

/// Between two tries of a volume or an environment that is not there yet.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(15);
/// Between two tries of an image, as the kubelet backs off.
const IMAGE_RETRY: Duration = Duration::from_secs(10);
const IMAGE_LAST_RETRY: Duration = Duration::from_secs(300);

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the preparing tasks tell the Pod's actor.
pub enum Told {
    Queued(String),
    Slot(Slot),
    Address(Option<Ipv4Addr>),
    Shim(Box<(ShimLink, PodState)>),
    State(Box<PodState>),
    ShimGone,
    Hold {
        container: String,
        hold: Option<Hold>,
    },
    Image {
        container: String,
        id: String,
    },
    Prepared(Box<ContainerSpec>),
    /// a warning for the Pod's events: reason, message, container
    Warn(&'static str, String, Option<String>),
    Note(&'static str, String, Option<String>),
    Failed(String, String),
}

impl std::fmt::Display for Told {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Queued(_) => write!(out, "queued"),
            Self::Slot(_) => write!(out, "slot"),
            Self::Address(address) => write!(out, "address {address:?}"),
            Self::Shim(_) => write!(out, "shim"),
            Self::State(state) => write!(out, "state {}, finished {}", state.seq, state.finished.is_some()),
            Self::ShimGone => write!(out, "shim gone"),
            Self::Hold { container, hold } => write!(out, "hold {container} {hold:?}"),
            Self::Image { container, .. } => write!(out, "image of {container}"),
            Self::Prepared(spec) => write!(out, "prepared {}", spec.name),
            Self::Warn(reason, message, _) | Self::Note(reason, message, _) => {
                write!(out, "{reason}: {message}")
            }
            Self::Failed(reason, message) => write!(out, "failed, {reason}: {message}"),
        }
    }
}

pub type Tell = mpsc::Sender<Told>;

/// A Pod's identity and places.
#[derive(Clone)]
pub struct Context {
    pub agent: Arc<Agent>,
    pub pod: Arc<Pod>,
    pub uid: String,
    pub folder: PathBuf,
    pub tell: Tell,
}

impl Context {
    async fn tell(&self, told: Told) {
        // The actor is gone only when the Pod is.
        drop(self.tell.send(told).await);
    }
}

/// Starts a Pod that has never run here.
pub async fn fresh(context: Context) {
    let agent = &context.agent;
    let queued = context.tell.clone();
    let slot = agent
        .queue
        .enter(Demand::of(&context.pod), move || {
            let text = "the node has no room for this Pod's requests yet; it starts when others have ended"
                .to_owned();
            drop(queued.try_send(Told::Queued(text)));
        })
        .await;
    context.tell(Told::Slot(slot)).await;
    let Ok(permit) = agent.starts.acquire().await else {
        return;
    };
    let address = if host_network(&context.pod) {
        Ok(None)
    } else {
        agent.network.lease(&context.uid).map(Some)
    };
    let address = match address {
        Ok(address) => address,
        Err(error) => {
            return context
                .tell(Told::Failed("NoAddress".to_owned(), error.to_string()))
                .await;
        }
    };
    context.tell(Told::Address(address)).await;
    let shim = async {
        match start_shim(&context, address).await {
            Ok(started) => context.tell(Told::Shim(Box::new(started))).await,
            Err(error) => {
                let message = format!("failed to start the Pod's shim: {error}");
                context
                    .tell(Told::Failed("ShimStartFailed".to_owned(), message))
                    .await;
            }
        }
        drop(permit);
    };
    tokio::join!(shim, containers(&context, address, &|_| true));
}

/// Prepares the containers that an adopted Pod's shim still waits for.
pub async fn rest(context: Context, address: Option<Ipv4Addr>, prepared: Vec<String>) {
    containers(&context, address, &|name| {
        !prepared.iter().any(|known| known == name)
    })
    .await;
}

pub fn host_network(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.host_network == Some(true))
}

pub fn hostname(pod: &Pod) -> String {
    let stated = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.hostname.clone())
        .filter(|name| !name.is_empty());
    let name = stated.or_else(|| pod.metadata.name.clone()).unwrap_or_default();
    name.chars()
        .take(63)
        .collect::<String>()
        .trim_end_matches('-')
        .to_owned()
}

async fn start_shim(context: &Context, address: Option<Ipv4Addr>) -> io::Result<(ShimLink, PodState)> {
    let folder = &context.folder;
    let plan = serde_json::to_vec(&plan(context, address))?;
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    keep_names(context, address)?;
    fs::write(folder.join("plan.json.new"), plan)?;
    fs::rename(folder.join("plan.json.new"), folder.join(PLAN))?;
    context.agent.nursery.start_pod(folder).await?;
    ShimLink::open(folder).await
}

/// The Pod's hosts file: the namespace's names and its own.
pub fn keep_names(context: &Context, address: Option<Ipv4Addr>) -> io::Result<()> {
    let Some(address) = address else { return Ok(()) };
    let spec = context.pod.spec.as_ref();
    let hostname = hostname(&context.pod);
    let namespace = context.pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut own = match spec
        .and_then(|spec| spec.subdomain.as_deref())
        .filter(|name| !name.is_empty())
    {
        Some(domain) => {
            format!(
                "{address}\t{hostname}.{domain}.{namespace}.svc.cluster.local {hostname}.{domain} {hostname}\n"
            )
        }
        None => format!("{address}\t{hostname}\n"),
    };
    for alias in spec.iter().flat_map(|spec| spec.host_aliases.iter().flatten()) {
        let names = alias.hostnames.as_deref().unwrap_or_default().join(" ");
        own.push_str(&format!("{}\t{names}\n", alias.ip));
    }
    context
        .agent
        .network
        .keep_names(&context.uid, namespace, own, &context.folder.join("hosts"))
}

fn plan(context: &Context, address: Option<Ipv4Addr>) -> PodPlan {
    let agent = &context.agent;
    let meta = &context.pod.metadata;
    let spec = context.pod.spec.clone().unwrap_or_default();
    let inits = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| container_plan(container, status::role(container, true)));
    let mains = spec
        .containers
        .iter()
        .map(|container| container_plan(container, Role::Main));
    PodPlan {
        identity: Identity {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            uid: context.uid.clone(),
            boot_id: agent.boot_id.clone(),
        },
        hostname: hostname(&context.pod),
        network: address.map(|address| PodNetwork {
            address,
            service_table: agent.network.table().to_owned(),
        }),
        restart_policy: RestartPolicy::parse(spec.restart_policy.as_deref()),
        containers: inits.chain(mains).collect(),
        active_deadline_seconds: spec.active_deadline_seconds,
        grace_seconds: spec.termination_grace_period_seconds.unwrap_or(30),
        started_at: Timestamp::now(),
        isolation: agent.isolation.clone(),
        cgroups: agent.cgroups.clone(),
        logs: agent.config.logs,
    }
}

fn container_plan(container: &Container, role: Role) -> ContainerPlan {
    let ports = container.ports.iter().flatten();
    ContainerPlan {
        name: container.name.clone(),
        role,
        startup: container.startup_probe.clone(),
        liveness: container.liveness_probe.clone(),
        readiness: container.readiness_probe.clone(),
        lifecycle: container.lifecycle.clone(),
        ports: ports
            .filter_map(|port| Some((port.name.clone()?, u16::try_from(port.container_port).ok()?)))
            .collect(),
        termination_message_from_logs: container.termination_message_policy.as_deref()
            == Some("FallbackToLogsOnError"),
        resources: quantity::resources(container),
    }
}

/// Prepares containers side by side: an init container runs while the next one's image is still made.
async fn containers(context: &Context, address: Option<Ipv4Addr>, wanted: &(dyn Fn(&str) -> bool + Sync)) {
    let Some(spec) = &context.pod.spec else { return };
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    let wanted: Vec<&Container> = all.filter(|container| wanted(&container.name)).collect();
    if wanted.is_empty() {
        return;
    }
    let volumes = volumes_loop(context, address).shared();
    join_all(wanted.into_iter().map(|container| {
        let volumes = volumes.clone();
        async move {
            let (runtime, volumes) = tokio::join!(image_loop(context, container), volumes);
            config_loop(context, container, &runtime, &volumes, address).await;
        }
    }))
    .await;
}

async fn sources(
    context: &Context,
    address: Option<Ipv4Addr>,
    with_references: bool,
) -> Result<Sources, String> {
    let agent = &context.agent;
    let namespace = context.pod.metadata.namespace.as_deref().unwrap_or("default");
    let mut sources = Sources {
        pod_ip: pod_ip(agent, address),
        host_ip: agent.config.node_ip.to_string(),
        cores: agent.capacity.cores as f64,
        memory: agent.capacity.memory_bytes as f64,
        ..Sources::default()
    };
    if with_references {
        let (maps, secrets) = env::references(&context.pod);
        for name in maps {
            let keys = agent.volumes.config_texts(namespace, &name).await?;
            sources.config_maps.insert(name, keys);
        }
        for name in secrets {
            let keys = agent.volumes.secret(namespace, &name).await?;
            sources.secrets.insert(name, keys);
        }
    }
    Ok(sources)
}

pub fn pod_ip(agent: &Agent, address: Option<Ipv4Addr>) -> String {
    address.map_or_else(|| agent.config.node_ip.to_string(), |address| address.to_string())
}

async fn volumes_loop(context: &Context, address: Option<Ipv4Addr>) -> Arc<HashMap<String, Ready>> {
    let mut retry = FIRST_RETRY;
    loop {
        let outcome = match sources(context, address, false).await {
            Ok(sources) => {
                context
                    .agent
                    .volumes
                    .prepare(&context.pod, &context.folder, &sources)
                    .await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(ready) => {
                tracing::debug!(uid = context.uid, "volumes are ready");
                return Arc::new(ready);
            }
            Err(error) => context.tell(Told::Warn("FailedMount", error, None)).await,
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

/// Makes the volumes of a running Pod current.
pub async fn refresh_volumes(agent: &Arc<Agent>, pod: &Arc<Pod>) -> Result<(), String> {
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let address = if host_network(pod) {
        None
    } else {
        agent.network.lease(&uid).ok()
    };
    let (tell, _) = mpsc::channel(1);
    let folder = agent.folder(&uid);
    let context = Context {
        agent: agent.clone(),
        pod: pod.clone(),
        uid,
        folder,
        tell,
    };
    let sources = sources(&context, address, false).await?;
    agent
        .volumes
        .prepare(pod, &context.folder, &sources)
        .await
        .map(drop)
}

async fn image_loop(context: &Context, container: &Container) -> ContainerRuntime {
    let image = container.image.clone().unwrap_or_default();
    let name = container.name.clone();
    let container_dir = container_dir(&context.folder, &name).join("runtime");
    let mut retry = IMAGE_RETRY;
    loop {
        let request = PrepareRequest {
            image: image.clone(),
            container_dir: container_dir.clone(),
        };
        let made = fs::create_dir_all(&container_dir).map_err(|error| error.to_string());
        let outcome = match made {
            Ok(()) => context
                .agent
                .runtimes
                .prepare(request)
                .await
                .map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        let error = match outcome {
            Ok(runtime) => {
                for warning in &runtime.warnings {
                    context
                        .tell(Told::Note("RuntimeImage", warning.clone(), Some(name.clone())))
                        .await;
                }
                context
                    .tell(Told::Image {
                        container: name,
                        id: runtime.image_id.clone(),
                    })
                    .await;
                return runtime;
            }
            Err(error) => error,
        };
        let message = format!("Failed to pull image \"{image}\": {error}");
        context
            .tell(Told::Warn("Failed", message.clone(), Some(name.clone())))
            .await;
        context
            .tell(Told::Warn(
                "Failed",
                "Error: ErrImagePull".to_owned(),
                Some(name.clone()),
            ))
            .await;
        hold(context, &name, "ErrImagePull", message).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {error}");
        hold(context, &name, "ImagePullBackOff", message).await;
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(IMAGE_LAST_RETRY);
    }
}

async fn hold(context: &Context, container: &str, reason: &str, message: String) {
    let hold = Some(Hold {
        reason: reason.to_owned(),
        message,
    });
    context
        .tell(Told::Hold {
            container: container.to_owned(),
            hold,
        })
        .await;
}

fn container_dir(folder: &Path, container: &str) -> PathBuf {
    folder.join("containers").join(container)
}

async fn config_loop(
    context: &Context,
    container: &Container,
    runtime: &ContainerRuntime,
    volumes: &HashMap<String, Ready>,
    address: Option<Ipv4Addr>,
) {
    let mut retry = FIRST_RETRY;
    loop {
        let outcome = match sources(context, address, true).await {
            Ok(sources) => specification(context, container, runtime, volumes, &sources),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(spec) => {
                context
                    .tell(Told::Hold {
                        container: container.name.clone(),
                        hold: None,
                    })
                    .await;
                return context.tell(Told::Prepared(Box::new(spec))).await;
            }
            Err(error) => {
                context
                    .tell(Told::Warn(
                        "Failed",
                        format!("Error: {error}"),
                        Some(container.name.clone()),
                    ))
                    .await;
                hold(context, &container.name, "CreateContainerConfigError", error).await;
            }
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(LAST_RETRY);
    }
}

fn specification(
    context: &Context,
    container: &Container,
    runtime: &ContainerRuntime,
    volumes: &HashMap<String, Ready>,
    sources: &Sources,
) -> Result<ContainerSpec, String> {
    let env = environment(context, container, runtime, sources)?;
    let argv = arguments(container, runtime, &env);
    if argv.is_empty() {
        return Err("no command specified".to_owned());
    }
    let working_dir = container
        .working_dir
        .clone()
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let working_dir = working_dir
        .or_else(|| runtime.working_dir.clone())
        .unwrap_or_else(|| PathBuf::from("/"));
    let message = container
        .termination_message_path
        .clone()
        .filter(|path| !path.is_empty());
    Ok(ContainerSpec {
        name: container.name.clone(),
        mounts: mounts(context, container, runtime, volumes, &env)?,
        argv,
        env,
        working_dir: Path::new("/").join(working_dir),
        termination_message_path: PathBuf::from(message.unwrap_or_else(|| "/dev/termination-log".to_owned())),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        image: container.image.clone().unwrap_or_default(),
        image_id: runtime.image_id.clone(),
    })
}

/// `command` replaces the image's entrypoint (and then its CMD is ignored too), `args` replaces its CMD.
fn arguments(container: &Container, runtime: &ContainerRuntime, env: &[(String, String)]) -> Vec<String> {
    let expand = |texts: &[String]| {
        texts
            .iter()
            .map(|text| env::expand(text, env))
            .collect::<Vec<_>>()
    };
    let command = container.command.as_deref().filter(|command| !command.is_empty());
    let args = container.args.as_deref().filter(|args| !args.is_empty());
    let mut argv = command.map_or_else(|| runtime.entrypoint.clone(), expand);
    match (command, args) {
        (_, Some(args)) => argv.extend(expand(args)),
        (None, None) => argv.extend(runtime.cmd.clone()),
        (Some(_), None) => {}
    }
    argv
}

fn environment(
    context: &Context,
    container: &Container,
    runtime: &ContainerRuntime,
    sources: &Sources,
) -> Result<Vec<(String, String)>, String> {
    let config = &context.agent.config;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let (host, port) = config
        .api_endpoint
        .rsplit_once(':')
        .unwrap_or((&config.api_endpoint, "443"));
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    let mut base = vec![
        pair("HOSTNAME", &hostname(&context.pod)),
        pair("HOME", &home),
        pair("KUBERNETES_SERVICE_HOST", host),
        pair("KUBERNETES_SERVICE_PORT", port),
        pair("KUBERNETES_SERVICE_PORT_HTTPS", port),
    ];
    if container.tty == Some(true) {
        base.push(pair("TERM", "xterm"));
    }
    base.extend(runtime.env.iter().cloned());
    let mut env = env::resolve(&context.pod, container, sources, base)?;
    // The image's folders come first whatever the Pod sets, and the machine's last.
    let position = env.iter().position(|(name, _)| name == "PATH");
    let own = position.map(|position| env.remove(position).1);
    let mut path: Vec<String> = runtime
        .path
        .iter()
        .map(|folder| folder.display().to_string())
        .collect();
    path.extend(own);
    path.push(DEFAULT_PATH.to_owned());
    env.push(("PATH".to_owned(), path.join(":")));
    Ok(env)
}

fn mounts(
    context: &Context,
    container: &Container,
    runtime: &ContainerRuntime,
    volumes: &HashMap<String, Ready>,
    env: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let text = |error: io::Error| error.to_string();
    let own = container_dir(&context.folder, &container.name);
    let mut mounts = volumes::mounts(container, volumes, env)?;
    let mut add = |mount: Mount| {
        if !mounts.iter().any(|known| known.target == mount.target) {
            mounts.push(mount);
        }
    };
    let temporary = own.join("tmp");
    fs::create_dir_all(&temporary).map_err(text)?;
    fs::set_permissions(&temporary, fs::Permissions::from_mode(0o1777)).map_err(text)?;
    add(Mount {
        source: temporary,
        target: PathBuf::from("/tmp"),
        read_only: false,
    });
    let hosts = context.folder.join("hosts");
    if !host_network(&context.pod) {
        add(Mount {
            source: hosts,
            target: PathBuf::from("/etc/hosts"),
            read_only: false,
        });
    }
    for (index, path) in context.agent.config.hidden_paths.iter().enumerate() {
        let empty = own.join("hidden").join(index.to_string());
        fs::create_dir_all(&empty).map_err(text)?;
        add(Mount {
            source: empty,
            target: path.clone(),
            read_only: false,
        });
    }
    for mount in &runtime.mounts {
        add(Mount {
            source: mount.source.clone(),
            target: mount.target.clone(),
            read_only: mount.read_only,
        });
    }
    // Made after the container has started, or below a folder that is private to it: seen only if bound.
    for path in context
        .agent
        .config
        .shared_paths
        .iter()
        .chain([&own.join("runtime")])
    {
        if path.exists() {
            add(Mount {
                source: path.clone(),
                target: path.clone(),
                read_only: false,
            });
        }
    }
    let executable = &context.agent.config.executable;
    if executable.starts_with("/tmp") {
        add(Mount {
            source: executable.clone(),
            target: executable.clone(),
            read_only: true,
        });
    }
    Ok(mounts)
}
