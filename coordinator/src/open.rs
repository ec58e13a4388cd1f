//! A run's folder, made or opened: where the run stands, and the files that its coordinator keeps. Of a new run nothing is
//! left behind when that fails.

use std::fs;
use std::path::Path;
use std::time::Duration;

use carousel_proto::v1::{self, Split};
use carousel_proto::{Step, Term};

use crate::checkpoint::{Checkpoint, Context, RunFolder, Snapshot, remove_quietly};
use crate::driver::{Books, StartState, ends_of_epochs, start_state};
use crate::files::Files;
use crate::intake::{Limits, cuts_agree};
use crate::metrics::Metrics;
use crate::mirror::Mirror;
use crate::options::{Run, Start, Training};
use crate::plan::{Epochs, Length, RunPlan};
use crate::protocol::{self, Ending, Machine, Origin};
use crate::replica::Sections;
use crate::run::{RunError, Summary};
use crate::run_id::RunId;
use crate::schedule::ScheduleState;
use crate::tokens::SplitTokens;

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
    let context = context_of(run, &plan);
    let (files, first) = files_of(run, (&folder, &context), limits)?;
    let run_id = read_id(&folder)?;
    // The checkpoint that a run begins at, and the newest one in its own folder.
    let (checkpoint, path) = match &run.start {
        Start::New { .. } => (first.as_ref(), first.as_ref()),
        Start::Copy { checkpoint, .. } => (Some(&**checkpoint), None),
        Start::Resume { checkpoint, .. } => (checkpoint.as_deref(), checkpoint.as_deref()),
    };
    let path = path.map(|found| (found.path.clone(), found.digest()));
    let stands = stand(run, checkpoint, &files, limits);
    let start = protocol::Start {
        exchange: run.exchange,
        workers_to_start: run.workers,
        term: Term(run.mirror.as_ref().map_or(0, Mirror::first_term).max(files.highest_term() + 1)),
        step: stands.step,
        origin: stands.origin,
        recent_steps: stands.recent_steps,
    };
    let step = stands.step.0;
    let summary = Summary { ending: Ending::Complete, step, checkpoint: path, valid: None, test: None };
    let books = Books {
        metrics: Metrics::open(folder.path(), step).map_err(RunError::Metrics)?,
        context,
        journal: files.journal,
        committed: files.committed,
        keep: run.training.keep_checkpoints,
        summary,
        folder,
    };
    Ok(Opened { machine: Machine::new(plan, start), state: stands.state, books, run_id })
}

fn context_of(run: &Run, plan: &RunPlan) -> Context {
    let train = run.tokens.split(Split::Train).expect("every run has training tokens");
    Context {
        layout: run.layout.clone(),
        plan: plan.clone(),
        data_digest: run.tokens.digest(),
        tokens_per_epoch: (0..train.windows()).map(|window| train.tokens_in_window(window)).sum(),
    }
}

/// The calendar of a run.
pub(crate) fn plan_of(run: &Run) -> RunPlan {
    let train = run.tokens.split(Split::Train).expect("every run has training tokens");
    assert!(cuts_agree(train.plan()), "corpus and wire contract cut streams into lanes alike");
    RunPlan {
        lanes: run.settings.lanes,
        epochs: epochs_of(&run.training, train),
        length: run.training.length,
        evaluate_every: run.training.evaluate_every,
        checkpoint_every: run.training.checkpoint_every,
        digest_every: run.training.digest_every,
        has_valid: run.tokens.split(Split::Valid).is_some(),
        has_test: run.tokens.split(Split::Test).is_some(),
    }
}

/// Random windows are counted as far as the run goes, and an epoch further: a checkpoint tells where the next step stands.
fn epochs_of(training: &Training, train: &SplitTokens) -> Epochs {
    let Training { windows, accumulate, .. } = training;
    if windows.random.is_none() {
        return Epochs::Even { updates: train.windows().div_ceil(u64::from(*accumulate)) };
    }
    let enough = |ends: &[u64]| match training.length {
        Length::Epochs(epochs) => ends.len() as u64 > epochs,
        Length::Steps(steps) => ends.last().is_some_and(|end| *end > steps),
    };
    Epochs::Uneven { ends: ends_of_epochs(windows, *accumulate, train.plan().time_steps(), enough).into() }
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
    let last_commit = files.contents.commits().last().map(|record| record.step);
    // A coordinator that was lost between its two records had told nobody of the last commit: that step is made again.
    let is_last = |step| last_commit == Some(step) || last_commit == Some(step + 1);
    let saved = files.saved.as_ref();
    let saved = saved.filter(|saved| run.workers_outlive && saved.step > saved_at && is_last(saved.step));
    let Some(saved) = saved else {
        let (origin, state) = start_state(checkpoint, limits);
        return Stands { step: Step(saved_at), origin, state, recent_steps: Vec::new() };
    };
    let last_commit = saved.record.as_ref().map(|record| v1::Commit {
        term: record.term,
        step: record.step,
        clip_scale: record.clip_scale,
        learning_rate: record.learning_rate,
        // When the validation after this very step began the average, the step itself is its first: the same bits.
        averaged_from: saved.schedule.trigger.averaged_from,
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

/// The files, and the checkpoint of step 0 that a new run was made with.
fn files_of(
    run: &Run,
    (folder, context): (&RunFolder, &Context),
    limits: &Limits,
) -> Result<(Files, Option<Checkpoint>), RunError> {
    let carry_floats = limits.streams as usize * limits.layout.carry_floats();
    match &run.start {
        Start::New { config_toml, tokenizer_json, replica } => {
            let first =
                || replica.as_ref().map(|sections| first_checkpoint(folder, context, sections, carry_floats));
            let first = create_folder(folder, (config_toml, tokenizer_json), || first().transpose())?;
            let files = Files::create(folder, carry_floats).inspect_err(|_| remove_quietly(folder.path()))?;
            Ok((files, first))
        }
        Start::Copy { config_toml, tokenizer_json, .. } => {
            create_folder(folder, (config_toml, tokenizer_json), || Ok(()))?;
            let files = Files::create(folder, carry_floats).inspect_err(|_| remove_quietly(folder.path()))?;
            Ok((files, None))
        }
        Start::Resume { config_toml, .. } => {
            folder.finish_making()?;
            let files = Files::open(folder, carry_floats)?;
            replace(&folder.config(), config_toml)?;
            Ok((files, None))
        }
    }
}

/// What does not come from the seed is a checkpoint of step 0: going on and going back find it as they find any other.
fn first_checkpoint(
    folder: &RunFolder,
    context: &Context,
    sections: &Sections,
    carry_floats: usize,
) -> Result<Checkpoint, RunError> {
    let snapshot = Snapshot {
        step: 0,
        schedule: ScheduleState::new(),
        sections: sections.clone(),
        carries: vec![0.0; carry_floats],
        valid_loss: None,
    };
    let (path, _) = folder.write(&snapshot, context)?;
    Ok(Checkpoint::open(&path)?)
}

fn read_id(folder: &RunFolder) -> Result<RunId, RunError> {
    RunId::read(&folder.id()).map_err(|source| RunError::Io { path: folder.id(), source })
}

/// Makes the folder. The configuration comes last: without it there is no run yet.
fn create_folder<T>(
    folder: &RunFolder,
    (config_toml, tokenizer_json): (&str, &str),
    fill_checkpoints: impl FnOnce() -> Result<T, RunError>,
) -> Result<T, RunError> {
    let path = folder.path();
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| RunError::Io { path, source }
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io(parent))?;
    }
    let _made_by_us = match fs::create_dir(path) {
        Ok(()) => folder.lock()?,
        Err(source) if source.kind() == std::io::ErrorKind::AlreadyExists => folder.take_over()?,
        Err(source) => return Err(RunError::Io { path: path.into(), source }),
    };
    let fill = || {
        fs::create_dir(path.join("checkpoints")).map_err(io(path))?;
        replace(&folder.tokenizer(), tokenizer_json)?;
        replace(&folder.id(), &RunId::new(config_toml).to_text())?;
        let filled = fill_checkpoints()?;
        replace(&folder.config(), config_toml)?;
        Ok(filled)
    };
    fill().inspect_err(|_| remove_quietly(path))
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
