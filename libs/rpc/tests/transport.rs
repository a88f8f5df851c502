//! Spike, kept: a generated tonic client called in process over `Routes` passes the same layers as over the wire.

use std::time::Duration;

use ferroflow_api::ferroflow::profiles::v1::profile_service_client::ProfileServiceClient;
use ferroflow_api::ferroflow::profiles::v1::profile_service_server::{ProfileService, ProfileServiceServer};
use ferroflow_api::ferroflow::profiles::v1::{
    GetProfileRequest, ListProfilesRequest, ListProfilesResponse, Profile,
};
use ferroflow_auth::{Caller, CallerKey, Principal};
use ferroflow_rpc::{LateRoutes, ServerBuilder, Transport};
use tonic::{Code, Request, Response, Status};

/// Answers who called; `slow` never answers, `broken` panics.
struct Echo;

#[tonic::async_trait]
impl ProfileService for Echo {
    async fn list_profiles(
        &self,
        _: Request<ListProfilesRequest>,
    ) -> Result<Response<ListProfilesResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn get_profile(&self, request: Request<GetProfileRequest>) -> Result<Response<Profile>, Status> {
        let caller = Caller::of(&request)?;
        match request.into_inner().name.as_str() {
            "slow" => std::future::pending().await,
            "broken" => panic!("on purpose"),
            name => Ok(Response::new(Profile {
                name: name.to_owned(),
                owner: caller.principal.user,
                ready: true,
            })),
        }
    }
}

fn routes(key: &CallerKey) -> tonic::service::Routes {
    ServerBuilder::new("profiles", key.clone())
        .add(ProfileServiceServer::new(Echo))
        .describe(ferroflow_api::FILE_DESCRIPTOR_SET)
        .build()
}

/// The same service in process and over a socket.
async fn both(key: &CallerKey) -> Vec<Transport> {
    let late = LateRoutes::default();
    late.bind(routes(key));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = routes(key).prepare().into_axum_router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    vec![
        Transport::in_process(late, key.clone(), "test"),
        Transport::channel(&url, key.clone(), "test").unwrap(),
    ]
}

fn ask(name: &str) -> GetProfileRequest {
    GetProfileRequest {
        name: name.to_owned(),
    }
}

#[tokio::test]
async fn the_service_learns_who_calls() {
    let key = CallerKey::random();
    let caller = Caller::new(Principal::user("ann"));
    for transport in both(&key).await {
        let mut client = ProfileServiceClient::new(transport.call_as(&caller));
        let answer = client.get_profile(ask("team")).await.unwrap().into_inner();
        assert_eq!((answer.name.as_str(), answer.owner.as_str()), ("team", "ann"));
    }
}

#[tokio::test]
async fn a_token_of_another_key_is_refused() {
    let key = CallerKey::random();
    let caller = Caller::new(Principal::user("ann"));
    let late = LateRoutes::default();
    late.bind(routes(&key));
    let forged = Transport::in_process(late, CallerKey::random(), "test");
    let refused = ProfileServiceClient::new(forged.call_as(&caller))
        .get_profile(ask("team"))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_deadline_ends_the_call() {
    let key = CallerKey::random();
    let caller = Caller::new(Principal::user("ann"));
    for transport in both(&key).await {
        let mut request = Request::new(ask("slow"));
        request.set_timeout(Duration::from_millis(50));
        let late = ProfileServiceClient::new(transport.call_as(&caller))
            .get_profile(request)
            .await
            .unwrap_err();
        assert!(
            matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled),
            "{late:?}"
        );
    }
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_server_lives_on() {
    let key = CallerKey::random();
    let caller = Caller::new(Principal::user("ann"));
    for transport in both(&key).await {
        let mut client = ProfileServiceClient::new(transport.call_as(&caller));
        assert_eq!(
            client.get_profile(ask("broken")).await.unwrap_err().code(),
            Code::Internal
        );
        assert!(client.get_profile(ask("team")).await.is_ok());
    }
}

#[tokio::test]
async fn a_service_that_is_not_bound_yet_is_unavailable() {
    let key = CallerKey::random();
    let transport = Transport::in_process(LateRoutes::default(), key, "test");
    let caller = Caller::new(Principal::user("ann"));
    let early = ProfileServiceClient::new(transport.call_as(&caller))
        .get_profile(ask("team"))
        .await
        .unwrap_err();
    assert_eq!(early.code(), Code::Unavailable);
}

#[tokio::test]
async fn health_needs_no_caller() {
    let key = CallerKey::random();
    let router = routes(&key).prepare().into_axum_router();
    let mut client = tonic_health::pb::health_client::HealthClient::new(tower::service_fn(
        move |request: http::Request<tonic::body::Body>| {
            let router = router.clone();
            async move { tower::ServiceExt::oneshot(router, request).await }
        },
    ));
    let request = tonic_health::pb::HealthCheckRequest {
        service: String::new(),
    };
    assert_eq!(client.check(request).await.unwrap().into_inner().status, 1);
}
