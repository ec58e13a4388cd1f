//! Adam: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, algorithm 1, in the form of `torch.optim.Adam`;
//! and AdamW: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2, as `torch.optim.AdamW`.
//!
//! For every element, embedding rows that were not touched (gradient 0) included:
//!
//! ```text
//! m = fma(1 - beta1, g - m, m)                    v = fma((1 - beta2) g, g, beta2 v)
//! w = fma(-learning_rate / (1 - beta1^t), m / fma(sqrt(v), 1 / sqrt(1 - beta2^t), epsilon), w)
//! ```
//!
//! Adam's weight decay is part of g (L2). AdamW's is not: w is first multiplied by 1 - learning_rate · weight_decay. The factors
//! outside the vectors are computed in f64 and rounded once; powers by repeated multiplication.

use super::{
    Method, Update, check_share, decimal, filled,
    sweep::{Given, Rule, Target},
};
use crate::{
    ModelError,
    kernels::{Buffer, Vector},
};

/// How weight decay acts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Decay {
    /// As a part of the gradient: Adam.
    Gradient(f32),
    /// Straight on the weights: AdamW.
    Decoupled(f32),
}

pub(crate) struct Adam {
    beta1: f64,
    beta2: f64,
    epsilon: f32,
    decay: Decay,
    exp_avg: Buffer,
    exp_avg_sq: Buffer,
    powers: Powers,
}

/// beta1^t and beta2^t of some step t.
#[derive(Clone, Copy)]
struct Powers {
    step: u64,
    beta1: f64,
    beta2: f64,
}

/// The factors of one update.
#[derive(Clone, Copy)]
struct Element {
    given: Given,
    /// What is left of the weight before the update: AdamW's decay, else 1.
    keep: f32,
    keep1: f32,
    beta2: f32,
    keep2: f32,
    rate: f32,
    root: f32,
    epsilon: f32,
}

impl Rule<2> for Element {
    #[inline(always)]
    fn update<V: Vector>(self, weight: V, gradient: V, [m, v]: [V; 2]) -> (V, [V; 2]) {
        let g = self.given.gradient(weight, gradient);
        let m = V::splat(self.keep1).fma(g.sub(m), m);
        let v = V::splat(self.keep2).mul(g).fma(g, V::splat(self.beta2).mul(v));
        let denominator = v.sqrt().fma(V::splat(self.root), V::splat(self.epsilon));
        let kept = if self.keep == 1.0 { weight } else { V::splat(self.keep).mul(weight) };
        (V::splat(self.rate).fma(m.div(denominator), kept), [m, v])
    }
}

impl Adam {
    pub(super) fn new(
        (beta1, beta2): (f32, f32),
        epsilon: f32,
        decay: Decay,
        len: usize,
    ) -> Result<Self, ModelError> {
        check_share("beta1", beta1)?;
        check_share("beta2", beta2)?;
        super::check_positive("epsilon", epsilon)?;
        let powers = Powers { step: 0, beta1: 1.0, beta2: 1.0 };
        let (exp_avg, exp_avg_sq) = (filled(len, 0.0), filled(len, 0.0));
        Ok(Self { beta1: decimal(beta1), beta2: decimal(beta2), epsilon, decay, exp_avg, exp_avg_sq, powers })
    }

    fn element(&mut self, update: Update) -> Element {
        self.raise_powers(update.step);
        let (correction1, correction2) = (1.0 - self.powers.beta1, 1.0 - self.powers.beta2);
        let rate = f64::from(update.learning_rate);
        let (in_gradient, keep) = match self.decay {
            Decay::Gradient(decay) => (decay, 1.0),
            Decay::Decoupled(decay) => (0.0, 1.0 - rate * decimal(decay)),
        };
        Element {
            given: Given::new(update, in_gradient),
            keep: keep as f32,
            keep1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            keep2: (1.0 - self.beta2) as f32,
            rate: (-rate / correction1) as f32,
            root: (1.0 / correction2.sqrt()) as f32,
            epsilon: self.epsilon,
        }
    }

    fn raise_powers(&mut self, step: u64) {
        if step < self.powers.step {
            self.powers = Powers { step: 0, beta1: 1.0, beta2: 1.0 };
        }
        while self.powers.step < step {
            self.powers.beta1 *= self.beta1;
            self.powers.beta2 *= self.beta2;
            self.powers.step += 1;
            if self.powers.beta1 == 0.0 && self.powers.beta2 == 0.0 {
                self.powers.step = step;
            }
        }
    }
}

impl Method for Adam {
    fn state(&self) -> Vec<(&'static str, &Buffer)> {
        vec![("exp_avg", &self.exp_avg), ("exp_avg_sq", &self.exp_avg_sq)]
    }

    fn state_mut(&mut self) -> Vec<&mut Buffer> {
        vec![&mut self.exp_avg, &mut self.exp_avg_sq]
    }

    fn apply(&mut self, target: Target<'_>, update: Update) {
        let element = self.element(update);
        target.sweep([&mut self.exp_avg, &mut self.exp_avg_sq], element);
    }
}
