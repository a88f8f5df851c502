//! What a call leaves behind: one trace over client and server, in process and over the wire, and counts for Prometheus.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use ferroflow_api::ferroflow::profiles::v1::profile_service_client::ProfileServiceClient;
use ferroflow_api::ferroflow::profiles::v1::profile_service_server::{ProfileService, ProfileServiceServer};
use ferroflow_api::ferroflow::profiles::v1::{
    GetProfileRequest, ListProfilesRequest, ListProfilesResponse, Profile,
};
use ferroflow_auth::{Caller, CallerKey, Principal};
use ferroflow_rpc::{GrpcMetrics, LateRoutes, ServerBuilder, Transport};
use ferroflow_telemetry::Metrics;
use opentelemetry::trace::{SpanId, SpanKind, Status as SpanStatus, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;
use tracing_subscriber::layer::SubscriberExt as _;

struct Known;

#[tonic::async_trait]
impl ProfileService for Known {
    async fn list_profiles(
        &self,
        _: Request<ListProfilesRequest>,
    ) -> Result<Response<ListProfilesResponse>, Status> {
        Err(Status::unimplemented("not asked"))
    }

    async fn get_profile(&self, request: Request<GetProfileRequest>) -> Result<Response<Profile>, Status> {
        match request.into_inner().name.as_str() {
            "none" => Err(Status::not_found("none")),
            "broken" => Err(Status::internal("broken")),
            name => Ok(Response::new(Profile {
                name: name.to_owned(),
                ..Profile::default()
            })),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

impl Exported {
    /// The newest trace under a span called `root`: that span, the client's and the server's. Waits for what ends after the
    /// answer, and leaves out what another test of this process does.
    async fn trace(&self) -> (SpanData, SpanData, SpanData) {
        for _ in 0..500 {
            let spans = self.0.lock().unwrap().clone();
            let root = spans.iter().rev().find(|span| span.name == "root").unwrap();
            let of_kind = |kind: SpanKind| {
                let mut trace = spans
                    .iter()
                    .filter(|s| s.span_context.trace_id() == root.span_context.trace_id());
                trace.find(|s| s.span_kind == kind).cloned()
            };
            if let (Some(client), Some(server)) = (of_kind(SpanKind::Client), of_kind(SpanKind::Server)) {
                return (root.clone(), client, server);
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("no span of client and server within 5 s");
    }
}

fn routes(key: &CallerKey) -> tonic::service::Routes {
    ServerBuilder::new("profiles", key.clone())
        .add(ProfileServiceServer::new(Known))
        .build()
}

async fn get(transport: &Transport, name: &str) -> Result<Profile, Status> {
    let caller = Caller::new(Principal::user("ann"));
    let request = GetProfileRequest {
        name: name.to_owned(),
    };
    let mut client = ProfileServiceClient::new(transport.call_as(&caller));
    client.get_profile(request).await.map(Response::into_inner)
}

#[tokio::test]
async fn client_and_server_are_one_trace() {
    let exported = Exported::default();
    let provider = SdkTracerProvider::builder()
        .with_simple_exporter(exported.clone())
        .build();
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let subscriber = tracing_subscriber::registry()
        .with(tracing_opentelemetry::layer().with_tracer(provider.tracer("test")));
    // the server over the wire runs in tasks of its own
    tracing::subscriber::set_global_default(subscriber).unwrap();

    let key = CallerKey::random();
    let late = LateRoutes::default();
    late.bind(routes(&key));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = routes(&key).prepare().into_axum_router();
    tokio::spawn(async move { axum::serve(listener, router).await });
    for transport in [
        Transport::in_process(late, key.clone(), "test"),
        Transport::channel(&url, key.clone(), "test").unwrap(),
    ] {
        let root = tracing::info_span!("root");
        get(&transport, "broken")
            .instrument(root.clone())
            .await
            .unwrap_err();
        drop(root);
        let (root, client, server) = exported.trace().await;
        assert_eq!(root.parent_span_id, SpanId::INVALID);
        assert_eq!(client.parent_span_id, root.span_context.span_id());
        assert_eq!(server.parent_span_id, client.span_context.span_id());
        assert_eq!(server.span_context.trace_id(), root.span_context.trace_id());
        assert_eq!(server.name, "ferroflow.profiles.v1.ProfileService/GetProfile");
        let attributes: HashMap<String, String> = server
            .attributes
            .iter()
            .map(|a| (a.key.to_string(), a.value.to_string()))
            .collect();
        assert_eq!(attributes["rpc.service"], "ferroflow.profiles.v1.ProfileService");
        assert_eq!(attributes["rpc.method"], "GetProfile");
        assert_eq!(attributes["rpc.grpc.status_code"], "13");
        for span in [client, server] {
            assert!(
                matches!(span.status, SpanStatus::Error { .. }),
                "{:?}",
                span.status
            );
        }
    }
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let (key, metrics) = (CallerKey::random(), Metrics::default());
    let counted = GrpcMetrics::new(&metrics);
    let late = LateRoutes::default();
    late.bind(counted.observe(routes(&key)));
    let transport = Transport::in_process(late, key.clone(), "test");
    get(&transport, "a").await.unwrap();
    get(&transport, "b").await.unwrap();
    get(&transport, "none").await.unwrap_err();
    let caller = Caller::new(Principal::user("ann"));
    let listed = ProfileServiceClient::new(transport.call_as(&caller))
        .list_profiles(ListProfilesRequest::default())
        .await;
    listed.unwrap_err();
    let foreign = Transport::in_process(
        {
            let late = LateRoutes::default();
            late.bind(counted.observe(routes(&key)));
            late
        },
        CallerKey::random(),
        "test",
    );
    get(&foreign, "a").await.unwrap_err();
    let text = metrics.render();
    let method = "grpc_service=\"ferroflow.profiles.v1.ProfileService\",grpc_method=\"GetProfile\"";
    let unknown = "grpc_service=\"unknown\",grpc_method=\"unknown\"";
    for line in [
        format!("grpc_server_handled_total{{{method},grpc_code=\"OK\"}} 2\n"),
        format!("grpc_server_handled_total{{{method},grpc_code=\"NotFound\"}} 1\n"),
        format!("grpc_server_handled_total{{{unknown},grpc_code=\"Unimplemented\"}} 1\n"),
        format!("grpc_server_handled_total{{{unknown},grpc_code=\"Unauthenticated\"}} 1\n"),
        format!("grpc_server_handling_seconds_count{{{method}}} 3\n"),
    ] {
        assert!(text.contains(&line), "no {line} in {text}");
    }
}
