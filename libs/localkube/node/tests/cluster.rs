//! The agent against the real API server of localkube, in this process; and in one of its own where it is killed.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a failed test"
)]

#[path = "support/cluster.rs"]
mod cluster;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster::{Cluster, phase};
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Secret};
use kube::api::{AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LIMIT: Duration = Duration::from_secs(30);

/// Not below /tmp, which containers have of their own.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

async fn start(folder: &tempfile::TempDir) -> (Cluster, Api<Pod>) {
    let executable = PathBuf::from(env!("CARGO_BIN_EXE_localkube-node-test"));
    let cluster = Cluster::start(folder.path(), &executable).await.unwrap();
    let pods = Api::namespaced(cluster.client.clone(), "default");
    (cluster, pods)
}

fn pod(name: &str, spec: Value) -> Pod {
    let mut spec = spec;
    spec["nodeName"] = json!("test-node");
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec}))
        .unwrap()
}

fn step(name: &str, script: &str) -> Pod {
    let container = json!({"name": "main", "image": "busybox", "command": ["sh", "-c", script]});
    pod(name, json!({"restartPolicy": "Never", "containers": [container]}))
}

async fn create(pods: &Api<Pod>, pod: &Pod) -> Pod {
    pods.create(&PostParams::default(), pod).await.unwrap()
}

async fn until(pods: &Api<Pod>, name: &str, what: &str, condition: impl Fn(&Pod) -> bool) -> Pod {
    let waiting = await_condition(pods.clone(), name, |pod: Option<&Pod>| {
        pod.is_some_and(&condition)
    });
    match tokio::time::timeout(LIMIT, waiting).await {
        Ok(found) => found.unwrap().unwrap(),
        Err(_) => {
            let status = pods
                .get(name)
                .await
                .map(|pod| serde_json::to_string_pretty(&pod.status).unwrap());
            panic!("not within {LIMIT:?}: {what}; the Pod: {status:?}")
        }
    }
}

async fn over(pods: &Api<Pod>, name: &str) -> Pod {
    until(pods, name, "the Pod ends", |pod| {
        matches!(phase(pod), "Succeeded" | "Failed")
    })
    .await
}

fn exit_code(pod: &Pod) -> Option<i32> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

fn waiting(pod: &Pod) -> Option<(String, String)> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let waiting = status.state.as_ref()?.waiting.clone()?;
    Some((waiting.reason?, waiting.message.unwrap_or_default()))
}

async fn logs(pods: &Api<Pod>, name: &str) -> String {
    pods.logs(name, &LogParams::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_sees_what_its_pod_gives_it() {
    let folder = folder();
    let (cluster, pods) = start(&folder).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "default");
    let map =
        serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"rate": "0.1"}})).unwrap();
    let secret =
        serde_json::from_value(json!({"metadata": {"name": "keys"}, "stringData": {"k": "hush"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let script = "echo $RATE $KEY $NAME $IP $EXPANDED; cat /etc/settings/rate; echo; \
        cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo; \
        test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token; \
        grep -c BEGIN /var/run/secrets/kubernetes.io/serviceaccount/ca.crt; pwd; hostname; echo end > /data/x; exit 3";
    let spec = json!({
        "restartPolicy": "Never",
        "volumes": [{"name": "settings", "configMap": {"name": "settings"}}, {"name": "data", "emptyDir": {}}],
        "containers": [{
            "name": "main", "image": "busybox", "command": ["sh", "-c", script], "workingDir": "/kfp-workspace/a",
            "volumeMounts": [{"name": "settings", "mountPath": "/etc/settings"}, {"name": "data", "mountPath": "/data"}],
            "env": [
                {"name": "RATE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "rate"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "EXPANDED", "value": "$(NAME)-x"}
            ]
        }]
    });
    create(&pods, &pod("step", spec)).await;
    let done = over(&pods, "step").await;
    let status = done.status.clone().unwrap();
    assert_eq!((phase(&done), exit_code(&done)), ("Failed", Some(3)));
    let ip = status.pod_ip.unwrap();
    let wanted = format!("0.1 hush step {ip} step-x\n0.1\ndefault\ntoken\n1\n/kfp-workspace/a\nstep\n");
    assert_eq!(logs(&pods, "step").await, wanted);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pods_listen_on_one_port_and_are_reached_by_address() {
    let folder = folder();
    let (cluster, pods) = start(&folder).await;
    for name in ["one", "two"] {
        let script =
            format!("mkdir -p /srv/x; cd /srv/x; echo {name} > index.html; exec python3 -m http.server 8080");
        let container = json!({"name": "main", "image": "busybox", "command": ["sh", "-c", script],
            "readinessProbe": {"httpGet": {"port": 8080}}});
        create(&pods, &pod(name, json!({"containers": [container]}))).await;
    }
    for name in ["one", "two"] {
        let ready = until(&pods, name, "the Pod is ready", |pod| {
            let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
            conditions.is_some_and(|all| {
                all.iter()
                    .any(|known| known.type_ == "Ready" && known.status == "True")
            })
        })
        .await;
        let ip = ready.status.unwrap().pod_ip.unwrap();
        let body = reqwest_get(&format!("{ip}:8080")).await;
        assert!(body.ends_with(&format!("{name}\n")), "{body}");
        let mut forwarded = pods.portforward(name, &[8080]).await.unwrap();
        let mut stream = forwarded.take_stream(8080).unwrap();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        let mut text = String::new();
        tokio::time::timeout(LIMIT, stream.read_to_string(&mut text))
            .await
            .expect("the answer ends")
            .unwrap();
        assert!(text.ends_with(&format!("{name}\n")), "forwarded: {text}");
    }
    cluster.stop().await;
}

async fn reqwest_get(address: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_pod_ends_politely_and_leaves_nothing() {
    let folder = folder();
    let (cluster, pods) = start(&folder).await;
    let made = create(
        &pods,
        &step(
            "long",
            "trap 'echo bye; exit 0' TERM; echo up; while true; do sleep 0.05; done",
        ),
    )
    .await;
    until(&pods, "long", "it runs", |pod| phase(pod) == "Running").await;
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let mut followed = pods.log_stream("long", &params).await.unwrap().lines();
    let mut text = Vec::new();
    let follow = async {
        while let Some(line) = followed.try_next().await.unwrap() {
            if line == "up" {
                pods.delete("long", &DeleteParams::default()).await.unwrap();
            }
            text.push(line);
        }
    };
    tokio::time::timeout(LIMIT, follow)
        .await
        .expect("the log ends with the Pod");
    assert_eq!(text, ["up", "bye"]);
    let uid = made.metadata.uid.clone().unwrap();
    let gone = kube::runtime::conditions::is_deleted(&uid);
    tokio::time::timeout(LIMIT, await_condition(pods.clone(), "long", gone))
        .await
        .expect("the Pod is removed")
        .unwrap();
    let place = folder.path().join("node/pods").join(&uid);
    let deadline = Instant::now() + LIMIT;
    while place.exists() {
        assert!(Instant::now() < deadline, "{} stays", place.display());
        tokio::task::yield_now().await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_config_map_is_seen_by_a_running_pod() {
    let folder = folder();
    let (cluster, pods) = start(&folder).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let map = serde_json::from_value(json!({"metadata": {"name": "live"}, "data": {"v": "1"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    let container = json!({"name": "main", "image": "busybox", "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "command": ["sh", "-c", "while [ $(cat /v/v) = 1 ]; do sleep 0.02; done; cat /v/v"]});
    let spec = json!({"restartPolicy": "Never", "volumes": [{"name": "v", "configMap": {"name": "live"}}], "containers": [container]});
    create(&pods, &pod("reader", spec)).await;
    until(&pods, "reader", "it runs", |pod| phase(pod) == "Running").await;
    maps.patch(
        "live",
        &PatchParams::default(),
        &Patch::Merge(json!({"data": {"v": "2"}})),
    )
    .await
    .unwrap();
    assert_eq!(phase(&over(&pods, "reader").await), "Succeeded");
    assert_eq!(logs(&pods, "reader").await, "2");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_says_what_holds_limits_and_a_pod_over_its_limit_says_so() {
    let folder = folder();
    let (cluster, pods) = start(&folder).await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let node = nodes.get("test-node").await.unwrap();
    let limits = node.metadata.annotations.unwrap()["ferroflow.io/limits"].clone();
    let container = json!({"name": "main", "image": "busybox", "command": ["tail", "/dev/zero"],
        "resources": {"limits": {"memory": "48Mi"}}});
    if limits.starts_with("none: ") {
        eprintln!("SKIPPED: limits are held by {limits}");
    } else {
        assert!(limits.starts_with("cgroup-v"), "{limits}");
        let spec = json!({"restartPolicy": "Never", "containers": [container]});
        create(&pods, &pod("hungry", spec)).await;
        let ended = over(&pods, "hungry").await;
        let status = &ended.status.unwrap().container_statuses.unwrap()[0];
        let terminated = status.state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!(
            (terminated.exit_code, terminated.reason.as_deref()),
            (137, Some("OOMKilled"))
        );
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_event_is_counted() {
    let folder = folder();
    let (cluster, pods) = start(&folder).await;
    let container = json!({"name": "main", "image": "busybox", "command": ["true"],
        "envFrom": [{"configMapRef": {"name": "absent"}}]});
    create(&pods, &pod("waits", json!({"containers": [container]}))).await;
    let events: Api<Event> = Api::namespaced(cluster.client.clone(), "default");
    let deadline = Instant::now() + LIMIT;
    loop {
        let all = events.list(&ListParams::default()).await.unwrap().items;
        let failed: Vec<&Event> = all
            .iter()
            .filter(|event| event.reason.as_deref() == Some("Failed"))
            .collect();
        assert!(failed.len() < 2, "told twice: {failed:?}");
        if failed.iter().any(|event| event.count.unwrap() > 1) {
            break;
        }
        assert!(Instant::now() < deadline, "not repeated: {all:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_says_why() {
    let folder = folder();
    let (cluster, pods) = start(&folder).await;
    let image = json!({"name": "main", "image": "registry.example/nothing-maps-this:1", "command": ["true"]});
    create(&pods, &pod("image", json!({"containers": [image]}))).await;
    let key = json!({"name": "main", "image": "busybox", "command": ["true"],
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "k"}}}]});
    create(
        &pods,
        &pod("config", json!({"restartPolicy": "Never", "containers": [key]})),
    )
    .await;
    let found = until(&pods, "image", "the image is refused", |pod| {
        waiting(pod).is_some_and(|(reason, _)| reason == "ErrImagePull" || reason == "ImagePullBackOff")
    })
    .await;
    assert!(
        waiting(&found).unwrap().1.contains("nothing-maps-this"),
        "{:?}",
        waiting(&found)
    );
    let found = until(&pods, "config", "the missing map is told", |pod| {
        waiting(pod).is_some_and(|(reason, _)| reason == "CreateContainerConfigError")
    })
    .await;
    assert_eq!(waiting(&found).unwrap().1, "configmap \"absent\" not found");
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "default");
    let map = serde_json::from_value(json!({"metadata": {"name": "absent"}, "data": {"k": "v"}})).unwrap();
    maps.create(&PostParams::default(), &map).await.unwrap();
    assert_eq!(
        phase(&over(&pods, "config").await),
        "Succeeded",
        "it starts once the map is there"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_in_a_container_through_the_api_server() {
    let folder = folder();
    let (cluster, pods) = start(&folder).await;
    create(&pods, &step("host", "touch /only-here; exec sleep 600")).await;
    until(&pods, "host", "it runs", |pod| phase(pod) == "Running").await;
    let command = ["sh", "-c", "cat; ls /only-here; exit 4"];
    let mut process = pods
        .exec(
            "host",
            command,
            &AttachParams::default().stdin(true).stdout(true).stderr(true),
        )
        .await
        .unwrap();
    let (mut stdin, mut stdout) = (process.stdin().unwrap(), process.stdout().unwrap());
    let status = process.take_status().unwrap();
    stdin.write_all(b"typed\n").await.unwrap();
    stdin.shutdown().await.unwrap();
    drop(stdin);
    let mut text = String::new();
    tokio::time::timeout(LIMIT, stdout.read_to_string(&mut text))
        .await
        .expect("the output ends")
        .unwrap();
    assert_eq!(text, "typed\n/only-here\n");
    let status = status.await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    cluster.stop().await;
}

/// Whether a process of this machine has these arguments.
fn runs(arguments: &[&str]) -> bool {
    let wanted = arguments.iter().flat_map(|one| [one.as_bytes(), b"\0"]);
    let wanted = wanted.collect::<Vec<_>>().concat();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|found| found == wanted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_its_silent_command_with_it() {
    let folder = folder();
    let (cluster, pods) = start(&folder).await;
    create(&pods, &step("host", "exec sleep 600")).await;
    until(&pods, "host", "it runs", |pod| phase(pod) == "Running").await;
    let seconds = format!("{}", 1_000_000 + std::process::id());
    let command = ["sleep", &seconds];
    let process = pods
        .exec("host", command, &AttachParams::default())
        .await
        .unwrap();
    let deadline = Instant::now() + LIMIT;
    while !runs(&command) {
        assert!(Instant::now() < deadline, "the command does not start");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    process.abort();
    while runs(&command) {
        assert!(Instant::now() < deadline, "the command goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.stop().await;
}

/// `examples/local`: API server and agent in a process that can be killed.
struct Up(Child);

impl Up {
    async fn start(folder: &tempfile::TempDir) -> (Self, Client) {
        let kubeconfig = folder.path().join("kubeconfig");
        drop(std::fs::remove_file(&kubeconfig));
        let me = std::env::current_exe().unwrap();
        let program = me.parent().unwrap().parent().unwrap().join("examples/local");
        let child = Command::new(program)
            .arg(folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + LIMIT;
        while !kubeconfig.exists() {
            assert!(Instant::now() < deadline, "the API server did not start");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let config = kube::config::Kubeconfig::read_from(&kubeconfig).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default())
            .await
            .unwrap();
        (Self(child), Client::try_from(config).unwrap())
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_the_next_agent_adopts_what_runs_and_settles_what_ended() {
    let folder = folder();
    let (up, client) = Up::start(&folder).await;
    let pods: Api<Pod> = Api::namespaced(client, "default");
    let gate = folder.path().join("gate");
    std::fs::create_dir(&gate).unwrap();
    let volume = json!([{"name": "gate", "hostPath": {"path": gate}}]);
    for (name, script) in [
        (
            "ended",
            "echo a; while [ ! -e /gate/first ]; do sleep 0.02; done; touch /gate/done; exit 11",
        ),
        (
            "lives",
            "echo b; while [ ! -e /gate/second ]; do sleep 0.02; done; echo c; exit 12",
        ),
    ] {
        let container = json!({"name": "main", "image": "busybox", "command": ["sh", "-c", script],
            "volumeMounts": [{"name": "gate", "mountPath": "/gate"}]});
        let mut object = pod(
            name,
            json!({"restartPolicy": "Never", "volumes": volume, "containers": [container]}),
        );
        object.spec.as_mut().unwrap().node_name = Some("local".to_owned());
        create(&pods, &object).await;
        until(&pods, name, "it runs", |pod| phase(pod) == "Running").await;
    }
    up.kill();
    std::fs::write(gate.join("first"), "").unwrap();
    let deadline = Instant::now() + LIMIT;
    while !gate.join("done").exists() {
        assert!(Instant::now() < deadline, "the step stopped with its agent");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (up, client) = Up::start(&folder).await;
    let pods: Api<Pod> = Api::namespaced(client, "default");
    assert_eq!(exit_code(&over(&pods, "ended").await), Some(11));
    assert_eq!(phase(&pods.get("lives").await.unwrap()), "Running");
    std::fs::write(gate.join("second"), "").unwrap();
    assert_eq!(exit_code(&over(&pods, "lives").await), Some(12));
    assert_eq!(logs(&pods, "lives").await, "b\nc\n");
    up.kill();
    // Finished Pods have no shim, so nothing is left behind.
}
