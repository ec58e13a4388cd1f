//! AdaGrad: Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic optimization", JMLR 2011, in the
//! form of `torch.optim.Adagrad`, with t the number of the update, from 1:
//!
//! ```text
//! s = fma(g, g, s)                                w = fma(-learning_rate / (1 + (t - 1) lr_decay), g / (sqrt(s) + epsilon), w)
//! ```

use super::{
    Method, Update, check_not_negative, decimal, filled,
    sweep::{Given, Rule, Target},
};
use crate::{
    ModelError,
    kernels::{Buffer, Vector},
};

/// The options, all but the learning rate.
#[derive(Clone, Copy)]
pub(super) struct Options {
    pub lr_decay: f32,
    /// What s starts from.
    pub initial_accumulator_value: f32,
    pub epsilon: f32,
    pub weight_decay: f32,
}

pub(crate) struct AdaGrad {
    options: Options,
    sum: Buffer,
}

#[derive(Clone, Copy)]
struct Element {
    given: Given,
    epsilon: f32,
    rate: f32,
}

impl Rule<1> for Element {
    #[inline(always)]
    fn update<V: Vector>(self, weight: V, gradient: V, [sum]: [V; 1]) -> (V, [V; 1]) {
        let g = self.given.gradient(weight, gradient);
        let sum = g.fma(g, sum);
        let direction = g.div(sum.sqrt().add(V::splat(self.epsilon)));
        (V::splat(-self.rate).fma(direction, weight), [sum])
    }
}

impl AdaGrad {
    pub(super) fn new(options: Options, len: usize) -> Result<Self, ModelError> {
        check_not_negative("lr_decay", options.lr_decay)?;
        check_not_negative("initial_accumulator_value", options.initial_accumulator_value)?;
        super::check_positive("epsilon", options.epsilon)?;
        Ok(Self { options, sum: filled(len, options.initial_accumulator_value) })
    }
}

impl Method for AdaGrad {
    fn state(&self) -> Vec<(&'static str, &Buffer)> {
        vec![("sum", &self.sum)]
    }

    fn state_mut(&mut self) -> Vec<&mut Buffer> {
        vec![&mut self.sum]
    }

    fn apply(&mut self, target: Target<'_>, update: Update) {
        let Options { lr_decay, epsilon, weight_decay, .. } = self.options;
        let slower = 1.0 + (update.step - 1) as f64 * decimal(lr_decay);
        let rate = (f64::from(update.learning_rate) / slower) as f32;
        let element = Element { given: Given::new(update, weight_decay), epsilon, rate };
        target.sweep([&mut self.sum], element);
    }
}
