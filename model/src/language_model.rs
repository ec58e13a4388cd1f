//! The language model as its callers see it: gradients of a window, its loss alone, the next token's logits.
//!
//! Reads like the model: embedding, layers, decoder, loss, and back. Arguments are checked here, before any work.

use std::ops::Range;

use crate::{
    Gradients, LaneLoss, ModelConfig, ModelError, Parameters, Partial, Window,
    dense_parts::{DenseParts, FinishedPart, part_ranges},
    dropout::Dropout,
    embedding,
    head::Head,
    kernels::{Context, Isa, Lane, Lanes, PackedRight, Panels, Scratch, View, pack_right, with_team},
    layer::{Layer, LayerTape, PackedWeights},
    layout::{GradientLayout, ParameterLayout},
    stopwatch::{Stage, Stopwatch},
    window::{LaneStreams, check_length, check_tokens},
};

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
}

/// Everything a window leaves for its way back. T steps, B streams.
#[derive(Default)]
struct Tapes {
    layers: Vec<LayerTape>,
    /// (T·B, in) what each layer read, and last what the decoder read, where it is not simply the output below.
    inputs: Vec<Panels>,
    /// (T·B, E) gradient of the embedding's output.
    input_gradient: Panels,
    packed: PackedWeights,
    packed_right: PackedRight,
    head: Head,
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
        })
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
        let dropout = Dropout::new(self.config.dropout, window.seed, window.step, &streams);
        let mut pass = Pass {
            config: &self.config,
            parameters,
            window,
            dropout,
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

    /// The embedding's gradient of one group, after a pass.
    fn row_gradients(&mut self, window: &Window<'_>, group: &Range<usize>) -> (Vec<u32>, Vec<f32>) {
        let (gradient, width) = (&self.tapes.input_gradient, self.config.embedding);
        let rows = embedding::row_gradients(gradient, width, window.inputs, window.lanes, group.clone());
        self.watch.lap(Stage::EmbeddingGradient);
        rows
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
        self.forward(parameters, window, carries);
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
        self.forward(parameters, &window, carries);
        for (row, logits) in logits.chunks_exact_mut(self.config.vocabulary).enumerate() {
            self.tapes.head.logits().get_row(row, logits);
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
    fn forward(&mut self, parameters: &Parameters, window: &Window<'_>, carries: &mut [f32]) {
        let (config, tapes) = (&self.config, &mut self.tapes);
        let mut pass = Pass { config, parameters, window, dropout: None, tapes, watch: Stopwatch::start() };
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

/// One window on its way through the model.
struct Pass<'a> {
    config: &'a ModelConfig,
    parameters: &'a Parameters,
    window: &'a Window<'a>,
    dropout: Option<Dropout<'a>>,
    tapes: &'a mut Tapes,
    watch: Stopwatch,
}

impl Pass<'_> {
    fn size(&self) -> (usize, usize) {
        (self.window.steps, self.window.streams())
    }

    fn forward(&mut self, ctx: Context<'_>, carries: &mut [f32]) {
        let (steps, streams) = self.size();
        let rows = steps * streams;
        let encoder = self.parameters.tensor("encoder.weight").expect("checked against the model");
        let x = &mut self.tapes.inputs[0];
        x.shape(rows, self.config.embedding);
        embedding::look_up(ctx.team, encoder, self.config.embedding, self.window.inputs, x);
        if let Some(dropout) = &self.dropout {
            dropout.mask(ctx.team, x, 0);
        }
        for index in 0..self.config.layers {
            let layer = Layer::new(self.config, self.parameters, index, (steps, streams));
            let Tapes { layers, inputs, packed, .. } = &mut *self.tapes;
            let (below, tape) = layers.split_at_mut(index);
            layer.shape(&mut tape[0]);
            Carry { config: self.config, index, streams }.load(carries, &mut tape[0]);
            let x = input_view(inputs, below, index, self.dropout.is_some(), rows);
            self.watch.lap(Stage::Embedding);
            layer.input_products(ctx, x, &mut tape[0], packed);
            self.watch.lap(Stage::InputProducts);
            layer.forward(ctx, &mut tape[0], packed);
            self.watch.lap(Stage::Recurrence);
            Carry { config: self.config, index, streams }.save(&tape[0], rows, carries);
            if let Some(dropout) = &self.dropout {
                inputs[index + 1].shape(rows, self.config.hidden);
                dropout.mask_into(ctx.team, &tape[0].h, streams, &mut inputs[index + 1], index as u32 + 1);
            }
        }
        let Tapes { layers, inputs, head, .. } = &mut *self.tapes;
        let hidden = input_view(inputs, layers, self.config.layers, self.dropout.is_some(), rows);
        self.watch.lap(Stage::Embedding);
        head.forward(ctx, self.config, self.parameters, hidden);
        self.watch.lap(Stage::Logits);
    }

    fn losses(&mut self, ctx: Context<'_>) {
        self.tapes.head.losses(ctx, self.window);
        self.watch.lap(Stage::Loss);
    }

    fn backward<D: AsMut<[f32]>>(
        &mut self,
        ctx: Context<'_>,
        lanes: Lanes<'_>,
        dense: &mut DenseParts<'_, D>,
    ) {
        let rows = lanes.steps * lanes.streams;
        let masked = self.dropout.is_some();
        let top = self.config.layers - 1;
        let mut gradient = std::mem::take(&mut self.tapes.layers[top].dh);
        gradient.shape(rows, self.config.hidden);
        let Tapes { layers, inputs, head, packed_right, .. } = &mut *self.tapes;
        let hidden = input_view(inputs, layers, self.config.layers, masked, rows);
        pack_right(ctx, lanes, hidden, packed_right);
        let model = (self.config, self.parameters);
        let (mut runs, start) = dense.decoder();
        head.backward(ctx, model, (self.window, lanes), (packed_right, &mut gradient), (&mut runs, start));
        dense.decoder_done();
        self.watch.lap(Stage::DecoderBackward);
        for index in (0..self.config.layers).rev() {
            if let Some(dropout) = &self.dropout {
                dropout.mask(ctx.team, &mut gradient, index as u32 + 1);
                self.watch.lap(Stage::InputGradients);
            }
            self.tapes.layers[index].dh = gradient;
            gradient = self.layer_backward(ctx, index, lanes, dense);
        }
        if let Some(dropout) = &self.dropout {
            dropout.mask(ctx.team, &mut gradient, 0);
        }
        self.tapes.input_gradient = gradient;
        self.watch.lap(Stage::InputGradients);
    }

    /// Backward through one layer; returns the gradient of its input.
    fn layer_backward<D: AsMut<[f32]>>(
        &mut self,
        ctx: Context<'_>,
        index: usize,
        lanes: Lanes<'_>,
        dense: &mut DenseParts<'_, D>,
    ) -> Panels {
        let rows = lanes.steps * lanes.streams;
        let mut out = match index {
            0 => std::mem::take(&mut self.tapes.input_gradient),
            _ => std::mem::take(&mut self.tapes.layers[index - 1].dh),
        };
        let layer = Layer::new(self.config, self.parameters, index, (lanes.steps, lanes.streams));
        let Tapes { layers, inputs, packed, packed_right, .. } = &mut *self.tapes;
        layer.backward(ctx, &mut layers[index], packed);
        self.watch.lap(Stage::RecurrenceBackward);
        let (below, tape) = layers.split_at(index);
        let x = input_view(inputs, below, index, self.dropout.is_some(), rows);
        let (mut runs, start) = dense.layer(index);
        layer.weight_gradients(ctx, (x, &tape[0]), (lanes, packed_right), (&mut runs, start));
        dense.layer_done(index);
        self.watch.lap(Stage::WeightGradients);
        layer.input_gradient(ctx, &tape[0], packed, &mut out);
        self.watch.lap(Stage::InputGradients);
        out
    }
}

/// What layer `index` reads (the decoder: index L): the embedding, or the output below, masked or as it is.
fn input_view<'a>(
    inputs: &'a [Panels],
    below: &'a [LayerTape],
    index: usize,
    masked: bool,
    rows: usize,
) -> View<'a> {
    match below.last() {
        Some(tape) if !masked => tape.h.view().rows(tape.h.row_count() - rows, rows),
        _ => inputs[index].view(),
    }
}

/// One layer's part of the streams' carries.
struct Carry<'a> {
    config: &'a ModelConfig,
    index: usize,
    streams: usize,
}

impl Carry<'_> {
    /// Where `h` (0) or `c` (1) of this layer lies in a stream's carry.
    fn range(&self, state: usize) -> Range<usize> {
        let start = (state * self.config.layers + self.index) * self.config.hidden;
        start..start + self.config.hidden
    }

    fn load(&self, carries: &[f32], tape: &mut LayerTape) {
        let len = self.config.carry_len();
        for (stream, carry) in carries.chunks_exact(len).enumerate().take(self.streams) {
            tape.h.set_row(stream, &carry[self.range(0)]);
            if self.config.cell.has_cell_state() {
                tape.c.set_row(stream, &carry[self.range(1)]);
            }
        }
    }

    fn save(&self, tape: &LayerTape, rows: usize, carries: &mut [f32]) {
        let len = self.config.carry_len();
        for (stream, carry) in carries.chunks_exact_mut(len).enumerate().take(self.streams) {
            tape.h.get_row(rows + stream, &mut carry[self.range(0)]);
            if self.config.cell.has_cell_state() {
                tape.c.get_row(rows + stream, &mut carry[self.range(1)]);
            }
        }
    }
}
