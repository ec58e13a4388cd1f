//! Writes checkpoints on a thread of its own, so that the run does not stand still. One at a time. It decides nothing of
//! when a checkpoint is due, and a checkpoint that fails ends nothing here.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use carousel_proto::digest::Digest;

use super::{CheckpointError, Context, RunFolder, Snapshot};
use crate::journal::{JournalError, JournalSync};

/// What a saver works with.
#[derive(Debug)]
pub(crate) struct Desk {
    /// Where checkpoints go.
    pub folder: RunFolder,
    /// What they say beside the snapshot.
    pub context: Arc<Context>,
    /// The journal is on disk up to a step before a checkpoint claims that step.
    pub journal: JournalSync,
    /// How many of the newest stay, beside the best; 0: all.
    pub keep: u64,
}

/// A checkpoint that has been made, or has not.
#[derive(Debug)]
pub(crate) struct Saved {
    /// Its step.
    pub step: u64,
    /// Its folder and the state's digest.
    pub result: Result<(PathBuf, Digest), CheckpointError>,
}

/// A thread that writes checkpoints. Dropping it waits for the one under way.
#[derive(Debug)]
pub(crate) struct Saver {
    jobs: Option<Sender<Snapshot>>,
    under_way: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Saver {
    /// Starts the thread; `done` is called on it, once for each checkpoint that was begun.
    pub(crate) fn start(desk: Desk, done: impl FnMut(Saved) + Send + 'static) -> Self {
        let (jobs, snapshots) = mpsc::channel();
        let under_way = Arc::new(AtomicBool::new(false));
        let seen = under_way.clone();
        let thread = thread::Builder::new().name("checkpoints".into());
        let thread = thread.spawn(move || work(&desk, &snapshots, &seen, done));
        Self { jobs: Some(jobs), under_way, thread: Some(thread.expect("a process can start a thread")) }
    }

    /// Begins a checkpoint and returns at once.
    ///
    /// # Errors
    /// When one is under way: the snapshot comes back.
    pub(crate) fn begin(&mut self, snapshot: Snapshot) -> Result<(), Box<Snapshot>> {
        if self.under_way.swap(true, Ordering::AcqRel) {
            return Err(snapshot.into());
        }
        let jobs = self.jobs.as_ref().expect("a saver takes snapshots until it is dropped");
        jobs.send(snapshot).expect("the thread works until the saver is dropped");
        Ok(())
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        self.jobs = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that writes checkpoints panicked");
        }
    }
}

fn work(desk: &Desk, snapshots: &Receiver<Snapshot>, under_way: &AtomicBool, mut done: impl FnMut(Saved)) {
    let mut whole = BTreeSet::new();
    while let Ok(snapshot) = snapshots.recv() {
        let step = snapshot.step;
        // Somebody waits for an answer, whatever happens.
        let saved = catch_unwind(AssertUnwindSafe(|| save(desk, &snapshot, &mut whole)));
        drop(snapshot);
        let result = saved
            .unwrap_or_else(|_| Err(CheckpointError::Panicked { path: desk.folder.path().into(), step }));
        under_way.store(false, Ordering::Release);
        done(Saved { step, result });
    }
}

fn save(
    desk: &Desk,
    snapshot: &Snapshot,
    whole: &mut BTreeSet<u64>,
) -> Result<(PathBuf, Digest), CheckpointError> {
    desk.journal.sync().map_err(|error| match error {
        JournalError::Io { path, source } => CheckpointError::Io { path, source },
        other => unreachable!("a sync only writes: {other}"),
    })?;
    let written = desk.folder.write(snapshot, &desk.context)?;
    // The new one is whole, whatever becomes of the old ones; the next checkpoint tries again.
    if let Err(error) = desk.folder.keep(desk.keep, snapshot.step, whole) {
        tracing::warn!("older checkpoints stay: {error}");
    }
    Ok(written)
}
