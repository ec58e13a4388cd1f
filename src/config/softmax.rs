//! `model.softmax`: how the last layer's output becomes a distribution over the tokens.

use carousel_model::Softmax;
use carousel_proto::v1::{self, model_settings};
use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, validate::require};

/// `model.softmax`: a name, or a table with `kind`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum SoftmaxConfig {
    /// Over all tokens at once.
    #[default]
    Full,
    /// Rare tokens in clusters, read through narrower layers: Grave et al. 2017.
    Adaptive {
        /// The first of each cluster, ascending. Unit: token numbers.
        cutoffs: Vec<u32>,
        /// Cluster i (from 0) reads hidden / div_value^(i + 1) numbers. Unit: none.
        #[serde(default = "four")]
        div_value: f32,
        /// Whether the head's logits have biases.
        #[serde(default)]
        head_bias: bool,
    },
    /// In training, over tokens drawn for it: Jean et al. 2015.
    Sampled {
        /// Drawn for each step. Unit: tokens.
        samples: u32,
    },
}

fn four() -> f32 {
    4.0
}

impl SoftmaxConfig {
    /// As the model knows it.
    pub(crate) fn of_model(&self) -> Softmax {
        match self {
            SoftmaxConfig::Full => Softmax::Full,
            SoftmaxConfig::Adaptive { cutoffs, div_value, head_bias } => {
                let cutoffs = cutoffs.iter().map(|&cutoff| cutoff as usize).collect();
                Softmax::Adaptive { cutoffs, div_value: *div_value, head_bias: *head_bias }
            }
            SoftmaxConfig::Sampled { samples } => Softmax::Sampled { samples: *samples as usize },
        }
    }
}

/// As workers are told.
pub(crate) fn on_the_wire(softmax: &Softmax) -> Option<model_settings::Softmax> {
    match softmax {
        Softmax::Full => None,
        Softmax::Adaptive { cutoffs, div_value, head_bias } => {
            let cutoffs = cutoffs.iter().map(|&cutoff| cutoff as u64).collect();
            let adaptive = v1::AdaptiveSoftmax { cutoffs, div_value: *div_value, head_bias: *head_bias };
            Some(model_settings::Softmax::Adaptive(adaptive))
        }
        Softmax::Sampled { samples } => {
            Some(model_settings::Softmax::Sampled(v1::SampledSoftmax { samples: *samples as u64 }))
        }
    }
}

/// What can be said before the vocabulary is known; the model checks the rest.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let model = &config.model;
    let kind = model.softmax.0.of_model().name();
    let fits = !model.tied || model.softmax.0 == SoftmaxConfig::Full;
    let expected = "tied = false: only the full softmax shares the embedding's matrix";
    require(fits, "model.tied", format!("true, with softmax {kind:?}"), expected)?;
    let smoothing = model.label_smoothing;
    let fits = smoothing == 0.0 || model.softmax.0 == SoftmaxConfig::Full;
    let found = format!("{smoothing}, with softmax {kind:?}");
    require(fits, "model.label_smoothing", found, "0: only the full softmax has smoothed targets")?;
    match &model.softmax.0 {
        SoftmaxConfig::Full => Ok(()),
        SoftmaxConfig::Adaptive { cutoffs, div_value, .. } => {
            let ascending = cutoffs.windows(2).all(|pair| pair[0] < pair[1]) && cutoffs.first() != Some(&0);
            let expected = "token numbers that ascend, from 1 at least";
            require(ascending, "model.softmax.cutoffs", format!("{cutoffs:?}"), expected)?;
            let fits = div_value.is_finite() && *div_value >= 1.0;
            require(fits, "model.softmax.div_value", div_value, "a finite number of at least 1")
        }
        SoftmaxConfig::Sampled { samples } => {
            require(*samples > 0, "model.softmax.samples", samples, "at least 1, at most half the vocabulary")
        }
    }
}
