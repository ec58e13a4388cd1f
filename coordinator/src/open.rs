//! A run's folder, made or opened: where the run stands, and the files that its coordinator keeps. Of a new run nothing is
//! left behind when that fails.

use std::fs;
use std::path::Path;
use std::time::Duration;

use carousel_proto::v1::{self, Split};
use carousel_proto::{Step, Term};

use crate::checkpoint::{Checkpoint, Context, RunFolder};
use crate::committed::{Committed, CommittedFile};
use crate::driver::{Books, StartState, start_state};
use crate::intake::{Limits, cuts_agree};
use crate::journal::{Contents, Journal};
use crate::metrics::Metrics;
use crate::options::{Run, Start};
use crate::plan::RunPlan;
use crate::protocol::{self, Ending, Machine, Origin};
use crate::run::{RunError, Summary};
use crate::run_id::RunId;

pub(crate) struct Opened {
    pub machine: Machine,
    pub state: StartState,
    pub books: Books,
    pub run_id: RunId,
}

/// Makes or opens the run's folder.
pub(crate) fn open(run: &Run, limits: &Limits) -> Result<Opened, RunError> {
    let folder = RunFolder::new(&run.folder);
    let plan = plan_of(run);
    let files = Files::of(run, &folder, limits)?;
    let (checkpoint, path) = match &run.start {
        Start::New { .. } => (None, None),
        Start::Resume { checkpoint, .. } => {
            let checkpoint = checkpoint.as_deref();
            (checkpoint, checkpoint.map(|found| (found.path.clone(), found.digest())))
        }
    };
    let stands = stand(run, checkpoint, &files, limits);
    let start = protocol::Start {
        exchange: run.exchange,
        workers_to_start: run.workers,
        term: Term(files.highest_term + 1),
        step: stands.step,
        origin: stands.origin,
        recent_steps: stands.recent_steps,
    };
    let step = stands.step.0;
    let summary = Summary { ending: Ending::Complete, step, checkpoint: path, valid: None, test: None };
    let train = run.tokens.split(Split::Train).expect("every run has training tokens");
    let books = Books {
        metrics: Metrics::open(folder.path(), step).map_err(RunError::Metrics)?,
        context: Context {
            layout: run.layout.clone(),
            plan: plan.clone(),
            data_digest: run.tokens.digest(),
            tokens_per_epoch: (0..train.windows()).map(|window| train.tokens_in_window(window)).sum(),
        },
        journal: files.journal,
        committed: files.committed,
        keep: run.training.keep_checkpoints,
        summary,
        folder,
    };
    Ok(Opened { machine: Machine::new(plan, start), state: stands.state, books, run_id: files.run_id })
}

fn plan_of(run: &Run) -> RunPlan {
    let train = run.tokens.split(Split::Train).expect("every run has training tokens");
    assert!(cuts_agree(train.plan()), "corpus and wire contract cut streams into lanes alike");
    RunPlan {
        lanes: run.settings.lanes,
        windows_per_epoch: train.windows(),
        length: run.training.length,
        evaluate_every: run.training.evaluate_every,
        checkpoint_every: run.training.checkpoint_every,
        digest_every: run.training.digest_every,
        has_valid: run.tokens.split(Split::Valid).is_some(),
        has_test: run.tokens.split(Split::Test).is_some(),
    }
}

/// Where a run goes on.
struct Stands {
    step: Step,
    origin: Origin,
    state: StartState,
    recent_steps: Vec<Duration>,
}

/// From the last commit when the run's workers may still hold its replica, else from the checkpoint.
fn stand(run: &Run, checkpoint: Option<&Checkpoint>, files: &Files, limits: &Limits) -> Stands {
    let saved_at = checkpoint.map_or(0, |found| found.state.step);
    let saved = files.saved.as_ref().filter(|saved| {
        run.workers_outlive && saved.step > saved_at && files.last_commit == Some(saved.step)
    });
    let Some(saved) = saved else {
        let (origin, state) = start_state(checkpoint, limits);
        return Stands { step: Step(saved_at), origin, state, recent_steps: Vec::new() };
    };
    let last_commit = saved.record.as_ref().map(|record| v1::Commit {
        term: record.term,
        step: record.step,
        clip_scale: record.clip_scale,
        learning_rate: record.learning_rate,
    });
    let (schedule, carries) = (saved.schedule.clone(), saved.carries.to_vec());
    let checkpointed = checkpoint.map(|found| Step(found.state.step));
    Stands {
        step: Step(saved.step),
        origin: Origin::Workers { validated: saved.validation.is_some(), checkpointed },
        state: StartState { schedule, carries, replica: None, last_commit },
        recent_steps: saved.step_ms.iter().map(|ms| Duration::from_millis(u64::from(*ms))).collect(),
    }
}

/// The files that only one coordinator at a time may have open.
struct Files {
    journal: Journal,
    committed: CommittedFile,
    /// What the last coordinator left of the committed state.
    saved: Option<Committed<'static>>,
    /// The last step in the journal.
    last_commit: Option<u64>,
    /// The highest term that was ever handed out.
    highest_term: u64,
    run_id: RunId,
}

impl Files {
    fn of(run: &Run, folder: &RunFolder, limits: &Limits) -> Result<Self, RunError> {
        let carry_floats = limits.streams as usize * limits.layout.carry_floats();
        match &run.start {
            Start::New { config_toml, tokenizer_json } => {
                create_folder(folder, config_toml, tokenizer_json)?;
                Self::create(folder, carry_floats).inspect_err(|_| remove(folder.path()))
            }
            Start::Resume { config_toml, .. } => {
                let files = Self::open(folder, carry_floats)?;
                replace(&folder.config(), config_toml)?;
                Ok(files)
            }
        }
    }

    fn create(folder: &RunFolder, carry_floats: usize) -> Result<Self, RunError> {
        let journal = Journal::create(&folder.journal())?;
        let committed = CommittedFile::create(&folder.committed(), carry_floats)?;
        let run_id = read_id(folder)?;
        Ok(Self { journal, committed, saved: None, last_commit: None, highest_term: 0, run_id })
    }

    /// The journal first: it has the lock.
    fn open(folder: &RunFolder, carry_floats: usize) -> Result<Self, RunError> {
        let (journal, contents) = Journal::open(&folder.journal())?;
        warn_of_damage(folder, &contents);
        let (committed, saved) = match CommittedFile::open(&folder.committed(), carry_floats) {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!("{error}; made anew");
                (CommittedFile::create(&folder.committed(), carry_floats)?, None)
            }
        };
        let highest_term = saved.as_ref().map_or(0, |saved| saved.term).max(contents.term());
        let last_commit = contents.commits().last().map(|record| record.step);
        Ok(Self { journal, committed, saved, last_commit, highest_term, run_id: read_id(folder)? })
    }
}

fn warn_of_damage(folder: &RunFolder, contents: &Contents) {
    if contents.damaged_bytes > 0 {
        let (path, bytes) = (folder.journal(), contents.damaged_bytes);
        tracing::warn!("{}: passed over a damaged tail of {bytes} bytes", path.display());
    }
}

fn read_id(folder: &RunFolder) -> Result<RunId, RunError> {
    RunId::read(&folder.id()).map_err(|source| RunError::Io { path: folder.id(), source })
}

fn create_folder(folder: &RunFolder, config_toml: &str, tokenizer_json: &str) -> Result<(), RunError> {
    let path = folder.path();
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RunError::Io { path, source }
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io(parent))?;
    }
    fs::create_dir(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::AlreadyExists => RunError::Exists { path: path.into() },
        _ => RunError::Io { path: path.into(), source },
    })?;
    let fill = || {
        fs::create_dir(path.join("checkpoints")).map_err(io(path))?;
        replace(&folder.tokenizer(), tokenizer_json)?;
        replace(&folder.id(), &RunId::new(config_toml).to_text())?;
        replace(&folder.config(), config_toml)
    };
    fill().inspect_err(|_| remove(path))
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder) {
        tracing::warn!("{}: {error}", folder.display());
    }
}

/// Writes a small file durably: beside, fsync, rename.
fn replace(path: &Path, text: &str) -> Result<(), RunError> {
    let beside = path.with_extension("new");
    let write = || {
        fs::write(&beside, text)?;
        fs::File::open(&beside)?.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|source| RunError::Io { path: path.into(), source })
}
