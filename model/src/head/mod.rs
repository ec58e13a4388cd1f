//! From the last layer's output to a loss, and back. One file a softmax; this one chooses, and knows the tensors' places.

mod adaptive;
mod config;
mod full;
mod negatives;
mod sampled;

use std::ops::Range;

use crate::{
    IGNORED_TARGET, LaneLoss, ModelConfig, Parameters, TensorSpec, Window,
    kernels::{Context, Decoder, Lanes, Outputs, PackedRight, Panels, Source, View},
};
use adaptive::Adaptive;
pub(crate) use config::Cluster;
pub use config::{Softmax, SoftmaxError};
use full::{FullSoftmax, Targets};
use sampled::Sampled;

/// What a window goes through the model for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// Losses and gradients.
    Train,
    /// Losses.
    Evaluate,
    /// The logits of every row; the targets do not matter.
    Predict,
}

/// A model's shape and weights.
pub(crate) type Model<'a> = (&'a ModelConfig, &'a Parameters);

/// The runs of the groups' flat gradients that the head's part is, and where among the parameters they begin.
pub(crate) type Runs<'a, 'b> = (&'a mut [&'b mut [f32]], usize);

/// What the head keeps of a window. T·B rows.
pub(crate) struct Head {
    kind: Kind,
    /// (T·B) cross-entropy in nats; 0 for an ignored target.
    losses: Vec<f64>,
}

enum Kind {
    Full(FullSoftmax),
    Adaptive(Box<Adaptive>),
    Sampled(Box<Sampled>),
}

impl Default for Head {
    fn default() -> Self {
        Self { kind: Kind::Full(FullSoftmax::default()), losses: Vec::new() }
    }
}

impl Head {
    /// The head of a valid model.
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let kind = match config.softmax {
            Softmax::Full => Kind::Full(FullSoftmax::default()),
            Softmax::Adaptive { .. } => Kind::Adaptive(Box::new(Adaptive::new(config))),
            Softmax::Sampled { samples } => Kind::Sampled(Box::new(Sampled::new(samples))),
        };
        Self { kind, losses: Vec::new() }
    }

    /// Everything that needs the hidden units.
    pub(crate) fn forward(
        &mut self,
        ctx: Context<'_>,
        model: Model<'_>,
        (window, aim): (&Window<'_>, Aim),
        hidden: View<'_>,
    ) {
        match &mut self.kind {
            Kind::Full(softmax) => softmax.forward(ctx, decoder(model), hidden, hidden.row_count()),
            Kind::Adaptive(softmax) => softmax.forward(ctx, model, (window, aim), hidden),
            Kind::Sampled(softmax) => softmax.forward(ctx, model, (window, aim), hidden),
        }
    }

    /// Loss of every row.
    pub(crate) fn losses(&mut self, ctx: Context<'_>, window: &Window<'_>) {
        self.losses.resize(window.targets.len(), 0.0);
        match &mut self.kind {
            Kind::Full(softmax) => {
                softmax.row_losses(ctx, targets(window, 0.0));
                self.losses.iter_mut().zip(softmax.losses()).for_each(|(loss, row)| *loss = row.loss);
            }
            Kind::Adaptive(softmax) => softmax.losses(ctx, window, &mut self.losses),
            Kind::Sampled(softmax) => softmax.losses(ctx, window, &mut self.losses),
        }
    }

    /// (T·B) cross-entropy of every row in nats, after `losses`; 0 for an ignored target.
    pub(crate) fn row_losses(&self) -> &[f64] {
        &self.losses
    }

    /// Losses added by lane, time steps outside and streams inside.
    pub(crate) fn lane_losses(&self, window: &Window<'_>) -> Vec<LaneLoss> {
        let streams = window.streams();
        let mut first = 0;
        let mut losses = Vec::with_capacity(window.lanes.len());
        for lane in window.lanes {
            let mut loss = LaneLoss { tokens: 0, sum: 0.0 };
            for step in 0..window.steps {
                for row in step * streams + first..step * streams + first + lane.streams {
                    loss.tokens += u64::from(window.targets[row] != IGNORED_TARGET);
                    loss.sum += self.losses[row];
                }
            }
            losses.push(loss);
            first += lane.streams;
        }
        losses
    }

    /// Logits (V) of a row, after a pass that aims to predict. An adaptive softmax gives log-probabilities.
    pub(crate) fn copy_logits(&self, row: usize, logits: &mut [f32]) {
        match &self.kind {
            Kind::Full(softmax) => softmax.logits().get_row(row, logits),
            Kind::Adaptive(softmax) => softmax.copy_logits(row, logits),
            Kind::Sampled(softmax) => softmax.copy_logits(row, logits),
        }
    }

    /// Gradients of the head's dense tensors into the groups' runs, and of its input into `gradient` (T·B, H). `hidden` is what
    /// `forward` saw.
    pub(crate) fn backward(
        &mut self,
        ctx: Context<'_>,
        model: Model<'_>,
        (window, lanes): (&Window<'_>, Lanes<'_>),
        (hidden, gradient): (&PackedRight, &mut Panels),
        runs: Runs<'_, '_>,
    ) {
        match &mut self.kind {
            Kind::Full(softmax) => {
                let (weight, bias) = full_tensors(model);
                let outputs = full_outputs(model, runs, (weight, bias));
                let targets = targets(window, model.0.regularisation.label_smoothing);
                softmax.backward(ctx, decoder(model), (targets, lanes), (hidden, gradient), outputs);
            }
            Kind::Adaptive(softmax) => {
                softmax.backward(ctx, model, (window, lanes), (hidden, gradient), runs);
            }
            Kind::Sampled(softmax) => {
                softmax.backward(ctx, model, (window, lanes), (hidden, gradient), runs);
            }
        }
    }

    /// Appends the decoder's touched rows of a group, after `backward`: row V + token, sorted.
    pub(crate) fn append_rows(
        &self,
        config: &ModelConfig,
        (window, group): (&Window<'_>, &Range<usize>),
        rows: (&mut Vec<u32>, &mut Vec<f32>),
    ) {
        if let Kind::Sampled(softmax) = &self.kind {
            softmax.append_rows((window, group), (config.vocabulary, config.hidden), rows);
        }
    }
}

fn full_tensors((config, _): Model<'_>) -> (&'static str, &'static str) {
    (if config.tied { "encoder.weight" } else { "decoder.weight" }, "decoder.bias")
}

/// The one linear layer of a full or sampled softmax.
fn decoder<'a>((config, parameters): Model<'a>) -> Decoder<'a> {
    let (weight, bias) = full_tensors((config, parameters));
    let values = tensor(parameters, weight);
    Decoder { weight: Source { values, row: config.hidden }, bias: tensor(parameters, bias) }
}

fn full_outputs<'r>(
    (config, parameters): Model<'_>,
    runs: Runs<'r, '_>,
    (weight, bias): (&str, &str),
) -> (Outputs<'r>, Option<Outputs<'r>>) {
    let mut tensors = split(runs, &[place(parameters, weight), place(parameters, bias)]).into_iter();
    let mut next = |columns| tensors.next().map(|groups| Outputs::new(groups.into_iter(), columns));
    let weight = next(config.hidden).expect("two tensors were asked for");
    (weight, next(config.vocabulary))
}

fn tensor<'a>(parameters: &'a Parameters, name: &str) -> &'a [f32] {
    parameters.tensor(name).expect("checked against the model")
}

fn place<'a>(parameters: &'a Parameters, name: &str) -> &'a TensorSpec {
    parameters.layout().get(name).expect("checked against the model")
}

/// Of each of these tensors, which follow each other among the parameters, the part of every group's run.
fn split<'r>((runs, start): Runs<'r, '_>, places: &[&TensorSpec]) -> Vec<Vec<&'r mut [f32]>> {
    let mut tensors: Vec<Vec<&mut [f32]>> = places.iter().map(|_| Vec::new()).collect();
    for run in runs {
        let (mut rest, mut at) = (&mut run[..], start);
        for (place, tensors) in places.iter().zip(&mut tensors) {
            let (tensor, after) = rest.split_at_mut(place.offset - at).1.split_at_mut(place.len());
            tensors.push(tensor);
            (rest, at) = (after, place.offset + place.len());
        }
    }
    tensors
}

fn targets<'a>(window: &Window<'a>, smoothing: f32) -> Targets<'a> {
    Targets { columns: window.targets, scale: scale(window), smoothing: f64::from(smoothing) }
}

/// What gradients are multiplied by: one over the step's tokens.
fn scale(window: &Window<'_>) -> f64 {
    if window.step_tokens == 0 { 0.0 } else { 1.0 / window.step_tokens as f64 }
}
