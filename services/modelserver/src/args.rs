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
    /// Python interpreter of scikit-learn models.
    #[arg(long, default_value = "python3")]
    pub python: String,
    /// Python processes of a scikit-learn model.
    #[arg(long = "python_workers", alias = "python-workers", default_value_t = 1)]
    pub python_workers: usize,
    /// Seconds that loading may take (scikit-learn).
    #[arg(long = "load_timeout", alias = "load-timeout", default_value_t = 300)]
    pub load_timeout: u64,
    /// Seconds that a prediction may take (scikit-learn).
    #[arg(long, default_value_t = 60)]
    pub timeout: u64,
    /// Bytes of data that a Python process may hold; 0 for no limit.
    #[arg(
        long = "worker_memory_bytes",
        alias = "worker-memory-bytes",
        default_value_t = 0
    )]
    pub worker_memory_bytes: u64,
    /// Answer with probabilities instead of classes (scikit-learn), as KServe's environment variable says.
    #[arg(long = "predict_proba", alias = "predict-proba", env = "PREDICT_PROBA")]
    pub predict_proba: bool,
}
