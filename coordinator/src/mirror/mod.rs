//! A run kept in a bucket: the coordinator works in a local folder as ever, and threads of the mirror bring it up. The run
//! never waits for them but at its end. Knows no object store, only [`Store`].
//!
//! ```text
//! run.json                              lease and table in one: the only object that is ever replaced, by If-Match
//! files/journal.bin.0000.turn-3.HASH    config.toml, tokenizer.json, id, journal.bin, metrics.jsonl, in parts
//! checkpoints/step-00000040.turn-3/     the checkpoint's files, and manifest.json
//! ```
//!
//! What `run.json` does not name is not there. Who lost the lease cannot replace it, and writes under names of its own turn.

mod error;
mod fetch;
mod head;
mod lease;
mod publish;
mod store;

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

pub use error::MirrorError;
pub use head::Holder;
use lease::{claim, read};
use publish::{Shared, lock, publish};
pub use store::{Store, StoreError};

use crate::checkpoint::{LATEST, RunFolder};

/// A failed upload is tried again after this.
const AGAIN: Duration = Duration::from_secs(2);
/// Where a scratch folder keeps the turn that it was written in.
const TURN: &str = "mirror-turn";
/// Terms of one turn; a run taken over never uses a term of the owner before.
const TERMS: u64 = 1_000_000;

/// What happened to a mirror.
#[derive(Debug)]
pub(crate) enum Told {
    /// The bucket takes nothing.
    Fails(String),
    /// It does again, and has everything.
    Recovered,
    /// The run belongs to somebody else.
    Lost(String),
}

/// A run in a bucket, owned by this process until it is released or dropped.
#[derive(Debug)]
pub struct Mirror {
    store: Arc<dyn Store>,
    lease: Arc<Shared>,
    /// How long the end of a run waits for its upload.
    patience: Duration,
    /// Dropping it ends the thread that renews.
    renewing: Option<Sender<()>>,
    lost: Arc<Mutex<Option<MirrorError>>>,
    jobs: Option<Sender<Job>>,
    scratch: PathBuf,
}

enum Job {
    Publish,
    Finish(Sender<Result<(), MirrorError>>),
}

/// Whether there is a run at an address.
///
/// # Errors
/// When the store does not say.
pub fn has_run(store: &dyn Store) -> Result<bool, MirrorError> {
    Ok(read(store)?.is_some_and(|(head, _)| head.has_run()))
}

/// Fetches a run for reading: its files, its newest checkpoint and its best. Nothing is claimed.
///
/// # Errors
/// When there is none, or it is not whole.
pub fn fetch_copy(store: &dyn Store, folder: &Path) -> Result<(), MirrorError> {
    let no_run = || MirrorError::NoRun { address: store.address().into() };
    let (head, _) = read(store)?.filter(|(head, _)| head.has_run()).ok_or_else(no_run)?;
    fetch::fetch(store, &head, folder)
}

impl Mirror {
    /// Takes a run, and keeps it: a thread renews the lease until the mirror is dropped. Waits for a silent owner's promise.
    ///
    /// # Errors
    /// When somebody else works on it, or the store refuses.
    pub fn claim(store: Arc<dyn Store>, holder: Holder, patience: Duration) -> Result<Self, MirrorError> {
        let every = Duration::from_secs(holder.promise_seconds) / 4;
        let lease = Arc::new(Mutex::new(claim(&*store, holder, &mut thread::sleep)?));
        let lost = Arc::default();
        let (renewing, end) = mpsc::channel();
        let (kept, seen, found) = (store.clone(), lease.clone(), Arc::clone(&lost));
        thread::spawn(move || renew(&*kept, &seen, (&end, every), &found));
        let scratch = PathBuf::new();
        Ok(Self { store, lease, patience, renewing: Some(renewing), lost, jobs: None, scratch })
    }

    /// Makes `folder` the run that is in the bucket. What is there already is used when nobody has had the lease since it
    /// was written; else it is put aside. `true` when there is a run to go on with.
    ///
    /// # Errors
    /// When the run cannot be fetched.
    pub fn restore(&self, folder: &Path) -> Result<bool, MirrorError> {
        let head = lock(&self.lease).head.clone();
        let run = RunFolder::new(folder);
        let newest = head.checkpoints.last().map(|entry| entry.step);
        let written = std::fs::read_to_string(turn_file(folder)).ok().and_then(|t| t.trim().parse().ok());
        let local = written == Some(head.turn - 1) && run.config().is_file();
        if (local && run.linked(LATEST) >= newest) || !head.has_run() {
            return Ok(local);
        }
        let beside = folder.with_extension("new");
        for leftover in [&beside, &folder.with_extension("before")] {
            if leftover.exists() {
                std::fs::remove_dir_all(leftover).map_err(MirrorError::io(leftover))?;
            }
        }
        fetch::fetch(&*self.store, &head, &beside)?;
        if folder.exists() {
            let aside = folder.with_extension("before");
            std::fs::rename(folder, &aside).map_err(MirrorError::io(folder))?;
        }
        std::fs::rename(&beside, folder).map_err(MirrorError::io(folder))?;
        Ok(true)
    }

    /// The first term that a coordinator of this turn may use.
    pub(crate) fn first_term(&self) -> u64 {
        lock(&self.lease).head.turn * TERMS
    }

    /// Begins to bring the run in `folder` up. `told` is called from other threads.
    pub(crate) fn start(
        &mut self,
        folder: RunFolder,
        keep: u64,
        told: impl Fn(Told) + Send + 'static,
    ) -> Result<Nudge, MirrorError> {
        let turn = lock(&self.lease).head.turn;
        let path = turn_file(folder.path());
        std::fs::write(&path, turn.to_string()).map_err(MirrorError::io(&path))?;
        self.scratch = folder.path().into();
        let (jobs, todo) = mpsc::channel();
        let uploads =
            Uploads { store: self.store.clone(), lease: self.lease.clone(), folder, keep, failing: false };
        let lost = self.lost.clone();
        thread::spawn(move || uploads.work(&todo, &lost, &told));
        self.jobs = Some(jobs.clone());
        let nudge = Nudge(jobs);
        nudge.publish();
        Ok(nudge)
    }

    /// Brings the last state up, within the mirror's patience, and releases the run.
    pub(crate) fn finish(mut self) -> Result<(), MirrorError> {
        let (done, answer) = mpsc::channel();
        let unfinished = |problem: String| MirrorError::Unfinished {
            address: self.store.address().into(),
            folder: self.scratch.clone(),
            problem,
        };
        let jobs = self.jobs.take().expect("a mirror is started before it is finished");
        if jobs.send(Job::Finish(done)).is_err() {
            return Err(self.take_lost().unwrap_or_else(|| unfinished("the upload ended early".into())));
        }
        let deadline = Instant::now() + self.patience;
        let mut last = "the bucket does not answer".to_owned();
        loop {
            match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(lost @ MirrorError::Lost { .. })) => return Err(lost),
                Ok(Err(error)) => last = error.to_string(),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    self.renewing = None;
                    return Err(unfinished(last));
                }
            }
        }
    }

    /// Why the run is not ours any more, if so.
    pub(crate) fn take_lost(&self) -> Option<MirrorError> {
        self.lost.lock().ok().and_then(|mut lost| lost.take())
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.renewing = None;
        match lock(&self.lease).update(&*self.store, |head| head.holder = None) {
            Ok(()) | Err(MirrorError::Lost { .. }) => {}
            Err(error) => tracing::warn!("the run was not released: {error}"),
        }
    }
}

/// Tells the mirror that there is something new.
#[derive(Clone, Debug)]
pub(crate) struct Nudge(Sender<Job>);

impl Nudge {
    pub(crate) fn publish(&self) {
        if self.0.send(Job::Publish).is_err() {
            tracing::debug!("a checkpoint was made after its run was lost");
        }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if matches!(self, Job::Publish) { "Publish" } else { "Finish" })
    }
}

fn turn_file(folder: &Path) -> PathBuf {
    folder.join(TURN)
}

/// Renews the lease until nobody wants it any more. A bucket that does not answer is asked again; a lost lease ends it.
fn renew(
    store: &dyn Store,
    lease: &Shared,
    (end, every): (&Receiver<()>, Duration),
    lost: &Mutex<Option<MirrorError>>,
) {
    while end.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
        match lock(lease).update(store, |_| {}) {
            Ok(()) => {}
            Err(error @ MirrorError::Lost { .. }) => {
                *lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                return;
            }
            Err(error) => tracing::info!("the lease was not renewed: {error}"),
        }
    }
}

/// What the uploading thread works with.
struct Uploads {
    store: Arc<dyn Store>,
    lease: Arc<Shared>,
    folder: RunFolder,
    keep: u64,
    failing: bool,
}

impl Uploads {
    fn work(mut self, todo: &Receiver<Job>, lost: &Mutex<Option<MirrorError>>, told: &dyn Fn(Told)) {
        let (mut due, mut finish): (bool, Option<Sender<_>>) = (false, None);
        loop {
            match todo.recv_timeout(if due { AGAIN } else { AGAIN / 4 }) {
                Ok(Job::Publish) => due = true,
                Ok(Job::Finish(answer)) => (due, finish) = (true, Some(answer)),
                Err(RecvTimeoutError::Disconnected) if finish.is_none() => return,
                Err(RecvTimeoutError::Disconnected) => thread::sleep(AGAIN),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(error) = &*lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
                return told(Told::Lost(error.to_string()));
            }
            if !due {
                continue;
            }
            let result = publish(&*self.store, &self.lease, &self.folder, self.keep);
            due = result.is_err();
            if let Err(error @ MirrorError::Lost { .. }) = result {
                let reason = error.to_string();
                *lost.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                return told(Told::Lost(reason));
            }
            self.tell(&result, told);
            // Nobody waits any more when its patience is over.
            if finish.as_ref().is_some_and(|finish| finish.send(result).is_err() || !due) {
                return;
            }
        }
    }

    /// Once when it begins to fail, once when it works again.
    fn tell(&mut self, result: &Result<(), MirrorError>, told: &dyn Fn(Told)) {
        match result {
            Err(error) if !self.failing => told(Told::Fails(error.to_string())),
            Ok(()) if self.failing => told(Told::Recovered),
            _ => {}
        }
        self.failing = result.is_err();
    }
}

#[cfg(test)]
mod tests;
