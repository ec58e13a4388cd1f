//! One window of work and what comes back: the arguments of a step, checked, and its gradients.

use std::ops::Range;

use crate::{ModelConfig, ModelError};

/// A target of this value contributes neither loss nor gradient nor count.
pub const IGNORED_TARGET: u32 = u32::MAX;

/// A lane's place in the batch. Both numbers are of the whole run, not of this worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneStreams {
    /// Index of the lane.
    pub lane: usize,
    /// Index of its first stream.
    pub first_stream: usize,
    /// How many streams it has, at least one.
    pub streams: usize,
}

/// What one call computes: T time steps of B streams, the streams of all given lanes side by side.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Seed of the run: with `step`, it decides the dropout masks.
    pub seed: u64,
    /// Number of the step.
    pub step: u64,
    /// Time steps (T).
    pub steps: usize,
    /// The lanes, in the order of the columns.
    pub lanes: &'a [LaneStreams],
    /// (T, B) tokens, time-major.
    pub inputs: &'a [u32],
    /// (T, B) tokens, or [`IGNORED_TARGET`].
    pub targets: &'a [u32],
    /// Tokens with a target in the whole step, over all lanes of all workers: gradients are divided by it.
    pub step_tokens: u64,
}

/// The loss of one lane over the window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaneLoss {
    /// Targets counted.
    pub tokens: u64,
    /// Their cross-entropy, added, in nats.
    pub sum: f64,
}

/// The gradient of a group of lanes, already divided by the step's tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Partial {
    /// The dense part: see [`crate::GradientLayout`].
    pub dense: Vec<f32>,
    /// Tokens whose embedding was touched: sorted, each once.
    pub rows: Vec<u32>,
    /// (rows, E) their gradients.
    pub row_values: Vec<f32>,
}

/// What [`crate::LanguageModel::gradients`] gives back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gradients {
    /// One for each lane of the window.
    pub losses: Vec<LaneLoss>,
    /// One for each group.
    pub partials: Vec<Partial>,
}

impl Window<'_> {
    /// Streams of the call (B). Call only after `check`.
    pub(crate) fn streams(&self) -> usize {
        self.lanes.iter().map(|lane| lane.streams).sum()
    }

    /// Everything that can be wrong with a window, before any work.
    pub(crate) fn check(&self, config: &ModelConfig, carries: usize) -> Result<(), ModelError> {
        if self.steps == 0 {
            return Err(ModelError::EmptyWindow("steps"));
        }
        if self.lanes.is_empty() {
            return Err(ModelError::EmptyWindow("lanes"));
        }
        if self.lanes.iter().any(|lane| lane.streams == 0) {
            return Err(ModelError::EmptyWindow("streams in a lane"));
        }
        let too_large = || ModelError::TooLarge("the window".into());
        let streams = self.lanes.iter().try_fold(0usize, |sum, lane| sum.checked_add(lane.streams));
        let streams = streams.ok_or_else(too_large)?;
        let positions = streams.checked_mul(self.steps).ok_or_else(too_large)?;
        let carry = streams.checked_mul(config.carry_len()).ok_or_else(too_large)?;
        check_length("inputs", positions, self.inputs.len())?;
        check_length("targets", positions, self.targets.len())?;
        check_length("carries", carry, carries)?;
        check_tokens("inputs", self.inputs, config.vocabulary, false)?;
        check_tokens("targets", self.targets, config.vocabulary, true)
    }

    /// Groups must be runs of lanes; a divisor is needed wherever a target counts.
    pub(crate) fn check_groups(&self, groups: &[Range<usize>]) -> Result<(), ModelError> {
        for group in groups {
            if group.start >= group.end || group.end > self.lanes.len() {
                let (start, end) = (group.start, group.end);
                return Err(ModelError::Group { start, end, lanes: self.lanes.len() });
            }
        }
        if self.step_tokens == 0 && self.targets.iter().any(|&t| t != IGNORED_TARGET) {
            return Err(ModelError::EmptyWindow("step_tokens"));
        }
        Ok(())
    }
}

pub(crate) fn check_length(what: &'static str, expected: usize, found: usize) -> Result<(), ModelError> {
    if expected == found { Ok(()) } else { Err(ModelError::Length { what, expected, found }) }
}

pub(crate) fn check_tokens(
    what: &'static str,
    tokens: &[u32],
    vocabulary: usize,
    may_ignore: bool,
) -> Result<(), ModelError> {
    let wrong = |&token: &u32| token as usize >= vocabulary && !(may_ignore && token == IGNORED_TARGET);
    match tokens.iter().position(wrong) {
        None => Ok(()),
        Some(index) => Err(ModelError::Token { what, index, token: tokens[index], vocabulary }),
    }
}
