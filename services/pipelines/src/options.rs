//! What the composition root decides about the pipelines service.

use std::time::Duration;

/// What the composition root decides about the pipelines service.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the launcher reaches the artifacts service, as a Pod resolves it.
    pub artifacts_url: String,
    /// Where the launcher reaches this service's REST API, as a Pod resolves it.
    pub pipelines_url: String,
    /// The image with the launcher, mounted into every step as an image volume.
    pub launcher_image: String,
    /// URI below which outputs go unless a run or pipeline says otherwise.
    pub pipeline_root: String,
    /// Environment variables of every step, after those of the artifact credentials.
    pub step_env: Vec<(String, String)>,
    /// As whom steps run unless a run says otherwise.
    pub step_service_account: String,
    /// Where launchers send their spans, as a Pod resolves it: an OTLP collector that speaks gRPC.
    pub collector: Option<String>,
    /// At most so many Pods of steps at a time.
    pub max_pods: usize,
    /// How long an image may fail to be pulled before the attempt fails.
    pub image_grace: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            artifacts_url: "http://artifacts.kubeflow".to_owned(),
            pipelines_url: "http://ml-pipeline.kubeflow:8888".to_owned(),
            launcher_image: "ghcr.io/ferroflow/launcher:v0.1.0".to_owned(),
            pipeline_root: "s3://mlpipeline/v2/artifacts".to_owned(),
            step_env: Vec::new(),
            step_service_account: "default-editor".to_owned(),
            collector: None,
            max_pods: 200,
            image_grace: Duration::from_secs(10),
        }
    }
}
