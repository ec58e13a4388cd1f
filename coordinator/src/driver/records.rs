//! What a run leaves behind: journal, committed state, metrics, checkpoints. Written by the driver, in the order of the
//! commits. A disk that takes nothing ends no run: what it did not take waits, is tried again, and is told once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use carousel_proto::digest::Digest;
use carousel_proto::v1::LastCheckpoint;
use carousel_proto::{Step, Term};

use super::step::ReducedStep;
use crate::append::{Change, News};
use crate::checkpoint::{CheckpointError, Context, Desk, Found, RunFolder, Saved, Saver, Snapshot};
use crate::committed::{Committed, CommittedError, CommittedFile};
use crate::journal::{Entry, Journal, Journalled, Record};
use crate::metrics::{Metrics, StepMetrics, TestMetrics, ValidMetrics};
use crate::plan::RunPlan;
use crate::protocol::{Ending, Scope};
use crate::run::{Evaluated, RunError, Summary};

/// How the files are called in the run's folder.
const JOURNAL: &str = "journal.bin";
const COMMITTED: &str = "committed.bin";

/// The files of a run, just opened.
#[derive(Debug)]
pub(crate) struct Books {
    pub folder: RunFolder,
    pub context: Context,
    pub journal: Journal,
    pub committed: CommittedFile,
    pub metrics: Metrics,
    /// How many checkpoints stay; 0: all.
    pub keep: u64,
    pub summary: Summary,
}

impl Books {
    /// The checkpoint that the run goes on from, of this step.
    pub(crate) fn last_checkpoint(&self, step: Option<Step>) -> Option<LastCheckpoint> {
        let (path, digest) = self.summary.checkpoint.as_ref()?;
        Some(told(step?.0, path, *digest))
    }
}

/// A checkpoint as operators are told of it.
pub(super) fn told(step: u64, path: &Path, digest: Digest) -> LastCheckpoint {
    LastCheckpoint { step, path: path.display().to_string(), digest: digest.to_string() }
}

/// The files of a run, at work.
#[derive(Debug)]
pub(crate) struct Records {
    folder: RunFolder,
    context: Arc<Context>,
    journal: Journal,
    committed: CommittedFile,
    /// Whether `committed` took the last state.
    unsaved: bool,
    /// The highest term in the journal, as far as this process wrote it.
    term: u64,
    /// The record of the last commit.
    last_record: Option<Record>,
    /// What was committed before beyond the step that the run is gone on with from.
    earlier: BTreeMap<u64, Record>,
    /// The last validation that the schedule asked for: its step and loss.
    validation: Option<(Step, f64)>,
    metrics: Metrics,
    saver: Saver,
    news: Vec<News>,
    last_commit: Instant,
    summary: Summary,
}

impl Records {
    /// Goes to work on files; `saved` is called from another thread, once for each checkpoint that was begun. It must not
    /// wait for the owner of the records, who waits for it when they are dropped.
    pub(crate) fn new(books: Books, saved: impl FnMut(Saved) + Send + 'static) -> Self {
        let context = Arc::new(books.context);
        let desk = Desk {
            folder: books.folder.clone(),
            context: context.clone(),
            journal: books.journal.syncer(),
            keep: books.keep,
        };
        Self {
            saver: Saver::start(desk, saved),
            folder: books.folder,
            context,
            journal: books.journal,
            committed: books.committed,
            unsaved: false,
            term: 0,
            last_record: None,
            earlier: BTreeMap::new(),
            validation: None,
            metrics: books.metrics,
            news: Vec::new(),
            last_commit: Instant::now(),
            summary: books.summary,
        }
    }

    pub(super) fn plan(&self) -> &RunPlan {
        &self.context.plan
    }

    pub(super) fn last_checkpoint(&self) -> Option<PathBuf> {
        self.summary.checkpoint.as_ref().map(|(path, _)| path.clone())
    }

    /// The same for operators; `step` is its own.
    pub(super) fn last_saved(&self, step: u64) -> Option<LastCheckpoint> {
        self.summary.checkpoint.as_ref().map(|(path, digest)| told(step, path, *digest))
    }

    /// The latest whole checkpoint.
    pub(super) fn latest(&self) -> Result<Found, CheckpointError> {
        self.folder.latest()
    }

    pub(super) fn summary(&self, ending: Ending, step: u64) -> Summary {
        Summary { ending, step, ..self.summary.clone() }
    }

    /// What has changed with the files since this was asked last.
    pub(super) fn news(&mut self) -> Vec<News> {
        let mut news = std::mem::take(&mut self.news);
        news.extend(self.metrics.news());
        news
    }

    /// Has something told with the rest.
    pub(super) fn tell(&mut self, news: News) {
        self.news.push(news);
    }

    /// Brings the journal to the disk, as far as the disk takes it.
    pub(super) fn flush(&mut self) -> Result<(), RunError> {
        let told = self.journal.retry()?;
        self.hear(told);
        Ok(self.journal.syncer().sync()?)
    }

    /// The run goes on from `step`: what was committed beyond it is made again, and must come out the same.
    pub(crate) fn go_back(&mut self, step: Step) -> Result<(), RunError> {
        let told = self.journal.retry()?;
        self.hear(told);
        let mut records = Journal::read(&self.folder.journal())?.records();
        self.earlier = records.split_off(&(step.0 + 1));
        self.last_record = records.remove(&step.0);
        self.validation = None;
        self.last_commit = Instant::now();
        self.metrics.go_back(step.0).map_err(RunError::Metrics)
    }

    /// Journals that a term begins; to be called before anything of that term is said to anybody. A term that is in the
    /// journal already is not written again.
    pub(super) fn begin_term(&mut self, term: Term) -> Result<(), RunError> {
        if term.0 > self.term {
            self.append(&Entry::Term { term: term.0 })?;
            self.term = term.0;
        }
        Ok(())
    }

    /// The term that began last.
    pub(super) fn term(&self) -> Term {
        Term(self.term)
    }

    /// Journals a commit. A step that was committed before must come out the same again.
    pub(super) fn commit(
        &mut self,
        (term, step): (Term, Step),
        result: &ReducedStep,
        workers: usize,
    ) -> Result<StepMetrics, RunError> {
        let record = Record {
            term: term.0,
            step: step.0,
            tokens: result.tokens,
            loss_sum: result.loss_sum,
            grad_norm: result.grad_norm,
            clip_scale: result.clip_scale,
            learning_rate: result.learning_rate,
        };
        if let Some(before) = self.earlier.remove(&step.0).filter(|before| !before.same_content(&record)) {
            return Err(RunError::Replay { step: step.0, before: Box::new(before), now: Box::new(record) });
        }
        self.begin_term(term)?;
        self.append(&Entry::Commit(record.clone()))?;
        let metrics = self.step_metrics(&record, workers);
        self.last_record = Some(record);
        self.last_commit = Instant::now();
        self.metrics.step(&metrics);
        Ok(metrics)
    }

    fn step_metrics(&self, record: &Record, workers: usize) -> StepMetrics {
        StepMetrics {
            step: record.step,
            epoch: self.plan().epoch_of(record.step),
            loss: record.loss_sum / record.tokens as f64,
            learning_rate: record.learning_rate,
            grad_norm: record.grad_norm,
            clip_scale: record.clip_scale,
            tokens: record.tokens,
            seconds: self.last_commit.elapsed().as_secs_f64(),
            workers,
            term: record.term,
        }
    }

    /// The record of the last commit; `None` before the first.
    pub(super) fn last_record(&self) -> Option<&Record> {
        self.last_record.as_ref()
    }

    /// The loss of the validation that the schedule asked for after `step`, once it has been made.
    pub(super) fn validation_of(&self, step: Step) -> Option<f64> {
        self.validation.filter(|(of, _)| *of == step).map(|(_, loss)| loss)
    }

    /// Saves the committed state for whoever starts the coordinator again.
    pub(super) fn save(&mut self, committed: &Committed) {
        let change = match self.committed.save(committed) {
            Ok(()) if self.unsaved => Change::Recovered { lost: 0 },
            Err(CommittedError::Io { source, .. }) if !self.unsaved => Change::Fails(source),
            _ => return,
        };
        self.unsaved = matches!(change, Change::Fails(_));
        self.news.push(News { file: COMMITTED, change });
    }

    pub(super) fn valid(
        &mut self,
        (step, scope): (Step, Scope),
        (tokens, loss): (u64, f64),
        (seconds, averaged_from): (f64, Option<u64>),
    ) -> ValidMetrics {
        let epoch = self.plan().epoch_of(step.0);
        let valid_perplexity = libm::exp(loss);
        let metrics = ValidMetrics {
            step: step.0,
            epoch,
            valid_loss: loss,
            valid_perplexity,
            tokens,
            seconds,
            averaged_from,
        };
        self.metrics.valid(&metrics);
        self.summary.valid = Some(Evaluated { tokens, loss });
        if scope == Scope::Scheduled {
            self.validation = Some((step, loss));
        }
        self.last_commit = Instant::now();
        metrics
    }

    pub(super) fn test(&mut self, step: Step, (tokens, loss): (u64, f64), seconds: f64) -> TestMetrics {
        let epoch = self.plan().epoch_of(step.0);
        let test_perplexity = libm::exp(loss);
        let metrics = TestMetrics { step: step.0, epoch, test_loss: loss, test_perplexity, tokens, seconds };
        self.metrics.test(&metrics);
        self.summary.test = Some(Evaluated { tokens, loss });
        metrics
    }

    /// Begins a checkpoint and returns at once; what became of it is told through `saved` of [`Records::new`].
    pub(super) fn begin_checkpoint(&mut self, snapshot: Snapshot) -> Result<(), CheckpointError> {
        if let Ok(told) = self.journal.retry() {
            self.hear(told);
        }
        if !self.journal.is_whole() {
            return Err(CheckpointError::Unjournalled { path: self.folder.journal() });
        }
        self.saver.begin(snapshot).map_err(|refused| CheckpointError::UnderWay {
            path: self.folder.path().into(),
            step: refused.step,
        })
    }

    /// Takes notice of a checkpoint that has been made.
    pub(super) fn saved(&mut self, saved: &Saved) {
        if let Ok(written) = &saved.result {
            self.summary.checkpoint = Some(written.clone());
        }
        self.last_commit = Instant::now();
    }

    fn append(&mut self, entry: &Entry) -> Result<(), RunError> {
        let told = self.journal.append(entry)?;
        self.hear(told);
        Ok(())
    }

    fn hear(&mut self, told: Journalled) {
        let change = match told {
            Journalled::AsBefore => return,
            Journalled::Fails(problem) => Change::Fails(problem),
            Journalled::Recovered => Change::Recovered { lost: 0 },
        };
        self.news.push(News { file: JOURNAL, change });
    }
}
