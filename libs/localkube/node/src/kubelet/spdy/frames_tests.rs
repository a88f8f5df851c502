use proptest::prelude::*;

use super::*;

fn encoded(frames: &[Frame]) -> BytesMut {
    let mut bytes = BytesMut::new();
    let mut codec = Codec::default();
    for frame in frames {
        codec.encode(frame.clone(), &mut bytes).unwrap();
    }
    bytes
}

/// Reads bytes that arrive in pieces of this length; parts of a data frame are put together again.
fn decoded(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, BadFrame> {
    let (mut codec, mut buffer, mut frames) = (Codec::default(), BytesMut::new(), Vec::<Frame>::new());
    let mut whole = true;
    for piece in bytes.chunks(piece) {
        buffer.extend_from_slice(piece);
        while let Some(frame) = codec.decode(&mut buffer)? {
            match (frames.last_mut(), frame) {
                (
                    Some(Frame::Data { fin, bytes, .. }),
                    Frame::Data {
                        fin: last,
                        bytes: more,
                        ..
                    },
                ) if !whole => {
                    *fin = last;
                    *bytes = [&bytes[..], &more[..]].concat().into();
                }
                (_, frame) => frames.push(frame),
            }
            whole = codec.data.is_none();
        }
    }
    Ok(frames)
}

fn control(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, 3];
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body);
    bytes
}

#[test]
fn the_bytes_are_those_of_the_draft() {
    let ping = encoded(&[Frame::Ping(1)]);
    assert_eq!(&ping[..], [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
    let reset = Frame::Reset {
        stream: 3,
        status: status::CANCEL,
    };
    assert_eq!(
        &encoded(&[reset])[..],
        [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 3, 0, 0, 0, 5]
    );
    let data = Frame::Data {
        stream: 5,
        fin: true,
        bytes: Bytes::from_static(b"ab"),
    };
    assert_eq!(&encoded(&[data])[..], [0, 0, 0, 5, 1, 0, 0, 2, b'a', b'b']);
    let reply = Frame::SynReply {
        stream: 1,
        fin: false,
        headers: Headers::default(),
    };
    // A zlib stream that names the dictionary.
    assert_eq!(&encoded(&[reply])[14..18], [0xe3, 0xc6, 0xa7, 0xc2]);
}

#[test]
fn a_large_data_frame_comes_in_parts_and_none_is_kept_back() {
    let mut codec = Codec::default();
    let mut buffer = BytesMut::from(&[0, 0, 0, 1, 1, 0xff, 0xff, 0xff, b'x'][..]);
    let first = Frame::Data {
        stream: 1,
        fin: false,
        bytes: Bytes::from_static(b"x"),
    };
    assert_eq!(codec.decode(&mut buffer).unwrap(), Some(first));
    assert_eq!(codec.decode(&mut buffer).unwrap(), None);
    assert!(
        buffer.capacity() < 1 << 20,
        "nothing is reserved for what has not come"
    );
}

#[test]
fn a_frame_that_cannot_be_is_refused_and_an_unknown_one_is_skipped() {
    let version = [0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
    let error = decoded(&version, 12).unwrap_err().to_string();
    assert_eq!(error, "control frame is of SPDY version 2, not 3");
    let error = decoded(&control(kind::PING, &[1]), 99).unwrap_err().to_string();
    assert_eq!(error, "control frame of kind 6 does not have the length 1");
    let error = decoded(&[0x80, 3, 0, 1, 0, 0xff, 0, 0], 8)
        .unwrap_err()
        .to_string();
    assert_eq!(error, "control frame of 16711680 bytes is over 65536");
    assert!(decoded(&control(kind::SETTINGS, &[0, 0, 0, 9]), 99).is_err());
    let mut bytes = control(77, b"what");
    bytes.extend(control(kind::PING, &[0, 0, 0, 9]));
    assert_eq!(decoded(&bytes, 1).unwrap(), [Frame::Ping(9)]);
}

fn headers() -> impl Strategy<Value = Headers> {
    prop::collection::vec(("[a-z]{1,12}", ".{0,40}"), 0..4).prop_map(Headers)
}

fn frame() -> impl Strategy<Value = Frame> {
    let stream = || 0..=NUMBER;
    let bytes = prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    let setting = (any::<u8>(), 0u32..1 << 24, any::<u32>());
    let settings = prop::collection::vec(
        setting.prop_map(|(flags, id, value)| Setting { flags, id, value }),
        0..4,
    );
    prop_oneof![
        (
            stream(),
            stream(),
            0u8..8,
            any::<bool>(),
            any::<bool>(),
            headers()
        )
            .prop_map(|(stream, associated, priority, fin, unidirectional, headers)| {
                Frame::SynStream {
                    stream,
                    associated,
                    priority,
                    fin,
                    unidirectional,
                    headers,
                }
            }),
        (stream(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
            stream,
            fin,
            headers
        }),
        (stream(), any::<bool>(), headers()).prop_map(|(stream, fin, headers)| Frame::Headers {
            stream,
            fin,
            headers
        }),
        (stream(), any::<u32>()).prop_map(|(stream, status)| Frame::Reset { stream, status }),
        settings.prop_map(Frame::Settings),
        any::<u32>().prop_map(Frame::Ping),
        (stream(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
        (stream(), stream()).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        (stream(), any::<bool>(), bytes).prop_map(|(stream, fin, bytes)| Frame::Data { stream, fin, bytes }),
    ]
}

proptest! {
    #[test]
    fn frames_are_read_as_they_were_written_however_they_arrive(
        frames in prop::collection::vec(frame(), 0..8),
        piece in 1usize..400,
    ) {
        prop_assert_eq!(decoded(&encoded(&frames), piece).unwrap(), frames);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 0u16..12) {
        drop(decoded(&bytes, 7));
        drop(decoded(&control(kind, &bytes), 50));
    }
}
