//! One recurrent layer over a window: its products, its walk through time, its gradients. Knows no embedding, no loss, no dropout.

use std::ops::Range;

use crate::{
    Cell, ModelConfig, Parameters,
    cells::Wiring,
    kernels::{
        Context, Cotangents, LANES, Lanes, LeftPanel, Outputs, Packed, PackedRight, Panels, Recurrence,
        Source, Tape, View, dense, lane_sums, pack_for_input, pack_for_output, pack_right, recur_backward,
        recur_forward, weight_gradient,
    },
};

/// What a layer keeps of the window it computed. T steps, B streams, H units.
#[derive(Default)]
pub(crate) struct LayerTape {
    /// (T·B, slots·H), each slot from a panel boundary on.
    pub(crate) gates: Panels,
    /// ((T+1)·B, H): the carry, then each step's output.
    pub(crate) h: Panels,
    /// ((T+1)·B, H): as `h`; empty without a cell state.
    pub(crate) c: Panels,
    /// (T·B, H): gradient of the output.
    pub(crate) dh: Panels,
    /// (B, H).
    pub(crate) dc: Panels,
}

/// Packed weights; layers take turns with them.
#[derive(Default)]
pub(crate) struct PackedWeights {
    input: Packed,
    hidden: Packed,
}

/// One layer's shapes and weights.
pub(crate) struct Layer<'a> {
    cell: Cell,
    hidden: usize,
    input: usize,
    steps: usize,
    streams: usize,
    names: [String; 7],
    parameters: &'a Parameters,
    /// (blocks · H, H) the recurrent weights of this window, where they are not the parameters.
    recurrent: Option<&'a [f32]>,
}

impl<'a> Layer<'a> {
    pub(crate) fn new(
        config: &ModelConfig,
        parameters: &'a Parameters,
        layer: usize,
        (steps, streams): (usize, usize),
    ) -> Self {
        let names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "w_ci", "w_cf", "w_co"];
        Self {
            cell: config.cell,
            hidden: config.width(layer),
            input: config.input_width(layer),
            steps,
            streams,
            names: names.map(|name| format!("rnn.{name}_l{layer}")),
            parameters,
            recurrent: None,
        }
    }

    /// The same layer with these recurrent weights.
    pub(crate) fn with_recurrent(self, recurrent: Option<&'a [f32]>) -> Self {
        Self { recurrent, ..self }
    }

    fn wiring(&self) -> &'static Wiring {
        self.cell.wiring()
    }

    fn panels(&self) -> usize {
        self.hidden.div_ceil(LANES)
    }

    /// Units of panel `panel`: (first, count).
    fn units(&self, panel: usize) -> (usize, usize) {
        (panel * LANES, (self.hidden - panel * LANES).min(LANES))
    }

    fn tensor(&self, name: usize) -> &'a [f32] {
        self.parameters.tensor(&self.names[name]).expect("the parameters were checked against the model")
    }

    fn weight_ih(&self) -> Source<'a> {
        Source { values: self.tensor(0), row: self.input }
    }

    fn weight_hh(&self) -> Source<'a> {
        Source { values: self.recurrent.unwrap_or_else(|| self.recurrent_parameters()), row: self.hidden }
    }

    /// (blocks · H, H) `weight_hh`.
    pub(crate) fn recurrent_parameters(&self) -> &'a [f32] {
        self.tensor(1)
    }

    /// Weight blocks in the order in which forward tasks take them: panel after panel, in each the wires. (row, count) of each.
    fn blocks(&self, wires: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let block = |panel: usize, wire: &(usize, usize)| {
            let (unit, count) = self.units(panel);
            (wire.0 * self.hidden + unit, count)
        };
        (0..self.panels()).flat_map(|panel| wires.iter().map(move |wire| block(panel, wire))).collect()
    }

    /// One vector of a tensor of (blocks · H) numbers, zero past the last unit.
    fn vector(&self, tensor: &[f32], block: usize, panel: usize) -> [f32; LANES] {
        let (unit, count) = self.units(panel);
        let mut vector = [0.0; LANES];
        let from = block * self.hidden + unit;
        vector[..count].copy_from_slice(&tensor[from..from + count]);
        vector
    }

    /// Biases of the input's product: b_ih, plus b_hh where the recurrent product goes on with the same chain.
    fn input_bias(&self) -> Vec<[f32; LANES]> {
        let (ih, hh) = (self.tensor(2), self.tensor(3));
        let mut bias = Vec::new();
        for panel in 0..self.panels() {
            for &(block, slot) in self.wiring().input {
                let mut vector = self.vector(ih, block, panel);
                if let Some(block) = self.wiring().hidden_block(slot) {
                    let hh = self.vector(hh, block, panel);
                    vector.iter_mut().zip(hh).for_each(|(a, b)| *a += b);
                }
                bias.push(vector);
            }
        }
        bias
    }

    /// Biases by slot and panel, for chains that the recurrent product starts.
    fn hidden_bias(&self) -> Vec<[f32; LANES]> {
        let mut bias = Vec::new();
        for slot in 0..self.wiring().slots {
            for panel in 0..self.panels() {
                let block = self.wiring().hidden_block(slot);
                bias.push(block.map_or([0.0; LANES], |block| self.vector(self.tensor(3), block, panel)));
            }
        }
        bias
    }

    fn peepholes(&self) -> Vec<[[f32; LANES]; 3]> {
        if !self.cell.has_peepholes() {
            return Vec::new();
        }
        (0..self.panels())
            .map(|panel| [4, 5, 6].map(|name| self.vector(self.tensor(name), 0, panel)))
            .collect()
    }

    fn recurrence<'r>(
        &self,
        weights: &'r Packed,
        bias: &'r [[f32; LANES]],
        peepholes: &'r [[[f32; LANES]; 3]],
    ) -> Recurrence<'r> {
        let (cell, steps, streams, hidden) = (self.cell, self.steps, self.streams, self.hidden);
        Recurrence { cell, steps, streams, hidden, weights, bias, peepholes }
    }

    /// Shapes the tape for this window. The carry's rows of `h` and `c` are then to be filled.
    pub(crate) fn shape(&self, tape: &mut LayerTape) {
        let rows = self.steps * self.streams;
        tape.gates.shape(rows, self.wiring().slots * self.panels() * LANES);
        tape.h.shape(rows + self.streams, self.hidden);
        tape.c.shape(if self.cell.has_cell_state() { rows + self.streams } else { 0 }, self.hidden);
    }

    /// The part of the pre-activations that `x` (T·B, in) gives, for all steps at once.
    pub(crate) fn input_products(
        &self,
        ctx: Context<'_>,
        x: View<'_>,
        tape: &mut LayerTape,
        packed: &mut PackedWeights,
    ) {
        let wires = self.wiring().input;
        pack_for_output(ctx, &mut packed.input, self.weight_ih(), &self.blocks(wires));
        let place = |panel: usize| wires.iter().map(move |wire| wire.1 * self.panels() + panel);
        let places: Vec<usize> = (0..self.panels()).flat_map(place).collect();
        dense(ctx, &[x], &packed.input, &mut tape.gates, (&places, &self.input_bias()));
    }

    /// Forward through time, after `input_products`: fills the tape.
    pub(crate) fn forward(&self, ctx: Context<'_>, tape: &mut LayerTape, packed: &mut PackedWeights) {
        pack_for_output(ctx, &mut packed.hidden, self.weight_hh(), &self.blocks(self.wiring().hidden));
        let (bias, peepholes) = (self.hidden_bias(), self.peepholes());
        let recurrence = self.recurrence(&packed.hidden, &bias, &peepholes);
        recur_forward(ctx, &recurrence, Tape { gates: &mut tape.gates, h: &mut tape.h, c: &mut tape.c });
    }

    /// Backward from the gradient of the outputs in `tape.dh`: the tape's gates become gradients of the pre-activations.
    pub(crate) fn backward(&self, ctx: Context<'_>, tape: &mut LayerTape, packed: &mut PackedWeights) {
        tape.dc.shape(if self.cell.has_cell_state() { self.streams } else { 0 }, self.hidden);
        tape.dc.clear();
        pack_for_input(ctx, &mut packed.hidden, self.weight_hh(), &self.runs(self.wiring().hidden));
        let peepholes = self.peepholes();
        let recurrence = self.recurrence(&packed.hidden, &[], &peepholes);
        let gradient = Cotangents { h: &mut tape.dh, c: &mut tape.dc };
        let tape = Tape { gates: &mut tape.gates, h: &mut tape.h, c: &mut tape.c };
        recur_backward(ctx, &recurrence, tape, gradient);
    }

    /// Gradient of the layer's input (T·B, in), after `backward`.
    pub(crate) fn input_gradient(
        &self,
        ctx: Context<'_>,
        tape: &LayerTape,
        packed: &mut PackedWeights,
        out: &mut Panels,
    ) {
        let wires = self.wiring().input;
        pack_for_input(ctx, &mut packed.input, self.weight_ih(), &self.runs(wires));
        out.shape(self.steps * self.streams, self.input);
        let slot = |wire: &(usize, usize)| tape.gates.view().panels(wire.1 * self.panels(), self.hidden);
        let left: Vec<View<'_>> = wires.iter().map(slot).collect();
        let places: Vec<usize> = (0..self.input.div_ceil(LANES)).collect();
        dense(ctx, &left, &packed.input, out, (&places, &[]));
    }

    /// Rows of the weights that are steps of a backward chain.
    fn runs(&self, wires: &[(usize, usize)]) -> Vec<(usize, usize)> {
        wires.iter().map(|wire| (wire.0 * self.hidden, self.hidden)).collect()
    }

    /// Gradients of the layer's parameters into the groups' dense gradients, after `backward`: `x` (T·B, in) and `before` (T·B, H)
    /// are what its weights were multiplied by. `offset` is where those begin among the parameters.
    pub(crate) fn weight_gradients(
        &self,
        ctx: Context<'_>,
        (x, before, tape): (View<'_>, View<'_>, &LayerTape),
        (lanes, packed): (Lanes<'_>, &mut PackedRight),
        (dense, offset): (&mut [&mut [f32]], usize),
    ) {
        for (weight, bias, right, wires) in
            [(0, 2, x, self.wiring().input), (1, 3, before, self.wiring().hidden)]
        {
            let left = self.slot_panels(tape, wires);
            let width = right.columns();
            pack_right(ctx, lanes, right, packed);
            weight_gradient(ctx, lanes, &left, packed, &self.outputs(dense, offset, weight, width));
            lane_sums(ctx, lanes, &left, None, &self.outputs(dense, offset, bias, 4 * self.hidden));
            self.clear_unused(dense, offset, (weight, width), bias);
        }
        if self.cell.has_peepholes() {
            self.peephole_gradients(ctx, tape, lanes, (dense, offset));
        }
    }

    /// Each group's gradient of `weight_hh`.
    pub(crate) fn recurrent_gradients<'d>(
        &self,
        dense: &'d mut [&mut [f32]],
        offset: usize,
    ) -> impl Iterator<Item = &'d mut [f32]> {
        let range = self.range(1, offset);
        dense.iter_mut().map(move |dense| &mut dense[range.clone()])
    }

    /// Where a tensor lies in dense gradients that begin at `offset`.
    fn range(&self, name: usize, offset: usize) -> Range<usize> {
        let tensor = self.parameters.layout().get(&self.names[name]).expect("checked against the model");
        tensor.offset - offset..tensor.offset - offset + tensor.len()
    }

    /// Panels of the gates' gradients with the weight row that each begins, and how many rows it gives.
    fn slot_panels<'t>(&self, tape: &'t LayerTape, wires: &[(usize, usize)]) -> Vec<LeftPanel<'t>> {
        let gates = tape.gates.view();
        let panel = |&(block, slot): &(usize, usize), panel: usize| {
            let (unit, count) = self.units(panel);
            (gates.panels(slot * self.panels() + panel, LANES), block * self.hidden + unit, count)
        };
        wires.iter().flat_map(|wire| (0..self.panels()).map(move |p| panel(wire, p))).collect()
    }

    fn outputs<'d>(
        &self,
        dense: &'d mut [&mut [f32]],
        offset: usize,
        name: usize,
        columns: usize,
    ) -> Outputs<'d> {
        let range = self.range(name, offset);
        let columns = columns.min(range.len());
        Outputs::new(dense.iter_mut().map(|dense| &mut dense[range.clone()]), columns)
    }

    /// Rows of blocks that no wire uses have a zero gradient.
    fn clear_unused(
        &self,
        dense: &mut [&mut [f32]],
        offset: usize,
        (weight, width): (usize, usize),
        bias: usize,
    ) {
        for block in 0..self.cell.row_blocks() {
            if self.wiring().input.iter().any(|wire| wire.0 == block) {
                continue;
            }
            for (name, width) in [(weight, width), (bias, 1)] {
                let start = self.range(name, offset).start + block * self.hidden * width;
                for dense in dense.iter_mut() {
                    dense[start..start + self.hidden * width].fill(0.0);
                }
            }
        }
    }

    /// w_ci and w_cf saw the state before, w_co the state after.
    fn peephole_gradients(
        &self,
        ctx: Context<'_>,
        tape: &LayerTape,
        lanes: Lanes<'_>,
        (dense, offset): (&mut [&mut [f32]], usize),
    ) {
        let rows = self.steps * self.streams;
        for (name, slot, first) in [(4, 0, 0), (5, 1, 0), (6, 3, self.streams)] {
            let left = self.slot_panels(tape, &[(0, slot)]);
            let c = tape.c.view().rows(first, rows);
            let times: Vec<View<'_>> = (0..self.panels()).map(|panel| c.panels(panel, LANES)).collect();
            lane_sums(ctx, lanes, &left, Some(&times), &self.outputs(dense, offset, name, self.hidden));
        }
    }
}
