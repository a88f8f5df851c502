//! The service over real connections: HTTP, credentials, signed URLs, tenants; and S3 as boto3 and minio's client speak it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;

use ferroflow_artifacts::{Artifacts, Deps, Options};
use ferroflow_auth::{AccessReview, Authorizer, CALLER_HEADER, Caller, CallerKey, Principal};
use ferroflow_db::{Db, DbOptions};
use ferroflow_kernel::{Error, SystemClock};
use ferroflow_telemetry::Readiness;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Users `a` and `b` own the namespaces `team-a` and `team-b`; the account of pipelines may do all everywhere.
#[derive(Debug)]
struct Teams;

#[async_trait::async_trait]
impl Authorizer for Teams {
    async fn authorize(&self, principal: &Principal, review: &AccessReview) -> Result<(), Error> {
        let user = principal.user.as_str();
        let own = match user {
            "a" => review.namespace == "team-a",
            "b" => review.namespace == "team-b",
            "system:serviceaccount:kubeflow:pipelines" => true,
            _ => principal
                .as_service_account()
                .is_some_and(|(namespace, _)| namespace == review.namespace),
        };
        if own && (review.verb != "mint" || user.ends_with("pipelines")) {
            return Ok(());
        }
        Err(Error::denied(format!(
            "{user} cannot {} in {}",
            review.verb, review.namespace
        )))
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    key: CallerKey,
    rest: SocketAddr,
    s3: SocketAddr,
    client: reqwest::Client,
}

async fn listen(router: axum::Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

impl Fixture {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = DbOptions::sqlite(&folder.path().join("artifacts.db"), "artifacts");
        let db = Db::open(&options, Artifacts::MIGRATIONS).await.unwrap();
        let url = format!("file://{}/artifacts", folder.path().display());
        let key = CallerKey::random();
        let deps = Deps {
            db,
            blob: ferroflow_blob::open(&url, &ferroflow_blob::Options::new()).unwrap(),
            authorizer: Arc::new(Teams),
            key: key.clone(),
            clock: Arc::new(SystemClock),
            readiness: Readiness::default(),
        };
        let service = Artifacts::new(deps, Options::default()).await.unwrap();
        let (rest, s3) = (listen(service.rest()).await, listen(service.s3()).await);
        Self {
            folder,
            key,
            rest,
            s3,
            client: reqwest::Client::new(),
        }
    }

    fn call(&self, user: &str, method: Method, path: &str) -> reqwest::RequestBuilder {
        let principal = match user.split_once('/') {
            Some((namespace, name)) => Principal::service_account(namespace, name),
            None => Principal::user(user),
        };
        let mut caller = Caller::new(principal);
        if let "a" | "b" = user {
            caller.namespace = format!("team-{user}");
        }
        let token = self.key.sign(&caller, "gateway").unwrap();
        self.bare(method, path).header(CALLER_HEADER, token)
    }

    fn bare(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.rest))
    }

    async fn put(&self, user: &str, object: &str, text: &str) -> StatusCode {
        let path = format!("/artifacts/v1/objects/{object}");
        self.call(user, Method::PUT, &path)
            .body(text.to_owned())
            .send()
            .await
            .unwrap()
            .status()
    }

    async fn get(&self, user: &str, object: &str) -> (StatusCode, String) {
        let path = format!("/artifacts/v1/objects/{object}");
        let response = self.call(user, Method::GET, &path).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    async fn keys(&self, user: &str, uri: &str, rest: &str) -> Vec<String> {
        let path = format!("/artifacts/v1/list?uri={uri}{rest}");
        let answer: Value = self
            .call(user, Method::GET, &path)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let objects = answer["objects"].as_array().unwrap_or_else(|| panic!("{answer}"));
        let mut keys: Vec<String> = objects
            .iter()
            .map(|o| o["key"].as_str().unwrap().to_owned())
            .collect();
        keys.extend(
            answer["common_prefixes"]
                .as_array()
                .unwrap()
                .iter()
                .map(|p| p.as_str().unwrap().to_owned()),
        );
        keys
    }

    async fn mint(&self, user: &str, body: Value) -> (StatusCode, Value) {
        let response = self
            .call(user, Method::POST, "/artifacts/v1/credentials")
            .json(&body)
            .send()
            .await
            .unwrap();
        (response.status(), response.json().await.unwrap())
    }
}

const RUN: &str = "mlpipeline/v2/artifacts/digits/11111111-run-of-a";

#[tokio::test]
async fn an_object_is_a_plain_file_with_digest_type_and_ranges() {
    let f = Fixture::new().await;
    let path = format!("/artifacts/v1/objects/{RUN}/t/u/model%20x.json");
    let response = f
        .call("a", Method::PUT, &path)
        .header("x-ferroflow-meta-kind", "demo")
        .body("{\"a\": 1}");
    let response = response.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let object: Value = response.json().await.unwrap();
    assert_eq!(object["namespace"], "team-a");
    assert_eq!(object["uri"], format!("s3://{RUN}/t/u/model x.json"));
    assert_eq!(object["content_type"], "application/json");
    let file = f
        .folder
        .path()
        .join("artifacts")
        .join(RUN)
        .join("t/u/model x.json");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "{\"a\": 1}");

    let response = f
        .call("a", Method::GET, &path)
        .header("range", "bytes=1-3")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(response.headers()["content-range"], "bytes 1-3/8");
    assert_eq!(response.headers()["x-ferroflow-meta-kind"], "demo");
    assert_eq!(response.text().await.unwrap(), "\"a\"");
    let response = f
        .call("a", Method::GET, &path)
        .header("range", "bytes=8-")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status(), &response.headers()["content-range"]),
        (StatusCode::RANGE_NOT_SATISFIABLE, &"bytes */8".parse().unwrap())
    );

    let response = f.call("a", Method::HEAD, &path).send().await.unwrap();
    assert_eq!(response.headers()["content-length"], "8");
    let etag = response.headers()["etag"].clone();
    assert_eq!(
        response.headers()["x-ferroflow-sha256"],
        object["sha256"].as_str().unwrap()
    );
    let response = f
        .call("a", Method::GET, &path)
        .header("if-none-match", etag)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::NOT_MODIFIED);

    let again = f.call("a", Method::PUT, &path).body("{}").send().await.unwrap();
    assert_eq!(again.status(), StatusCode::OK);
    assert_eq!(
        f.call("a", Method::DELETE, &path).send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        f.call("a", Method::DELETE, &path).send().await.unwrap().status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        f.call("a", Method::GET, &path).send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn create_only_answers_412_and_keeps_the_first() {
    let f = Fixture::new().await;
    let path = format!("/artifacts/v1/objects/{RUN}/t/u/outcome.json");
    let put = |text: &'static str| {
        f.call("a", Method::PUT, &path)
            .header("if-none-match", "*")
            .body(text)
            .send()
    };
    assert_eq!(put("first").await.unwrap().status(), StatusCode::CREATED);
    let second = put("second").await.unwrap();
    assert_eq!(second.status(), StatusCode::PRECONDITION_FAILED);
    assert!(second.text().await.unwrap().contains("exists already"));
    assert_eq!(f.get("a", &format!("{RUN}/t/u/outcome.json")).await.1, "first");
}

#[tokio::test]
async fn bytes_that_are_not_those_promised_are_not_stored() {
    let f = Fixture::new().await;
    let path = format!("/artifacts/v1/objects/{RUN}/x");
    let put = f
        .call("a", Method::PUT, &path)
        .header("x-ferroflow-sha256", "0".repeat(64))
        .body("x");
    let response = put.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert!(response.text().await.unwrap().contains("nothing was written"));
    assert_eq!(f.get("a", &format!("{RUN}/x")).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_connection_that_breaks_leaves_nothing() {
    use tokio::io::AsyncWriteExt;
    let f = Fixture::new().await;
    let caller = Caller {
        principal: Principal::user("a"),
        namespace: "team-a".to_owned(),
    };
    let token = f.key.sign(&caller, "gateway").unwrap();
    let mut stream = tokio::net::TcpStream::connect(f.rest).await.unwrap();
    let head = format!(
        "PUT /artifacts/v1/objects/{RUN}/half HTTP/1.1\r\nhost: x\r\n{CALLER_HEADER}: {token}\r\ncontent-length: 100\r\n\r\nhalf"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let staging = f.folder.path().join("artifacts/.staging");
    let staged = || std::fs::read_dir(&staging).map_or(0, Iterator::count);
    wait("the write to begin", || staged() == 1).await;
    drop(stream);
    wait("the write to be given up", || staged() == 0).await;
    assert_eq!(f.get("a", &format!("{RUN}/half")).await.0, StatusCode::NOT_FOUND);
}

async fn wait(what: &str, done: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !done() {
        assert!(
            std::time::Instant::now() < deadline,
            "waited ten seconds for {what}"
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_tenant_sees_nothing_of_another() {
    let f = Fixture::new().await;
    let secret = format!("{RUN}/t/u/model");
    assert_eq!(f.put("a", &secret, "of a").await, StatusCode::CREATED);
    assert_eq!(
        f.put("a", "mlpipeline/data/a.csv", "of a").await,
        StatusCode::CREATED
    );
    assert_eq!(f.put("a", "bucket-of-a/x", "of a").await, StatusCode::CREATED);
    for object in [secret.as_str(), "mlpipeline/data/a.csv", "bucket-of-a/x"] {
        let path = format!("/artifacts/v1/objects/{object}");
        for method in [Method::GET, Method::HEAD, Method::DELETE] {
            let status = f.call("b", method.clone(), &path).send().await.unwrap().status();
            assert_eq!(status, StatusCode::FORBIDDEN, "{method} {object}");
        }
        assert_eq!(
            f.put("b", object, "of b").await,
            StatusCode::FORBIDDEN,
            "{object}"
        );
        assert_eq!(
            f.put("b", &format!("{object}2"), "x").await.is_success(),
            object.contains("data/"),
            "{object}2"
        );
        let (status, _) = f
            .mint("b", json!({"write_prefixes": [format!("s3://{object}")]}))
            .await;
        assert!(
            object.contains("data/") || status == StatusCode::FORBIDDEN,
            "{object}"
        );
        let sign = json!({"uri": format!("s3://{object}")});
        let response = f
            .call("b", Method::POST, "/artifacts/v1/sign")
            .json(&sign)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{object}");
    }
    // the names of another's objects do not show in any listing, and nobody is refused the shared bucket
    assert_eq!(f.keys("b", "s3://mlpipeline/", "").await, ["data/a.csv2"]);
    assert_eq!(
        f.keys("b", "s3://mlpipeline/v2/artifacts/digits/", "&delimiter=/")
            .await,
        [""; 0]
    );
    assert_eq!(f.keys("b", "s3://bucket-of-a/", "").await, [""; 0]);
    assert_eq!(
        f.keys("a", "s3://mlpipeline/", "").await,
        ["data/a.csv", &secret["mlpipeline/".len()..]]
    );
    let (status, _) = f
        .mint("b", json!({"write_prefixes": ["s3://mlpipeline/data/"]}))
        .await;
    assert_eq!(
        status,
        StatusCode::FORBIDDEN,
        "a folder with another's object in it cannot be claimed"
    );
    let (status, _) = f.mint("b", json!({"namespace": "team-a"})).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    // pipelines sees all, and what is not there is 404 for everybody
    assert_eq!(
        f.get("kubeflow/pipelines", &secret).await,
        (StatusCode::OK, "of a".to_owned())
    );
    assert_eq!(f.get("b", "mlpipeline/data/none").await.0, StatusCode::NOT_FOUND);
    let anonymous = f
        .bare(Method::GET, &format!("/artifacts/v1/objects/{secret}"))
        .send()
        .await
        .unwrap();
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);
    // what nobody claimed belongs to the default namespace
    std::fs::write(f.folder.path().join("artifacts/mlpipeline/by-hand.txt"), "x").unwrap();
    assert_eq!(
        f.get("b", "mlpipeline/by-hand.txt").await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        f.get("default/default-editor", "mlpipeline/by-hand.txt").await.0,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_steps_credential_writes_its_own_attempt_and_reads_its_namespace() {
    let f = Fixture::new().await;
    assert_eq!(
        f.put("a", "mlpipeline/v2/artifacts/other/run0/t/u/input", "input")
            .await,
        StatusCode::CREATED
    );
    assert_eq!(
        f.put("b", "mlpipeline/v2/artifacts/other/run-of-b/t/u/x", "x")
            .await,
        StatusCode::CREATED
    );
    let body = json!({
        "namespace": "team-a",
        "principal": "system:serviceaccount:team-a:default-editor",
        "write_prefixes": [format!("minio://{RUN}/train/u1")],
        "ttl_seconds": 600,
    });
    let (status, minted) = f.mint("kubeflow/pipelines", body.clone()).await;
    assert_eq!(status, StatusCode::OK, "{minted}");
    let (status, _) = f.mint("a", body).await;
    assert_eq!(
        status,
        StatusCode::FORBIDDEN,
        "only pipelines may mint for another principal"
    );
    let token = minted["bearer_token"].as_str().unwrap().to_owned();
    let send = |method: Method, object: String| {
        f.bare(method, &format!("/artifacts/v1/objects/{object}"))
            .bearer_auth(&token)
            .body("x")
            .send()
    };
    let cases = [
        (Method::PUT, format!("{RUN}/train/u1/model"), StatusCode::CREATED),
        (
            Method::PUT,
            format!("{RUN}/train/u2/model"),
            StatusCode::FORBIDDEN,
        ),
        (Method::PUT, format!("{RUN}/train/u11"), StatusCode::FORBIDDEN),
        (
            Method::GET,
            "mlpipeline/v2/artifacts/other/run0/t/u/input".to_owned(),
            StatusCode::OK,
        ),
        (
            Method::GET,
            "mlpipeline/v2/artifacts/other/run-of-b/t/u/x".to_owned(),
            StatusCode::FORBIDDEN,
        ),
        (
            Method::DELETE,
            "mlpipeline/v2/artifacts/other/run0/t/u/input".to_owned(),
            StatusCode::FORBIDDEN,
        ),
    ];
    for (method, object, expected) in cases {
        assert_eq!(
            send(method.clone(), object.clone()).await.unwrap().status(),
            expected,
            "{method} {object}"
        );
    }
    // the gateway knows the Pod too, but the narrower credential counts
    let caller = Caller::new(Principal::service_account("team-a", "default-editor"));
    let both = f
        .bare(Method::PUT, &format!("/artifacts/v1/objects/{RUN}/train/u2/x"))
        .bearer_auth(&token);
    let both = both
        .header(CALLER_HEADER, f.key.sign(&caller, "gateway").unwrap())
        .body("x")
        .send()
        .await
        .unwrap();
    assert_eq!(both.status(), StatusCode::FORBIDDEN);
    // and it makes no further credentials
    let more = f
        .bare(Method::POST, "/artifacts/v1/credentials")
        .bearer_auth(&token)
        .json(&json!({}));
    assert_eq!(more.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    let forged = f.bare(
        Method::GET,
        &format!("/artifacts/v1/objects/{RUN}/train/u1/model"),
    );
    let forged = forged
        .bearer_auth(format!("{}x", &token[..token.len() - 1]))
        .send()
        .await
        .unwrap();
    assert_eq!(forged.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_signed_url_is_good_for_one_method_on_one_object() {
    let f = Fixture::new().await;
    assert_eq!(
        f.put("a", &format!("{RUN}/page.html"), "<b>hi</b>").await,
        StatusCode::CREATED
    );
    let sign = async |body: Value| -> String {
        let response = f
            .call("a", Method::POST, "/artifacts/v1/sign")
            .json(&body)
            .send()
            .await
            .unwrap();
        let answer: Value = response.json().await.unwrap();
        answer["path"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned()
    };
    let path = sign(json!({"uri": format!("s3://{RUN}/page.html")})).await;
    let response = f.bare(Method::GET, &path).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/html");
    let policy = response.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(
        policy.starts_with("sandbox") && !policy.contains("allow-same-origin"),
        "{policy}"
    );
    assert_eq!(response.text().await.unwrap(), "<b>hi</b>");
    assert_eq!(
        f.bare(Method::PUT, &path)
            .body("x")
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::FORBIDDEN
    );
    let other = path.replace("page.html", "other.html");
    assert_eq!(
        f.bare(Method::GET, &other).send().await.unwrap().status(),
        StatusCode::FORBIDDEN
    );
    let path = sign(json!({"uri": format!("s3://{RUN}/up"), "method": "PUT", "ttl_seconds": 60})).await;
    assert_eq!(
        f.bare(Method::PUT, &path)
            .body("up")
            .send()
            .await
            .unwrap()
            .status(),
        StatusCode::CREATED
    );
    assert_eq!(f.get("a", &format!("{RUN}/up")).await.1, "up");
    let long = json!({"uri": format!("s3://{RUN}/up"), "ttl_seconds": 604_801});
    let response = f
        .call("a", Method::POST, "/artifacts/v1/sign")
        .json(&long)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_folder_comes_as_one_archive() {
    let f = Fixture::new().await;
    let long = format!("{}/leaf", "deep/".repeat(30).trim_end_matches('/'));
    let files = [
        ("a.txt".to_owned(), "x".repeat(1000)),
        (long, "y".repeat(512)),
        ("z".to_owned(), String::new()),
    ];
    for (name, text) in &files {
        assert_eq!(
            f.put("a", &format!("{RUN}/dir/{name}"), text).await,
            StatusCode::CREATED
        );
    }
    let path = format!("/artifacts/v1/archive/{RUN}/dir");
    let response = f.call("a", Method::GET, &path).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/gzip");
    let bytes = response.bytes().await.unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
    let mut found = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut entry, &mut text).unwrap();
        found.push((name.strip_prefix("dir/").unwrap().to_owned(), text));
    }
    assert_eq!(found, files);
    assert_eq!(
        f.call("b", Method::GET, &path).send().await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn bad_requests_say_what_would_be_right() {
    let f = Fixture::new().await;
    let text = async |path: &str| {
        f.call("a", Method::GET, path)
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    assert!(
        text("/artifacts/v1/list?uri=mlpipeline/x")
            .await
            .contains("s3://bucket/key")
    );
    assert!(
        text("/artifacts/v1/list?uri=s3://mlpipeline/&page_size=5000")
            .await
            .contains("5000 is more than 1000")
    );
    assert!(
        text("/artifacts/v1/objects/mlpipeline/a%2f..%2fb")
            .await
            .contains("a part that is . or ..")
    );
    assert_eq!(f.put("a", "mlpipeline/a//b", "x").await, StatusCode::BAD_REQUEST);
    assert_eq!(f.put("a", "Bad Bucket/a", "x").await, StatusCode::BAD_REQUEST);
}

/// The gateway vouches for the caller here; a signature that is wrong is refused all the same.
#[tokio::test]
async fn a_signature_that_is_wrong_is_refused_whoever_sends_it() {
    let f = Fixture::new().await;
    let (_, minted) = f.mint("a", json!({})).await;
    let ours = minted["access_key_id"].as_str().unwrap();
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
    let scope = format!("{}/us-east-1/s3/aws4_request", &time[..8]);
    let later = jiff::Timestamp::now().as_second() + 600;
    for (key, code) in [("minio", "InvalidAccessKeyId"), (ours, "SignatureDoesNotMatch")] {
        let header = format!(
            "AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders=host;x-amz-date, Signature={}",
            "0".repeat(64)
        );
        let signed = f
            .call("a", Method::GET, "/s3/mlpipeline")
            .header("authorization", header)
            .header("x-amz-date", &time);
        let version_4 = format!(
            "/s3/mlpipeline/x?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={key}/{scope}&X-Amz-Date={time}&X-Amz-Expires=60\
             &X-Amz-SignedHeaders=host&X-Amz-Signature=00"
        );
        let version_2 = format!("/s3/mlpipeline/x?AWSAccessKeyId={key}&Expires={later}&Signature=AAAA");
        let presigned = [version_4, version_2].map(|path| f.call("a", Method::GET, &path));
        for request in presigned.into_iter().chain([signed]) {
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::FORBIDDEN);
            let text = response.text().await.unwrap();
            assert!(text.contains(&format!("<Code>{code}</Code>")), "{text}");
        }
    }
    let unsigned = f.call("a", Method::GET, "/s3/mlpipeline").send().await.unwrap();
    assert_eq!(unsigned.status(), StatusCode::OK);
}

/// Runs `s3_clients.py` with the interpreter that `FERROFLOW_TEST_PYTHON` names, which has boto3 and minio.
#[tokio::test]
async fn boto3_and_minio_clients_work() {
    let Ok(python) = std::env::var("FERROFLOW_TEST_PYTHON") else {
        eprintln!(
            "SKIPPED: FERROFLOW_TEST_PYTHON names no interpreter with boto3 and minio (cargo xtask test sets it)"
        );
        return;
    };
    let f = Fixture::new().await;
    let (_, minted) = f.mint("a", json!({})).await;
    let (_, other) = f.mint("b", json!({})).await;
    let text = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3_clients.py");
    let child = tokio::process::Command::new(python)
        .arg(script)
        .env("S3_ROOT", format!("http://{}", f.s3))
        .env("S3_PREFIXED", format!("http://{}/s3", f.rest))
        .env("KEY_A", text(&minted, "access_key_id"))
        .env("SECRET_A", text(&minted, "secret_access_key"))
        .env("KEY_B", text(&other, "access_key_id"))
        .env("SECRET_B", text(&other, "secret_access_key"))
        .kill_on_drop(true)
        .status();
    assert!(
        child.await.unwrap().success(),
        "s3_clients.py failed; its output is above"
    );
}
