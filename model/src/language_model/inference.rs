//! What a trained model says of a text, place by place: the cross-entropy of each target and the last layer's output. For
//! evaluations that need more than a sum; no gradients, no dropout.

use super::LanguageModel;
use crate::{ModelError, Parameters, Window, head::Aim};

/// What [`LanguageModel::score`] finds at each place of a window, time-major. Kept from call to call for its memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scores {
    /// (T, B) cross-entropy of the target in nats; 0 where it is ignored.
    pub losses: Vec<f64>,
    /// (T, B, H) the last layer's output, which the decoder reads.
    pub hidden: Vec<f32>,
}

impl LanguageModel {
    /// As [`Self::evaluate`], but place by place. The sum of the losses is the sum that `evaluate` gives, up to the order in
    /// which it is added.
    ///
    /// # Errors
    /// Sizes, tokens or parameters that do not fit; nothing is changed then.
    pub fn score(
        &mut self,
        parameters: &Parameters,
        window: &Window<'_>,
        carries: &mut [f32],
        scores: &mut Scores,
    ) -> Result<(), ModelError> {
        self.check(parameters, window, carries)?;
        self.forward(Aim::Evaluate, parameters, window, carries);
        scores.losses.clear();
        scores.losses.extend(self.tapes.head.row_losses());
        let top = self.tapes.layers.last().expect("a valid model has a layer");
        let (rows, width) = (window.inputs.len(), self.config.hidden);
        scores.hidden.resize(rows * width, 0.0);
        let carried = top.h.row_count() - rows;
        for (row, hidden) in scores.hidden.chunks_exact_mut(width).enumerate() {
            top.h.get_row(carried + row, hidden);
        }
        Ok(())
    }
}
