//! The optimizer over the wire, there and back. It checks no option: the model does, when it makes the optimizer.

use carousel_model::OptimizerConfig;
use carousel_proto::v1::{self, optimizer_settings::Kind};

use crate::settings::SettingsError;

/// The optimizer as workers are told of it.
pub fn optimizer_settings(optimizer: OptimizerConfig) -> v1::OptimizerSettings {
    let kind = match optimizer {
        OptimizerConfig::Sgd { weight_decay } => Kind::Sgd(v1::Sgd { weight_decay }),
        OptimizerConfig::Momentum { momentum, nesterov, weight_decay } => {
            Kind::Momentum(v1::Momentum { momentum, nesterov, weight_decay })
        }
        OptimizerConfig::Adam { beta1, beta2, epsilon, weight_decay } => {
            Kind::Adam(v1::Adam { beta1, beta2, epsilon, weight_decay })
        }
        OptimizerConfig::AdamW { beta1, beta2, epsilon, weight_decay } => {
            Kind::Adamw(v1::Adam { beta1, beta2, epsilon, weight_decay })
        }
        OptimizerConfig::RmsProp { alpha, epsilon, momentum, centered, weight_decay } => {
            Kind::Rmsprop(v1::RmsProp { alpha, epsilon, momentum, centered, weight_decay })
        }
        OptimizerConfig::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay } => {
            Kind::Adagrad(v1::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay })
        }
        OptimizerConfig::Asgd { lambd, alpha, t0, weight_decay } => {
            Kind::Asgd(v1::Asgd { lambd, alpha, t0, weight_decay })
        }
        OptimizerConfig::NtAsgd { weight_decay } => Kind::NtAsgd(v1::NtAsgd { weight_decay }),
        OptimizerConfig::Lion { beta1, beta2, weight_decay } => {
            Kind::Lion(v1::Lion { beta1, beta2, weight_decay })
        }
    };
    v1::OptimizerSettings { kind: Some(kind) }
}

/// The optimizer that a worker was told of.
///
/// # Errors
/// None was named, or one that this program does not know.
pub(crate) fn optimizer_config(settings: v1::OptimizerSettings) -> Result<OptimizerConfig, SettingsError> {
    Ok(match settings.kind.ok_or(SettingsError::Missing("optimizer"))? {
        Kind::Sgd(v1::Sgd { weight_decay }) => OptimizerConfig::Sgd { weight_decay },
        Kind::Momentum(v1::Momentum { momentum, nesterov, weight_decay }) => {
            OptimizerConfig::Momentum { momentum, nesterov, weight_decay }
        }
        Kind::Adam(v1::Adam { beta1, beta2, epsilon, weight_decay }) => {
            OptimizerConfig::Adam { beta1, beta2, epsilon, weight_decay }
        }
        Kind::Adamw(v1::Adam { beta1, beta2, epsilon, weight_decay }) => {
            OptimizerConfig::AdamW { beta1, beta2, epsilon, weight_decay }
        }
        Kind::Rmsprop(v1::RmsProp { alpha, epsilon, momentum, centered, weight_decay }) => {
            OptimizerConfig::RmsProp { alpha, epsilon, momentum, centered, weight_decay }
        }
        Kind::Adagrad(v1::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay }) => {
            OptimizerConfig::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay }
        }
        Kind::Asgd(v1::Asgd { lambd, alpha, t0, weight_decay }) => {
            OptimizerConfig::Asgd { lambd, alpha, t0, weight_decay }
        }
        Kind::NtAsgd(v1::NtAsgd { weight_decay }) => OptimizerConfig::NtAsgd { weight_decay },
        Kind::Lion(v1::Lion { beta1, beta2, weight_decay }) => {
            OptimizerConfig::Lion { beta1, beta2, weight_decay }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One of each kind; every option has a value of its own, so that two that change places are seen.
    fn every_kind() -> Vec<OptimizerConfig> {
        let (beta1, beta2, epsilon, weight_decay) = (0.5, 0.25, 0.125, 0.75);
        let (momentum, lr_decay, initial_accumulator_value, alpha) = (0.375, 0.625, 0.875, 0.0625);
        vec![
            OptimizerConfig::Sgd { weight_decay },
            OptimizerConfig::Momentum { momentum, nesterov: false, weight_decay },
            OptimizerConfig::Momentum { momentum, nesterov: true, weight_decay },
            OptimizerConfig::Adam { beta1, beta2, epsilon, weight_decay },
            OptimizerConfig::AdamW { beta1, beta2, epsilon, weight_decay },
            OptimizerConfig::RmsProp { alpha, epsilon, momentum, centered: true, weight_decay },
            OptimizerConfig::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay },
            OptimizerConfig::Asgd { lambd: 0.1, alpha, t0: 7, weight_decay },
            OptimizerConfig::NtAsgd { weight_decay },
            OptimizerConfig::Lion { beta1, beta2, weight_decay },
        ]
    }

    #[test]
    fn every_optimizer_comes_back_as_it_went() {
        for config in every_kind() {
            assert_eq!(optimizer_config(optimizer_settings(config)).unwrap(), config);
        }
        let nothing = optimizer_config(v1::OptimizerSettings { kind: None });
        assert!(matches!(nothing, Err(SettingsError::Missing("optimizer"))), "{nothing:?}");
    }
}
