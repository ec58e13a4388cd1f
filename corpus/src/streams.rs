//! The cut of a token sequence into streams, windows and lanes. Pure arithmetic: holds no tokens.
//!
//! Training, `n` tokens, `B` streams, windows of `T` steps: `W = (n - 1) / (B T)` windows; stream `s` reads the
//! inputs `tokens[sWT .. (s+1)WT]`, and predicts for each the token that follows it. What does not fill a window
//! of every stream, at the end of the text, is not read.
//!
//! Evaluation leaves nothing out: stream `s` predicts the targets `[s(n-1)/B, (s+1)(n-1)/B)` of the `n - 1`
//! targets `tokens[1..]`, so that each is counted exactly once whatever `B` is.
//!
//! In both, lane `i` holds the streams `[iB/L, (i+1)B/L)`.

use std::ops::Range;

use crate::windows::Span;

/// The target of a place beyond a stream's end: its loss is not counted.
pub const IGNORED: u32 = u32::MAX;

/// Why a token sequence cannot be cut as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// A size that must be at least 1 is 0.
    #[error("train.{size} = 0; expected at least 1")]
    Zero {
        /// `streams`, `window` or `lanes`.
        size: &'static str,
    },
    /// A lane would hold no stream.
    #[error(
        "train.lanes = {lanes}, but train.streams = {streams}: expected at most one lane for each stream"
    )]
    MoreLanesThanStreams {
        /// Lanes asked for.
        lanes: usize,
        /// Streams asked for.
        streams: usize,
    },
    /// The text does not fill one window of every stream.
    #[error(
        "the text has {tokens} tokens; one window of every stream needs {needed} \
         (train.streams = {streams} times train.window = {window}, and 1): give more text, or lower one of them"
    )]
    TooFewTokens {
        /// Length of the text, in tokens.
        tokens: usize,
        /// Streams asked for.
        streams: usize,
        /// Steps of a window.
        window: usize,
        /// The least length that would do, in tokens.
        needed: u128,
    },
    /// A text of fewer than two tokens has nothing to predict.
    #[error("the text has {tokens} tokens; evaluation needs at least 2: one to read, one to predict")]
    NothingToPredict {
        /// Length of the text, in tokens.
        tokens: usize,
    },
}

/// Which tokens every stream reads in every window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPlan {
    tokens: usize,
    streams: usize,
    window: usize,
    lanes: usize,
    windows: usize,
    /// Targets that are cut into streams: `W B T` in training, `n - 1` in evaluation.
    targets: usize,
}

impl StreamPlan {
    /// The plan of an epoch of training over `tokens` tokens.
    ///
    /// # Errors
    /// [`PlanError::Zero`], [`PlanError::MoreLanesThanStreams`]; [`PlanError::TooFewTokens`] when there is not
    /// one window for every stream.
    pub fn training(tokens: usize, streams: usize, window: usize, lanes: usize) -> Result<Self, PlanError> {
        check_sizes(streams, window, lanes)?;
        let block = streams as u128 * window as u128;
        let windows = (tokens.saturating_sub(1) as u128 / block) as usize;
        if windows == 0 {
            return Err(PlanError::TooFewTokens { tokens, streams, window, needed: block + 1 });
        }
        let targets = windows * streams * window;
        Ok(StreamPlan { tokens, streams, window, lanes, windows, targets })
    }

    /// The plan that predicts every token of a text but the first, once. Streams that are longer than others
    /// are so by one target; a stream of a very short text may have none.
    ///
    /// # Errors
    /// [`PlanError::Zero`], [`PlanError::MoreLanesThanStreams`], [`PlanError::NothingToPredict`].
    pub fn evaluation(tokens: usize, streams: usize, window: usize, lanes: usize) -> Result<Self, PlanError> {
        check_sizes(streams, window, lanes)?;
        if tokens < 2 {
            return Err(PlanError::NothingToPredict { tokens });
        }
        let targets = tokens - 1;
        let windows = targets.div_ceil(streams).div_ceil(window);
        Ok(StreamPlan { tokens, streams, window, lanes, windows, targets })
    }

    /// Windows of a pass over the text, at least 1. The carry of every stream is zero before the first.
    pub fn windows(&self) -> u64 {
        self.windows as u64
    }

    /// Streams of all lanes together, `B`.
    pub fn streams(&self) -> usize {
        self.streams
    }

    /// Steps of a window, `T`.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Length of the token sequence the plan was made for.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Lanes, `L`.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// The streams of `lane`, at least one.
    ///
    /// # Panics
    /// When there is no such lane.
    pub fn lane_streams(&self, lane: usize) -> Range<usize> {
        assert!(lane < self.lanes, "lane {lane} of a plan with {} lanes", self.lanes);
        portion(self.streams, lane, self.lanes)..portion(self.streams, lane + 1, self.lanes)
    }

    /// Time steps of a pass over the text, the same for every stream.
    pub fn time_steps(&self) -> u64 {
        self.windows as u64 * self.window as u64
    }

    /// The `window`-th of the windows of one length that a pass is cut into.
    ///
    /// # Panics
    /// When there is no such window.
    pub fn span(&self, window: u64) -> Span {
        assert!(window < self.windows(), "window {window} of a plan with {} windows", self.windows);
        Span { start: window * self.window as u64, steps: self.window as u32 }
    }

    /// Targets that are not [`IGNORED`] in `window`, over all streams.
    ///
    /// # Panics
    /// When there is no such window.
    pub fn tokens_in_window(&self, window: u64) -> u64 {
        self.tokens_in(self.span(window))
    }

    /// Targets that are not [`IGNORED`] in a span, over all streams.
    pub fn tokens_in(&self, span: Span) -> u64 {
        let (start, steps) = (span.start as usize, span.steps as usize);
        let in_window = |length: usize| length.saturating_sub(start).min(steps) as u64;
        let (shorter, longer) = (self.targets / self.streams, self.targets % self.streams);
        longer as u64 * in_window(shorter + 1) + (self.streams - longer) as u64 * in_window(shorter)
    }

    /// Writes the `window`-th window of `lane`: `inputs` and `targets` become (T, streams of the lane), time-major
    /// (element `t * streams + s`). Beyond a stream's end the input is 0 and the target [`IGNORED`].
    ///
    /// # Panics
    /// When `tokens` has not the length the plan was made for, or there is no such window or lane.
    pub fn fill(
        &self,
        tokens: &[u32],
        window: u64,
        lane: usize,
        inputs: &mut Vec<u32>,
        targets: &mut Vec<u32>,
    ) {
        self.fill_span(tokens, self.span(window), lane, inputs, targets);
    }

    /// As [`StreamPlan::fill`], for any span of a pass's time steps.
    ///
    /// # Panics
    /// When `tokens` has not the length the plan was made for, the span lies beyond the pass, or there is no such lane.
    pub fn fill_span(
        &self,
        tokens: &[u32],
        span: Span,
        lane: usize,
        inputs: &mut Vec<u32>,
        targets: &mut Vec<u32>,
    ) {
        assert_eq!(tokens.len(), self.tokens, "the tokens are not those the plan was made for");
        assert!(span.start + u64::from(span.steps) <= self.time_steps(), "{span:?} of {}", self.time_steps());
        let (start, steps) = (span.start as usize, span.steps as usize);
        let streams = self.lane_streams(lane);
        let width = streams.len();
        inputs.clear();
        targets.clear();
        inputs.resize(steps * width, 0);
        targets.resize(steps * width, IGNORED);
        for (column, stream) in streams.enumerate() {
            let run = self.stream_inputs(stream);
            let end = run.end.min(run.start + start + steps);
            for (t, at) in (run.start + start..end).enumerate() {
                inputs[t * width + column] = tokens[at];
                targets[t * width + column] = tokens[at + 1];
            }
        }
    }

    /// The inputs of a stream; the targets are one later.
    pub(crate) fn stream_inputs(&self, stream: usize) -> Range<usize> {
        portion(self.targets, stream, self.streams)..portion(self.targets, stream + 1, self.streams)
    }
}

fn check_sizes(streams: usize, window: usize, lanes: usize) -> Result<(), PlanError> {
    for (size, value) in [("streams", streams), ("window", window), ("lanes", lanes)] {
        if value == 0 {
            return Err(PlanError::Zero { size });
        }
    }
    if lanes > streams { Err(PlanError::MoreLanesThanStreams { lanes, streams }) } else { Ok(()) }
}

/// Where part `index` of `parts` begins when `whole` things are cut as evenly as possible.
fn portion(whole: usize, index: usize, parts: usize) -> usize {
    (whole as u128 * index as u128 / parts as u128) as usize
}
