//! The model server over real sockets, with a small model that xgboost trained.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use ferroflow_modelserver::model::{Model, XgboostModel};
use ferroflow_modelserver::server::{Limits, Server, serve};
use ferroflow_modelserver::xgboost::{Rounds, load};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct Running {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    server: Arc<Server>,
    task: tokio::task::JoinHandle<std::io::Result<()>>,
}

fn fixture(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

fn iris(form: &str) -> Model {
    let booster = load(&fixture(&format!("iris.{form}")), Rounds::All).unwrap();
    Model::native(Arc::new(XgboostModel::new(booster)))
}

async fn start(model: Option<Model>) -> Running {
    let stop = CancellationToken::new();
    let limits = Limits {
        body: 1 << 20,
        ..Limits::default()
    };
    let server = Arc::new(Server::new("iris".into(), limits, stop.clone()));
    if let Some(model) = model {
        server.set_model(model);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(serve(server.clone(), listener));
    Running {
        address,
        stop,
        server,
        task,
    }
}

impl Running {
    /// Sends bytes as they are and reads one answer: code, head and body.
    async fn raw(&self, request: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        answer(&mut stream).await
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.raw(&request).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        let (code, _, body) = self.send("GET", path, "", b"").await;
        (code, serde_json::from_slice(&body).unwrap())
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        let (code, _, body) = self.send("POST", path, "", body.as_bytes()).await;
        (code, serde_json::from_slice(&body).unwrap())
    }

    /// A refused inference: code and text.
    async fn refused(&self, path: &str, body: &str) -> (u16, String) {
        let (code, value) = self.post(path, body).await;
        (code, value["error"].as_str().unwrap_or_default().to_owned())
    }
}

async fn answer(stream: &mut TcpStream) -> (u16, String, Vec<u8>) {
    let mut seen = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        if let Some(end) = seen.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(seen[..end].to_vec())
                .unwrap()
                .to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap()
                .parse::<usize>()
                .unwrap();
            while seen.len() < end + 4 + length {
                let count = stream.read(&mut buffer).await.unwrap();
                assert!(count > 0, "the answer broke off");
                seen.extend_from_slice(&buffer[..count]);
            }
            let code = head.split(' ').nth(1).unwrap().parse().unwrap();
            return (code, head, seen[end + 4..].to_vec());
        }
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "no answer, only {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..count]);
    }
}

fn expected() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("iris.expected.json")).unwrap()).unwrap()
}

const V1: &str = "/v1/models/iris:predict";
const V2: &str = "/v2/models/iris/infer";

#[tokio::test]
async fn both_protocols_and_both_forms_equal_xgboost() {
    let expected = expected();
    for form in ["json", "ubj"] {
        let running = start(Some(iris(form))).await;
        let (code, v1) = running
            .post(V1, &json!({"instances": expected["instances"]}).to_string())
            .await;
        assert_eq!(
            (code, &v1["predictions"]),
            (200, &expected["predictions"]),
            "{form}"
        );
        let rows = expected["instances"].as_array().unwrap().len();
        let tensor =
            json!({"name": "input-0", "shape": [rows, 4], "datatype": "FP64", "data": expected["instances"]});
        let (code, v2) = running
            .post(V2, &json!({"id": "42", "inputs": [tensor]}).to_string())
            .await;
        assert_eq!(code, 200, "{v2}");
        let output = &v2["outputs"][0];
        assert_eq!(
            (&output["name"], &output["shape"], &output["datatype"]),
            (&json!("output-0"), &json!([rows, 3]), &json!("FP32"))
        );
        let flat: Vec<&Value> = expected["predictions"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|row| row.as_array().unwrap())
            .collect();
        assert_eq!(
            output["data"].as_array().unwrap().iter().collect::<Vec<_>>(),
            flat
        );
        assert_eq!((&v2["id"], &v2["model_name"]), (&json!("42"), &json!("iris")));
    }
}

#[tokio::test]
async fn binary_tensors_and_gzip() {
    let running = start(Some(iris("json"))).await;
    let json = br#"{"parameters":{"binary_data_output":true},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"binary_data_size":16}}]}"#;
    let mut body = json.to_vec();
    for value in [5.1f32, 3.5, 1.4, 0.2] {
        body.extend_from_slice(&value.to_le_bytes());
    }
    let header = format!("inference-header-content-length: {}\r\n", json.len());
    let (code, head, answer) = running.send("POST", V2, &header, &body).await;
    assert_eq!(code, 200, "{}", String::from_utf8_lossy(&answer));
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("inference-header-content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(head.contains("content-type: application/octet-stream"));
    let values: Vec<f32> = answer[length..]
        .chunks(4)
        .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()))
        .collect();
    let first = expected()["predictions"][0].clone();
    let want: Vec<f32> = first
        .as_array()
        .unwrap()
        .iter()
        .map(|value| value.as_f64().unwrap() as f32)
        .collect();
    assert_eq!(values, want);

    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, br#"{"instances":[[5.1,3.5,1.4,0.2]]}"#).unwrap();
    let (code, _, answer) = running
        .send(
            "POST",
            V1,
            "content-encoding: gzip\r\n",
            &packed.finish().unwrap(),
        )
        .await;
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!((code, &answer["predictions"][0]), (200, &first));
    // A small body that grows beyond the limit is stopped there.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut bomb, &vec![b' '; 8 << 20]).unwrap();
    let (code, _, _) = running
        .send("POST", V1, "content-encoding: gzip\r\n", &bomb.finish().unwrap())
        .await;
    assert_eq!(code, 413);
    let (code, _, answer) = running.send("POST", V1, "content-encoding: br\r\n", b"x").await;
    assert_eq!(code, 415, "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn each_bad_request_is_told_what_is_wrong() {
    let running = start(Some(iris("json"))).await;
    let input = |shape: &str, datatype: &str, data: &str| {
        format!(r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"{datatype}","data":{data}}}]}}"#)
    };
    let cases = [
        (
            input("[1,3]", "FP32", "[1,2,3]"),
            400,
            r#"model "iris": tensor "x", field "shape": is [1,3], but the model takes 4 features per row"#,
        ),
        (
            input("[4]", "FP32", "[1,2,3,4]"),
            400,
            r#"model "iris": tensor "x", field "shape": is [4], expected [rows,4]"#,
        ),
        (
            input("[2,4]", "FP32", "[1,2,3,4]"),
            400,
            r#"model "iris": tensor "x", field "data": has 4 elements, but shape [2,4] needs 8"#,
        ),
        (
            input("[1,4]", "FP33", "[1,2,3,4]"),
            400,
            r#"model "iris": tensor "x", field "datatype": "FP33" is not one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, FP32, FP64, BYTES"#,
        ),
        (
            input("[1,4]", "BYTES", r#"["a","b","c","d"]"#),
            400,
            r#"model "iris": tensor "x", field "datatype": BYTES is not a number; the model takes FP32 or another numeric type"#,
        ),
        (
            input("[1,4]", "INT32", "[1,2,3,4.5]"),
            400,
            r#"model "iris": tensor "x", field "data": element 3 is 4.5, but INT32 has no fractions"#,
        ),
        (
            input("[1,4]", "FP32", r#"[1,2,3,"4"]"#),
            400,
            r#"model "iris": tensor "x", field "data": element 3 is "4", expected FP32"#,
        ),
        (
            input("[1,4]", "FP32", "[1,2,3,1e39]"),
            400,
            r#"model "iris": tensor "x", field "data": element 3 is infinite as a single float; a missing value is null"#,
        ),
        (
            r#"{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2"#.into(),
            400,
            r#"model "iris": request body is not valid JSON: unexpected end of input, expected `,` or `]` at line 1 column 67 (byte 66)"#,
        ),
        (
            "{\"inputs\":\n[}".into(),
            400,
            r#"model "iris": request body is not valid JSON: expected a value at line 2 column 2 (byte 12)"#,
        ),
        (
            String::new(),
            400,
            r#"model "iris": request body is not valid JSON: unexpected end of input, expected an object at line 1 column 1 (byte 0)"#,
        ),
    ];
    for (body, code, text) in cases {
        assert_eq!(
            running.refused(V2, &body).await,
            (code, text.to_owned()),
            "{body}"
        );
    }
    for (path, body, code, text) in [
        (
            V1,
            r#"{"instances":[[1,2,3]]}"#,
            400,
            r#"model "iris": field "instances": is [1,3], but the model takes 4 features per row"#,
        ),
        (
            V1,
            r#"{"instances":[1,2,3,4]}"#,
            400,
            r#"model "iris": field "instances": is [4], expected [rows,4]"#,
        ),
        (
            V1,
            r#"{"instances":[{"a":1}]}"#,
            400,
            r#"model "iris": field "instances": element 0 is an object, expected a number"#,
        ),
        (
            "/v1/models/other:predict",
            "{}",
            404,
            r#"model "other" does not exist here; this server has "iris""#,
        ),
        (
            "/v2/models/other/infer",
            "{}",
            404,
            r#"model "other" does not exist here; this server has "iris""#,
        ),
        (
            "/v2/models/iris/versions/3/infer",
            "{}",
            404,
            r#"model version "3" does not exist here; this server has "1""#,
        ),
        (
            "/v1/models/iris:explain",
            "{}",
            404,
            r#"this server has no "explain"; it has "predict""#,
        ),
        ("/nowhere", "{}", 404, "no such path: /nowhere"),
    ] {
        assert_eq!(
            running.refused(path, body).await,
            (code, text.to_owned()),
            "{path} {body}"
        );
    }
    let (code, _, _) = running.send("GET", V2, "", b"").await;
    assert_eq!(code, 405);
}

#[tokio::test]
async fn a_gigabyte_is_refused_and_never_held() {
    let running = start(Some(iris("json"))).await;
    let text = r#"model "iris": the request body has 1073741824 bytes, the limit is 1048576; send fewer rows at a time or raise --max_request_bytes"#;
    // A client that asks first sends nothing.
    let polite = format!(
        "POST {V2} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1073741824\r\n\r\n"
    );
    let (code, head, body) = running.raw(polite.as_bytes()).await;
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, told["error"].as_str()), (413, Some(text)));
    assert!(head.contains("connection: close"));
    // One that sends it all at once is heard to the end, and gets the same answer.
    let before = resident();
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    let head = format!("POST {V2} HTTP/1.1\r\nhost: x\r\ncontent-length: 1073741824\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = vec![b'1'; 1 << 20];
    let mut most = 0;
    for _ in 0..1024 {
        stream.write_all(&chunk).await.unwrap();
        most = most.max(resident());
    }
    let (code, _, body) = answer(&mut stream).await;
    let told: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((code, told["error"].as_str()), (413, Some(text)));
    assert!(most < before + (64 << 20), "grew from {before} to {most} bytes");
    // Without an announced length it is stopped at the limit.
    let mut chunked =
        format!("POST {V2} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").into_bytes();
    for _ in 0..3 {
        chunked.extend_from_slice(b"80000\r\n");
        chunked.extend_from_slice(&vec![b' '; 0x80000]);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(running.raw(&chunked).await.0, 413);
    let metrics = String::from_utf8(running.send("GET", "/metrics", "", b"").await.2).unwrap();
    assert!(
        metrics.contains(r#"ferroflow_model_requests_total{model_name="iris",protocol="v2",code="413"} 3"#),
        "{metrics}"
    );
}

/// Bytes of memory that this process holds.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn readiness_waits_for_the_model_and_ends_with_the_server() {
    let running = start(None).await;
    assert_eq!(running.get("/v2/health/live").await, (200, json!({"live": true})));
    assert_eq!(
        running.get("/v2/health/ready").await,
        (503, json!({"ready": false}))
    );
    let (code, text) = running.refused(V1, r#"{"instances":[[1,2,3,4]]}"#).await;
    assert_eq!((code, text.as_str()), (503, r#"model "iris" is not ready"#));
    running.server.set_model(iris("json"));
    assert_eq!(
        running.get("/v2/health/ready").await,
        (200, json!({"ready": true}))
    );
    assert_eq!(running.get("/").await, (200, json!({"status": "alive"})));
    assert_eq!(
        running.get("/v1/models").await,
        (200, json!({"models": ["iris"]}))
    );
    assert_eq!(
        running.get("/v1/models/iris").await,
        (200, json!({"name": "iris", "ready": true}))
    );
    assert_eq!(
        running.get("/v2/models/iris").await,
        (
            200,
            json!({"name": "iris", "versions": ["1"], "platform": "xgboost_json",
            "inputs": [{"name": "input-0", "datatype": "FP32", "shape": [-1, 4]}],
            "outputs": [{"name": "output-0", "datatype": "FP32", "shape": [-1, 3]}]})
        )
    );
    // A connection that waits for its next request does not hold up the end.
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(answer(&mut idle).await.0, 200);
    running.stop.cancel();
    tokio::time::timeout(std::time::Duration::from_secs(5), running.task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}
