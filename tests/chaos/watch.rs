//! Sees a run's commits from outside, as they come: from the lines of its metrics.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::time::Instant;

/// More than a line of the metrics has.
const TAIL_BYTES: u64 = 2048;

/// A commit that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commit {
    pub step: u64,
    pub at: Instant,
}

/// The commits of a run so far.
pub(crate) struct Watch {
    metrics: PathBuf,
    bytes: u64,
    /// Term and step of the last line.
    last: (u64, u64),
    pub commits: Vec<Commit>,
}

impl Watch {
    pub(crate) fn new(metrics: PathBuf) -> Self {
        Self { metrics, bytes: 0, last: (0, 0), commits: Vec::new() }
    }

    /// Looks once. Of several commits since the last look only the last is seen.
    pub(crate) fn look(&mut self) {
        let bytes = self.metrics.metadata().map_or(0, |metadata| metadata.len());
        if bytes == std::mem::replace(&mut self.bytes, bytes) {
            return;
        }
        let Some((term, step)) = self.last_line() else { return };
        let (last_term, last_step) = std::mem::replace(&mut self.last, (term, step));
        // A line before the last one stands there when later lines were dropped: a return, not a commit.
        if term > last_term || step > last_step {
            self.commits.push(Commit { step, at: Instant::now() });
        }
    }

    /// Term and step of the last whole line about a step.
    fn last_line(&self) -> Option<(u64, u64)> {
        let mut file = File::open(&self.metrics).ok()?;
        let length = file.metadata().ok()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES))).ok()?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).ok()?;
        let whole = |line: &&[u8]| line.ends_with(b"\n");
        tail.split_inclusive(|byte| *byte == b'\n').filter(whole).rev().find_map(|line| {
            let line: serde_json::Value = serde_json::from_slice(line).ok()?;
            line.get("loss")?;
            Some((line.get("term")?.as_u64()?, line.get("step")?.as_u64()?))
        })
    }

    /// From the first commit to the last, in seconds.
    pub(crate) fn seconds(&self) -> f64 {
        let ends = self.commits.first().zip(self.commits.last());
        ends.map_or(0.0, |(first, last)| last.at.duration_since(first.at).as_secs_f64())
    }
}
