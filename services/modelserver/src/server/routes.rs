//! Paths to answers.

use super::metrics::Protocol;
use super::{Server, body};
use crate::codec::{read_v1, read_v2, write_model, write_records, write_v1, write_v2};
use crate::json::write_string;
use crate::model::{Model, Predictions};
use crate::protocol::{Fault, InferError, Instances};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use std::time::Instant;
use tracing::Instrument;

type Answer = Response<Full<Bytes>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4");

/// What a path asks for.
#[derive(Debug, PartialEq)]
enum Route<'a> {
    Alive,
    Metrics,
    V1Models,
    V1Model(&'a str),
    V1Predict(&'a str),
    V1Other(&'a str),
    V2Server,
    V2Live,
    V2Ready,
    V2Models,
    V2Index,
    V2Model(&'a str),
    V2ModelReady(&'a str),
    V2Infer(&'a str),
    V2Version(&'a str),
}

/// The method that a route takes.
fn method(route: &Route<'_>) -> Method {
    match route {
        Route::V1Predict(_) | Route::V1Other(_) | Route::V2Infer(_) | Route::V2Index => Method::POST,
        _ => Method::GET,
    }
}

fn route(path: &str) -> Option<Route<'_>> {
    if let Some(rest) = path.strip_prefix("/v2/models/") {
        let (model, rest) = rest.split_once('/').unwrap_or((rest, ""));
        let rest = match rest.strip_prefix("versions/") {
            Some(versioned) => {
                let (version, rest) = versioned.split_once('/').unwrap_or((versioned, ""));
                // The one version that there is.
                if version != "1" {
                    return Some(Route::V2Version(version));
                }
                rest
            }
            None => rest,
        };
        return Some(match rest {
            "infer" => Route::V2Infer(model),
            "ready" => Route::V2ModelReady(model),
            "" if !model.is_empty() => Route::V2Model(model),
            _ => return None,
        });
    }
    if let Some(rest) = path.strip_prefix("/v1/models/") {
        let (model, verb) = rest.rsplit_once(':').unwrap_or((rest, ""));
        return Some(match verb {
            _ if model.is_empty() || model.contains('/') => return None,
            "predict" => Route::V1Predict(model),
            "" => Route::V1Model(model),
            verb => Route::V1Other(verb),
        });
    }
    Some(match path {
        "/" => Route::Alive,
        "/metrics" => Route::Metrics,
        "/v1/models" => Route::V1Models,
        "/v2" => Route::V2Server,
        "/v2/health/live" => Route::V2Live,
        "/v2/health/ready" => Route::V2Ready,
        "/v2/models" => Route::V2Models,
        "/v2/repository/index" => Route::V2Index,
        _ => return None,
    })
}

/// Answers one request; never fails, since every fault has an answer. Only a request that is traced by its caller gets a
/// span: making one costs more than a small model.
pub async fn answer(server: &Server, request: Request<Incoming>) -> Answer {
    if !request.headers().contains_key("traceparent") {
        return answer_plainly(server, request).await;
    }
    let span = tracing::info_span!("infer", otel.name = request.uri().path(), model = server.name);
    ferroflow_telemetry::set_parent(&span, request.headers());
    answer_plainly(server, request).instrument(span).await
}

async fn answer_plainly(server: &Server, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let path = head.uri.path().trim_end_matches('/');
    let path = if path.is_empty() { "/" } else { path };
    let Some(route) = route(path) else {
        return failure(&InferError::new(
            Fault::NotFound,
            format!("no such path: {}", head.uri.path()),
        ));
    };
    let allowed = method(&route);
    let head_request = allowed == Method::GET && head.method == Method::HEAD;
    let any_method = matches!(route, Route::V2Version(_));
    if head.method != allowed && !head_request && !any_method {
        let text = format!("{} takes {allowed}, not {}", head.uri.path(), head.method);
        return failure(&InferError::new(Fault::MethodNotAllowed, text));
    }
    match route {
        Route::V2Infer(model) => {
            let answered = infer(server, model, &head.headers, body).await;
            counted(server, Protocol::V2, answered)
        }
        Route::V1Predict(model) => {
            let answered = predict(server, model, &head.headers, body).await;
            counted(server, Protocol::V1, answered)
        }
        route => about(server, &route).unwrap_or_else(|error| failure(&error)),
    }
}

fn counted(server: &Server, protocol: Protocol, answered: Result<Answer, InferError>) -> Answer {
    server
        .metrics
        .request(protocol, answered.as_ref().err().map(|error| error.fault));
    answered.unwrap_or_else(|error| {
        if error.fault == Fault::Internal {
            tracing::error!(%error, "inference failed");
        }
        failure(&error)
    })
}

/// The loaded model, if the name is its name.
fn model<'s>(server: &'s Server, name: &str) -> Result<&'s Model, InferError> {
    server.named(name, "")
}

async fn infer(
    server: &Server,
    name: &str,
    headers: &http::HeaderMap,
    body: Incoming,
) -> Result<Answer, InferError> {
    let named = |error: InferError| error.of_model(name);
    let model = model(server, name)?;
    let bytes = body::read(headers, body, &server.limits).await.map_err(named)?;
    let mut request = read_v2(&bytes, body::json_length(headers).map_err(named)?).map_err(named)?;
    let rows = request
        .inputs
        .first()
        .and_then(|input| input.shape.first())
        .copied()
        .unwrap_or(1);
    let start = Instant::now();
    let outputs = model.infer(&mut request).await.map_err(named)?;
    server.metrics.predicted(start.elapsed(), rows);
    let encoded = write_v2(name, &request, &outputs).map_err(named)?;
    let mut answer = ok(
        if encoded.json_length.is_some() {
            BINARY
        } else {
            JSON
        },
        encoded.body,
    );
    if let Some(length) = encoded.json_length {
        answer
            .headers_mut()
            .insert("inference-header-content-length", HeaderValue::from(length));
    }
    Ok(answer)
}

async fn predict(
    server: &Server,
    name: &str,
    headers: &http::HeaderMap,
    body: Incoming,
) -> Result<Answer, InferError> {
    let named = |error: InferError| error.of_model(name);
    let model = model(server, name)?;
    let bytes = body::read(headers, body, &server.limits).await.map_err(named)?;
    let input = model
        .spec()
        .inputs
        .first()
        .map_or("input-0", |input| input.name.as_str());
    let instances = read_v1(&bytes, model.wanted(), input, model.columns()).map_err(named)?;
    let rows = match &instances {
        Instances::Numeric(tensor) => tensor.shape.first().copied().unwrap_or(1),
        Instances::Json(_) => 1,
    };
    let start = Instant::now();
    let predictions = model.predict(instances).await.map_err(named)?;
    server.metrics.predicted(start.elapsed(), rows);
    Ok(match predictions {
        Predictions::Tensor(tensor) => ok(JSON, write_v1(&tensor)),
        Predictions::Records(outputs) => ok(JSON, write_records(&outputs)),
    })
}

/// Everything that is not inference.
fn about(server: &Server, route: &Route<'_>) -> Result<Answer, InferError> {
    let mut out = Vec::with_capacity(128);
    let ready = server.ready();
    match route {
        Route::Alive => out.extend_from_slice(b"{\"status\":\"alive\"}"),
        Route::Metrics => {
            return Ok(ok(
                PROMETHEUS,
                server.metrics.text(&server.name, ready).into_bytes(),
            ));
        }
        Route::V2Live => out.extend_from_slice(b"{\"live\":true}"),
        Route::V2Ready => {
            let body = format!("{{\"ready\":{ready}}}").into_bytes();
            return Ok(with_status(ready_status(ready), JSON, body));
        }
        Route::V1Models | Route::V2Models => {
            out.extend_from_slice(b"{\"models\":[");
            write_string(&mut out, &server.name);
            out.extend_from_slice(b"]}");
        }
        Route::V2Server => {
            out.extend_from_slice(b"{\"name\":\"ferroflow-modelserver\",\"version\":\"");
            out.extend_from_slice(env!("CARGO_PKG_VERSION").as_bytes());
            out.extend_from_slice(b"\",\"extensions\":[\"binary_tensor_data\",\"model_repository\"]}");
        }
        Route::V2Index => {
            out.extend_from_slice(b"[{\"name\":");
            write_string(&mut out, &server.name);
            let state = if ready { "READY" } else { "LOADING" };
            out.extend_from_slice(
                format!(",\"version\":\"1\",\"state\":\"{state}\",\"reason\":\"\"}}]").as_bytes(),
            );
        }
        Route::V1Model(name) | Route::V2ModelReady(name) => {
            model(server, name)?;
            out.extend_from_slice(b"{\"name\":");
            write_string(&mut out, name);
            out.extend_from_slice(b",\"ready\":true}");
        }
        Route::V2Model(name) => out = write_model(name, model(server, name)?.spec()),
        Route::V2Version(version) => {
            let text = format!("model version {version:?} does not exist here; this server has \"1\"");
            return Err(InferError::new(Fault::NotFound, text));
        }
        Route::V1Other(verb) => {
            let text = format!("this server has no {verb:?}; it has \"predict\"");
            return Err(InferError::new(Fault::NotFound, text));
        }
        Route::V1Predict(_) | Route::V2Infer(_) => {}
    }
    Ok(ok(JSON, out))
}

fn ready_status(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

fn ok(content_type: HeaderValue, body: Vec<u8>) -> Answer {
    with_status(StatusCode::OK, content_type, body)
}

fn with_status(status: StatusCode, content_type: HeaderValue, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

fn failure(error: &InferError) -> Answer {
    let mut body = b"{\"error\":".to_vec();
    write_string(&mut body, &error.text);
    body.push(b'}');
    let status = StatusCode::from_u16(error.fault.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = with_status(status, JSON, body);
    if error.fault == Fault::TooLarge {
        // What may be left of the body is not worth reading.
        answer
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(route("/v2/models/a/infer"), Some(Route::V2Infer("a")));
        assert_eq!(route("/v2/models/a/versions/1/infer"), Some(Route::V2Infer("a")));
        assert_eq!(
            route("/v2/models/a/versions/2/infer"),
            Some(Route::V2Version("2"))
        );
        assert_eq!(route("/v2/models/a/versions/1"), Some(Route::V2Model("a")));
        assert_eq!(route("/v2/models/a/what"), None);
        assert_eq!(route("/v1/models/a:predict"), Some(Route::V1Predict("a")));
        assert_eq!(route("/v1/models/a:explain"), Some(Route::V1Other("explain")));
        assert_eq!(route("/v1/models/a"), Some(Route::V1Model("a")));
        assert_eq!(route("/v1/models/a/b:predict"), None);
        assert_eq!(route("/v3"), None);
    }
}
