//! The list of optimizers: each with its options, and how it is made of them. Names are PyTorch's, where it has the optimizer.

use super::{
    Method,
    adagrad::{self, AdaGrad},
    adam::{Adam, Decay},
    asgd::{self, Asgd, Begin},
    check_not_negative,
    lion::Lion,
    momentum::Momentum,
    rmsprop::{self, RmsProp},
    sgd::Sgd,
};
use crate::ModelError;

/// Which optimizer, with its options. `weight_decay` is added to the gradient as weight_decay · w (L2), but for AdamW
/// and Lion.
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
    /// Lion.
    Lion {
        /// What is kept of the momentum in the direction of an update, in [0, 1).
        beta1: f32,
        /// Decay of the momentum, in [0, 1).
        beta2: f32,
        /// Weights are multiplied by 1 - learning rate · weight_decay first; at least 0.
        weight_decay: f32,
    },
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
            | Self::NtAsgd { weight_decay }
            | Self::Lion { weight_decay, .. } => weight_decay,
        }
    }

    /// The optimizer of so many parameters, at its beginning.
    pub(super) fn build(self, len: usize) -> Result<Box<dyn Method>, ModelError> {
        check_not_negative("weight_decay", self.weight_decay())?;
        Ok(match self {
            Self::Sgd { weight_decay } => Box::new(Sgd { weight_decay }),
            Self::Momentum { momentum, nesterov, weight_decay } => {
                Box::new(Momentum::new((momentum, nesterov), weight_decay, len)?)
            }
            Self::Adam { beta1, beta2, epsilon, weight_decay } => {
                Box::new(Adam::new((beta1, beta2), epsilon, Decay::Gradient(weight_decay), len)?)
            }
            Self::AdamW { beta1, beta2, epsilon, weight_decay } => {
                Box::new(Adam::new((beta1, beta2), epsilon, Decay::Decoupled(weight_decay), len)?)
            }
            Self::RmsProp { alpha, epsilon, momentum, centered, weight_decay } => {
                let options = rmsprop::Options { alpha, epsilon, momentum, centered, weight_decay };
                Box::new(RmsProp::new(options, len)?)
            }
            Self::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay } => {
                let options = adagrad::Options { lr_decay, initial_accumulator_value, epsilon, weight_decay };
                Box::new(AdaGrad::new(options, len)?)
            }
            Self::Asgd { lambd, alpha, t0, weight_decay } => Box::new(Asgd::new(
                asgd::Options { lambd, alpha, begin: Begin::After(t0), weight_decay },
                len,
            )?),
            // The power is of no account where the decay term is zero.
            Self::NtAsgd { weight_decay } => {
                let options = asgd::Options { lambd: 0.0, alpha: 0.0, begin: Begin::WhenTold, weight_decay };
                Box::new(Asgd::new(options, len)?)
            }
            Self::Lion { beta1, beta2, weight_decay } => {
                Box::new(Lion::new((beta1, beta2), weight_decay, len)?)
            }
        })
    }
}
