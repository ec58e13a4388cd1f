//! `train.optimizer`: the kinds by their names, their options with PyTorch's defaults, what the options must keep, and the
//! optimizer of the model that they name.

use carousel_model::OptimizerConfig;
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::validate::require;

/// `train.optimizer`: a name, or a table with `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Optimizer {
    /// Plain stochastic gradient descent.
    Sgd(Sgd),
    /// SGD with momentum, dampening 0.
    Momentum(Momentum),
    /// Momentum in Nesterov's form.
    Nesterov(Momentum),
    /// Kingma and Ba 2015.
    Adam(Adam),
    /// Adam with decoupled weight decay: Loshchilov and Hutter 2019.
    #[serde(rename = "adamw")]
    AdamW(AdamW),
    /// Tieleman and Hinton 2012.
    #[serde(rename = "rmsprop")]
    RmsProp(RmsProp),
    /// Duchi et al. 2011.
    #[serde(rename = "adagrad")]
    AdaGrad(AdaGrad),
    /// Averaged SGD: Polyak and Juditsky 1992.
    Asgd(Asgd),
    /// SGD that is averaged once validations get no better: Merity et al. 2017.
    NtAsgd(NtAsgd),
    /// The sign of the momentum and the gradient: Chen et al. 2023.
    Lion(Lion),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sgd {
    /// Added to the gradient: it times the weight (L2). Unit: none.
    pub weight_decay: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Momentum {
    /// What is kept of the direction of the updates before. Unit: share.
    pub momentum: f32,
    /// Added to the gradient: it times the weight (L2). Unit: none.
    pub weight_decay: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Adam {
    /// What is kept of the mean of the gradients. Unit: share.
    pub beta1: f32,
    /// What is kept of the mean of their squares. Unit: share.
    pub beta2: f32,
    /// Added to the root that is divided by. Unit: none.
    pub epsilon: f32,
    /// Added to the gradient: it times the weight (L2). Unit: none.
    pub weight_decay: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdamW {
    /// What is kept of the mean of the gradients. Unit: share.
    pub beta1: f32,
    /// What is kept of the mean of their squares. Unit: share.
    pub beta2: f32,
    /// Added to the root that is divided by. Unit: none.
    pub epsilon: f32,
    /// Straight on the weights: the learning rate times it times the weight is taken off. Unit: none.
    pub weight_decay: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RmsProp {
    /// What is kept of the mean of the squares. Unit: share.
    pub alpha: f32,
    /// Added to the root that is divided by. Unit: none.
    pub epsilon: f32,
    /// What is kept of the direction of the updates before. Unit: share.
    pub momentum: f32,
    /// Whether the mean square is taken about the mean.
    pub centered: bool,
    /// Added to the gradient: it times the weight (L2). Unit: none.
    pub weight_decay: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdaGrad {
    /// The rate is divided by 1 + it times the steps before. Unit: none.
    pub lr_decay: f32,
    /// Where the sums of squares begin. Unit: none.
    pub initial_accumulator_value: f32,
    /// Added to the root that is divided by. Unit: none.
    pub epsilon: f32,
    /// Added to the gradient: it times the weight (L2). Unit: none.
    pub weight_decay: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Asgd {
    /// How fast the rate falls. Unit: none.
    pub lambd: f32,
    /// The power by which the rate falls. Unit: none.
    pub alpha: f32,
    /// The average leaves out the first so many. Unit: steps.
    pub t0: u64,
    /// Added to the gradient: it times the weight (L2). Unit: none.
    pub weight_decay: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NtAsgd {
    /// The average begins when a validation is worse than the best of those more than so many back. Unit: validations.
    pub nonmonotone: u32,
    /// Added to the gradient: it times the weight (L2). Unit: none.
    pub weight_decay: f32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Lion {
    /// What is kept of the momentum in the direction of an update. Unit: share.
    pub beta1: f32,
    /// What is kept of the momentum from step to step. Unit: share.
    pub beta2: f32,
    /// Straight on the weights: the learning rate times it times the weight is taken off. Unit: none.
    pub weight_decay: f32,
}

impl Default for Momentum {
    fn default() -> Self {
        Self { momentum: 0.9, weight_decay: 0.0 }
    }
}

impl Default for Adam {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01 }
    }
}

impl Default for RmsProp {
    fn default() -> Self {
        Self { alpha: 0.99, epsilon: 1e-8, momentum: 0.0, centered: false, weight_decay: 0.0 }
    }
}

impl Default for AdaGrad {
    fn default() -> Self {
        Self { lr_decay: 0.0, initial_accumulator_value: 0.0, epsilon: 1e-10, weight_decay: 0.0 }
    }
}

impl Default for Asgd {
    fn default() -> Self {
        Self { lambd: 1e-4, alpha: 0.75, t0: 1_000_000, weight_decay: 0.0 }
    }
}

impl Default for NtAsgd {
    fn default() -> Self {
        Self { nonmonotone: 5, weight_decay: 0.0 }
    }
}

impl Default for Lion {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.99, weight_decay: 0.0 }
    }
}

impl Optimizer {
    fn weight_decay(&self) -> f32 {
        match self {
            Self::Sgd(Sgd { weight_decay })
            | Self::Momentum(Momentum { weight_decay, .. })
            | Self::Nesterov(Momentum { weight_decay, .. })
            | Self::Adam(Adam { weight_decay, .. })
            | Self::AdamW(AdamW { weight_decay, .. })
            | Self::RmsProp(RmsProp { weight_decay, .. })
            | Self::AdaGrad(AdaGrad { weight_decay, .. })
            | Self::Asgd(Asgd { weight_decay, .. })
            | Self::NtAsgd(NtAsgd { weight_decay, .. })
            | Self::Lion(Lion { weight_decay, .. }) => *weight_decay,
        }
    }

    /// The optimizer as the model makes it.
    pub(crate) fn for_model(&self) -> OptimizerConfig {
        match self.clone() {
            Self::Sgd(Sgd { weight_decay }) => OptimizerConfig::Sgd { weight_decay },
            Self::Momentum(Momentum { momentum, weight_decay }) => {
                OptimizerConfig::Momentum { momentum, nesterov: false, weight_decay }
            }
            Self::Nesterov(Momentum { momentum, weight_decay }) => {
                OptimizerConfig::Momentum { momentum, nesterov: true, weight_decay }
            }
            Self::Adam(Adam { beta1, beta2, epsilon, weight_decay }) => {
                OptimizerConfig::Adam { beta1, beta2, epsilon, weight_decay }
            }
            Self::AdamW(AdamW { beta1, beta2, epsilon, weight_decay }) => {
                OptimizerConfig::AdamW { beta1, beta2, epsilon, weight_decay }
            }
            Self::RmsProp(RmsProp { alpha, epsilon, momentum, centered, weight_decay }) => {
                OptimizerConfig::RmsProp { alpha, epsilon, momentum, centered, weight_decay }
            }
            Self::AdaGrad(AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay }) => {
                OptimizerConfig::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay }
            }
            Self::Asgd(Asgd { lambd, alpha, t0, weight_decay }) => {
                OptimizerConfig::Asgd { lambd, alpha, t0, weight_decay }
            }
            Self::NtAsgd(NtAsgd { weight_decay, .. }) => OptimizerConfig::NtAsgd { weight_decay },
            Self::Lion(Lion { beta1, beta2, weight_decay }) => {
                OptimizerConfig::Lion { beta1, beta2, weight_decay }
            }
        }
    }

    /// Checks the options. `validated`: whether there is a validation text.
    pub(super) fn validate(&self, validated: bool) -> Result<(), ConfigError> {
        not_negative("train.optimizer.weight_decay", self.weight_decay())?;
        match self {
            Self::Sgd(_) => Ok(()),
            Self::Momentum(Momentum { momentum, .. }) | Self::Nesterov(Momentum { momentum, .. }) => {
                share("train.optimizer.momentum", *momentum)
            }
            Self::Adam(Adam { beta1, beta2, epsilon, .. })
            | Self::AdamW(AdamW { beta1, beta2, epsilon, .. }) => {
                share("train.optimizer.beta1", *beta1)?;
                share("train.optimizer.beta2", *beta2)?;
                positive("train.optimizer.epsilon", *epsilon)
            }
            Self::Lion(Lion { beta1, beta2, .. }) => {
                share("train.optimizer.beta1", *beta1)?;
                share("train.optimizer.beta2", *beta2)
            }
            Self::RmsProp(RmsProp { alpha, epsilon, momentum, .. }) => {
                share("train.optimizer.alpha", *alpha)?;
                share("train.optimizer.momentum", *momentum)?;
                positive("train.optimizer.epsilon", *epsilon)
            }
            Self::AdaGrad(AdaGrad { lr_decay, initial_accumulator_value, epsilon, .. }) => {
                not_negative("train.optimizer.lr_decay", *lr_decay)?;
                not_negative("train.optimizer.initial_accumulator_value", *initial_accumulator_value)?;
                positive("train.optimizer.epsilon", *epsilon)
            }
            Self::Asgd(Asgd { lambd, alpha, .. }) => {
                not_negative("train.optimizer.lambd", *lambd)?;
                not_negative("train.optimizer.alpha", *alpha)
            }
            Self::NtAsgd(NtAsgd { nonmonotone, .. }) => {
                let expected = "a validation text (data.valid or data.valid_fraction) to decide by";
                require(validated, "train.optimizer", "nt_asgd without one", expected)?;
                let fits = (1..=100).contains(nonmonotone);
                require(fits, "train.optimizer.nonmonotone", nonmonotone, "1 to 100 validations")
            }
        }
    }
}

fn share(key: &'static str, x: f32) -> Result<(), ConfigError> {
    require((0.0..1.0).contains(&x), key, x, "at least 0 and below 1")
}

fn positive(key: &'static str, x: f32) -> Result<(), ConfigError> {
    require(x.is_finite() && x > 0.0, key, x, "a finite number above 0")
}

fn not_negative(key: &'static str, x: f32) -> Result<(), ConfigError> {
    require(x.is_finite() && x >= 0.0, key, x, "a finite number that is not negative")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KindOr;

    fn read(text: &str) -> Result<Optimizer, String> {
        let table: toml::Table = toml::from_str(&format!("optimizer = {text}")).unwrap();
        let optimizer = table["optimizer"].clone().try_into::<KindOr<Optimizer>>();
        let optimizer = optimizer.map_err(|error| error.to_string())?.0;
        optimizer.validate(true).map_err(|error| error.to_string())?;
        Ok(optimizer)
    }

    #[test]
    fn every_kind_has_a_name_and_pytorch_s_defaults() {
        let names =
            ["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "asgd", "nt_asgd", "lion"];
        for name in names {
            let by_name = read(&format!("{name:?}")).unwrap();
            assert_eq!(read(&format!("{{ kind = {name:?} }}")).unwrap(), by_name);
            let text = toml::to_string(&toml::Table::try_from(&by_name).unwrap()).unwrap();
            assert!(text.contains(&format!("kind = {name:?}")) && text.contains("weight_decay"), "{text}");
        }
        let Ok(Optimizer::AdamW(adamw)) = read("\"adamw\"") else { panic!("not AdamW") };
        assert_eq!(adamw.weight_decay, 0.01);
    }

    #[test]
    fn impossible_options_are_named_by_their_keys() {
        for (text, key) in [
            ("{ kind = \"sgd\", weight_decay = -1.0 }", "train.optimizer.weight_decay"),
            ("{ kind = \"momentum\", momentum = 1.0 }", "train.optimizer.momentum"),
            ("{ kind = \"nesterov\", momentum = nan }", "train.optimizer.momentum"),
            ("{ kind = \"adam\", beta2 = 1.0 }", "train.optimizer.beta2"),
            ("{ kind = \"adamw\", epsilon = 0.0 }", "train.optimizer.epsilon"),
            ("{ kind = \"rmsprop\", alpha = -0.1 }", "train.optimizer.alpha"),
            ("{ kind = \"rmsprop\", momentum = 2.0 }", "train.optimizer.momentum"),
            ("{ kind = \"lion\", beta1 = 1.0 }", "train.optimizer.beta1"),
            ("{ kind = \"lion\", epsilon = 1e-8 }", "unknown field `epsilon`"),
            ("{ kind = \"adagrad\", lr_decay = inf }", "train.optimizer.lr_decay"),
            ("{ kind = \"asgd\", lambd = -1.0 }", "train.optimizer.lambd"),
            ("{ kind = \"nt_asgd\", nonmonotone = 0 }", "train.optimizer.nonmonotone"),
            ("{ kind = \"sgd\", momentum = 0.9 }", "unknown field `momentum`"),
            ("\"adamax\"", "unknown variant `adamax`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
        let error = Optimizer::NtAsgd(NtAsgd::default()).validate(false).unwrap_err().to_string();
        assert!(error.contains("nt_asgd without one"), "{error}");
    }
}
