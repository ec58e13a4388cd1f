//! Adaptive softmax: a head over the frequent tokens and one entry for each cluster of rarer ones, and a tail for each cluster that only
//! the rows with a target in it go through. Grave et al. 2017, equations 10 and 11; see [`super::Softmax::Adaptive`].
//!
//! A tail's rows are gathered lane after lane, each lane's in the order (time step, stream): so a lane's chain is over its own rows,
//! whoever computes it. A lane without rows gives zero.

use super::{
    Aim, Cluster, Model, Runs,
    full::{FullSoftmax, Targets},
    place, scale, split, tensor,
};
use crate::{
    IGNORED_TARGET, ModelConfig, Parameters, Window,
    kernels::{
        Context, Decoder, LANES, Lane, Lanes, Outputs, Packed, PackedRight, Panels, RowLoss, Scratch, Source,
        Tail, TailGradient, View, add_rows, dense, gather, pack_for_input, pack_for_output, pack_right,
        weight_gradient,
    },
};

/// What the head keeps of a window. T·B rows.
pub(super) struct Adaptive {
    head: FullSoftmax,
    /// Biases of a head without biases.
    zeros: Vec<f32>,
    /// (T·B) targets in the head: a token of its own, or a cluster's entry.
    targets: Vec<u32>,
    tails: Vec<TailTape>,
    room: Scratch,
    /// (T·B, V) log-probabilities, after a pass that aims to predict.
    predicted: Vec<f32>,
    vocabulary: usize,
}

/// One cluster with what it keeps of a window. R rows with a target in it.
struct TailTape {
    index: usize,
    cluster: Cluster,
    /// Which rows, lane after lane.
    rows: Vec<usize>,
    /// Rows of the whole window (T·B).
    window_rows: usize,
    /// How many each lane has.
    lanes: Vec<Lane>,
    /// (R) targets, counted in the cluster.
    targets: Vec<u32>,
    /// (R, H) the rows' hidden units.
    hidden: Panels,
    /// (R, D) their projections; and the gradients of both.
    projected: Panels,
    projected_gradient: Panels,
    hidden_gradient: Panels,
    losses: Vec<RowLoss>,
    packed: Packed,
    packed_right: PackedRight,
}

impl Adaptive {
    pub(super) fn new(config: &ModelConfig) -> Self {
        let clusters = config.softmax.clusters(config);
        Self {
            head: FullSoftmax::default(),
            zeros: vec![0.0; config.softmax.head_logits(config)],
            targets: Vec::new(),
            tails: clusters.into_iter().enumerate().map(|(index, c)| TailTape::new(index, c)).collect(),
            room: Scratch::new(),
            predicted: Vec::new(),
            vocabulary: config.vocabulary,
        }
    }

    /// Tokens of the head's own.
    fn shortlist(&self) -> usize {
        self.zeros.len() - self.tails.len()
    }

    fn decoder<'a>(&'a self, (config, parameters): Model<'a>) -> Decoder<'a> {
        let weight = Source { values: tensor(parameters, "head.weight"), row: config.hidden };
        Decoder { weight, bias: parameters.tensor("head.bias").unwrap_or(&self.zeros) }
    }

    pub(super) fn forward(
        &mut self,
        ctx: Context<'_>,
        model: Model<'_>,
        (window, aim): (&Window<'_>, Aim),
        hidden: View<'_>,
    ) {
        let mut head = std::mem::take(&mut self.head);
        head.forward(ctx, self.decoder(model), hidden, hidden.row_count());
        self.head = head;
        if aim == Aim::Predict {
            return self.predict(ctx, model.1, hidden);
        }
        self.place_targets(window);
        for tail in &mut self.tails {
            tail.find_rows(window);
            tail.project(ctx, model.1, hidden);
            let (targets, scale) = (std::mem::take(&mut tail.targets), scale(window));
            let mut losses = std::mem::take(&mut tail.losses);
            tail.softmax(model.1, &self.room).losses(ctx, &targets, scale, &mut losses);
            (tail.targets, tail.losses) = (targets, losses);
        }
    }

    /// Every target's place in the head.
    fn place_targets(&mut self, window: &Window<'_>) {
        let shortlist = self.shortlist();
        let tails = &self.tails;
        let place = |&target: &u32| {
            let token = target as usize;
            let cluster = tails.iter().find(|tail| tail.cluster.has(token));
            cluster.map_or(target, |tail| (shortlist + tail.index) as u32)
        };
        self.targets.clear();
        self.targets.extend(window.targets.iter().map(place));
    }

    /// A row's loss is that of its place in the head, and of its token in the cluster.
    pub(super) fn losses(&mut self, ctx: Context<'_>, window: &Window<'_>, losses: &mut [f64]) {
        if self.targets.len() != losses.len() {
            // A pass that predicted: no targets, no losses.
            return losses.fill(0.0);
        }
        let targets = Targets { columns: &self.targets, scale: scale(window), smoothing: 0.0 };
        self.head.row_losses(ctx, targets);
        losses.iter_mut().zip(self.head.losses()).for_each(|(loss, row)| *loss = row.loss);
        for tail in &self.tails {
            for (&row, of_tail) in tail.rows.iter().zip(&tail.losses) {
                losses[row] += of_tail.loss;
            }
        }
    }

    pub(super) fn backward(
        &mut self,
        ctx: Context<'_>,
        model: Model<'_>,
        (window, lanes): (&Window<'_>, Lanes<'_>),
        (hidden, gradient): (&PackedRight, &mut Panels),
        runs: Runs<'_, '_>,
    ) {
        let (config, parameters) = model;
        let tensors = config.softmax.tensors(config);
        let places: Vec<_> = tensors.iter().map(|(name, _)| place(parameters, name)).collect();
        let mut outputs = split(runs, &places).into_iter();
        let mut next = || outputs.next().expect("one run for each tensor");
        let weight = Outputs::new(next().into_iter(), config.hidden);
        let bias = parameters.tensor("head.bias").map(|bias| Outputs::new(next().into_iter(), bias.len()));
        let mut head = std::mem::take(&mut self.head);
        let targets = Targets { columns: &self.targets, scale: scale(window), smoothing: 0.0 };
        let decoder = self.decoder(model);
        head.backward(ctx, decoder, (targets, lanes), (hidden, gradient), (weight, bias));
        self.head = head;
        for tail in &mut self.tails {
            let (projection, weight) = (next(), next());
            if tail.rows.is_empty() {
                // Absent here, and every run is written over in full.
                projection.into_iter().chain(weight).for_each(|run| clear(ctx, run));
                continue;
            }
            let groups = lanes.groups;
            tail.backward(ctx, parameters, (&self.room, scale(window)), groups, (projection, weight));
            add_rows(ctx.team, &tail.hidden_gradient, &tail.rows, gradient);
        }
    }

    /// The log-probability of every token for every row.
    fn predict(&mut self, ctx: Context<'_>, parameters: &Parameters, hidden: View<'_>) {
        let (rows, shortlist, columns) = (hidden.row_count(), self.shortlist(), self.vocabulary);
        self.targets.clear();
        self.predicted.resize(rows * columns, 0.0);
        let mut head = vec![0.0; self.zeros.len()];
        let mut offsets = vec![Vec::with_capacity(rows); self.tails.len()];
        for row in 0..rows {
            self.head.logits().get_row(row, &mut head);
            let shift = log_sum(&head);
            let log_probability = |logit: f32| f64::from(logit) - shift;
            let (own, clusters) = head.split_at(shortlist);
            let place = &mut self.predicted[row * columns..row * columns + shortlist];
            place.iter_mut().zip(own).for_each(|(p, &logit)| *p = log_probability(logit) as f32);
            offsets.iter_mut().zip(clusters).for_each(|(of, &logit)| of.push(log_probability(logit)));
        }
        for (tail, offsets) in self.tails.iter_mut().zip(&offsets) {
            tail.rows.clear();
            tail.rows.extend(0..rows);
            tail.project(ctx, parameters, hidden);
            let out = (&mut self.predicted[..], columns, tail.cluster.first);
            tail.softmax(parameters, &self.room).log_probabilities(ctx, offsets, out);
        }
    }

    pub(super) fn copy_logits(&self, row: usize, logits: &mut [f32]) {
        logits.copy_from_slice(&self.predicted[row * self.vocabulary..(row + 1) * self.vocabulary]);
    }
}

/// log of the sum of exp, in f64 by index.
fn log_sum(logits: &[f32]) -> f64 {
    let max = logits.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
    let sum: f64 = logits.iter().map(|&x| libm::exp(f64::from(x) - f64::from(max))).sum();
    f64::from(max) + libm::log(sum)
}

fn clear(ctx: Context<'_>, run: &mut [f32]) {
    ctx.team.run_pieces(run, 1 << 16, |_, _, piece| piece.fill(0.0));
}

impl Cluster {
    fn has(&self, token: usize) -> bool {
        (self.first..self.first + self.tokens).contains(&token)
    }
}

impl TailTape {
    fn new(index: usize, cluster: Cluster) -> Self {
        Self {
            index,
            cluster,
            rows: Vec::new(),
            window_rows: 0,
            lanes: Vec::new(),
            targets: Vec::new(),
            hidden: Panels::default(),
            projected: Panels::default(),
            projected_gradient: Panels::default(),
            hidden_gradient: Panels::default(),
            losses: Vec::new(),
            packed: Packed::default(),
            packed_right: PackedRight::default(),
        }
    }

    /// The rows whose target lies in this cluster, lane after lane.
    fn find_rows(&mut self, window: &Window<'_>) {
        self.rows.clear();
        self.lanes.clear();
        self.targets.clear();
        let streams = window.streams();
        let mut first = 0;
        for lane in window.lanes {
            let before = self.rows.len();
            for step in 0..window.steps {
                let of_lane = step * streams + first..step * streams + first + lane.streams;
                let inside = |row: &usize| {
                    window.targets[*row] != IGNORED_TARGET && self.cluster.has(window.targets[*row] as usize)
                };
                self.rows.extend(of_lane.filter(inside));
            }
            self.lanes.push(Lane { first: before, streams: self.rows.len() - before });
            first += lane.streams;
        }
        let target = |&row: &usize| window.targets[row] - self.cluster.first as u32;
        self.targets.extend(self.rows.iter().map(target));
    }

    fn tensor<'a>(&self, parameters: &'a Parameters, part: usize) -> &'a [f32] {
        tensor(parameters, &format!("tail.{}.{part}.weight", self.index))
    }

    fn softmax<'a>(&'a self, parameters: &'a Parameters, room: &'a Scratch) -> Tail<'a> {
        let weight = Source { values: self.tensor(parameters, 1), row: self.cluster.width };
        Tail { weight, hidden: self.projected.view(), room }
    }

    /// The rows' hidden units, and what the cluster's words are compared with: (R, D) = (R, H) W^T.
    fn project(&mut self, ctx: Context<'_>, parameters: &Parameters, hidden: View<'_>) {
        let (rows, most, width) = (self.rows.len(), hidden.row_count(), self.cluster.width);
        self.window_rows = most;
        self.hidden.shape_within(rows, most, hidden.columns());
        self.projected.shape_within(rows, most, width);
        if rows == 0 {
            return;
        }
        gather(ctx.team, hidden, &self.rows, &mut self.hidden);
        let weight = Source { values: self.tensor(parameters, 0), row: hidden.columns() };
        let blocks: Vec<_> = (0..width).step_by(LANES).map(|at| (at, LANES.min(width - at))).collect();
        let places: Vec<usize> = (0..blocks.len()).collect();
        pack_for_output(ctx, &mut self.packed, weight, &blocks);
        dense(ctx, &[self.hidden.view()], &self.packed, &mut self.projected, (&places, &[]));
    }

    /// Gradients of both matrices for each group, and of the rows' hidden units.
    fn backward(
        &mut self,
        ctx: Context<'_>,
        parameters: &Parameters,
        (room, scale): (&Scratch, f64),
        groups: &[std::ops::Range<usize>],
        (projection, weight): (Vec<&mut [f32]>, Vec<&mut [f32]>),
    ) {
        let (rows, width, units) = (self.rows.len(), self.cluster.width, self.hidden.view().columns());
        let most = self.window_rows;
        let lanes = Lanes { steps: 1, streams: rows, lanes: &self.lanes, groups };
        pack_right(ctx, lanes, self.projected.view(), &mut self.packed_right);
        let mut gradient = std::mem::take(&mut self.projected_gradient);
        gradient.shape_within(rows, most, width);
        let of_tail = TailGradient {
            tail: self.softmax(parameters, room),
            lanes,
            targets: &self.targets,
            losses: &self.losses,
            scale: scale as f32,
            hidden: &self.packed_right,
            weight: Outputs::new(weight.into_iter(), width),
        };
        of_tail.run(ctx, &mut gradient);
        pack_right(ctx, lanes, self.hidden.view(), &mut self.packed_right);
        let view = gradient.view();
        let panel = |at: usize| (view.panels(at / LANES, LANES), at, LANES.min(width - at));
        let left: Vec<_> = (0..width).step_by(LANES).map(panel).collect();
        let out = Outputs::new(projection.into_iter(), units);
        weight_gradient(ctx, lanes, &left, &self.packed_right, &out);
        self.hidden_gradient.shape_within(rows, most, units);
        let projection = Source { values: self.tensor(parameters, 0), row: units };
        pack_for_input(ctx, &mut self.packed, projection, &[(0, width)]);
        let places: Vec<usize> = (0..units.div_ceil(LANES)).collect();
        dense(ctx, &[gradient.view()], &self.packed, &mut self.hidden_gradient, (&places, &[]));
        self.projected_gradient = gradient;
    }
}
