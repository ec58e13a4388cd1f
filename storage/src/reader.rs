//! The bytes of an object, fetched ahead by a task of the store's runtime. When the connection breaks, the rest is asked
//! for with a range; what comes is checked to be of the same object, and the end is an end only at the last byte.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use object_store::{GetOptions, GetResult, ObjectStore};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use crate::StorageError;
use crate::address::Address;

/// Parts of the object that are fetched ahead of who reads it; each is what the connection gave at once.
const AHEAD: usize = 16;
/// Tries without a byte in between.
const MAX_FAILURES: u32 = 6;
/// Before the second try; doubled for each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Where bytes come from.
pub(crate) struct Origin {
    pub(crate) client: Arc<dyn ObjectStore>,
    pub(crate) address: Address,
    /// Length of the whole object.
    pub(crate) bytes: u64,
    pub(crate) tag: Option<String>,
}

/// A blocking reader of an object, or of a part of it.
#[derive(Debug)]
pub struct Reader {
    parts: mpsc::Receiver<Result<Bytes, StorageError>>,
    current: Bytes,
    /// Bytes that have not come yet.
    left: u64,
}

impl Reader {
    pub(crate) fn open(runtime: &Handle, origin: Origin, range: Range<u64>) -> Result<Self, StorageError> {
        let left = range.end.saturating_sub(range.start);
        let (sender, parts) = mpsc::channel(AHEAD);
        if left > 0 {
            let first = runtime.block_on(origin.get(range.clone()))?;
            runtime.spawn(Fetch { origin, range, failures: 0, sender }.run(first));
        }
        Ok(Reader { parts, current: Bytes::new(), left })
    }
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            if self.left == 0 {
                return Ok(0);
            }
            self.current = match self.parts.blocking_recv() {
                Some(part) => part.map_err(io::Error::other)?,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            };
            self.left -= self.current.len() as u64;
        }
        (&mut self.current).reader().read(buffer)
    }
}

impl Origin {
    /// Asks for a part of the object, and insists that it is still that object.
    async fn get(&self, range: Range<u64>) -> Result<GetResult, StorageError> {
        let whole = range == (0..self.bytes);
        let options = GetOptions {
            // A weak tag never matches: it promises another thing than the same bytes.
            if_match: self.tag.clone().filter(|tag| !tag.starts_with("W/")),
            range: (!whole).then(|| range.into()),
            ..GetOptions::default()
        };
        let got = self.client.get_opts(&self.address.path, options).await;
        let got = got.map_err(|error| StorageError::of(error, self.address.kind.hint(), true))?;
        let other_tag =
            matches!((&self.tag, &got.meta.e_tag), (Some(known), Some(found)) if bare(known) != bare(found));
        if other_tag || got.meta.size != self.bytes {
            return Err(StorageError::Changed);
        }
        Ok(got)
    }
}

/// Servers put their tags in quotes in one place and leave them bare in another.
fn bare(tag: &str) -> &str {
    tag.trim_start_matches("W/").trim_matches('"')
}

/// Fetches a range to its end.
struct Fetch {
    origin: Origin,
    /// What is still to come.
    range: Range<u64>,
    /// In a row.
    failures: u32,
    sender: mpsc::Sender<Result<Bytes, StorageError>>,
}

impl Fetch {
    async fn run(mut self, first: GetResult) {
        let mut got: Result<GetResult, StorageError> = Ok(first);
        loop {
            let problem = match got {
                Ok(got) => match self.pass_on(got).await {
                    Some(problem) => problem,
                    None => return,
                },
                Err(error) if error.may_pass() => error.into(),
                Err(error) => return self.give_up(error).await,
            };
            self.failures += 1;
            if self.failures >= MAX_FAILURES {
                let (at, bytes, failures) = (self.range.start, self.origin.bytes, self.failures);
                return self.give_up(StorageError::Broken { at, bytes, failures, source: problem }).await;
            }
            tracing::info!(at = self.range.start, bytes = self.origin.bytes, %problem, "taken up again");
            tokio::time::sleep(FIRST_PAUSE * (1 << (self.failures - 1))).await;
            got = self.origin.get(self.range.clone()).await;
        }
    }

    /// Hands on what a connection gives; why it ended before the range did, if it did so.
    async fn pass_on(&mut self, got: GetResult) -> Option<Box<dyn std::error::Error + Send + Sync>> {
        let mut stream = got.into_stream();
        while self.range.start < self.range.end {
            match stream.next().await {
                Some(Ok(part)) if part.len() as u64 <= self.range.end - self.range.start => {
                    self.range.start += part.len() as u64;
                    self.failures = if part.is_empty() { self.failures } else { 0 };
                    // Nobody reads any more.
                    self.sender.send(Ok(part)).await.ok()?;
                }
                Some(Ok(_)) => return Some("the server sent more than was asked for".into()),
                Some(Err(error)) => return Some(error.into()),
                None => return Some("the server ended the answer early".into()),
            }
        }
        None
    }

    async fn give_up(self, error: StorageError) {
        if self.sender.send(Err(error)).await.is_err() {
            tracing::debug!("a reader was dropped before its error");
        }
    }
}
