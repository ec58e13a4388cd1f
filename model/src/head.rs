//! The softmax layer: logits from the last layer's output, cross-entropy, and the gradients of both.

use crate::{
    IGNORED_TARGET, LaneLoss, ModelConfig, Parameters, Window,
    kernels::{
        Context, Decoder, Lanes, Outputs, Packed, PackedRight, Panels, RowLoss, SoftmaxGradient, Source,
        View, row_losses,
    },
};

/// What the head keeps of a window. T·B rows.
#[derive(Default)]
pub(crate) struct Head {
    /// (T·B, V) logits; after `backward` their gradients.
    logits: Panels,
    losses: Vec<RowLoss>,
    packed: Packed,
}

fn decoder<'a>(config: &ModelConfig, parameters: &'a Parameters) -> Decoder<'a> {
    let name = if config.tied { "encoder.weight" } else { "decoder.weight" };
    let tensor = |name| parameters.tensor(name).expect("checked against the model");
    Decoder { weight: Source { values: tensor(name), row: config.hidden }, bias: tensor("decoder.bias") }
}

impl Head {
    pub(crate) fn logits(&self) -> &Panels {
        &self.logits
    }

    /// Logits of every row.
    pub(crate) fn forward(
        &mut self,
        ctx: Context<'_>,
        config: &ModelConfig,
        parameters: &Parameters,
        hidden: View<'_>,
    ) {
        self.logits.shape(hidden.row_count(), config.vocabulary);
        decoder(config, parameters).logits(ctx, hidden, &mut self.logits);
    }

    /// Loss of every row.
    pub(crate) fn losses(&mut self, ctx: Context<'_>, window: &Window<'_>) {
        self.losses.resize(window.targets.len(), RowLoss::default());
        row_losses(ctx, self.logits.view(), window.targets, scale(window), &mut self.losses);
    }

    /// (T·B) cross-entropy of every row, after `losses`; 0 for an ignored target.
    pub(crate) fn row_losses(&self) -> impl Iterator<Item = f64> + '_ {
        self.losses.iter().map(|row| row.loss)
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
                    loss.sum += self.losses[row].loss;
                }
            }
            losses.push(loss);
            first += lane.streams;
        }
        losses
    }

    /// Gradients of the decoder into the groups' dense gradients, and of its input into `gradient` (T·B, H).
    pub(crate) fn backward(
        &mut self,
        ctx: Context<'_>,
        (config, parameters): (&ModelConfig, &Parameters),
        (window, lanes): (&Window<'_>, Lanes<'_>),
        (hidden, gradient): (&PackedRight, &mut Panels),
        (dense, offset): (&mut [&mut [f32]], usize),
    ) {
        let name = if config.tied { "encoder.weight" } else { "decoder.weight" };
        let place = |name| parameters.layout().get(name).expect("checked against the model");
        let (weight, bias) = (place(name), place("decoder.bias"));
        let start = weight.offset - offset;
        let mut weights = Vec::new();
        let mut biases = Vec::new();
        for dense in dense.iter_mut() {
            let (before, after) = dense.split_at_mut(bias.offset - offset);
            weights.push(&mut before[start..start + weight.len()]);
            biases.push(after);
        }
        let smoothing = f64::from(config.regularisation.label_smoothing);
        let gradients = SoftmaxGradient {
            decoder: decoder(config, parameters),
            lanes,
            targets: window.targets,
            losses: &self.losses,
            scale: ((1.0 - smoothing) * scale(window)) as f32,
            smoothing: (smoothing * scale(window) / config.vocabulary as f64) as f32,
            hidden,
            weight: Outputs::new(weights.into_iter(), config.hidden),
            bias: Outputs::new(biases.into_iter(), config.vocabulary),
        };
        gradients.run(ctx, &mut self.logits, (gradient, &mut self.packed));
    }
}

/// What gradients are multiplied by: one over the step's tokens.
fn scale(window: &Window<'_>) -> f64 {
    if window.step_tokens == 0 { 0.0 } else { 1.0 / window.step_tokens as f64 }
}
