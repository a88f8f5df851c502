//! Bodies in `aws-chunked` coding: chunks with their length, perhaps a signature each, perhaps headers behind the last.

use bytes::{Buf, Bytes, BytesMut};
use ferroflow_blob::{BlobError, ByteStream};
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};

use super::checksum::Checksum;
use super::fault::{Fault, FaultCode};
use crate::domain::grant::{hmac, same};

/// The longest line of a chunk's head or a trailing header.
const LINE: usize = 8 * 1024;
/// A signed chunk is held until its signature is checked, so it may not be larger than this.
const SIGNED_CHUNK: usize = 64 * 1024 * 1024;
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Signs chunk by chunk, each over the one before.
pub(crate) struct ChunkSigner {
    pub key: Vec<u8>,
    pub time: String,
    pub scope: String,
    /// Signature of the request, then of the last chunk.
    pub previous: String,
}

impl ChunkSigner {
    fn check(&mut self, signature: &str, kind: &str, tail: &str) -> Result<(), Fault> {
        let text = format!(
            "AWS4-HMAC-SHA256-{kind}\n{}\n{}\n{}\n{tail}",
            self.time, self.scope, self.previous
        );
        let expected = hex::encode(hmac(&self.key, &[text.as_bytes()]));
        if !same(expected.as_bytes(), signature.as_bytes()) {
            return Err(Fault::new(
                FaultCode::SignatureDoesNotMatch,
                "the signature of a chunk does not match",
            ));
        }
        self.previous = expected;
        Ok(())
    }
}

/// Where the decoder is.
enum At {
    /// Before the line of a chunk.
    Head,
    /// In a chunk: bytes to come.
    Data(usize),
    /// In a chunk whose signature must be checked first: its size and signature.
    Held(usize, String),
    /// Before the line feed behind a chunk.
    Feed,
    /// Behind the last chunk.
    Trailer,
    /// At the end.
    Done,
}

/// Decodes a body, piece by piece as it comes.
pub(crate) struct Decoder {
    at: At,
    buffer: BytesMut,
    signer: Option<ChunkSigner>,
    trailer: bool,
    checksums: Vec<Checksum>,
    trailers: String,
}

impl Decoder {
    pub(crate) fn new(signer: Option<ChunkSigner>, trailer: bool, checksums: Vec<Checksum>) -> Self {
        let (buffer, trailers) = (BytesMut::new(), String::new());
        Self {
            at: At::Head,
            buffer,
            signer,
            trailer,
            checksums,
            trailers,
        }
    }

    fn line(&mut self) -> Result<Option<String>, Fault> {
        let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") else {
            if self.buffer.len() > LINE {
                return Err(incomplete("a line of the chunked body has no end"));
            }
            return Ok(None);
        };
        let line = self.buffer.split_to(end);
        self.buffer.advance(2);
        String::from_utf8(line.to_vec())
            .map(Some)
            .map_err(|_| incomplete("a line of the chunked body is not text"))
    }

    fn give(&mut self, data: Bytes) -> Bytes {
        self.checksums
            .iter_mut()
            .for_each(|checksum| checksum.update(&data));
        data
    }

    /// The next bytes of the body, if enough has come.
    fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            match &mut self.at {
                At::Head => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    let (size, extension) = line.split_once(';').unwrap_or((&line, ""));
                    let size = usize::from_str_radix(size.trim(), 16)
                        .map_err(|_| incomplete("a chunk has no length"))?;
                    self.at = match &mut self.signer {
                        None if size == 0 => At::Trailer,
                        None => At::Data(size),
                        Some(signer) => {
                            let signature = extension
                                .strip_prefix("chunk-signature=")
                                .unwrap_or_default()
                                .to_owned();
                            if size > SIGNED_CHUNK {
                                return Err(Fault::new(
                                    FaultCode::EntityTooLarge,
                                    "a signed chunk is larger than 64 MiB",
                                ));
                            }
                            if size == 0 {
                                signer.check(&signature, "PAYLOAD", &format!("{EMPTY}\n{EMPTY}"))?;
                                At::Trailer
                            } else {
                                At::Held(size, signature)
                            }
                        }
                    };
                }
                At::Data(left) => {
                    if self.buffer.is_empty() {
                        return Ok(None);
                    }
                    let size = self.buffer.len().min(*left);
                    *left -= size;
                    if *left == 0 {
                        self.at = At::Feed;
                    }
                    let data = self.buffer.split_to(size).freeze();
                    return Ok(Some(self.give(data)));
                }
                At::Held(size, signature) => {
                    if self.buffer.len() < *size {
                        return Ok(None);
                    }
                    let (data, signature) = (self.buffer.split_to(*size).freeze(), std::mem::take(signature));
                    if let Some(signer) = &mut self.signer {
                        let hash = hex::encode(Sha256::digest(&data));
                        signer.check(&signature, "PAYLOAD", &format!("{EMPTY}\n{hash}"))?;
                    }
                    self.at = At::Feed;
                    return Ok(Some(self.give(data)));
                }
                At::Feed => {
                    if self.buffer.len() < 2 {
                        return Ok(None);
                    }
                    if &self.buffer.split_to(2)[..] != b"\r\n" {
                        return Err(incomplete("a chunk is longer than its head says"));
                    }
                    self.at = At::Head;
                }
                At::Trailer => {
                    let Some(line) = self.line()? else { return Ok(None) };
                    if line.is_empty() {
                        self.at = At::Done;
                        continue;
                    }
                    let (name, value) = line.split_once(':').unwrap_or((&line, ""));
                    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
                    if name == "x-amz-trailer-signature" {
                        if let Some(signer) = &mut self.signer {
                            let hash = hex::encode(Sha256::digest(self.trailers.as_bytes()));
                            signer.check(value, "TRAILER", &hash)?;
                            self.trailer = false;
                        }
                    } else {
                        self.trailers.push_str(&format!("{name}:{value}\n"));
                        self.checksums
                            .iter_mut()
                            .for_each(|checksum| checksum.expect(&name, value));
                    }
                }
                At::Done => return Ok(None),
            }
        }
    }

    fn finish(self) -> Result<(), Fault> {
        // some clients leave out the last empty line
        let ended = matches!(self.at, At::Done) || (matches!(self.at, At::Trailer) && self.buffer.is_empty());
        if !ended {
            return Err(incomplete("the chunked body ended before its last chunk"));
        }
        if self.signer.is_some() && self.trailer && !self.trailers.is_empty() {
            return Err(Fault::new(
                FaultCode::SignatureDoesNotMatch,
                "the trailing headers are not signed",
            ));
        }
        self.checksums.into_iter().try_for_each(Checksum::check)
    }
}

fn incomplete(text: &str) -> Fault {
    Fault::new(FaultCode::IncompleteBody, text)
}

/// A fault in the middle of a body travels as the body's error, so that nothing is stored.
pub(crate) fn as_blob_error(fault: Fault) -> BlobError {
    BlobError::Backend {
        key: String::new(),
        source: Box::new(fault),
    }
}

/// The fault inside a body's error.
pub(crate) fn as_fault(error: BlobError) -> Fault {
    match error {
        BlobError::Backend { key, source } => match source.downcast::<Fault>() {
            Ok(fault) => *fault,
            Err(source) => BlobError::Backend { key, source }.into(),
        },
        other => other.into(),
    }
}

/// Decodes a chunked body.
pub(crate) fn decode(body: ByteStream, decoder: Decoder) -> ByteStream {
    stream::try_unfold((body, Some(decoder)), |(mut body, decoder)| async move {
        let Some(mut decoder) = decoder else {
            return Ok(None);
        };
        loop {
            if let Some(data) = decoder.next().map_err(as_blob_error)? {
                return Ok(Some((data, (body, Some(decoder)))));
            }
            match body.next().await {
                Some(chunk) => decoder.buffer.extend_from_slice(&chunk?),
                None => {
                    decoder.finish().map_err(as_blob_error)?;
                    return Ok(None);
                }
            }
        }
    })
    .boxed()
}

/// Checks a plain body's checksums as it passes.
pub(crate) fn checked(body: ByteStream, checksums: Vec<Checksum>) -> ByteStream {
    if checksums.is_empty() {
        return body;
    }
    stream::try_unfold((body, checksums), |(mut body, mut checksums)| async move {
        match body.next().await {
            Some(chunk) => {
                let chunk = chunk?;
                checksums.iter_mut().for_each(|checksum| checksum.update(&chunk));
                Ok(Some((chunk, (body, checksums))))
            }
            None => {
                checksums
                    .into_iter()
                    .try_for_each(Checksum::check)
                    .map_err(as_blob_error)?;
                Ok(None)
            }
        }
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    async fn run(text: &str, step: usize, decoder: Decoder) -> Result<Vec<u8>, Fault> {
        let pieces: Vec<_> = text
            .as_bytes()
            .chunks(step)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let body = decode(stream::iter(pieces).boxed(), decoder);
        let all: Vec<Bytes> = body.try_collect().await.map_err(as_fault)?;
        Ok(all.concat())
    }

    fn crc() -> Vec<Checksum> {
        let mut headers = http::HeaderMap::new();
        headers.insert("x-amz-trailer", "x-amz-checksum-crc32".parse().unwrap());
        Checksum::announced(&headers)
    }

    #[tokio::test]
    async fn unsigned_chunks_with_a_trailer_decode_however_they_are_cut() {
        let text = "5\r\n12345\r\n4\r\n6789\r\n0\r\nx-amz-checksum-crc32:y/Q5Jg==\r\n\r\n";
        for step in 1..=text.len() {
            assert_eq!(
                run(text, step, Decoder::new(None, true, crc())).await.unwrap(),
                b"123456789",
                "{step}"
            );
        }
        let wrong = text.replace("y/Q5Jg==", "AAAAAA==");
        let fault = run(&wrong, 7, Decoder::new(None, true, crc())).await.unwrap_err();
        assert_eq!(fault.code, FaultCode::BadDigest);
    }

    #[tokio::test]
    async fn a_body_that_is_cut_off_is_an_error() {
        let text = "5\r\n12345\r\n4\r\n6789\r\n0\r\n\r\n";
        for end in 1..text.len() - 2 {
            let result = run(&text[..end], 3, Decoder::new(None, true, Vec::new())).await;
            assert_eq!(result.unwrap_err().code, FaultCode::IncompleteBody, "{end}");
        }
        let long = "5\r\n1234567\r\n0\r\n\r\n";
        assert!(run(long, 3, Decoder::new(None, true, Vec::new())).await.is_err());
    }

    fn signer() -> ChunkSigner {
        // the worked example of the S3 API reference, "Transferring Payload in Multiple Chunks"
        let scope = "20130524/us-east-1/s3/aws4_request";
        let first = b"AWS4wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_vec();
        ChunkSigner {
            key: scope
                .split('/')
                .fold(first, |key, part| hmac(&key, &[part.as_bytes()])),
            time: "20130524T000000Z".to_owned(),
            scope: scope.to_owned(),
            previous: "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9".to_owned(),
        }
    }

    #[tokio::test]
    async fn the_documented_signed_chunks_verify() {
        let text = format!(
            "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n{}\r\n\
             400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n{}\r\n\
             0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n",
            "a".repeat(65536),
            "a".repeat(1024)
        );
        let decoded = run(&text, 9999, Decoder::new(Some(signer()), false, Vec::new()))
            .await
            .unwrap();
        assert_eq!(decoded.len(), 66560);
        let changed = text.replacen("aaaa\r\n400", "aaab\r\n400", 1);
        let fault = run(&changed, 9999, Decoder::new(Some(signer()), false, Vec::new()))
            .await
            .unwrap_err();
        assert_eq!(fault.code, FaultCode::SignatureDoesNotMatch);
    }
}
