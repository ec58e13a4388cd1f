//! Lion: Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023, algorithm 2. Every weight moves by the same
//! amount, in the direction of the sign:
//!
//! ```text
//! c = fma(1 - beta1, g - m, m)                        w = (1 - learning_rate · weight_decay) w - learning_rate · sign(c)
//! m = fma(1 - beta2, g - m, m)
//! ```
//!
//! The sign of 0 is 0. Embedding rows that were not touched have g = 0 and go on with what m remembers. The factors are computed in f64
//! and rounded once. The authors advise a rate 3 to 10 times smaller, and a decay as much larger, than AdamW's.

use super::{
    Method, Update, check_share, decimal, filled,
    sweep::{Given, Rule, Target},
};
use crate::{
    ModelError,
    kernels::{Buffer, Vector},
};

pub(crate) struct Lion {
    beta1: f32,
    beta2: f32,
    weight_decay: f32,
    exp_avg: Buffer,
}

/// The factors of one update.
#[derive(Clone, Copy)]
struct Element {
    given: Given,
    /// What is left of the weight before the update.
    keep: f32,
    keep1: f32,
    keep2: f32,
    rate: f32,
}

impl Rule<1> for Element {
    #[inline(always)]
    fn update<V: Vector>(self, weight: V, gradient: V, [m]: [V; 1]) -> (V, [V; 1]) {
        let change = self.given.gradient(weight, gradient).sub(m);
        let direction = V::splat(self.keep1).fma(change, m);
        let (zero, rate) = (V::zero(), V::splat(self.rate));
        let up = zero.select_greater(direction, rate, zero);
        let step = direction.select_greater(zero, zero.sub(rate), up);
        let kept = if self.keep == 1.0 { weight } else { V::splat(self.keep).mul(weight) };
        (kept.add(step), [V::splat(self.keep2).fma(change, m)])
    }
}

impl Lion {
    pub(super) fn new((beta1, beta2): (f32, f32), weight_decay: f32, len: usize) -> Result<Self, ModelError> {
        check_share("beta1", beta1)?;
        check_share("beta2", beta2)?;
        Ok(Self { beta1, beta2, weight_decay, exp_avg: filled(len, 0.0) })
    }
}

impl Method for Lion {
    fn state(&self) -> Vec<(&'static str, &Buffer)> {
        vec![("exp_avg", &self.exp_avg)]
    }

    fn state_mut(&mut self) -> Vec<&mut Buffer> {
        vec![&mut self.exp_avg]
    }

    fn apply(&mut self, target: Target<'_>, update: Update) {
        let rest = |x: f32| (1.0 - decimal(x)) as f32;
        let element = Element {
            given: Given::new(update, 0.0),
            keep: (1.0 - f64::from(update.learning_rate) * decimal(self.weight_decay)) as f32,
            keep1: rest(self.beta1),
            keep2: rest(self.beta2),
            rate: update.learning_rate,
        };
        target.sweep([&mut self.exp_avg], element);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GradientLayout, GradientView, kernels::Isa};

    #[test]
    fn the_sign_alone_decides_and_zero_has_none() {
        let layout =
            GradientLayout { dense_len: 3, dense_offset: 0, row_width: 1, rows: 0, rows_fold_into: None };
        let gradient = GradientView { dense: &[4.0, -0.5, 0.0], rows: &[], row_values: &[] };
        let update = Update { learning_rate: 0.25, ..Update::default() };
        let (mut lion, mut weights) = (Lion::new((0.5, 0.75), 0.0, 3).unwrap(), [1.0; 3]);
        let isa = Isa::chosen().unwrap();
        lion.apply(Target { isa, values: &mut weights, layout: &layout, gradient }, update);
        assert_eq!(weights, [0.75, 1.25, 1.0]);
        assert_eq!(lion.exp_avg[..], [1.0, -0.125, 0.0]);
    }
}
