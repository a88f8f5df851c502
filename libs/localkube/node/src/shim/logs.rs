//! A container's log file in the format of the container runtime interface (`time stream tag text`), rotated by size
//! with a cap, so that a step which prints without end neither blocks nor fills the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::plan::LogLimits;

/// A line longer than this is stored in parts, as container runtimes do.
const LONGEST_PART: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    limits: LogLimits,
    buffer: Vec<u8>,
}

impl LogFile {
    pub fn create(path: PathBuf, limits: LogLimits) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            path,
            file: Some(file),
            size,
            limits,
            buffer: Vec::new(),
        })
    }

    /// Appends whole lines; what follows the last line end stays in `pending` until there is enough of it.
    pub fn append(&mut self, stream: &str, pending: &mut Vec<u8>, chunk: &[u8]) {
        let time = &format!("{:.9}", Timestamp::now());
        pending.extend_from_slice(chunk);
        let mut start = 0;
        while let Some(length) = pending[start..].iter().position(|byte| *byte == b'\n') {
            let end = start + length;
            while end - start > LONGEST_PART {
                self.push(time, stream, 'P', &pending[start..start + LONGEST_PART]);
                start += LONGEST_PART;
            }
            self.push(time, stream, 'F', &pending[start..end]);
            start = end + 1;
        }
        while pending.len() - start > LONGEST_PART {
            self.push(time, stream, 'P', &pending[start..start + LONGEST_PART]);
            start += LONGEST_PART;
        }
        pending.drain(..start);
        self.flush();
    }

    /// The stream has ended: an unfinished line is stored as it is.
    pub fn finish(&mut self, stream: &str, pending: &mut Vec<u8>) {
        if !pending.is_empty() {
            self.push(
                &format!("{:.9}", Timestamp::now()),
                stream,
                'P',
                &std::mem::take(pending),
            );
            self.flush();
        }
    }

    fn push(&mut self, time: &str, stream: &str, tag: char, text: &[u8]) {
        // Writing to a vector cannot fail.
        drop(write!(self.buffer, "{time} {stream} {tag} "));
        self.buffer.extend_from_slice(text);
        self.buffer.push(b'\n');
        if self.size + self.buffer.len() as u64 >= self.limits.bytes {
            self.flush();
            self.rotate();
        }
    }

    /// A full disk loses lines; it does not stop the step.
    fn flush(&mut self) {
        if let Some(file) = &mut self.file
            && file.write_all(&self.buffer).is_ok()
        {
            self.size += self.buffer.len() as u64;
        }
        self.buffer.clear();
    }

    fn rotate(&mut self) {
        for number in (1..self.limits.files.max(2) - 1).rev() {
            drop(fs::rename(
                rotated(&self.path, number),
                rotated(&self.path, number + 1),
            ));
        }
        drop(fs::rename(&self.path, rotated(&self.path, 1)));
        self.file = OpenOptions::new().create(true).append(true).open(&self.path).ok();
        self.size = 0;
    }
}

/// The name of the n-th older part of a log.
pub fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// One stored line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry<'a> {
    /// RFC 3339 with nanoseconds
    pub time: &'a str,
    pub stream: &'a str,
    /// the line ends here
    pub full: bool,
    pub text: &'a [u8],
}

/// Reads one line of a log file, without its line end. None when it is not in the format.
pub fn parse_entry(line: &[u8]) -> Option<LogEntry<'_>> {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = std::str::from_utf8(parts.next()?).ok()?;
    let tag = parts.next()?;
    Some(LogEntry {
        time,
        stream,
        full: tag == b"F",
        text: parts.next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(bytes: u64) -> LogLimits {
        LogLimits { bytes, files: 3 }
    }

    #[test]
    fn lines_are_stored_whole_and_a_rest_waits() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::create(path.clone(), limits(1 << 20)).unwrap();
        let mut pending = Vec::new();
        log.append("stdout", &mut pending, b"one\ntw");
        assert_eq!(pending, b"tw");
        log.append("stdout", &mut pending, b"o\n");
        log.append("stderr", &mut Vec::new(), b"bad\n");
        log.append("stdout", &mut pending, b"rest");
        log.finish("stdout", &mut pending);
        let text = fs::read(&path).unwrap();
        let entries: Vec<_> = text
            .split(|b| *b == b'\n')
            .filter_map(parse_entry)
            .map(|e| (e.stream, e.full, e.text))
            .collect();
        assert_eq!(
            entries,
            [
                ("stdout", true, b"one".as_slice()),
                ("stdout", true, b"two"),
                ("stderr", true, b"bad"),
                ("stdout", false, b"rest")
            ]
        );
    }

    #[test]
    fn a_flood_keeps_only_the_newest_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::create(path.clone(), limits(10_000)).unwrap();
        for number in 0..10_000 {
            log.append("stdout", &mut Vec::new(), format!("line {number}\n").as_bytes());
        }
        let total: u64 = fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert!(total <= 30_000, "{total} bytes are kept");
        assert!(!rotated(&path, 3).exists());
        let newest = fs::read_to_string(&path).unwrap() + &fs::read_to_string(rotated(&path, 1)).unwrap();
        assert!(newest.contains("line 9999"));
    }

    #[test]
    fn a_line_without_end_is_stored_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let mut log = LogFile::create(path.clone(), limits(1 << 20)).unwrap();
        let mut pending = Vec::new();
        log.append("stdout", &mut pending, &vec![b'x'; LONGEST_PART * 2 + 5]);
        assert_eq!(pending.len(), 5);
        log.append("stdout", &mut pending, b"\n");
        let text = fs::read(&path).unwrap();
        let full: Vec<_> = text
            .split(|b| *b == b'\n')
            .filter_map(parse_entry)
            .map(|e| e.full)
            .collect();
        assert_eq!(full, [false, false, true]);
    }
}
