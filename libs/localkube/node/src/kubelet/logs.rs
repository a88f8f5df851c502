//! `/containerLogs`: a container's log, from where the request says, and on as it grows.

use std::fs;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Kubelet, Refusal, check_container};
use crate::agent::pods::Entry;
use crate::os::FolderWatch;
use crate::shim::{log_path, parse_entry, rotated};
use crate::state::Status;

const CHUNK: usize = 64 << 10;
/// Chunks on their way to a slow reader.
const BACKLOG: usize = 4;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Options {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<i64>,
    since_seconds: Option<i64>,
    since_time: Option<String>,
    limit_bytes: Option<usize>,
    stream: Option<String>,
}

fn yes(value: Option<&String>) -> bool {
    value.is_some_and(|value| matches!(value.as_str(), "true" | "1" | "True" | ""))
}

pub async fn serve(
    State(kubelet): State<Arc<Kubelet>>,
    UrlPath((namespace, pod, container)): UrlPath<(String, String, String)>,
    Query(options): Query<Options>,
) -> Result<Response, Refusal> {
    let entry = kubelet.entry(&namespace, &pod)?;
    if let Some(object) = entry.pod() {
        check_container(&object, &container)?;
    }
    let state = entry.state.borrow().clone();
    let current = state.as_ref().and_then(|state| state.container(&container));
    let begun =
        current.is_some_and(|current| !matches!(current.status, Status::Waiting) || current.restarts > 0);
    if !begun {
        let text =
            format!("container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating");
        return Err(Refusal::bad(text));
    }
    let mut restart = current.map_or(0, |current| current.restarts);
    let previous = yes(options.previous.as_ref());
    if previous {
        let text = format!("previous terminated container \"{container}\" in pod \"{pod}\" not found");
        restart = restart.checked_sub(1).ok_or_else(|| Refusal::bad(text))?;
    }
    let mut filter = Filter::new(&options)?;
    let path = log_path(&kubelet.agent.folder(&entry.uid), &container, restart);
    let files = kubelet.agent.config.logs.files;
    let follow = yes(options.follow.as_ref()) && !previous;
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(BACKLOG);
    tokio::spawn(async move {
        let reader = Reader {
            path,
            files,
            sender,
            entry,
            container,
            restart,
        };
        if let Err(error) = reader.run(&mut filter, options.tail_lines, follow).await {
            drop(reader.sender.send(Err(error)).await);
        }
    });
    let body = Body::from_stream(ReceiverStream::new(receiver));
    Ok(([(header::CONTENT_TYPE, "text/plain")], body).into_response())
}

/// Turns stored lines into what the client asked for.
#[derive(Debug)]
struct Filter {
    since: Option<Timestamp>,
    timestamps: bool,
    stream: Option<&'static str>,
    left: Option<usize>,
    /// the next text begins a line of the client's
    line_start: bool,
}

impl Filter {
    fn new(options: &Options) -> Result<Self, Refusal> {
        let stated = options.since_time.as_ref().map(|text| {
            text.parse::<Timestamp>()
                .map_err(|_| Refusal::bad(format!("sinceTime {text} is not an RFC 3339 time")))
        });
        let since = match (stated.transpose()?, options.since_seconds) {
            (Some(time), _) => Some(time),
            (None, Some(seconds)) => Timestamp::now()
                .checked_sub(SignedDuration::from_secs(seconds))
                .ok(),
            (None, None) => None,
        };
        let stream = match options.stream.as_deref() {
            Some("Stdout") => Some("stdout"),
            Some("Stderr") => Some("stderr"),
            _ => None,
        };
        let timestamps = yes(options.timestamps.as_ref());
        Ok(Self {
            since,
            timestamps,
            stream,
            left: options.limit_bytes,
            line_start: true,
        })
    }

    fn done(&self) -> bool {
        self.left == Some(0)
    }

    /// Appends what the client sees of one stored line (without its line end).
    fn pass(&mut self, line: &[u8], to: &mut Vec<u8>) {
        let Some(entry) = parse_entry(line) else { return };
        if self.stream.is_some_and(|stream| stream != entry.stream) {
            return;
        }
        if let Some(since) = self.since {
            if entry.time.parse::<Timestamp>().is_ok_and(|time| time < since) {
                return;
            }
            // The log is in order.
            self.since = None;
        }
        let start = to.len();
        if self.timestamps && self.line_start {
            to.extend_from_slice(entry.time.as_bytes());
            to.push(b' ');
        }
        to.extend_from_slice(entry.text);
        if entry.full {
            to.push(b'\n');
        }
        self.line_start = entry.full;
        if let Some(left) = &mut self.left {
            to.truncate(start + (to.len() - start).min(*left));
            *left -= to.len() - start;
        }
    }
}

struct Reader {
    path: PathBuf,
    files: u32,
    sender: mpsc::Sender<io::Result<Bytes>>,
    entry: Arc<Entry>,
    container: String,
    restart: u32,
}

impl Reader {
    async fn run(&self, filter: &mut Filter, tail: Option<i64>, follow: bool) -> io::Result<()> {
        // Watch before reading, so that nothing written in between is missed.
        let watch = match self.path.parent() {
            Some(folder) if follow => Some(FolderWatch::new(folder)?),
            _ => None,
        };
        let mut states = self.entry.state.subscribe();
        let (mut older, path, files) = (Vec::new(), self.path.clone(), self.files);
        let tail = tail.map(|lines| usize::try_from(lines).unwrap_or(0));
        let begin = tokio::task::spawn_blocking(move || beginning(&path, files, tail))
            .await
            .map_err(io::Error::other)??;
        older.extend(begin.older);
        for file in older {
            let mut file = tokio::fs::File::open(file.0)
                .await
                .map(|handle| (handle, file.1))?;
            file.0.seek(SeekFrom::Start(file.1)).await?;
            if !self.drain(&mut file.0, &mut Vec::new(), filter).await? {
                return Ok(());
            }
        }
        let mut file = match tokio::fs::File::open(&self.path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !follow => return Ok(()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(begin.offset)).await?;
        let mut rest = Vec::new();
        loop {
            // Asked before reading: what was written before the end is then read for sure.
            let ended = self.ended();
            if !self.drain(&mut file, &mut rest, filter).await? {
                return Ok(());
            }
            if self.was_rotated(&file).await? {
                self.drain(&mut file, &mut rest, filter).await?;
                file = tokio::fs::File::open(&self.path).await?;
                continue;
            }
            let Some(watch) = &watch else { return Ok(()) };
            if ended {
                return Ok(());
            }
            tokio::select! {
                changed = watch.changed() => changed?,
                _ = states.changed() => {}
                () = self.sender.closed() => return Ok(()),
            }
        }
    }

    fn ended(&self) -> bool {
        let state = self.entry.state.borrow();
        let Some(current) = state.as_ref().and_then(|state| state.container(&self.container)) else {
            return true;
        };
        current.restarts != self.restart || current.exit().is_some()
    }

    async fn was_rotated(&self, file: &tokio::fs::File) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt;
        let open = file.metadata().await?.ino();
        Ok(tokio::fs::metadata(&self.path)
            .await
            .is_ok_and(|named| named.ino() != open))
    }

    /// Sends what the file holds from its position on. False when the client has enough, or has gone.
    async fn drain(
        &self,
        file: &mut tokio::fs::File,
        rest: &mut Vec<u8>,
        filter: &mut Filter,
    ) -> io::Result<bool> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = file.read(&mut buffer).await?;
            if count == 0 {
                return Ok(true);
            }
            rest.extend_from_slice(&buffer[..count]);
            let mut out = Vec::with_capacity(count);
            let mut start = 0;
            while let Some(length) = rest[start..].iter().position(|byte| *byte == b'\n') {
                filter.pass(&rest[start..start + length], &mut out);
                start += length + 1;
                if filter.done() {
                    break;
                }
            }
            rest.drain(..start);
            if !out.is_empty() && self.sender.send(Ok(Bytes::from(out))).await.is_err() || filter.done() {
                return Ok(false);
            }
        }
    }
}

struct Beginning {
    /// rotated files, oldest first, with the offset to begin at
    older: Vec<(PathBuf, u64)>,
    /// in the current file
    offset: u64,
}

/// Where to begin for the last `tail` lines, or for everything.
fn beginning(path: &Path, files: u32, tail: Option<usize>) -> io::Result<Beginning> {
    let mut all = vec![path.to_owned()];
    all.extend(
        (1..files)
            .map(|number| rotated(path, number))
            .take_while(|path| path.exists()),
    );
    let Some(mut missing) = tail else {
        return Ok(Beginning {
            older: all.into_iter().skip(1).rev().map(|path| (path, 0)).collect(),
            offset: 0,
        });
    };
    let mut result = Beginning {
        older: Vec::new(),
        offset: 0,
    };
    for (index, path) in all.iter().enumerate() {
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let offset = tail_offset(&text, &mut missing);
        if index == 0 {
            result.offset = offset as u64;
        } else {
            result.older.insert(0, (path.clone(), offset as u64));
        }
        if missing == 0 {
            break;
        }
    }
    Ok(result)
}

/// The offset of the last `missing` lines; `missing` becomes what the text lacks.
fn tail_offset(text: &[u8], missing: &mut usize) -> usize {
    if *missing == 0 {
        return text.len();
    }
    let end = text
        .len()
        .saturating_sub(usize::from(text.last() == Some(&b'\n')));
    let mut position = end;
    while let Some(found) = text[..position].iter().rposition(|byte| *byte == b'\n') {
        *missing -= 1;
        if *missing == 0 {
            return found + 1;
        }
        position = found;
    }
    if end > 0 {
        *missing -= 1;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(options: &Options) -> Filter {
        Filter::new(options).ok().unwrap()
    }

    const LINES: [&str; 4] = [
        "2026-01-01T00:00:00.000000001Z stdout F one",
        "2026-01-01T00:00:01.000000000Z stderr F two",
        "2026-01-01T00:00:02.000000000Z stdout P thr",
        "2026-01-01T00:00:02.000000000Z stdout F ee",
    ];

    fn text(options: &Options) -> String {
        let (mut filter, mut out) = (filter(options), Vec::new());
        LINES
            .iter()
            .for_each(|line| filter.pass(line.as_bytes(), &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_joined_filtered_and_limited() {
        assert_eq!(text(&Options::default()), "one\ntwo\nthree\n");
        let times = Options {
            timestamps: Some("true".into()),
            ..Options::default()
        };
        assert!(text(&times).ends_with("00:00:02.000000000Z three\n"));
        let since = Options {
            since_time: Some("2026-01-01T00:00:01Z".into()),
            ..Options::default()
        };
        assert_eq!(text(&since), "two\nthree\n");
        let limit = Options {
            limit_bytes: Some(6),
            ..Options::default()
        };
        assert_eq!(text(&limit), "one\ntw");
        let stderr = Options {
            stream: Some("Stderr".into()),
            ..Options::default()
        };
        assert_eq!(text(&stderr), "two\n");
    }

    #[test]
    fn the_tail_is_found_across_rotated_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        fs::write(rotated(&path, 1), "a\nb\nc\n").unwrap();
        fs::write(&path, "d\ne\n").unwrap();
        for (tail, offset, older) in [
            (0, 4, vec![]),
            (1, 2, vec![]),
            (2, 0, vec![]),
            (3, 0, vec![4]),
            (5, 0, vec![0]),
            (9, 0, vec![0]),
        ] {
            let found = beginning(&path, 5, Some(tail)).unwrap();
            let offsets: Vec<u64> = found.older.iter().map(|(_, offset)| *offset).collect();
            assert_eq!((found.offset, offsets), (offset, older), "tail {tail}");
        }
        assert_eq!(beginning(&path, 5, None).unwrap().older.len(), 1);
    }
}
