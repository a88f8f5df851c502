//! Which paths belong to which service: the same on a laptop and on a cluster.

use ferroflow_gateway::{Route, Upstream};

/// Path prefix, what is stripped of it, whether it is open, and the service.
const PATHS: &[(&str, &str, bool, &str)] = &[
    ("/apis/v2beta1", "", false, "pipelines"),
    ("/apis/v1beta1", "", false, "pipelines"),
    ("/apis/v1alpha1", "", false, "pipelines"),
    ("/pipeline/apis", "/pipeline", false, "pipelines"),
    ("/apis/ferroflow/v1/pipelines", "", false, "pipelines"),
    ("/apis/ferroflow/v1/pipelines/hints", "", true, "pipelines"),
    ("/apis/ferroflow/v1/metadata", "", false, "metadata"),
    ("/api/model_registry", "", false, "metadata"),
    ("/api/model_catalog", "", false, "metadata"),
    ("/api/2.0/mlflow", "", false, "metadata"),
    ("/artifacts/v1", "", true, "artifacts"),
    ("/s3", "", true, "artifacts"),
    ("/apis/ferroflow/v1/tuning", "", false, "tuning"),
    ("/apis/ferroflow/v1/training", "", false, "training"),
];

/// The routes of one service at `upstream`.
pub(crate) fn of(service: &str, upstream: &Upstream) -> Vec<Route> {
    let own = PATHS.iter().filter(|(.., owner)| *owner == service);
    own.map(|(key, strip, open, _)| Route {
        key: (*key).to_owned(),
        strip: (*strip).to_owned(),
        open: *open,
        upstream: upstream.clone(),
    })
    .collect()
}

/// The routes of a service's gRPC names.
pub(crate) fn grpc(names: &[&str], upstream: &Upstream) -> Vec<Route> {
    let route = |name: &&str| Route {
        key: (*name).to_owned(),
        strip: String::new(),
        open: false,
        upstream: upstream.clone(),
    };
    names.iter().map(route).collect()
}
