//! Which optimizer, with its options, and how one is made of them. The names and defaults are PyTorch's.

use super::{
    adagrad::{self, AdaGrad},
    adam::{Adam, Decay},
    asgd::{self, Asgd, Begin},
    check_not_negative,
    momentum::Momentum,
    rmsprop::{self, RmsProp},
    sgd::Sgd,
};
use crate::{ModelError, kernels::Buffer};

/// Which optimizer, with its options. `weight_decay` is added to the gradient as weight_decay · w (L2), but for AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum OptimizerConfig {
    /// `torch.optim.SGD`.
    Sgd {
        /// L2 decay, at least 0.
        weight_decay: f32,
    },
    /// `torch.optim.SGD` with momentum and dampening 0.
    Momentum {
        /// What is kept of the direction, in [0, 1).
        momentum: f32,
        /// Nesterov's form.
        nesterov: bool,
        /// L2 decay, at least 0.
        weight_decay: f32,
    },
    /// `torch.optim.Adam`.
    Adam {
        /// Decay of the first moment, in [0, 1).
        beta1: f32,
        /// Decay of the second moment, in [0, 1).
        beta2: f32,
        /// Added to the root of the second moment, positive.
        epsilon: f32,
        /// L2 decay, at least 0.
        weight_decay: f32,
    },
    /// `torch.optim.AdamW`.
    AdamW {
        /// Decay of the first moment, in [0, 1).
        beta1: f32,
        /// Decay of the second moment, in [0, 1).
        beta2: f32,
        /// Added to the root of the second moment, positive.
        epsilon: f32,
        /// Weights are multiplied by 1 - learning rate · weight_decay first; at least 0.
        weight_decay: f32,
    },
    /// `torch.optim.RMSprop`.
    RmsProp {
        /// Decay of the mean square, in [0, 1).
        alpha: f32,
        /// Added to the root of the mean square, positive.
        epsilon: f32,
        /// What is kept of the direction, in [0, 1).
        momentum: f32,
        /// Whether the mean square is taken about the mean.
        centered: bool,
        /// L2 decay, at least 0.
        weight_decay: f32,
    },
    /// `torch.optim.Adagrad`.
    AdaGrad {
        /// How the rate falls: learning rate / (1 + (t - 1) lr_decay); at least 0.
        lr_decay: f32,
        /// What the sum of squares starts from, at least 0.
        initial_accumulator_value: f32,
        /// Added to the root of the sum, positive.
        epsilon: f32,
        /// L2 decay, at least 0.
        weight_decay: f32,
    },
    /// `torch.optim.ASGD`.
    Asgd {
        /// Decay term, at least 0.
        lambd: f32,
        /// Power by which the rate falls, at least 0.
        alpha: f32,
        /// The average leaves out so many updates.
        t0: u64,
        /// L2 decay, at least 0.
        weight_decay: f32,
    },
    /// NT-ASGD: SGD whose average begins when [`super::Update::averaged_from`] says.
    NtAsgd {
        /// L2 decay, at least 0.
        weight_decay: f32,
    },
}

/// An optimizer's state and what it does, by its kind.
pub(super) enum Kind {
    Sgd(Sgd),
    Momentum(Momentum),
    Adam(Adam),
    RmsProp(RmsProp),
    AdaGrad(AdaGrad),
    Asgd(Asgd),
}

impl OptimizerConfig {
    fn weight_decay(self) -> f32 {
        match self {
            Self::Sgd { weight_decay }
            | Self::Momentum { weight_decay, .. }
            | Self::Adam { weight_decay, .. }
            | Self::AdamW { weight_decay, .. }
            | Self::RmsProp { weight_decay, .. }
            | Self::AdaGrad { weight_decay, .. }
            | Self::Asgd { weight_decay, .. }
            | Self::NtAsgd { weight_decay } => weight_decay,
        }
    }

    /// The optimizer of so many parameters, at its beginning.
    pub(super) fn build(self, len: usize) -> Result<Kind, ModelError> {
        check_not_negative("weight_decay", self.weight_decay())?;
        Ok(match self {
            Self::Sgd { weight_decay } => Kind::Sgd(Sgd { weight_decay }),
            Self::Momentum { momentum, nesterov, weight_decay } => {
                Kind::Momentum(Momentum::new((momentum, nesterov), weight_decay, len)?)
            }
            Self::Adam { beta1, beta2, epsilon, weight_decay } => {
                Kind::Adam(Adam::new((beta1, beta2), epsilon, Decay::Gradient(weight_decay), len)?)
            }
            Self::AdamW { beta1, beta2, epsilon, weight_decay } => {
                Kind::Adam(Adam::new((beta1, beta2), epsilon, Decay::Decoupled(weight_decay), len)?)
            }
            Self::RmsProp { alpha, epsilon, momentum, centered, weight_decay } => {
                let options = rmsprop::Options { alpha, epsilon, momentum, centered, weight_decay };
                Kind::RmsProp(RmsProp::new(options, len)?)
            }
            Self::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay } => {
                let options = adagrad::Options { lr_decay, initial_accumulator_value, epsilon, weight_decay };
                Kind::AdaGrad(AdaGrad::new(options, len)?)
            }
            Self::Asgd { lambd, alpha, t0, weight_decay } => Kind::Asgd(Asgd::new(
                asgd::Options { lambd, alpha, begin: Begin::After(t0), weight_decay },
                len,
            )?),
            // The power is of no account where the decay term is zero.
            Self::NtAsgd { weight_decay } => {
                let options = asgd::Options { lambd: 0.0, alpha: 0.0, begin: Begin::WhenTold, weight_decay };
                Kind::Asgd(Asgd::new(options, len)?)
            }
        })
    }
}

impl Kind {
    pub(super) fn state(&self) -> Vec<(&'static str, &Buffer)> {
        match self {
            Self::Sgd(_) => Vec::new(),
            Self::Momentum(momentum) => momentum.state(),
            Self::Adam(adam) => adam.state(),
            Self::RmsProp(rmsprop) => rmsprop.state(),
            Self::AdaGrad(adagrad) => adagrad.state(),
            Self::Asgd(asgd) => asgd.state(),
        }
    }

    /// The buffers of [`Self::state`], in its order.
    pub(super) fn state_mut(&mut self) -> Vec<&mut Buffer> {
        match self {
            Self::Sgd(_) => Vec::new(),
            Self::Momentum(momentum) => momentum.state_mut(),
            Self::Adam(adam) => adam.state_mut(),
            Self::RmsProp(rmsprop) => rmsprop.state_mut(),
            Self::AdaGrad(adagrad) => adagrad.state_mut(),
            Self::Asgd(asgd) => asgd.state_mut(),
        }
    }
}
