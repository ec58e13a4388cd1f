//! One window on its way through the model and back: reads like the model. Arguments were checked before.

use crate::{
    ModelConfig, Parameters, Window,
    activation::Penalty,
    dense_parts::DenseParts,
    dropout::Dropout,
    embedding,
    head::{Aim, Head},
    kernels::{Context, Lanes, PackedRight, Panels, View, pack_right},
    layer::{Layer, LayerTape, PackedWeights},
    masks::Masks,
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
    /// Each layer's recurrent weights as this window has them, where some are dropped.
    pub(crate) recurrent: Vec<Vec<f32>>,
    /// (T·B, H) a layer's recurrent inputs, scaled for the gradient of such weights.
    pub(crate) recurrent_inputs: Panels,
    /// (T·B) what each position's embedding is multiplied by, where some are dropped.
    pub(crate) row_factors: Option<Vec<f32>>,
    pub(crate) packed: PackedWeights,
    pub(crate) packed_right: PackedRight,
    pub(crate) head: Head,
}

/// One window on its way through the model.
pub(crate) struct Pass<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) parameters: &'a Parameters,
    pub(crate) window: &'a Window<'a>,
    /// None in evaluation, which drops nothing.
    pub(crate) masks: Option<Masks<'a>>,
    pub(crate) aim: Aim,
    pub(crate) tapes: &'a mut Tapes,
    pub(crate) watch: Stopwatch,
}

impl<'a> Pass<'a> {
    fn size(&self) -> (usize, usize) {
        (self.window.steps, self.window.streams())
    }

    /// What is dropped at place 0, the embedding's output, or l, the output of layer l - 1.
    fn dropout(&self, place: usize) -> Option<Dropout<'a>> {
        self.masks.and_then(|masks| masks.units(place))
    }

    pub(crate) fn forward(&mut self, ctx: Context<'_>, carries: &mut [f32]) {
        self.embed(ctx);
        for index in 0..self.config.layers {
            self.layer_forward(ctx, index, carries);
        }
        let rows = self.window.steps * self.window.streams();
        let masked = self.dropout(self.config.layers).is_some();
        let Tapes { layers, inputs, head, .. } = &mut *self.tapes;
        let hidden = input_view(inputs, layers, self.config.layers, masked, rows);
        self.watch.lap(Stage::Embedding);
        let model = (self.config, self.parameters);
        head.forward(ctx, model, (self.window, self.aim), hidden);
        self.watch.lap(Stage::Logits);
    }

    /// The first layer's input.
    fn embed(&mut self, ctx: Context<'_>) {
        let (steps, streams) = self.size();
        let encoder = self.parameters.tensor("encoder.weight").expect("checked against the model");
        self.tapes.row_factors = self.masks.and_then(|masks| masks.rows(self.window.inputs));
        let dropout = self.dropout(0);
        let Tapes { inputs, row_factors, .. } = &mut *self.tapes;
        let x = &mut inputs[0];
        x.shape(steps * streams, self.config.embedding);
        embedding::look_up(ctx.team, encoder, self.config.embedding, self.window.inputs, x);
        if let Some(factors) = row_factors {
            embedding::scale_rows(ctx.team, factors, x);
        }
        if let Some(dropout) = dropout {
            dropout.mask(ctx.team, x);
        }
    }

    /// One layer through the window, and the masked copy of its output, if it is masked.
    fn layer_forward(&mut self, ctx: Context<'_>, index: usize, carries: &mut [f32]) {
        let (steps, streams) = self.size();
        let rows = steps * streams;
        let (below_masked, above) = (self.dropout(index).is_some(), self.dropout(index + 1));
        let layer = Layer::new(self.config, self.parameters, index, (steps, streams));
        let Tapes { layers, inputs, packed, recurrent, .. } = &mut *self.tapes;
        let drop = self.masks.and_then(|masks| masks.weights(index));
        if let Some(drop) = &drop {
            drop.weights(ctx.team, layer.recurrent_parameters(), &mut recurrent[index]);
        }
        let layer = layer.with_recurrent(drop.map(|_| &recurrent[index][..]));
        let (below, tape) = layers.split_at_mut(index);
        layer.shape(&mut tape[0]);
        Carry { config: self.config, index, streams }.load(carries, &mut tape[0]);
        let x = input_view(inputs, below, index, below_masked, rows);
        self.watch.lap(Stage::Embedding);
        layer.input_products(ctx, x, &mut tape[0], packed);
        self.watch.lap(Stage::InputProducts);
        layer.forward(ctx, &mut tape[0], packed);
        self.watch.lap(Stage::Recurrence);
        Carry { config: self.config, index, streams }.save(&tape[0], rows, carries);
        if let Some(dropout) = above {
            inputs[index + 1].shape(rows, self.config.width(index));
            dropout.mask_into(ctx.team, &tape[0].h, streams, &mut inputs[index + 1]);
        }
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
        let mut gradient = self.head_backward(ctx, lanes, dense);
        for index in (0..self.config.layers).rev() {
            if let Some(dropout) = self.dropout(index + 1) {
                dropout.mask(ctx.team, &mut gradient);
                self.watch.lap(Stage::InputGradients);
            }
            if index == self.config.layers - 1 {
                let penalty = Penalty::new(self.config, self.window);
                penalty.add_temporal(ctx.team, &self.tapes.layers[index].h, &mut gradient);
            }
            self.tapes.layers[index].dh = gradient;
            gradient = self.layer_backward(ctx, index, lanes, dense);
        }
        if let Some(dropout) = self.dropout(0) {
            dropout.mask(ctx.team, &mut gradient);
        }
        if let Some(factors) = &self.tapes.row_factors {
            embedding::scale_rows(ctx.team, factors, &mut gradient);
        }
        self.tapes.input_gradient = gradient;
        self.watch.lap(Stage::InputGradients);
    }

    /// Backward through the decoder; returns the gradient of its input.
    fn head_backward<D: AsMut<[f32]>>(
        &mut self,
        ctx: Context<'_>,
        lanes: Lanes<'_>,
        dense: &mut DenseParts<'_, D>,
    ) -> Panels {
        let rows = lanes.steps * lanes.streams;
        let masked = self.dropout(self.config.layers).is_some();
        let mut gradient = std::mem::take(&mut self.tapes.layers[self.config.layers - 1].dh);
        gradient.shape(rows, self.config.hidden);
        let Tapes { layers, inputs, head, packed_right, .. } = &mut *self.tapes;
        let hidden = input_view(inputs, layers, self.config.layers, masked, rows);
        pack_right(ctx, lanes, hidden, packed_right);
        let model = (self.config, self.parameters);
        let (mut runs, start) = dense.decoder();
        head.backward(ctx, model, (self.window, lanes), (packed_right, &mut gradient), (&mut runs, start));
        dense.decoder_done();
        let output = match masked {
            true => (&inputs[self.config.layers], 0),
            false => (&layers[self.config.layers - 1].h, lanes.streams),
        };
        Penalty::new(self.config, self.window).add_activation(ctx.team, output, &mut gradient);
        self.watch.lap(Stage::DecoderBackward);
        gradient
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
        let masked = self.dropout(index).is_some();
        let mut out = match index {
            0 => std::mem::take(&mut self.tapes.input_gradient),
            _ => std::mem::take(&mut self.tapes.layers[index - 1].dh),
        };
        let drop = self.masks.and_then(|masks| masks.weights(index));
        let Tapes { layers, inputs, packed, packed_right, recurrent, recurrent_inputs, .. } =
            &mut *self.tapes;
        let layer = Layer::new(self.config, self.parameters, index, (lanes.steps, lanes.streams))
            .with_recurrent(drop.as_ref().map(|_| &recurrent[index][..]));
        layer.backward(ctx, &mut layers[index], packed);
        self.watch.lap(Stage::RecurrenceBackward);
        let (below, tape) = layers.split_at(index);
        let x = input_view(inputs, below, index, masked, rows);
        let before = match &drop {
            Some(drop) => drop.inputs(ctx.team, &tape[0].h, rows, recurrent_inputs),
            None => tape[0].h.view().rows(0, rows),
        };
        let (mut runs, start) = dense.layer(index);
        layer.weight_gradients(ctx, (x, before, &tape[0]), (lanes, packed_right), (&mut runs, start));
        if let Some(drop) = &drop {
            layer.recurrent_gradients(&mut runs, start).for_each(|run| drop.clear_dropped(ctx.team, run));
        }
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
    fn load(&self, carries: &[f32], tape: &mut LayerTape) {
        let len = self.config.carry_len();
        for (stream, carry) in carries.chunks_exact(len).enumerate().take(self.streams) {
            tape.h.set_row(stream, &carry[self.config.carry_range(0, self.index)]);
            if self.config.cell.has_cell_state() {
                tape.c.set_row(stream, &carry[self.config.carry_range(1, self.index)]);
            }
        }
    }

    fn save(&self, tape: &LayerTape, rows: usize, carries: &mut [f32]) {
        let len = self.config.carry_len();
        for (stream, carry) in carries.chunks_exact_mut(len).enumerate().take(self.streams) {
            tape.h.get_row(rows + stream, &mut carry[self.config.carry_range(0, self.index)]);
            if self.config.cell.has_cell_state() {
                tape.c.get_row(rows + stream, &mut carry[self.config.carry_range(1, self.index)]);
            }
        }
    }
}
