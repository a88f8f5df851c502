//! gRPC: notebooks as dashboards list them.

use std::sync::Arc;

use ferroflow_api::crd::notebooks::Notebook as Resource;
use ferroflow_api::ferroflow::notebooks::v1::notebook_service_server::NotebookService;
use ferroflow_api::ferroflow::notebooks::v1::{
    GetNotebookRequest, ListNotebooksRequest, ListNotebooksResponse, Notebook,
};
use ferroflow_auth::{AccessReview, Authorizer, Caller};
use ferroflow_kernel::Error;
use kube::ResourceExt as _;
use kube::api::ListParams;
use tonic::{Request, Response, Status};

use crate::desired::{STOPPED, prefix};

pub(crate) struct Api {
    client: kube::Client,
    authorizer: Arc<dyn Authorizer>,
}

impl Api {
    pub(crate) fn new(client: kube::Client, authorizer: Arc<dyn Authorizer>) -> Self {
        Self { client, authorizer }
    }

    async fn open(&self, caller: &Caller, namespace: &str, verb: &str) -> Result<kube::Api<Resource>, Error> {
        let review = AccessReview::new(namespace, verb, "kubeflow.org", "notebooks");
        self.authorizer.authorize(&caller.principal, &review).await?;
        Ok(kube::Api::namespaced(self.client.clone(), namespace))
    }
}

fn message(notebook: &Resource) -> Notebook {
    let (namespace, name) = (notebook.namespace().unwrap_or_default(), notebook.name_any());
    let (phase, message) = phase(notebook);
    let first = notebook.spec.template.spec.containers.first();
    Notebook {
        path: prefix(&namespace, &name) + "/",
        image: first.and_then(|c| c.image.clone()).unwrap_or_default(),
        phase: phase.to_owned(),
        message,
        namespace,
        name,
    }
}

fn phase(notebook: &Resource) -> (&'static str, String) {
    let status = notebook.status.clone().unwrap_or_default();
    if notebook.metadata.deletion_timestamp.is_some() {
        return ("terminating", "it is being deleted".to_owned());
    }
    if notebook.annotations().contains_key(STOPPED) {
        return ("stopped", "it is stopped; start it to go on".to_owned());
    }
    if status.ready_replicas > 0 {
        return ("ready", "it is running".to_owned());
    }
    let state = status.container_state;
    if let Some(waiting) = state.waiting {
        let reason = waiting.reason.unwrap_or_default();
        let phase = if matches!(reason.as_str(), "" | "ContainerCreating" | "PodInitializing") {
            "waiting"
        } else {
            "warning"
        };
        return (
            phase,
            format!("{reason}: {}", waiting.message.unwrap_or_default()),
        );
    }
    if let Some(ended) = state.terminated {
        return ("warning", format!("it ended with exit code {}", ended.exit_code));
    }
    ("waiting", "it is starting".to_owned())
}

#[tonic::async_trait]
impl NotebookService for Api {
    async fn list_notebooks(
        &self,
        request: Request<ListNotebooksRequest>,
    ) -> Result<Response<ListNotebooksResponse>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let api = self
            .open(&caller, caller.namespace_or_own(&request.namespace), "list")
            .await?;
        let found = api.list(&ListParams::default()).await.map_err(Error::internal)?;
        Ok(Response::new(ListNotebooksResponse {
            notebooks: found.iter().map(message).collect(),
        }))
    }

    async fn get_notebook(&self, request: Request<GetNotebookRequest>) -> Result<Response<Notebook>, Status> {
        let caller = Caller::of(&request)?;
        let request = request.into_inner();
        let api = self
            .open(&caller, caller.namespace_or_own(&request.namespace), "get")
            .await?;
        let found = api.get_opt(&request.name).await.map_err(Error::internal)?;
        Ok(Response::new(message(
            &found.ok_or_else(|| Error::not_found("notebook", &request.name))?,
        )))
    }
}
