//! gRPC: profiles as dashboards list them.

use std::sync::Arc;

use ferroflow_api::crd::profiles::Profile as Resource;
use ferroflow_api::ferroflow::profiles::v1::profile_service_server::ProfileService;
use ferroflow_api::ferroflow::profiles::v1::{
    GetProfileRequest, ListProfilesRequest, ListProfilesResponse, Profile,
};
use ferroflow_auth::{AccessReview, Authorizer, Caller};
use ferroflow_kernel::Error;
use kube::ResourceExt as _;
use kube::api::ListParams;
use tonic::{Request, Response, Status};

pub(crate) struct Api {
    profiles: kube::Api<Resource>,
    authorizer: Arc<dyn Authorizer>,
}

impl Api {
    pub(crate) fn new(client: kube::Client, authorizer: Arc<dyn Authorizer>) -> Self {
        Self {
            profiles: kube::Api::all(client),
            authorizer,
        }
    }

    /// Whoever may list Pods in the namespace may see its profile.
    async fn may_see(&self, caller: &Caller, namespace: &str) -> Result<(), Error> {
        self.authorizer
            .authorize(
                &caller.principal,
                &AccessReview::new(namespace, "list", "", "pods"),
            )
            .await
    }
}

fn message(resource: &Resource) -> Profile {
    let conditions = resource.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions
        .into_iter()
        .any(|c| c.get("type").is_some_and(|t| t == "Successful"));
    Profile {
        name: resource.name_any(),
        owner: resource.spec.owner.name.clone(),
        ready,
    }
}

#[tonic::async_trait]
impl ProfileService for Api {
    async fn list_profiles(
        &self,
        request: Request<ListProfilesRequest>,
    ) -> Result<Response<ListProfilesResponse>, Status> {
        let caller = Caller::of(&request)?;
        let all = self
            .profiles
            .list(&ListParams::default())
            .await
            .map_err(Error::internal)?;
        let mut profiles = Vec::new();
        for resource in &all {
            if self.may_see(&caller, &resource.name_any()).await.is_ok() {
                profiles.push(message(resource));
            }
        }
        Ok(Response::new(ListProfilesResponse { profiles }))
    }

    async fn get_profile(&self, request: Request<GetProfileRequest>) -> Result<Response<Profile>, Status> {
        let caller = Caller::of(&request)?;
        let name = request.into_inner().name;
        self.may_see(&caller, &name).await?;
        let found = self.profiles.get_opt(&name).await.map_err(Error::internal)?;
        Ok(Response::new(message(
            &found.ok_or_else(|| Error::not_found("profile", &name))?,
        )))
    }
}
