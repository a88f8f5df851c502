use tokio::io::{DuplexStream, ReadHalf, WriteHalf};
use tokio::net::TcpListener;
use tokio_util::codec::{FramedRead, FramedWrite};

use super::*;
use crate::kubelet::spdy::{Codec, Frame, Headers};
use futures::{SinkExt, StreamExt};

const LIMIT: Duration = Duration::from_secs(20);
const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[test]
fn ports_are_read_in_both_spellings() {
    assert_eq!(ports("port=80&port=81").ok(), Some(vec![80, 81]));
    assert_eq!(ports("ports=80,81").ok(), Some(vec![80, 81]));
    assert!(ports("port=0").is_err());
    assert!(ports("").is_err());
}

/// A client as kubectl is one.
struct Client {
    frames: FramedRead<ReadHalf<DuplexStream>, Codec>,
    sink: FramedWrite<WriteHalf<DuplexStream>, Codec>,
}

/// What came on a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Heard {
    bytes: Vec<u8>,
    taken: bool,
    finished: bool,
    reset: bool,
}

impl Client {
    fn start() -> Self {
        let (near, far) = tokio::io::duplex(1 << 16);
        tokio::spawn(over_spdy(Box::new(far), LOCAL, "pod".to_owned()));
        let (reader, writer) = tokio::io::split(near);
        Self {
            frames: FramedRead::new(reader, Codec::default()),
            sink: FramedWrite::new(writer, Codec::default()),
        }
    }

    async fn open(&mut self, stream: u32, fin: bool, headers: &[(&str, &str)]) {
        let headers = headers.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        let headers = Headers(headers.collect());
        let (associated, priority, unidirectional) = (0, 0, false);
        let frame = Frame::SynStream {
            stream,
            associated,
            priority,
            fin,
            unidirectional,
            headers,
        };
        self.sink.send(frame).await.unwrap();
    }

    /// The error stream and then that for data, as kubectl opens them.
    async fn connect(&mut self, port: u16, streams: [u32; 2]) {
        let (port, request) = (port.to_string(), streams[0].to_string());
        for (stream, kind) in streams.into_iter().zip(["error", "data"]) {
            let headers = [("Streamtype", kind), ("Port", &port), ("Requestid", &request)];
            self.open(stream, kind == "error", &headers).await;
        }
    }

    async fn data(&mut self, stream: u32, bytes: &'static [u8], fin: bool) {
        let bytes = Bytes::from_static(bytes);
        self.sink.send(Frame::Data { stream, fin, bytes }).await.unwrap();
    }

    /// What comes on these streams until each is over.
    async fn hear<const N: usize>(&mut self, streams: [u32; N]) -> [Heard; N] {
        let mut heard = streams.map(|_| Heard::default());
        let hearing = async {
            while heard.iter().any(|heard| !heard.finished && !heard.reset) {
                let frame = self.frames.next().await.unwrap().unwrap();
                let (Frame::SynReply { stream, .. }
                | Frame::Data { stream, .. }
                | Frame::Reset { stream, .. }) = &frame
                else {
                    continue;
                };
                let Some(heard) = streams
                    .iter()
                    .position(|known| known == stream)
                    .map(|at| &mut heard[at])
                else {
                    continue;
                };
                match frame {
                    Frame::Data { bytes, fin, .. } => {
                        heard.bytes.extend_from_slice(&bytes);
                        heard.finished = fin;
                    }
                    Frame::SynReply { .. } => heard.taken = true,
                    _ => heard.reset = true,
                }
            }
        };
        tokio::time::timeout(LIMIT, hearing)
            .await
            .expect("the streams end");
        heard
    }
}

fn well(bytes: &[u8]) -> Heard {
    let bytes = bytes.to_vec();
    Heard {
        bytes,
        taken: true,
        finished: true,
        reset: false,
    }
}

/// A port that reads to the end and then says what it has read, backwards.
async fn backwards() -> u16 {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).await.unwrap();
                bytes.reverse();
                stream.write_all(&bytes).await.unwrap();
            });
        }
    });
    port
}

#[tokio::test]
async fn connections_are_forwarded_side_by_side_and_closed_half_by_half() {
    let port = backwards().await;
    let mut client = Client::start();
    client.connect(port, [1, 3]).await;
    client.connect(port, [5, 7]).await;
    client.data(3, b"abc", false).await;
    client.data(7, b"xyz", true).await;
    assert_eq!(client.hear([5, 7]).await, [well(b""), well(b"zyx")]);
    client.data(3, b"def", true).await;
    let [errors, data] = client.hear([1, 3]).await;
    assert_eq!((errors.bytes, data.bytes), (Vec::new(), b"fedcba".to_vec()));
}

#[tokio::test]
async fn a_closed_port_is_told_on_the_error_stream_and_others_go_on() {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let closed = listener.local_addr().unwrap().port();
    drop(listener);
    let mut client = Client::start();
    client.connect(closed, [1, 3]).await;
    let [errors, data] = client.hear([1, 3]).await;
    let text = String::from_utf8(errors.bytes).unwrap();
    assert!(
        text.starts_with(&format!(
            "error forwarding port {closed} to pod pod: Connection refused"
        )),
        "{text}"
    );
    assert_eq!(data, well(b""));
    client.connect(backwards().await, [5, 7]).await;
    client.data(7, b"on", true).await;
    assert_eq!(client.hear([5, 7]).await, [well(b""), well(b"no")]);
}

#[tokio::test]
async fn a_stream_that_says_nonsense_is_refused() {
    let mut client = Client::start();
    let bad: [&[(&str, &str)]; 5] = [
        &[],
        &[("streamtype", "data"), ("port", "80")],
        &[("streamtype", "data"), ("requestid", "1"), ("port", "70000")],
        &[("streamtype", "data"), ("requestid", "1"), ("port", "0")],
        &[("streamtype", "what"), ("requestid", "1"), ("port", "80")],
    ];
    for (stream, headers) in (1..).step_by(2).zip(bad) {
        client.open(stream, false, headers).await;
        let [heard] = client.hear([stream]).await;
        assert_eq!((heard.taken, heard.reset), (false, true), "{headers:?}");
    }
}

#[tokio::test]
async fn a_client_that_gives_up_closes_the_connection() {
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let mut client = Client::start();
    client
        .connect(listener.local_addr().unwrap().port(), [1, 3])
        .await;
    let (mut stream, _) = listener.accept().await.unwrap();
    client.data(3, b"a", false).await;
    assert_eq!(stream.read_u8().await.unwrap(), b'a');
    client
        .sink
        .send(Frame::Reset { stream: 3, status: 5 })
        .await
        .unwrap();
    let ended = tokio::time::timeout(LIMIT, stream.read_u8())
        .await
        .expect("it ends");
    assert!(ended.is_err());
    assert_eq!(client.hear([1]).await, [well(b"")]);
}
