//! Plain stochastic gradient descent, as `torch.optim.SGD`: w = fma(-learning_rate, g, w). No state; without weight decay
//! untouched embedding rows stay as they are, and are not visited.

use super::{
    Method, Update,
    sweep::{Given, Rule, Target},
};
use crate::kernels::Vector;

pub(crate) struct Sgd {
    pub(super) weight_decay: f32,
}

#[derive(Clone, Copy)]
struct Element {
    given: Given,
    rate: f32,
}

impl Rule<0> for Element {
    #[inline(always)]
    fn update<V: Vector>(self, weight: V, gradient: V, []: [V; 0]) -> (V, [V; 0]) {
        let g = self.given.gradient(weight, gradient);
        (V::splat(-self.rate).fma(g, weight), [])
    }
}

impl Method for Sgd {
    fn apply(&mut self, target: Target<'_>, update: Update) {
        let element = Element { given: Given::new(update, self.weight_decay), rate: update.learning_rate };
        if self.weight_decay == 0.0 {
            target.sweep_touched(element);
        } else {
            target.sweep([], element);
        }
    }
}
