use tokio::io::DuplexStream;
use tokio::task::JoinHandle;

use super::*;
use crate::kubelet::streams::attended;

const LIMIT: Duration = Duration::from_secs(20);

/// A client that sees frames.
struct Client {
    frames: FramedRead<tokio::io::ReadHalf<DuplexStream>, Codec>,
    sink: FramedWrite<tokio::io::WriteHalf<DuplexStream>, Codec>,
}

impl Client {
    async fn send(&mut self, frame: Frame) {
        self.sink.send(frame).await.unwrap();
    }

    async fn open(&mut self, stream: u32, name: &str) {
        self.send(Frame::SynStream {
            stream,
            associated: 0,
            priority: 0,
            fin: false,
            unidirectional: false,
            headers: Headers(vec![("streamtype".to_owned(), name.to_owned())]),
        })
        .await;
    }

    async fn data(&mut self, stream: u32, bytes: &'static [u8], fin: bool) {
        let bytes = Bytes::from_static(bytes);
        self.send(Frame::Data { stream, fin, bytes }).await;
    }

    /// The next frame; None at the end.
    async fn next(&mut self) -> Option<Frame> {
        let next = tokio::time::timeout(LIMIT, self.frames.next());
        next.await.expect("a frame comes").map(|frame| frame.unwrap())
    }
}

/// A session whose streams are echoed in upper case, each taken unless it is called `no`.
fn echo(patience: Option<Duration>) -> (Client, JoinHandle<()>) {
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut accepted, carrier) = session(far, patience);
    let work = async move {
        let mut tasks = tokio::task::JoinSet::new();
        while let Some(opened) = accepted.next().await {
            match opened.headers.get("streamtype") {
                Some("no") => {}
                Some("last") => break,
                Some("stuck") => {
                    opened.stream.output.accept().await.unwrap();
                    tasks.spawn(async move {
                        opened.stream.output.gone().cancelled().await;
                        drop(opened);
                    });
                }
                _ => drop(tasks.spawn(async move {
                    let Stream { mut input, output } = opened.stream;
                    output.accept().await.unwrap();
                    while let Some(bytes) = input.recv().await {
                        if output.send(bytes.to_ascii_uppercase().into()).await.is_err() {
                            return;
                        }
                    }
                    output.close().await;
                })),
            }
        }
        drop(accepted);
        while tasks.join_next().await.is_some() {}
    };
    let serving = tokio::spawn(attended(carrier, work));
    let (reader, writer) = tokio::io::split(near);
    let client = Client {
        frames: FramedRead::new(reader, Codec::default()),
        sink: FramedWrite::new(writer, Codec::default()),
    };
    (client, serving)
}

fn reply(stream: u32) -> Frame {
    let headers = Headers::default();
    Frame::SynReply {
        stream,
        fin: false,
        headers,
    }
}

fn data(stream: u32, bytes: &'static [u8], fin: bool) -> Frame {
    let bytes = Bytes::from_static(bytes);
    Frame::Data { stream, fin, bytes }
}

#[tokio::test]
async fn a_stream_is_taken_carried_and_closed_half_by_half() {
    let (mut client, serving) = echo(None);
    assert!(matches!(client.next().await, Some(Frame::Settings(_))));
    client.open(1, "echo").await;
    assert_eq!(client.next().await, Some(reply(1)));
    client.data(1, b"one", false).await;
    assert_eq!(client.next().await, Some(data(1, b"ONE", false)));
    client.data(1, b"two", true).await;
    assert_eq!(client.next().await, Some(data(1, b"TWO", false)));
    assert_eq!(client.next().await, Some(data(1, b"", true)));
    client.open(3, "last").await;
    let refused = Frame::Reset {
        stream: 3,
        status: status::REFUSED_STREAM,
    };
    assert_eq!(client.next().await, Some(refused));
    assert_eq!(
        client.next().await,
        Some(Frame::GoAway {
            last: 3,
            status: status::OK
        })
    );
    drop(client);
    tokio::time::timeout(LIMIT, serving)
        .await
        .expect("it ends with the client")
        .unwrap();
}

#[tokio::test]
async fn pings_are_answered_and_a_stream_that_is_not_wanted_is_refused() {
    let (mut client, _serving) = echo(None);
    assert!(matches!(client.next().await, Some(Frame::Settings(_))));
    client.send(Frame::Ping(7)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(7)));
    // An answer to a ping of ours, which there was none of, is let be; so is what else a client may say.
    client.send(Frame::Ping(8)).await;
    client.send(Frame::Settings(Vec::new())).await;
    client.send(Frame::WindowUpdate { stream: 1, delta: 1 }).await;
    client.open(1, "no").await;
    let refused = Frame::Reset {
        stream: 1,
        status: status::REFUSED_STREAM,
    };
    assert_eq!(client.next().await, Some(refused));
    // Late data is ignored; that of a stream which never was is not.
    client.data(1, b"late", false).await;
    client.data(9, b"never", false).await;
    let invalid = Frame::Reset {
        stream: 9,
        status: status::INVALID_STREAM,
    };
    assert_eq!(client.next().await, Some(invalid));
}

#[tokio::test]
async fn a_stream_that_the_client_resets_is_over_and_others_go_on() {
    let (mut client, _serving) = echo(None);
    assert!(matches!(client.next().await, Some(Frame::Settings(_))));
    client.open(1, "stuck").await;
    assert_eq!(client.next().await, Some(reply(1)));
    client
        .send(Frame::Reset {
            stream: 1,
            status: status::CANCEL,
        })
        .await;
    client.open(3, "echo").await;
    assert_eq!(client.next().await, Some(reply(3)));
    client.data(3, b"on", true).await;
    assert_eq!(client.next().await, Some(data(3, b"ON", false)));
}

#[tokio::test]
async fn numbers_that_do_not_grow_end_the_session() {
    for stream in [2, 3] {
        let (mut client, serving) = echo(None);
        assert!(matches!(client.next().await, Some(Frame::Settings(_))));
        client.open(3, "echo").await;
        assert_eq!(client.next().await, Some(reply(3)));
        client.open(stream, "echo").await;
        let end = Frame::GoAway {
            last: 3,
            status: status::PROTOCOL_ERROR,
        };
        assert_eq!(client.next().await, Some(end));
        assert_eq!(client.next().await, None);
        tokio::time::timeout(LIMIT, serving)
            .await
            .expect("it ends")
            .unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_is_not_read_is_given_up_for_the_others() {
    let (mut client, _serving) = echo(Some(Duration::from_millis(50)));
    assert!(matches!(client.next().await, Some(Frame::Settings(_))));
    client.open(1, "stuck").await;
    assert_eq!(client.next().await, Some(reply(1)));
    for _ in 0..20 {
        client.data(1, b"more", false).await;
    }
    let given_up = Frame::Reset {
        stream: 1,
        status: status::FLOW_CONTROL_ERROR,
    };
    assert_eq!(client.next().await, Some(given_up));
    client.open(3, "echo").await;
    assert_eq!(client.next().await, Some(reply(3)));
}

#[tokio::test]
async fn more_than_any_queue_holds_is_carried_both_ways_at_once() {
    let (client, _serving) = echo(None);
    let Client { mut frames, mut sink } = client;
    let total = 8 << 20;
    let sending = async {
        for stream in [1, 3] {
            let headers = Headers::default();
            let (associated, priority, fin, unidirectional) = (0, 0, false, false);
            let open = Frame::SynStream {
                stream,
                associated,
                priority,
                fin,
                unidirectional,
                headers,
            };
            sink.send(open).await.unwrap();
        }
        let bytes = Bytes::from(vec![b'a'; 1 << 20]);
        for turn in 0..total >> 20 {
            for stream in [1, 3] {
                let fin = turn == (total >> 20) - 1;
                sink.send(Frame::Data {
                    stream,
                    fin,
                    bytes: bytes.clone(),
                })
                .await
                .unwrap();
            }
        }
    };
    let receiving = async {
        let (mut received, mut ended) = (HashMap::new(), 0);
        while ended < 2 {
            if let Frame::Data { stream, fin, bytes } = frames.next().await.unwrap().unwrap() {
                *received.entry(stream).or_insert(0) += bytes.len();
                ended += u32::from(fin);
                assert!(bytes.iter().all(|byte| *byte == b'A'));
            }
        }
        received
    };
    let both = async { tokio::join!(sending, receiving).1 };
    let received = tokio::time::timeout(LIMIT, both).await.expect("all of it comes");
    assert_eq!(received, HashMap::from([(1, total), (3, total)]));
}
