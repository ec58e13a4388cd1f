//! Momentum, classical (Polyak 1964) and Nesterov's, in the form of `torch.optim.SGD` with dampening 0:
//!
//! ```text
//! b = fma(momentum, b, g)
//! w = fma(-learning_rate, b, w)                       or, nesterov:  w = fma(-learning_rate, fma(momentum, b, g), w)
//! ```
//!
//! b starts from zero, which gives b = g at the first update as in PyTorch. Nesterov's form is that of Sutskever, Martens, Dahl,
//! Hinton, "On the importance of initialization and momentum in deep learning", ICML 2013, as PyTorch writes it.

use super::{
    Method, Update, check_share, filled,
    sweep::{Given, Rule, Target},
};
use crate::{
    ModelError,
    kernels::{Buffer, Vector},
};

pub(crate) struct Momentum {
    momentum: f32,
    nesterov: bool,
    weight_decay: f32,
    buffer: Buffer,
}

#[derive(Clone, Copy)]
struct Element {
    given: Given,
    momentum: f32,
    nesterov: bool,
    rate: f32,
}

impl Rule<1> for Element {
    #[inline(always)]
    fn update<V: Vector>(self, weight: V, gradient: V, [buffer]: [V; 1]) -> (V, [V; 1]) {
        let g = self.given.gradient(weight, gradient);
        let momentum = V::splat(self.momentum);
        let buffer = momentum.fma(buffer, g);
        let direction = if self.nesterov { momentum.fma(buffer, g) } else { buffer };
        (V::splat(-self.rate).fma(direction, weight), [buffer])
    }
}

impl Momentum {
    pub(super) fn new(
        (momentum, nesterov): (f32, bool),
        weight_decay: f32,
        len: usize,
    ) -> Result<Self, ModelError> {
        check_share("momentum", momentum)?;
        Ok(Self { momentum, nesterov, weight_decay, buffer: filled(len, 0.0) })
    }
}

impl Method for Momentum {
    fn state(&self) -> Vec<(&'static str, &Buffer)> {
        vec![("momentum_buffer", &self.buffer)]
    }

    fn state_mut(&mut self) -> Vec<&mut Buffer> {
        vec![&mut self.buffer]
    }

    fn apply(&mut self, target: Target<'_>, update: Update) {
        let given = Given::new(update, self.weight_decay);
        let (momentum, nesterov, rate) = (self.momentum, self.nesterov, update.learning_rate);
        target.sweep([&mut self.buffer], Element { given, momentum, nesterov, rate });
    }
}
