//! The language model as its callers see it: gradients of a window, its loss alone, the next token's logits.
//!
//! Arguments are checked here, before any work; `pass` does it.

mod inference;

use std::ops::Range;

use crate::{
    Gradients, LaneLoss, ModelConfig, ModelError, Parameters, Partial, Window,
    dense_parts::{DenseParts, FinishedPart, part_ranges},
    embedding,
    head::{Aim, Head},
    kernels::{Context, Isa, Lane, Lanes, Panels, Scratch, with_team},
    layer::LayerTape,
    layout::{GradientLayout, ParameterLayout},
    masks::{GivenMasks, Masks},
    pass::{Pass, Tapes},
    stopwatch::{Stage, Stopwatch},
    window::{LaneStreams, check_length, check_tokens},
};
pub use inference::Scores;

/// A model's shape with the memory its windows need, kept from call to call. Parameters and carries are the caller's.
pub struct LanguageModel {
    config: ModelConfig,
    layout: ParameterLayout,
    gradient_layout: GradientLayout,
    isa: Isa,
    scratch: Scratch,
    tapes: Tapes,
    spare: Vec<Partial>,
    spare_runs: Vec<Vec<f32>>,
    watch: Stopwatch,
    given: Option<GivenMasks>,
}

impl LanguageModel {
    /// A model of this shape, on the fastest instruction set or the one that `CAROUSEL_ISA` names.
    ///
    /// # Errors
    /// An invalid configuration, or a `CAROUSEL_ISA` that cannot be used.
    pub fn new(config: ModelConfig) -> Result<Self, ModelError> {
        Self::with_isa(config, Isa::chosen()?)
    }

    /// A model of this shape on a given instruction set.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn with_isa(config: ModelConfig, isa: Isa) -> Result<Self, ModelError> {
        config.validate()?;
        let (layout, gradient_layout) = (config.parameter_layout(), config.gradient_layout());
        let tapes = Tapes {
            layers: (0..config.layers).map(|_| LayerTape::default()).collect(),
            inputs: (0..=config.layers).map(|_| Panels::default()).collect(),
            recurrent: vec![Vec::new(); config.layers],
            head: Head::new(&config),
            ..Tapes::default()
        };
        Ok(Self {
            config,
            layout,
            gradient_layout,
            isa,
            scratch: Scratch::new(),
            tapes,
            spare: Vec::new(),
            spare_runs: Vec::new(),
            watch: Stopwatch::start(),
            given: None,
        })
    }

    /// The same model with masks from elsewhere for every window it trains on, to be compared with another implementation. They must fit
    /// the model and the windows' streams: what is missing at their ends counts as dropped.
    #[must_use]
    pub fn with_masks(self, masks: GivenMasks) -> Self {
        Self { given: Some(masks), ..self }
    }

    /// The shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Forward and backward over one window.
    ///
    /// `carries` (B, [`ModelConfig::carry_len`]) has the state before the window and receives the state after it. `groups` are runs of
    /// indices into `window.lanes`; each is folded by the lane tree to one partial.
    ///
    /// # Errors
    /// Sizes, tokens, groups or parameters that do not fit; nothing is changed then.
    pub fn gradients(
        &mut self,
        parameters: &Parameters,
        window: &Window<'_>,
        carries: &mut [f32],
        groups: &[Range<usize>],
    ) -> Result<Gradients, ModelError> {
        self.check(parameters, window, carries)?;
        window.check_groups(groups)?;
        let mut partials: Vec<Partial> = groups.iter().map(|_| self.take_spare()).collect();
        let offset = self.gradient_layout.dense_offset;
        let ranges = part_ranges(&self.config, &self.layout);
        let mut parts: Vec<(usize, Vec<&mut [f32]>)> = ranges.iter().map(|r| (r.start, Vec::new())).collect();
        for partial in &mut partials {
            let mut rest = &mut partial.dense[..];
            for ((_, runs), range) in parts.iter_mut().zip(&ranges) {
                let (run, after) = rest.split_at_mut(range.len());
                runs.push(run);
                rest = after;
            }
        }
        debug_assert_eq!(ranges[0].start, offset, "parts cover the dense gradient");
        self.pass(parameters, window, (carries, groups), DenseParts::new(parts, &mut |_, _| {}));
        for (partial, group) in partials.iter_mut().zip(groups) {
            (partial.rows, partial.row_values) = self.row_gradients(window, group);
        }
        Ok(Gradients { losses: self.tapes.head.lane_losses(window), partials })
    }

    /// As [`Self::gradients`], but hands the dense gradient out in parts, each when it is finished and while the rest is still
    /// computed: the decoder's, then the layers' from the top (with tied weights all at the end). The partials it returns have
    /// the touched rows alone. The parts' buffers may come back with [`Self::recycle_run`].
    ///
    /// # Errors
    /// Sizes, tokens, groups or parameters that do not fit; nothing is changed then.
    pub fn gradients_by_part(
        &mut self,
        parameters: &Parameters,
        window: &Window<'_>,
        (carries, groups): (&mut [f32], &[Range<usize>]),
        ready: &mut (dyn FnMut(FinishedPart) + Send),
    ) -> Result<Gradients, ModelError> {
        self.check(parameters, window, carries)?;
        window.check_groups(groups)?;
        let offset = self.gradient_layout.dense_offset;
        let ranges = part_ranges(&self.config, &self.layout);
        let mut part = |range: &Range<usize>| {
            (range.start, groups.iter().map(|_| self.take_spare_run(range.len())).collect())
        };
        let parts: Vec<(usize, Vec<Vec<f32>>)> = ranges.iter().map(&mut part).collect();
        let mut finished =
            |part: usize, groups| ready(FinishedPart { start: ranges[part].start - offset, groups });
        self.pass(parameters, window, (carries, groups), DenseParts::new(parts, &mut finished));
        let rows = |group: &Range<usize>| {
            let (rows, row_values) = self.row_gradients(window, group);
            Partial { dense: Vec::new(), rows, row_values }
        };
        let partials = groups.iter().map(rows).collect();
        Ok(Gradients { losses: self.tapes.head.lane_losses(window), partials })
    }

    /// Forward and backward, after the checks.
    fn pass<D: AsMut<[f32]> + Send>(
        &mut self,
        parameters: &Parameters,
        window: &Window<'_>,
        (carries, groups): (&mut [f32], &[Range<usize>]),
        mut dense: DenseParts<'_, D>,
    ) {
        let streams = stream_indices(window.lanes);
        let lanes = columns(window.lanes);
        let lanes = Lanes { steps: window.steps, streams: streams.len(), lanes: &lanes, groups };
        let drawn = (window.seed, window.step);
        let masks = Masks::new(&self.config, drawn, &streams, self.given.as_ref());
        let mut pass = Pass {
            config: &self.config,
            parameters,
            window,
            masks: Some(masks),
            aim: Aim::Train,
            tapes: &mut self.tapes,
            watch: Stopwatch::start(),
        };
        let (isa, scratch) = (self.isa, &self.scratch);
        with_team(|team| {
            let ctx = Context { team, isa, scratch };
            pass.forward(ctx, carries);
            pass.losses(ctx);
            pass.backward(ctx, lanes, &mut dense);
        });
        self.watch = pass.watch;
    }

    /// The touched rows of one group, after a pass: the embedding's, and with a sampled softmax the decoder's.
    fn row_gradients(&mut self, window: &Window<'_>, group: &Range<usize>) -> (Vec<u32>, Vec<f32>) {
        let (gradient, width) = (&self.tapes.input_gradient, self.config.embedding);
        let (mut rows, mut values) =
            embedding::row_gradients(gradient, width, window.inputs, window.lanes, group.clone());
        self.tapes.head.append_rows(&self.config, (window, group), (&mut rows, &mut values));
        self.watch.lap(Stage::EmbeddingGradient);
        (rows, values)
    }

    /// Forward alone, without dropout: each lane's loss, and `carries` moved on as by [`Self::gradients`].
    ///
    /// # Errors
    /// Sizes, tokens or parameters that do not fit; nothing is changed then.
    pub fn evaluate(
        &mut self,
        parameters: &Parameters,
        window: &Window<'_>,
        carries: &mut [f32],
    ) -> Result<Vec<LaneLoss>, ModelError> {
        self.check(parameters, window, carries)?;
        self.forward(Aim::Evaluate, parameters, window, carries);
        Ok(self.tapes.head.lane_losses(window))
    }

    /// One step of B streams: `logits` (B, V) of the token after `tokens` (B), and `carries` moved on.
    ///
    /// # Errors
    /// Sizes, tokens or parameters that do not fit; nothing is changed then.
    pub fn next_logits(
        &mut self,
        parameters: &Parameters,
        tokens: &[u32],
        carries: &mut [f32],
        logits: &mut [f32],
    ) -> Result<(), ModelError> {
        check_length("logits", tokens.len().saturating_mul(self.config.vocabulary), logits.len())?;
        check_tokens("tokens", tokens, self.config.vocabulary, false)?;
        let lanes = [LaneStreams { lane: 0, first_stream: 0, streams: tokens.len() }];
        let targets = vec![crate::IGNORED_TARGET; tokens.len()];
        let window = Window {
            seed: 0,
            step: 0,
            steps: 1,
            lanes: &lanes,
            inputs: tokens,
            targets: &targets,
            step_tokens: 0,
        };
        self.check(parameters, &window, carries)?;
        self.forward(Aim::Predict, parameters, &window, carries);
        for (row, logits) in logits.chunks_exact_mut(self.config.vocabulary).enumerate() {
            self.tapes.head.copy_logits(row, logits);
        }
        Ok(())
    }

    /// Seconds that the last call of [`Self::gradients`] spent in this stage.
    pub fn seconds(&self, stage: Stage) -> f64 {
        self.watch.seconds(stage)
    }

    /// Gives the buffers of gradients that are done with back, so that the next call need not ask the system for memory.
    pub fn recycle(&mut self, gradients: Gradients) {
        self.spare.extend(gradients.partials);
    }

    /// Gives the buffer of a finished part back.
    pub fn recycle_run(&mut self, run: Vec<f32>) {
        self.spare_runs.push(run);
    }

    /// Forward without dropout, with the rows' losses.
    fn forward(&mut self, aim: Aim, parameters: &Parameters, window: &Window<'_>, carries: &mut [f32]) {
        let (config, tapes) = (&self.config, &mut self.tapes);
        let (masks, watch) = (None, Stopwatch::start());
        let mut pass = Pass { config, parameters, window, aim, masks, tapes, watch };
        let (isa, scratch) = (self.isa, &self.scratch);
        with_team(|team| {
            let ctx = Context { team, isa, scratch };
            pass.forward(ctx, carries);
            pass.losses(ctx);
        });
    }

    fn check(&self, parameters: &Parameters, window: &Window<'_>, carries: &[f32]) -> Result<(), ModelError> {
        if *parameters.layout() != self.layout {
            let differs = parameters.layout().tensors.iter().find(|t| self.layout.get(&t.name) != Some(t));
            let text = differs.map_or("tensors are missing".into(), |t| format!("{} {:?}", t.name, t.shape));
            return Err(ModelError::ForeignParameters(text));
        }
        window.check(&self.config, carries.len())
    }

    /// A partial whose dense part has the right length; every element will be written.
    fn take_spare(&mut self) -> Partial {
        let len = self.gradient_layout.dense_len;
        match self.spare.pop() {
            Some(partial) if partial.dense.len() == len => partial,
            _ => Partial { dense: crate::kernels::large_vec(len), ..Partial::default() },
        }
    }

    /// A run of the right length; every element will be written.
    fn take_spare_run(&mut self, len: usize) -> Vec<f32> {
        let fitting = self.spare_runs.iter().position(|run| run.len() == len);
        fitting.map_or_else(|| crate::kernels::large_vec(len), |at| self.spare_runs.swap_remove(at))
    }
}

fn stream_indices(lanes: &[LaneStreams]) -> Vec<u32> {
    let streams = |lane: &LaneStreams| {
        let first = lane.first_stream;
        (0..lane.streams).map(move |stream| (first + stream) as u32)
    };
    lanes.iter().flat_map(streams).collect()
}

/// Where each lane's columns begin.
fn columns(lanes: &[LaneStreams]) -> Vec<Lane> {
    let mut first = 0;
    let column = |lane: &LaneStreams| {
        let column = Lane { first, streams: lane.streams };
        first += lane.streams;
        column
    };
    lanes.iter().map(column).collect()
}
