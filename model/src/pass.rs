//! One window on its way through the model and back: reads like the model. Arguments were checked before.

use std::ops::Range;

use crate::{
    ModelConfig, Parameters, Window,
    dense_parts::DenseParts,
    dropout::Dropout,
    embedding,
    head::{Aim, Head},
    kernels::{Context, Lanes, PackedRight, Panels, View, pack_right},
    layer::{Layer, LayerTape, PackedWeights},
    stopwatch::{Stage, Stopwatch},
};

/// Everything a window leaves for its way back. T steps, B streams.
#[derive(Default)]
pub(crate) struct Tapes {
    pub(crate) layers: Vec<LayerTape>,
    /// (T·B, in) what each layer read, and last what the decoder read, where it is not simply the output below.
    pub(crate) inputs: Vec<Panels>,
    /// (T·B, E) gradient of the embedding's output.
    pub(crate) input_gradient: Panels,
    pub(crate) packed: PackedWeights,
    pub(crate) packed_right: PackedRight,
    pub(crate) head: Head,
}

/// One window on its way through the model.
pub(crate) struct Pass<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) parameters: &'a Parameters,
    pub(crate) window: &'a Window<'a>,
    pub(crate) aim: Aim,
    pub(crate) dropout: Option<Dropout<'a>>,
    pub(crate) tapes: &'a mut Tapes,
    pub(crate) watch: Stopwatch,
}

impl Pass<'_> {
    fn size(&self) -> (usize, usize) {
        (self.window.steps, self.window.streams())
    }

    pub(crate) fn forward(&mut self, ctx: Context<'_>, carries: &mut [f32]) {
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
        let model = (self.config, self.parameters);
        head.forward(ctx, model, (self.window, self.aim), hidden);
        self.watch.lap(Stage::Logits);
    }

    pub(crate) fn losses(&mut self, ctx: Context<'_>) {
        self.tapes.head.losses(ctx, self.window);
        self.watch.lap(Stage::Loss);
    }

    pub(crate) fn backward<D: AsMut<[f32]>>(
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
