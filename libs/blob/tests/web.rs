//! A plain web server as a root: what `storageUri: http://...` reads.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use ferroflow_blob::{Options, resolve};

/// Answers every request with these bytes.
fn serve(body: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap();
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nlast-modified: Sun, 01 Nov 2026 00:00:00 GMT\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let body = if request[..read].starts_with(b"HEAD") {
                ""
            } else {
                body
            };
            let _gone = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    port
}

#[tokio::test]
async fn an_object_is_read_over_plain_http() {
    let port = serve("{}");
    let uri = format!("http://127.0.0.1:{port}/models/digits.json");
    let (blob, key) = resolve(&uri, &Options::new()).unwrap();
    let info = blob.head(&key).await.unwrap();
    assert_eq!(info.size, 2);
}
