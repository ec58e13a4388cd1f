//! Single kernels at a chosen shape beside the naive loop they must equal: for benchmarks. Training never comes here.

use crate::{
    Isa,
    kernels::{
        Context, Decoder, LANES, Lane, Lanes, Outputs, Packed, PackedRight, Panels, RowLoss, Scratch,
        SoftmaxGradient, Source, dense, pack_for_input, pack_for_output, pack_right, row_losses,
        weight_gradient, with_team,
    },
    philox4x32,
};

/// Which kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// (rows, inner) times the transpose of (columns, inner), packing included: a layer's input product.
    Forward,
    /// (rows, inner) times (inner, columns), packing included: an input gradient.
    Backward,
    /// Transpose of (rows, inner) times (rows, columns), four lanes: a weight gradient.
    WeightGradient,
    /// Softmax, loss and all gradients of a decoder: (rows, inner) hidden units, `columns` tokens.
    Softmax,
}

/// A kernel with its operands.
pub struct Trial {
    kind: Kind,
    rows: usize,
    inner: usize,
    columns: usize,
    isa: Isa,
    scratch: Scratch,
    left: Vec<f32>,
    right: Vec<f32>,
    left_panels: Panels,
    right_panels: Panels,
    packed: Packed,
    packed_right: PackedRight,
    out: Vec<f32>,
    bias_gradient: Vec<f32>,
    out_panels: Panels,
    gradient_panels: Panels,
}

fn floats(count: usize, kind: u32) -> Vec<f32> {
    let word = |at: usize| philox4x32([at as u32, kind, 0, 0], [17, 19])[0];
    (0..count).map(|at| (word(at) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn panels(values: &[f32], rows: usize, columns: usize) -> Panels {
    let mut panels = Panels::default();
    panels.shape(rows, columns);
    for (row, values) in values.chunks_exact(columns).enumerate() {
        panels.set_row(row, values);
    }
    panels
}

impl Trial {
    /// Operands of fixed pseudo-random numbers.
    pub fn new(kind: Kind, (rows, inner, columns): (usize, usize, usize), isa: Isa) -> Self {
        let gradient = kind == Kind::WeightGradient;
        let right_rows = if gradient { rows } else { 0 };
        let (left, right) =
            (floats(rows * inner, 1), floats(if gradient { rows } else { inner } * columns, 2));
        Self {
            left_panels: panels(&left, rows, inner),
            right_panels: panels(&right[..right_rows * columns], right_rows, columns),
            packed: Packed::default(),
            packed_right: PackedRight::default(),
            out: vec![
                0.0;
                if matches!(kind, Kind::Softmax | Kind::WeightGradient) { inner } else { rows }
                    * columns
            ],
            bias_gradient: vec![0.0; columns],
            out_panels: Panels::default(),
            gradient_panels: Panels::default(),
            scratch: Scratch::new(),
            kind,
            rows,
            inner,
            columns,
            isa,
            left,
            right,
        }
    }

    /// Floating-point operations of one run's products.
    pub fn flops(&self) -> u64 {
        let product = 2 * (self.rows * self.inner * self.columns) as u64;
        if self.kind == Kind::Softmax { 3 * product } else { product }
    }

    /// The kernel, on the current rayon pool.
    pub fn fast(&mut self) {
        let (isa, scratch) = (self.isa, std::mem::replace(&mut self.scratch, Scratch::new()));
        with_team(|team| {
            let ctx = Context { team, isa, scratch: &scratch };
            match self.kind {
                Kind::Forward | Kind::Backward => self.product(ctx),
                Kind::WeightGradient => self.weight_gradient(ctx),
                Kind::Softmax => self.softmax(ctx),
            }
        });
        self.scratch = scratch;
    }

    fn product(&mut self, ctx: Context<'_>) {
        let blocks: Vec<usize> = (0..self.columns.div_ceil(LANES)).collect();
        self.out_panels.shape(self.rows, self.columns);
        if self.kind == Kind::Forward {
            let source = Source { values: &self.right, row: self.inner };
            let rows = |&b: &usize| (b * LANES, (self.columns - b * LANES).min(LANES));
            let rows: Vec<(usize, usize)> = blocks.iter().map(rows).collect();
            pack_for_output(ctx, &mut self.packed, source, &rows);
        } else {
            let source = Source { values: &self.right, row: self.columns };
            pack_for_input(ctx, &mut self.packed, source, &[(0, self.inner)]);
        }
        dense(ctx, &[self.left_panels.view()], &self.packed, &mut self.out_panels, (&blocks, &[]));
    }

    fn weight_gradient(&mut self, ctx: Context<'_>) {
        let bound = |lane: usize| self.rows * lane / 4;
        let lanes: Vec<Lane> =
            (0..4).map(|lane| Lane { first: bound(lane), streams: bound(lane + 1) - bound(lane) }).collect();
        let all = 0..4;
        let lanes = Lanes { steps: 1, streams: self.rows, lanes: &lanes, groups: std::slice::from_ref(&all) };
        let view = self.left_panels.view();
        let left: Vec<_> = (0..self.inner)
            .step_by(LANES)
            .map(|j| (view.panels(j / LANES, LANES), j, (self.inner - j).min(LANES)))
            .collect();
        pack_right(ctx, lanes, self.right_panels.view(), &mut self.packed_right);
        let out = Outputs::new(std::iter::once(self.out.as_mut_slice()), self.columns);
        weight_gradient(ctx, lanes, &left, &self.packed_right, &out);
    }

    fn softmax(&mut self, ctx: Context<'_>) {
        let all = 0..1;
        let lane = [Lane { first: 0, streams: self.rows }];
        let lanes = Lanes { steps: 1, streams: self.rows, lanes: &lane, groups: std::slice::from_ref(&all) };
        let targets: Vec<u32> = (0..self.rows).map(|row| (row * 7 % self.columns) as u32).collect();
        let mut losses = vec![RowLoss::default(); self.rows];
        let bias = vec![0.0; self.columns];
        let decoder = Decoder { weight: Source { values: &self.right, row: self.inner }, bias: &bias };
        self.out_panels.shape(self.rows, self.columns);
        self.gradient_panels.shape(self.rows, self.inner);
        decoder.logits(ctx, self.left_panels.view(), &mut self.out_panels);
        row_losses(ctx, self.out_panels.view(), &targets, 1.0, &mut losses);
        pack_right(ctx, lanes, self.left_panels.view(), &mut self.packed_right);
        let gradient = SoftmaxGradient {
            decoder,
            lanes,
            targets: &targets,
            losses: &losses,
            scale: 1.0,
            smoothing: 0.0,
            hidden: &self.packed_right,
            weight: Outputs::new(std::iter::once(self.out.as_mut_slice()), self.inner),
            bias: Some(Outputs::new(std::iter::once(self.bias_gradient.as_mut_slice()), self.columns)),
        };
        gradient.run(ctx, &mut self.out_panels, (&mut self.gradient_panels, &mut self.packed));
    }

    /// The plain loop, on one thread, with the same order of the same operations. The softmax has its logits' product alone.
    pub fn naive(&mut self) -> f32 {
        let (rows, inner, columns) = (self.rows, self.inner, self.columns);
        let mut checksum = 0.0;
        if self.kind == Kind::WeightGradient {
            for j in 0..inner {
                for e in 0..columns {
                    let next = |acc: f32, r: usize| {
                        self.left[r * inner + j].mul_add(self.right[r * columns + e], acc)
                    };
                    checksum += (0..rows).fold(0.0, next);
                }
            }
            return checksum;
        }
        for row in self.left.chunks_exact(inner) {
            for j in 0..columns {
                let weight = |k: usize| match self.kind {
                    Kind::Backward => self.right[k * columns + j],
                    _ => self.right[j * inner + k],
                };
                checksum += (0..inner).fold(0.0, |acc: f32, k| row[k].mul_add(weight(k), acc));
            }
        }
        checksum
    }
}
