//! A text as windows of all its streams, and a bar for whoever waits for them.

use carousel_corpus::StreamPlan;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::Failure;

/// The windows of a text, one after another.
pub(super) struct Windows<'a> {
    tokens: &'a [u32],
    plan: StreamPlan,
    inputs: Vec<u32>,
    targets: Vec<u32>,
    bar: ProgressBar,
}

/// One of them: (T, B) inputs and targets, and how many targets count.
pub(super) struct WindowTokens<'a> {
    pub inputs: &'a [u32],
    pub targets: &'a [u32],
    pub counted: u64,
}

impl<'a> Windows<'a> {
    /// Every token but the first is a target, once.
    pub(super) fn evaluation(tokens: &'a [u32], streams: usize, window: usize) -> Result<Self, Failure> {
        let plan = StreamPlan::evaluation(tokens.len(), streams, window, 1).map_err(Failure::bad_input)?;
        Ok(Self::new(tokens, plan, "evaluating"))
    }

    /// As a run trains on it: whole windows of every stream.
    pub(super) fn training(tokens: &'a [u32], streams: usize, window: usize) -> Result<Self, Failure> {
        let plan = StreamPlan::training(tokens.len(), streams, window, 1).map_err(Failure::bad_input)?;
        Ok(Self::new(tokens, plan, "gradient statistics"))
    }

    fn new(tokens: &'a [u32], plan: StreamPlan, what: &'static str) -> Self {
        // Drawn on a terminal only.
        let bar = ProgressBar::with_draw_target(Some(plan.windows()), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{msg} {bar:24} {pos}/{len} windows  {eta} left");
        bar.set_style(style.expect("the template is a constant"));
        bar.set_message(what);
        Self { tokens, plan, inputs: Vec::new(), targets: Vec::new(), bar }
    }

    pub(super) fn count(&self) -> u64 {
        self.plan.windows()
    }

    /// Only so many of them are asked for.
    pub(super) fn at_most(self, windows: u64) -> Self {
        self.bar.set_length(windows);
        self
    }

    pub(super) fn get(&mut self, index: u64) -> WindowTokens<'_> {
        self.bar.set_position(index);
        self.plan.fill(self.tokens, index, 0, &mut self.inputs, &mut self.targets);
        let counted = self.plan.tokens_in_window(index);
        WindowTokens { inputs: &self.inputs, targets: &self.targets, counted }
    }
}

impl Drop for Windows<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
