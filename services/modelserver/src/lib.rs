//! The data plane of serving: one process that holds one model and answers V1 and V2 (Open Inference) requests.
//!
//! - [`codec`] and [`json`]: requests straight from bytes into contiguous typed buffers, and back;
//! - [`xgboost`]: a tree walker of our own; [`model`]: engines behind one interface;
//! - [`server`]: HTTP/1.1; [`grpc`]: V2 over gRPC. A client's fault is always a 4xx that names the model, the tensor and the field.

pub mod args;
pub mod codec;
pub mod fetch;
pub mod grpc;
pub mod json;
pub mod model;
pub mod protocol;
pub mod server;
pub mod worker;
pub mod xgboost;

use anyhow::Context;
use args::{Cli, Command, Serve};
use clap::Parser;
use ferroflow_telemetry::{LogFormat, TelemetryOptions};
use model::{Format, Model, OnnxModel, XgboostModel};
use server::{Limits, Server};
use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use worker::{WorkerOptions, Workers};

/// Time that requests have to finish after SIGTERM; Kubernetes gives 30 s by default.
const GRACE: Duration = Duration::from_secs(25);

/// Runs the process; `args` begin with the program's name. A failure is told on standard error and, inside a Pod, in its
/// termination message.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            let _closed = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("{error:#}");
            let _closed = writeln!(std::io::stderr(), "error: {text}");
            termination_message(&text);
            ExitCode::FAILURE
        }
    }
}

/// Kubernetes shows this file's text in the container's status. It exists only inside a Pod.
fn termination_message(text: &str) {
    if let Ok(mut file) = std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open("/dev/termination-log")
    {
        let _best_effort = file.write_all(text.as_bytes());
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(workers) = cli.serve.workers {
        anyhow::ensure!(workers > 0, "--workers is 0, expected 1 or more");
        builder.worker_threads(workers);
    }
    let runtime = builder.enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let _flushed_at_the_end = ferroflow_telemetry::init(&telemetry()).context("cannot set up logs")?;
        match cli.command {
            Some(Command::Fetch { uri, target }) => fetch::fetch(&uri, &target).await,
            None => serve(cli.serve).await,
        }
    })
}

/// Logs and spans, by the variables that every OpenTelemetry program knows.
fn telemetry() -> TelemetryOptions {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    TelemetryOptions {
        service: "modelserver".into(),
        filter: variable("RUST_LOG").unwrap_or_else(|| "info".into()),
        format: LogFormat::Text,
        otlp_endpoint: variable("OTEL_EXPORTER_OTLP_ENDPOINT"),
    }
}

/// Listens, loads the model, and serves until SIGTERM or SIGINT.
async fn serve(serve: Serve) -> anyhow::Result<()> {
    let stopping = CancellationToken::new();
    let limits = Limits {
        body: serve.max_request_bytes,
        ..Limits::default()
    };
    let server = Arc::new(Server::new(serve.model_name.clone(), limits, stopping.clone()));
    let address = SocketAddr::new(serve.host, serve.http_port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    let http = tokio::spawn(server::serve(server.clone(), listener_said(listener)?));
    let grpc = match serve.grpc_port {
        Some(port) => {
            let address = SocketAddr::new(serve.host, port);
            let listener = TcpListener::bind(address)
                .await
                .with_context(|| format!("cannot listen on {address}"))?;
            let address = listener.local_addr().context("no local address")?;
            let _closed = writeln!(std::io::stdout(), "listening on grpc://{address}");
            Some(tokio::spawn(grpc::serve(
                server.clone(),
                listener,
                stopping.clone(),
            )))
        }
        None => None,
    };
    let name = serve.model_name.clone();
    let loading = tokio::spawn(async move { load(&serve).await });
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::pin!(stop);
    tokio::select! {
        loaded = loading => {
            let model = loaded.context("loading stopped")?.with_context(|| format!("cannot load model {name:?}"))?;
            server.set_model(model);
            tracing::info!(model = name, "model loaded");
        }
        () = &mut stop => return Ok(()),
    }
    stop.await;
    stopping.cancel();
    let ended = async {
        http.await
            .context("the server stopped")?
            .context("the server failed")?;
        match grpc {
            Some(grpc) => grpc
                .await
                .context("the gRPC server stopped")?
                .context("the gRPC server failed"),
            None => Ok(()),
        }
    };
    match tokio::time::timeout(GRACE, ended).await {
        Ok(ended) => ended,
        Err(_) => {
            tracing::warn!("requests were cut off after {} s", GRACE.as_secs());
            Ok(())
        }
    }
}

/// Prints where the server listens, for those who asked for any free port.
fn listener_said(listener: TcpListener) -> anyhow::Result<TcpListener> {
    let address = listener.local_addr().context("no local address")?;
    let _closed = writeln!(std::io::stdout(), "listening on http://{address}");
    Ok(listener)
}

/// Loads the model that the flags name.
pub async fn load(serve: &Serve) -> anyhow::Result<Model> {
    let (path, format) = model::find(&serve.model_dir, serve.format)?;
    match format {
        Format::Xgboost => {
            let rounds = if serve.best_iteration {
                xgboost::Rounds::Best
            } else {
                xgboost::Rounds::All
            };
            let file = path.clone();
            let loaded = tokio::task::spawn_blocking(move || xgboost::load(&file, rounds)).await;
            let booster = loaded
                .context("loading stopped")?
                .with_context(|| path.display().to_string())?;
            Ok(Model::native(Arc::new(XgboostModel::new(booster))))
        }
        Format::Sklearn => {
            let options = WorkerOptions {
                path,
                python: serve.python.clone(),
                processes: serve.python_workers,
                load: Duration::from_secs(serve.load_timeout),
                call: Duration::from_secs(serve.timeout),
                memory: serve.worker_memory_bytes,
                proba: serve.predict_proba,
            };
            Ok(Model::Python(Workers::start(options).await?))
        }
        Format::Onnx => {
            let python = serve.python.clone();
            let loaded = tokio::task::spawn_blocking(move || OnnxModel::load(&path, &python)).await;
            Ok(Model::native(Arc::new(loaded.context("loading stopped")??)))
        }
    }
}
