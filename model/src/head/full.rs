//! A softmax over all columns of one linear layer: logits, cross-entropy, and the gradients of both. Knows no names of tensors.

use crate::kernels::{
    Context, Decoder, Lanes, Outputs, Packed, PackedRight, Panels, RowLoss, SoftmaxGradient, View,
    row_losses, row_losses_with_own,
};

/// What the softmax keeps of a window. T·B rows, N columns.
#[derive(Default)]
pub(super) struct FullSoftmax {
    /// (T·B, N) logits; after `backward` their gradients.
    logits: Panels,
    losses: Vec<RowLoss>,
    packed: Packed,
}

/// The targets of a window and what their gradients are multiplied by.
#[derive(Clone, Copy)]
pub(super) struct Targets<'a> {
    /// (T·B) columns, or [`crate::IGNORED_TARGET`].
    pub(super) columns: &'a [u32],
    /// One over the step's tokens.
    pub(super) scale: f64,
    /// Share of every target that is spread evenly over all columns.
    pub(super) smoothing: f64,
}

impl FullSoftmax {
    pub(super) fn logits(&self) -> &Panels {
        &self.logits
    }

    pub(super) fn losses(&self) -> &[RowLoss] {
        &self.losses
    }

    /// Logits of every row; later calls have at most `most` rows.
    pub(super) fn forward(&mut self, ctx: Context<'_>, decoder: Decoder<'_>, hidden: View<'_>, most: usize) {
        self.logits.shape_within(hidden.row_count(), most, decoder.bias.len());
        decoder.logits(ctx, hidden, &mut self.logits);
    }

    /// Loss of every row.
    pub(super) fn row_losses(&mut self, ctx: Context<'_>, targets: Targets<'_>) {
        self.losses.resize(targets.columns.len(), RowLoss::default());
        row_losses(ctx, self.logits.view(), targets.columns, targets.scale, &mut self.losses);
    }

    /// Loss of every row, where some bring the logit of their target along.
    pub(super) fn row_losses_with_own(
        &mut self,
        ctx: Context<'_>,
        own: &[Option<f32>],
        Targets { columns, scale, .. }: Targets<'_>,
    ) {
        self.losses.resize(columns.len(), RowLoss::default());
        row_losses_with_own(ctx, (self.logits.view(), Some(own)), columns, scale, &mut self.losses);
    }

    /// Gradients of the decoder's weights (N, H) and biases (N) for each group, and of its input into `gradient` (T·B, H).
    pub(super) fn backward(
        &mut self,
        ctx: Context<'_>,
        decoder: Decoder<'_>,
        (targets, lanes): (Targets<'_>, Lanes<'_>),
        (hidden, gradient): (&PackedRight, &mut Panels),
        (weight, bias): (Outputs<'_>, Option<Outputs<'_>>),
    ) {
        let Targets { columns, scale, smoothing } = targets;
        let gradients = SoftmaxGradient {
            lanes,
            targets: columns,
            losses: &self.losses,
            scale: ((1.0 - smoothing) * scale) as f32,
            smoothing: (smoothing * scale / decoder.bias.len() as f64) as f32,
            decoder,
            hidden,
            weight,
            bias,
        };
        gradients.run(ctx, &mut self.logits, (gradient, &mut self.packed));
    }
}
