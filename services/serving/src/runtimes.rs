//! The ClusterServingRuntimes that come with Ferroflow.

use crate::domain::ServingConfig;
use ferroflow_api::crd::serving::ClusterServingRuntime;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};

const YAML: &str = include_str!("runtimes.yaml");

/// Tells which runtimes are ours to update: one that lacks it was changed by someone and stays.
const SHIPPED: &str = "serving.ferroflow.dev/shipped";

/// The shipped runtimes with this version's images.
pub fn shipped(config: &ServingConfig) -> anyhow::Result<Vec<ClusterServingRuntime>> {
    let text = YAML
        .replace("${MODELSERVER}", &config.modelserver_image)
        .replace("${LAUNCHER}", &config.launcher_image);
    let mut runtimes: Vec<ClusterServingRuntime> = serde_saphyr::from_str(&text)?;
    for runtime in &mut runtimes {
        runtime.labels_mut().insert(SHIPPED.into(), "true".into());
    }
    Ok(runtimes)
}

/// Creates the shipped runtimes, or brings them up to this version.
pub async fn ensure(client: &Client, config: &ServingConfig) -> anyhow::Result<()> {
    let api: Api<ClusterServingRuntime> = Api::all(client.clone());
    for mut runtime in shipped(config)? {
        let name = runtime.name_any();
        match api.get_opt(&name).await? {
            None => match api.create(&PostParams::default(), &runtime).await {
                Ok(_) => tracing::info!(runtime = name, "serving runtime created"),
                // Another replica was faster.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(error.into()),
            },
            Some(old) if old.labels().contains_key(SHIPPED) && old.spec != runtime.spec => {
                runtime.metadata.resource_version = old.resource_version();
                match api.replace(&name, &PostParams::default(), &runtime).await {
                    Ok(_) => tracing::info!(runtime = name, "serving runtime updated"),
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Some(_) => {}
        }
    }
    Ok(())
}
