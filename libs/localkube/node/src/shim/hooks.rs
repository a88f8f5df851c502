//! Stopping a container politely, and the handlers that hooks and probes share.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HTTPGetAction, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::unix::pipe;

use super::container::{Live, readiness};
use super::pod::Shim;
use crate::os::{Command, Space, Stdio, WaitStatus};
use crate::plan::ContainerPlan;

/// Output of a failed probe or hook that is worth telling.
const OUTPUT_LIMIT: usize = 1024;
/// A hook without a limit of its own ends with the stop's deadline; postStart has this one.
const POST_START_LIMIT: Duration = Duration::from_secs(300);

/// preStop hook, polite signal, and the hard one at the deadline.
pub(super) async fn stop(shim: Rc<Shim>, index: usize, live: Rc<Live>, deadline: Timestamp) {
    live.stop_by(deadline);
    let guard = live.clone();
    tokio::task::spawn_local(async move { guard.kill_at_deadline().await });
    let plan = &shim.plan.containers[index];
    let left = deadline.duration_since(Timestamp::now());
    if let Some(hook) = plan
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.pre_stop.as_ref())
        && left.is_positive()
    {
        let outcome = tokio::time::timeout(left.unsigned_abs(), run_hook(&shim, plan, &live, hook)).await;
        if let Ok(Err(error)) = outcome {
            shim.occurred(
                index,
                true,
                "FailedPreStopHook",
                format!("PreStopHook failed: {error}"),
            );
        }
    }
    if !live.ended() {
        live.signal(stop_signal(plan));
    }
}

fn stop_signal(plan: &ContainerPlan) -> i32 {
    let wanted = plan
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    wanted
        .and_then(|name| name.parse::<nix::sys::signal::Signal>().ok())
        .map_or(libc::SIGTERM, |signal| signal as i32)
}

/// Runs the postStart hook, if there is one.
pub(super) async fn post_start(shim: &Shim, index: usize, live: &Live) -> Result<(), String> {
    let plan = &shim.plan.containers[index];
    let Some(hook) = plan
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.post_start.as_ref())
    else {
        return Ok(());
    };
    tokio::time::timeout(POST_START_LIMIT, run_hook(shim, plan, live, hook))
        .await
        .unwrap_or_else(|_| Err(format!("took longer than {} s", POST_START_LIMIT.as_secs())))
}

async fn run_hook(
    shim: &Shim,
    plan: &ContainerPlan,
    live: &Live,
    hook: &LifecycleHandler,
) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        return exec_check(shim, live, exec.command.clone().unwrap_or_default()).await;
    }
    if let Some(get) = &hook.http_get {
        return http_check(shim, plan, get).await;
    }
    if let Some(tcp) = &hook.tcp_socket {
        return tcp_check(shim, plan, tcp.host.as_deref(), &tcp.port).await;
    }
    if let Some(sleep) = &hook.sleep {
        let nap = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::select! {
            () = tokio::time::sleep(nap) => {}
            () = live.kill_at_deadline() => {}
        }
    }
    Ok(())
}

/// Runs a command in the container; anything but exit code 0 is a failure with the command's output.
pub(super) async fn exec_check(shim: &Shim, live: &Live, argv: Vec<String>) -> Result<(), String> {
    let text = |error: io::Error| error.to_string();
    let (writer, mut reader) = pipe::pipe().map_err(text)?;
    let writer = writer.into_blocking_fd().map_err(text)?;
    let stdio = Stdio {
        stdin: OwnedFd::from(std::fs::File::open("/dev/null").map_err(text)?),
        stdout: writer.try_clone().map_err(text)?,
        stderr: writer,
        terminal: false,
    };
    let command = Command {
        argv,
        env: live.env.clone(),
        working_dir: live.working_dir.clone(),
        stdio,
        space: Space::Join(live.joined.clone()),
    };
    let launched = shim
        .spawner
        .launch(command)
        .await
        .map_err(|error| error.to_string())?;
    let guard = EndWithMe(launched.init.try_clone().map_err(text)?);
    let mut output = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(count) if output.len() < OUTPUT_LIMIT => output.extend_from_slice(&buffer[..count]),
            Ok(_) => {}
        }
    }
    drop(
        readiness(launched.init.try_clone().map_err(text)?)
            .map_err(text)?
            .readable()
            .await
            .map_err(text)?,
    );
    let status = launched.wait().map_err(text)?;
    std::mem::forget(guard);
    match status {
        WaitStatus::Exited(0) => Ok(()),
        _ => {
            output.truncate(OUTPUT_LIMIT);
            Err(String::from_utf8_lossy(&output).trim().to_owned())
        }
    }
}

/// A probe that is given up must not leave its command behind.
struct EndWithMe(OwnedFd);

impl Drop for EndWithMe {
    fn drop(&mut self) {
        drop(crate::os::send_signal(&self.0, libc::SIGKILL));
    }
}

fn address(shim: &Shim) -> IpAddr {
    IpAddr::V4(
        shim.plan
            .network
            .as_ref()
            .map_or(Ipv4Addr::LOCALHOST, |network| network.address),
    )
}

fn port(plan: &ContainerPlan, wanted: &IntOrString) -> Result<u16, String> {
    match wanted {
        IntOrString::Int(number) => {
            u16::try_from(*number).map_err(|_| format!("port {number} is not one of 1 to 65535"))
        }
        IntOrString::String(name) => match plan.ports.iter().find(|(known, _)| known == name) {
            Some((_, port)) => Ok(*port),
            None => name
                .parse()
                .map_err(|_| format!("container {} has no port named {name}", plan.name)),
        },
    }
}

async fn dial(
    shim: &Shim,
    plan: &ContainerPlan,
    host: Option<&str>,
    wanted: &IntOrString,
) -> Result<TcpStream, String> {
    let port = port(plan, wanted)?;
    let connected = match host {
        Some(host) if !host.is_empty() => TcpStream::connect((host, port)).await,
        _ => TcpStream::connect((address(shim), port)).await,
    };
    connected.map_err(|error| {
        format!(
            "dial tcp {}:{port}: {error}",
            host.unwrap_or(&address(shim).to_string())
        )
    })
}

pub(super) async fn tcp_check(
    shim: &Shim,
    plan: &ContainerPlan,
    host: Option<&str>,
    port: &IntOrString,
) -> Result<(), String> {
    dial(shim, plan, host, port).await.map(drop)
}

/// A status from 200 to 399 is a success, as for the kubelet.
pub(super) async fn http_check(shim: &Shim, plan: &ContainerPlan, get: &HTTPGetAction) -> Result<(), String> {
    let mut stream = dial(shim, plan, get.host.as_deref(), &get.port).await?;
    if get
        .scheme
        .as_deref()
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"))
    {
        // The kubelet does not verify the certificate either; that something answers is what can be known here.
        return Ok(());
    }
    let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut headers = String::new();
    let mut host = format!("{}:{}", address(shim), port(plan, &get.port)?);
    for header in get.http_headers.iter().flatten() {
        if header.name.eq_ignore_ascii_case("host") {
            host.clone_from(&header.value);
        } else {
            headers.push_str(&format!("{}: {}\r\n", header.name, header.value));
        }
    }
    let request = format!(
        "GET {slash}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: kube-probe/1.35\r\nAccept: */*\r\nConnection: close\r\n{headers}\r\n"
    );
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let mut buffer = [0; 512];
    while !answer.contains(&b'\n') && answer.len() < 4096 {
        match stream
            .read(&mut buffer)
            .await
            .map_err(|error| error.to_string())?
        {
            0 => break,
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
    let line = String::from_utf8_lossy(&answer);
    match line
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse::<u16>().ok())
    {
        Some(code) if (200..400).contains(&code) => Ok(()),
        Some(code) => Err(format!("HTTP probe failed with statuscode: {code}")),
        None => Err("the answer is not HTTP".to_owned()),
    }
}
