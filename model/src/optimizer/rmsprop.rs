//! RMSProp: Tieleman and Hinton, "Lecture 6.5", 2012, in the form of `torch.optim.RMSprop`; centered and with momentum as Graves,
//! "Generating sequences with recurrent neural networks", 2013, equations 38 to 45, which is where recurrent networks met it.
//!
//! ```text
//! s = fma((1 - alpha) g, g, alpha s)              a = fma(1 - alpha, g - a, a)  (centered)
//! d = g / (sqrt(s) + epsilon)                     centered: g / (sqrt(max(s - a a, 0)) + epsilon)
//! w = fma(-learning_rate, d, w)                   momentum: b = fma(momentum, b, d), and w = fma(-learning_rate, b, w)
//! ```
//!
//! The variance is not below zero but by rounding; there PyTorch would give NaN.

use super::{
    Method, Update, check_share, decimal, filled,
    sweep::{Given, Rule, Target},
};
use crate::{
    ModelError,
    kernels::{Buffer, Vector},
};

/// The options, all but the learning rate.
#[derive(Clone, Copy)]
pub(super) struct Options {
    pub alpha: f32,
    pub epsilon: f32,
    pub momentum: f32,
    pub centered: bool,
    pub weight_decay: f32,
}

pub(crate) struct RmsProp {
    options: Options,
    square_avg: Buffer,
    /// With momentum alone.
    momentum_buffer: Option<Buffer>,
    /// Centered alone.
    grad_avg: Option<Buffer>,
}

#[derive(Clone, Copy)]
struct Element {
    given: Given,
    alpha: f32,
    keep: f32,
    epsilon: f32,
    momentum: f32,
    centered: bool,
    rate: f32,
}

impl Element {
    /// The mean square, or centered the variance, and the mean.
    #[inline(always)]
    fn spread<V: Vector>(self, g: V, square: V, mean: V) -> (V, V) {
        if !self.centered {
            return (square, mean);
        }
        let mean = V::splat(self.keep).fma(g.sub(mean), mean);
        (V::zero().sub(mean).fma(mean, square).max(V::zero()), mean)
    }
}

/// The states: the mean square; with momentum its buffer; centered the mean of the gradient, last.
impl<const N: usize> Rule<N> for Element {
    #[inline(always)]
    fn update<V: Vector>(self, weight: V, gradient: V, mut states: [V; N]) -> (V, [V; N]) {
        let g = self.given.gradient(weight, gradient);
        states[0] = V::splat(self.keep).mul(g).fma(g, V::splat(self.alpha).mul(states[0]));
        let (spread, mean) = self.spread(g, states[0], states[N - 1]);
        if self.centered {
            states[N - 1] = mean;
        }
        let mut direction = g.div(spread.sqrt().add(V::splat(self.epsilon)));
        if self.momentum > 0.0 {
            direction = V::splat(self.momentum).fma(states[1], direction);
            states[1] = direction;
        }
        (V::splat(-self.rate).fma(direction, weight), states)
    }
}

impl RmsProp {
    pub(super) fn new(options: Options, len: usize) -> Result<Self, ModelError> {
        check_share("alpha", options.alpha)?;
        check_share("momentum", options.momentum)?;
        super::check_positive("epsilon", options.epsilon)?;
        Ok(Self {
            options,
            square_avg: filled(len, 0.0),
            momentum_buffer: (options.momentum > 0.0).then(|| filled(len, 0.0)),
            grad_avg: options.centered.then(|| filled(len, 0.0)),
        })
    }
}

impl Method for RmsProp {
    fn state(&self) -> Vec<(&'static str, &Buffer)> {
        let momentum = self.momentum_buffer.iter().map(|buffer| ("momentum_buffer", buffer));
        let mean = self.grad_avg.iter().map(|buffer| ("grad_avg", buffer));
        std::iter::once(("square_avg", &self.square_avg)).chain(momentum).chain(mean).collect()
    }

    fn state_mut(&mut self) -> Vec<&mut Buffer> {
        let further = self.momentum_buffer.iter_mut().chain(&mut self.grad_avg);
        std::iter::once(&mut self.square_avg).chain(further).collect()
    }

    fn apply(&mut self, target: Target<'_>, update: Update) {
        let Options { alpha, epsilon, momentum, centered, weight_decay } = self.options;
        let given = Given::new(update, weight_decay);
        let (alpha, rate) = (decimal(alpha), update.learning_rate);
        let (alpha, keep) = (alpha as f32, (1.0 - alpha) as f32);
        let element = Element { given, alpha, keep, epsilon, momentum, centered, rate };
        let square = &mut self.square_avg[..];
        match (&mut self.momentum_buffer, &mut self.grad_avg) {
            (None, None) => target.sweep([square], element),
            (Some(one), None) | (None, Some(one)) => target.sweep([square, one], element),
            (Some(momentum), Some(mean)) => target.sweep([square, momentum, mean], element),
        }
    }
}
