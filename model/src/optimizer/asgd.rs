//! Averaged stochastic gradient descent: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992, in the
//! form of `torch.optim.ASGD`; and with an average that begins when the coordinator says so (Merity, Keskar, Socher, "Regularizing
//! and optimizing LSTM language models", ICLR 2018, algorithm 1: NT-ASGD). With t the number of the update, from 1:
//!
//! ```text
//! eta = learning_rate / (1 + lambd · learning_rate · (t - 1))^alpha
//! w = fma(-eta, g, (1 - lambd · eta) w)           ax = fma(mu, w - ax, ax), and ax = w where mu = 1
//! mu = 1 / max(1, t - 1 - t0)                     averaged from step T:  mu = 1 / max(1, t - T + 1), and 1 while there is no T
//! ```
//!
//! So `ax` is, at any time, what an evaluation uses: the weights themselves until the average begins, then the mean of the weights
//! after the steps from T on (algorithm 1 returns the same sum), and for `t0` those PyTorch averages. eta and mu are computed in
//! f64 and rounded once. PyTorch's eta takes the rate of the update before; where the rate never changes that is the same.

use super::{
    Method, Update, check_not_negative, decimal, filled,
    sweep::{Given, Rule, Target},
};
use crate::{
    ModelError,
    kernels::{Buffer, Vector},
};

/// When the average begins.
#[derive(Clone, Copy)]
pub(super) enum Begin {
    /// After so many updates.
    After(u64),
    /// When [`Update::averaged_from`] says.
    WhenTold,
}

/// The options, all but the learning rate.
#[derive(Clone, Copy)]
pub(super) struct Options {
    pub lambd: f32,
    pub alpha: f32,
    pub begin: Begin,
    pub weight_decay: f32,
}

pub(crate) struct Asgd {
    options: Options,
    ax: Buffer,
}

#[derive(Clone, Copy)]
struct Element {
    given: Given,
    keep: f32,
    rate: f32,
    /// What a new weight counts for in the average.
    share: f32,
}

impl Rule<1> for Element {
    #[inline(always)]
    fn update<V: Vector>(self, weight: V, gradient: V, [ax]: [V; 1]) -> (V, [V; 1]) {
        let g = self.given.gradient(weight, gradient);
        let kept = if self.keep == 1.0 { weight } else { V::splat(self.keep).mul(weight) };
        let weight = V::splat(-self.rate).fma(g, kept);
        let ax = if self.share == 1.0 { weight } else { V::splat(self.share).fma(weight.sub(ax), ax) };
        (weight, [ax])
    }
}

impl Asgd {
    pub(super) fn new(options: Options, len: usize) -> Result<Self, ModelError> {
        check_not_negative("lambd", options.lambd)?;
        check_not_negative("alpha", options.alpha)?;
        Ok(Self { options, ax: filled(len, 0.0) })
    }

    fn eta(&self, update: Update) -> f64 {
        let rate = f64::from(update.learning_rate);
        let slower = 1.0 + decimal(self.options.lambd) * rate * (update.step - 1) as f64;
        // The platform's power may differ from another's in the last bit.
        rate / libm::pow(slower, decimal(self.options.alpha))
    }

    fn share(&self, update: Update) -> f64 {
        let averaged = match (self.options.begin, update.averaged_from) {
            (Begin::After(t0), _) => (update.step - 1).saturating_sub(t0),
            (Begin::WhenTold, Some(from)) => (update.step + 1).saturating_sub(from),
            (Begin::WhenTold, None) => 1,
        };
        1.0 / averaged.max(1) as f64
    }
}

impl Method for Asgd {
    fn average(&self) -> Option<&[f32]> {
        Some(&self.ax)
    }

    fn state(&self) -> Vec<(&'static str, &Buffer)> {
        vec![(super::AVERAGE, &self.ax)]
    }

    fn state_mut(&mut self) -> Vec<&mut Buffer> {
        vec![&mut self.ax]
    }

    fn apply(&mut self, target: Target<'_>, update: Update) {
        let eta = self.eta(update);
        let element = Element {
            given: Given::new(update, self.options.weight_decay),
            keep: (1.0 - decimal(self.options.lambd) * eta) as f32,
            rate: eta as f32,
            share: self.share(update) as f32,
        };
        target.sweep([&mut self.ax], element);
    }
}
