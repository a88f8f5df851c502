//! The command line, with the flag names that KServe's own runtimes take.

use crate::model::Format;
use clap::{Args, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;

/// Serves one model over the V1 and V2 inference protocols.
#[derive(Debug, Parser)]
#[command(name = "modelserver", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// Other things than serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Copies a model from its URI into a folder (the storage initializer of a predictor Pod).
    Fetch {
        /// s3://, gs://, https://, file://, pvc:// or Azure blob URI of a file or a folder.
        uri: String,
        /// Folder to copy into.
        #[arg(default_value = "/mnt/models")]
        target: PathBuf,
    },
}

/// Flags of serving.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// Name of the model in the paths.
    #[arg(
        long = "model_name",
        alias = "model-name",
        env = "MODEL_NAME",
        default_value = "model"
    )]
    pub model_name: String,
    /// Folder that holds the model, or the file itself.
    #[arg(long = "model_dir", alias = "model-dir", default_value = "/mnt/models")]
    pub model_dir: PathBuf,
    /// Format of the model; found out by name and content when not given.
    #[arg(long)]
    pub format: Option<Format>,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub host: IpAddr,
    /// Port of V1 and V2 REST; 0 takes a free one and prints it.
    #[arg(long = "http_port", alias = "http-port", default_value_t = 8080)]
    pub http_port: u16,
    /// Port of V2 gRPC; not served when not given.
    #[arg(long = "grpc_port", alias = "grpc-port")]
    pub grpc_port: Option<u16>,
    /// Accepted for compatibility; both protocols are always served.
    #[arg(long)]
    pub protocol: Option<String>,
    /// Largest request body in bytes, also after decompression.
    #[arg(long = "max_request_bytes", alias = "max-request-bytes", default_value_t = 64 << 20)]
    pub max_request_bytes: usize,
    /// Threads that serve connections; as many as processors when not given.
    #[arg(long)]
    pub workers: Option<usize>,
    /// Use only the boosting rounds up to best_iteration (XGBoost).
    #[arg(long = "best_iteration", alias = "best-iteration")]
    pub best_iteration: bool,
}
