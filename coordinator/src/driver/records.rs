//! What a run leaves behind: journal, metrics, checkpoints. Written by the driver, in the order of the commits.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use carousel_proto::digest::Digest;
use carousel_proto::{Step, Term};

use super::step::ReducedStep;
use crate::checkpoint::{Checkpoint, Context, RunFolder, Snapshot};
use crate::journal::{Journal, Record};
use crate::metrics::{Metrics, StepMetrics, TestMetrics, ValidMetrics};
use crate::plan::RunPlan;
use crate::protocol::Ending;
use crate::replica::ReplicaLayout;
use crate::run::{Evaluated, RunError, Summary};

/// The files of a run, open.
pub(crate) struct Records {
    pub folder: RunFolder,
    pub plan: RunPlan,
    pub layout: ReplicaLayout,
    pub data_digest: Digest,
    pub journal: Journal,
    /// What an earlier process of this run committed beyond the checkpoint it is gone on with from.
    pub earlier: BTreeMap<u64, Record>,
    pub metrics: Metrics,
    pub last_commit: Instant,
    pub summary: Summary,
}

impl Records {
    pub(super) fn plan(&self) -> &RunPlan {
        &self.plan
    }

    pub(super) fn last_checkpoint(&self) -> Option<PathBuf> {
        self.summary.checkpoint.as_ref().map(|(path, _)| path.clone())
    }

    pub(super) fn summary(&self, ending: Ending, step: u64) -> Summary {
        Summary { ending, step, ..self.summary.clone() }
    }

    pub(super) fn flush(&mut self) -> Result<(), RunError> {
        self.journal.sync()?;
        self.metrics.flush().map_err(RunError::Metrics)
    }

    pub(super) fn begin_term(&mut self, _term: Term) -> Result<(), RunError> {
        Ok(())
    }

    /// Goes back to the last whole checkpoint; `None`: there is none, the run begins anew.
    pub(super) fn roll_back(&mut self) -> Result<Option<Box<Checkpoint>>, RunError> {
        Ok(None)
    }

    /// Journals a commit. A step that an earlier process of the run had committed must come out the same again.
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
        self.journal.append(&record)?;
        let metrics = StepMetrics {
            step: step.0,
            epoch: self.plan.epoch_of(step.0),
            loss: result.loss_sum / result.tokens as f64,
            learning_rate: result.learning_rate,
            grad_norm: result.grad_norm,
            clip_scale: result.clip_scale,
            tokens: result.tokens,
            seconds: self.last_commit.elapsed().as_secs_f64(),
            workers,
            term: term.0,
        };
        self.last_commit = Instant::now();
        self.metrics.step(&metrics).map_err(RunError::Metrics)?;
        Ok(metrics)
    }

    pub(super) fn valid(
        &mut self,
        step: Step,
        (tokens, loss): (u64, f64),
        seconds: f64,
    ) -> Result<ValidMetrics, RunError> {
        let epoch = self.plan.epoch_of(step.0);
        let valid_perplexity = libm::exp(loss);
        let metrics =
            ValidMetrics { step: step.0, epoch, valid_loss: loss, valid_perplexity, tokens, seconds };
        self.metrics.valid(&metrics).map_err(RunError::Metrics)?;
        self.summary.valid = Some(Evaluated { tokens, loss });
        self.last_commit = Instant::now();
        Ok(metrics)
    }

    pub(super) fn test(
        &mut self,
        step: Step,
        (tokens, loss): (u64, f64),
        seconds: f64,
    ) -> Result<TestMetrics, RunError> {
        let epoch = self.plan.epoch_of(step.0);
        let test_perplexity = libm::exp(loss);
        let metrics = TestMetrics { step: step.0, epoch, test_loss: loss, test_perplexity, tokens, seconds };
        self.metrics.test(&metrics).map_err(RunError::Metrics)?;
        self.summary.test = Some(Evaluated { tokens, loss });
        Ok(metrics)
    }

    pub(super) fn checkpoint(&mut self, snapshot: &Snapshot) -> Result<(PathBuf, Digest), RunError> {
        self.flush()?;
        let context = Context { layout: &self.layout, plan: &self.plan, data_digest: self.data_digest };
        let (path, digest) = self.folder.write(snapshot, context)?;
        self.summary.checkpoint = Some((path.clone(), digest));
        self.last_commit = Instant::now();
        Ok((path, digest))
    }
}
