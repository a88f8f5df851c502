//! A small blocking HTTP/1.1 client: one kept-alive connection, bodies of known length, no TLS (inside a cluster the
//! mesh encrypts; on a laptop it is loopback).

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use ferroflow_telemetry::{LiveSpan, Place};

const CONNECT: Duration = Duration::from_secs(5);
const TRANSFER: Duration = Duration::from_secs(120);
/// Heads of answers are small; anything larger is no answer of ours.
const MAX_HEAD: u64 = 64 * 1024;

/// What a request sends.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// Nothing.
    Empty,
    /// Bytes in memory.
    Bytes(&'a [u8]),
    /// A file as long as it is when the request starts.
    File(&'a Path),
}

/// The head of an answer, with its body still to be read.
#[derive(Debug)]
pub struct Answer<'c> {
    /// Status code.
    pub status: u16,
    body: BodyReader<'c>,
}

/// `http://host:port/path`, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Host and port.
    pub authority: String,
    /// Path and query, starting with a slash.
    pub path: String,
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// If it is not `http://`.
    pub fn parse(text: &str) -> io::Result<Self> {
        let rest = text.strip_prefix("http://").ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{text:?} is no http:// URL; the launcher speaks plain http"),
            )
        })?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let authority = if authority.contains(':') {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        Ok(Self {
            authority,
            path: if path.is_empty() {
                "/".to_owned()
            } else {
                path.to_owned()
            },
        })
    }
}

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    authority: String,
    place: Place,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client of `host:port`; connects with the first request.
    pub fn new(authority: &str) -> Self {
        Self {
            authority: authority.to_owned(),
            place: Place::default(),
            connection: None,
        }
    }

    /// From now on, each request is a span in this place.
    pub fn trace(&mut self, place: Place) {
        self.place = place;
    }

    /// Another client of the same server.
    #[must_use]
    pub fn fresh(&self) -> Self {
        Self {
            place: self.place.clone(),
            ..Self::new(&self.authority)
        }
    }

    /// Sends a request and reads the head of the answer.
    ///
    /// # Errors
    /// What the network says. A kept connection that the server has closed meanwhile is opened again once.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> io::Result<Answer<'_>> {
        let mut span = self.place.call(|| format!("{method} {}", template(path)));
        let result = match span.context() {
            None => self.exchange_again(method, path, headers, body),
            Some(context) => {
                let mut headers = headers.to_vec();
                headers.push(("traceparent", &context.traceparent));
                if !context.tracestate.is_empty() {
                    headers.push(("tracestate", &context.tracestate));
                }
                let result = self.exchange_again(method, path, &headers, body);
                self.describe(&mut span, method, path, &result);
                result
            }
        };
        result.map(|head| self.answer(method, head))
    }

    fn describe(&self, span: &mut LiveSpan, method: &str, path: &str, result: &io::Result<Head>) {
        let (host, port) = self.authority.rsplit_once(':').unwrap_or((&self.authority, "80"));
        span.set("http.request.method", method.to_owned());
        span.set("url.template", template(path).to_owned());
        span.set("server.address", host.to_owned());
        span.set("server.port", port.parse::<i64>().unwrap_or(80));
        match result {
            Ok(head) => {
                span.set("http.response.status_code", i64::from(head.status));
                if head.status >= 400 {
                    span.fail(&format!("status {}", head.status));
                }
            }
            Err(error) => span.fail(&error.to_string()),
        }
    }

    /// A kept connection may have been closed meanwhile; then another is opened.
    fn exchange_again(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> io::Result<Head> {
        let kept = self.connection.is_some();
        let mut result = self.exchange(method, path, headers, body);
        if result.is_err() && kept {
            self.connection = None;
            result = self.exchange(method, path, headers, body);
        }
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    fn answer(&mut self, method: &str, head: Head) -> Answer<'_> {
        let framing = if method == "HEAD" || head.status == 204 || head.status == 304 {
            Framing::Length(0)
        } else {
            head.framing
        };
        Answer {
            status: head.status,
            body: BodyReader {
                client: self,
                framing,
                keep: head.keep,
            },
        }
    }

    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> io::Result<Head> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => connect(&self.authority)?,
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.authority);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let stream = connection.get_mut();
        match body {
            Body::Empty => {
                head.push_str("content-length: 0\r\n\r\n");
                stream.write_all(head.as_bytes())?;
            }
            Body::Bytes(bytes) => {
                head.push_str(&format!("content-length: {}\r\n\r\n", bytes.len()));
                let mut all = head.into_bytes();
                all.extend_from_slice(bytes);
                stream.write_all(&all)?;
            }
            Body::File(path) => {
                let file = File::open(path)?;
                let length = file.metadata()?.len();
                head.push_str(&format!("content-length: {length}\r\n\r\n"));
                stream.write_all(head.as_bytes())?;
                let sent = io::copy(&mut file.take(length), stream)?;
                if sent != length {
                    return Err(io::Error::other(format!(
                        "{} became shorter while it was sent",
                        path.display()
                    )));
                }
            }
        }
        let head = Head::read(&mut connection)?;
        self.connection = Some(connection);
        Ok(head)
    }
}

/// The part of a path that is the same for all objects and attempts: a span has few names, and no secrets.
fn template(path: &str) -> &str {
    let path = path.split('?').next().unwrap_or(path);
    let ends = path.match_indices('/').map(|(at, _)| at);
    match ends.skip(1).nth(if path.starts_with("/apis/") { 4 } else { 2 }) {
        Some(end) => &path[..end],
        None => path,
    }
}

fn connect(authority: &str) -> io::Result<BufReader<TcpStream>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{authority} has no address"));
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TRANSFER))?;
                stream.set_write_timeout(Some(TRANSFER))?;
                return Ok(BufReader::with_capacity(64 * 1024, stream));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[derive(Debug)]
struct Head {
    status: u16,
    framing: Framing,
    keep: bool,
}

#[derive(Debug)]
enum Framing {
    Length(u64),
    Chunked { left: u64, done: bool },
    ToTheEnd,
}

impl Head {
    fn read(connection: &mut BufReader<TcpStream>) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("bad answer: {what}"));
        let mut head = connection.by_ref().take(MAX_HEAD);
        let mut line = String::new();
        head.read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|s| s.trim().parse().ok())
            .ok_or_else(|| bad("no status"))?;
        let mut framing = Framing::ToTheEnd;
        let mut keep = true;
        loop {
            line.clear();
            if head.read_line(&mut line)? == 0 {
                return Err(bad("its head does not end"));
            }
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            let value = value.trim();
            if name.eq_ignore_ascii_case("content-length") {
                framing = Framing::Length(value.parse().map_err(|_| bad("its length is no number"))?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked")
            {
                framing = Framing::Chunked { left: 0, done: false };
            } else if name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("close") {
                keep = false;
            }
        }
        Ok(Self {
            status,
            framing,
            keep,
        })
    }
}

#[derive(Debug)]
struct BodyReader<'c> {
    client: &'c mut Client,
    framing: Framing,
    keep: bool,
}

impl Answer<'_> {
    /// Reads the body to its end.
    ///
    /// # Errors
    /// What the network says, or that the body is longer than `limit`.
    pub fn bytes(mut self, limit: u64) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        let read = self.body.by_ref().take(limit + 1).read_to_end(&mut all)? as u64;
        if read > limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the answer is longer than {limit} bytes"),
            ));
        }
        Ok(all)
    }

    /// Copies the body into a file.
    ///
    /// # Errors
    /// What the network or the file system says.
    pub fn copy_to(mut self, file: &mut File) -> io::Result<u64> {
        io::copy(&mut self.body, file)
    }
}

impl Read for BodyReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(connection) = self.client.connection.as_mut() else {
            return Ok(0);
        };
        match &mut self.framing {
            Framing::ToTheEnd => connection.read(buffer),
            Framing::Length(left) => read_some(connection, buffer, left),
            Framing::Chunked { done: true, .. } => Ok(0),
            Framing::Chunked { left, done } => {
                if *left == 0 {
                    let mut line = String::new();
                    connection.read_line(&mut line)?;
                    if line == "\r\n" {
                        line.clear();
                        connection.read_line(&mut line)?;
                    }
                    let size = line.split(';').next().unwrap_or_default().trim();
                    *left = u64::from_str_radix(size, 16)
                        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "bad answer: bad chunk"))?;
                    if *left == 0 {
                        *done = true;
                        connection.read_line(&mut line)?;
                        return Ok(0);
                    }
                }
                read_some(connection, buffer, left)
            }
        }
    }
}

fn read_some(connection: &mut BufReader<TcpStream>, buffer: &mut [u8], left: &mut u64) -> io::Result<usize> {
    let most = buffer.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    if most == 0 {
        return Ok(0);
    }
    let read = connection.read(&mut buffer[..most])?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    *left -= read as u64;
    Ok(read)
}

impl Drop for BodyReader<'_> {
    /// What is left of a short body is read, so that the connection can be used again; else it is closed.
    fn drop(&mut self) {
        let mut scratch = [0_u8; 8192];
        let mut ended = false;
        for _ in 0..8 {
            match self.read(&mut scratch) {
                Ok(0) => {
                    ended = true;
                    break;
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        if !ended || !self.keep || matches!(self.framing, Framing::ToTheEnd) {
            self.client.connection = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use ferroflow_telemetry::{Recorder, TraceContext};

    use super::*;

    /// A server that answers every request on every connection with the next of `answers`.
    fn server(answers: Vec<&'static str>) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let mut heads = Vec::new();
            let mut answers = answers.into_iter().peekable();
            while answers.peek().is_some() {
                let (stream, _) = listener.accept().unwrap();
                let mut reader = BufReader::new(stream);
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
                    if head.is_empty() {
                        break;
                    }
                    let length = head
                        .lines()
                        .find_map(|l| l.strip_prefix("content-length: "))
                        .unwrap()
                        .parse()
                        .unwrap();
                    io::copy(&mut reader.by_ref().take(length), &mut io::sink()).unwrap();
                    heads.push(head);
                    let Some(answer) = answers.next() else { break };
                    reader.get_mut().write_all(answer.as_bytes()).unwrap();
                    if answer.contains("close") || answers.peek().is_none() {
                        break;
                    }
                }
            }
            heads
        });
        (authority, thread)
    }

    #[test]
    fn one_connection_serves_every_framing() {
        let (authority, thread) = server(vec![
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nend",
        ]);
        let mut client = Client::new(&authority);
        let mut get = |path: &str| {
            let answer = client
                .send("GET", path, &[("a", "b")], Body::Bytes(b"x"))
                .unwrap();
            (answer.status, answer.bytes(100).unwrap())
        };
        assert_eq!(get("/1"), (200, b"hello".to_vec()));
        assert_eq!(get("/2"), (200, b"abcde".to_vec()));
        assert_eq!(get("/3"), (404, b"no".to_vec()));
        assert_eq!(get("/4"), (204, vec![]));
        assert_eq!(get("/5"), (200, b"end".to_vec()));
        let heads = thread.join().unwrap();
        assert_eq!(heads.len(), 5);
        assert!(heads[0].starts_with("GET /1 HTTP/1.1\r\nhost: ") && heads[0].contains("a: b\r\n"));
    }

    #[test]
    fn a_connection_that_the_server_closed_is_opened_again() {
        let (authority, thread) = server(vec![
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\n2",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n3",
        ]);
        let mut client = Client::new(&authority);
        for want in ["1", "2", "3"] {
            let answer = client.send("GET", "/", &[], Body::Empty).unwrap();
            assert_eq!(answer.bytes(10).unwrap(), want.as_bytes());
        }
        thread.join().unwrap();
    }

    #[test]
    fn spans_are_named_by_what_does_not_vary() {
        for (path, name) in [
            ("/artifacts/v1/objects/bucket/a/b.txt", "/artifacts/v1/objects"),
            ("/artifacts/v1/list?uri=s3%3A%2F%2Fx", "/artifacts/v1/list"),
            (
                "/apis/ferroflow/v1/pipelines/hints/run/task/0/secret",
                "/apis/ferroflow/v1/pipelines/hints",
            ),
            (
                "/apis/ferroflow/v1/tuning/trials/x/observations",
                "/apis/ferroflow/v1/tuning/trials",
            ),
            ("/", "/"),
        ] {
            assert_eq!(template(path), name);
        }
    }

    #[test]
    fn a_traced_request_carries_its_own_span() {
        let (authority, thread) = server(vec![
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        ]);
        let parent =
            TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "").unwrap();
        let mut client = Client::new(&authority);
        client.trace(Recorder::on().root("root", &parent).place());
        drop(client.send("GET", "/a", &[], Body::Empty).unwrap());
        client.trace(Place::default());
        drop(client.send("GET", "/b", &[], Body::Empty).unwrap());
        let heads = thread.join().unwrap();
        let sent = heads[0]
            .lines()
            .find_map(|line| line.strip_prefix("traceparent: "))
            .unwrap();
        assert!(
            sent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && sent.ends_with("-01"),
            "{sent}"
        );
        assert!(!heads[1].contains("traceparent"));
    }

    #[test]
    fn urls_are_plain_http() {
        let url = Url::parse("http://a.b/c?d").unwrap();
        assert_eq!((url.authority.as_str(), url.path.as_str()), ("a.b:80", "/c?d"));
        assert_eq!(Url::parse("http://a:81").unwrap().path, "/");
        assert!(
            Url::parse("https://a")
                .unwrap_err()
                .to_string()
                .contains("plain http")
        );
    }
}
