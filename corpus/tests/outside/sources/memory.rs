//! A text much larger than what may be held of it, measured in a process of its own.

use std::io::{self, Read};
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;

use carousel_corpus::{Object, Source, SourceOptions, Storage, StorageError};

/// Bytes of text that are read,
const TEXT: u64 = 10_000_000 * LINE.len() as u64;
/// and those that the process may take at its peak, beside what it takes before it reads.
const ROOM: u64 = 32 << 20;
/// Says to the test that it is the process that is measured, and what it reads.
const MEASURED: &str = "CAROUSEL_TEST_MEASURED";

/// A text that is made while it is read.
struct Endless;

const LINE: &[u8] = b"{\"text\": \"the quick brown fox jumps over the lazy dog\"}\n";

impl Storage for Endless {
    fn find(&self, url: &str) -> Result<Option<Object>, StorageError> {
        Ok(Some(Object { url: url.into(), bytes: Some(TEXT), version: None }))
    }

    fn list(&self, _: &str) -> Result<Vec<Object>, StorageError> {
        unreachable!("one object is named")
    }

    fn open(&self, _: &Object, _: Range<u64>) -> Result<Box<dyn Read + Send>, StorageError> {
        Ok(Box::new(Lines { left: TEXT, block: LINE.repeat(1000), at: 0 }))
    }
}

struct Lines {
    left: u64,
    block: Vec<u8>,
    at: usize,
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = buffer.len().min(self.block.len() - self.at).min(self.left as usize);
        buffer[..bytes].copy_from_slice(&self.block[self.at..self.at + bytes]);
        self.at = (self.at + bytes) % self.block.len();
        self.left -= bytes as u64;
        Ok(bytes)
    }
}

/// The most memory this process ever held, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn read_all(url: &str) -> u64 {
    let options = SourceOptions { storage: Arc::new(Endless), ..SourceOptions::default() };
    let source = Source::open("data.train", &[url.into()], &options).unwrap();
    source.map(|piece| piece.unwrap().text.len() as u64).sum()
}

#[cfg(target_os = "linux")]
#[test]
fn half_a_gigabyte_of_text_is_read_in_a_few_mebibytes() {
    if let Ok(url) = std::env::var(MEASURED) {
        let before = peak();
        println!("read {} bytes, peak grew by {}", read_all(&url), peak() - before);
        return;
    }
    for url in ["s3://made/up.txt", "s3://made/up.jsonl"] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", "--test-threads=1"]);
        command.arg("sources::memory::half_a_gigabyte_of_text_is_read_in_a_few_mebibytes").env(MEASURED, url);
        let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let report = output.split("read ").nth(1).unwrap_or_else(|| panic!("no report in {output}"));
        let (bytes, grown) = report.split_once(" bytes, peak grew by ").unwrap();
        let (bytes, grown): (u64, u64) =
            (bytes.parse().unwrap(), grown.lines().next().unwrap().parse().unwrap());
        assert!(bytes > TEXT / 2, "only {bytes} bytes were read");
        assert!(grown < ROOM, "{url}: {grown} bytes for {bytes} bytes of text");
    }
}
