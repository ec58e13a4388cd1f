//! The run's settings as they come over the wire, checked and turned into the model's own types.

use carousel_model::{ModelConfig, ModelError, OptimizerConfig, Softmax};
use carousel_proto::gradient::GradientLayout;
use carousel_proto::v1::{
    ModelSettings, OptimizerSettings, RunSettings, model_settings, optimizer_settings::Kind,
};

/// What a worker knows of its run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub seed: u64,
    pub model: ModelConfig,
    pub optimizer: OptimizerConfig,
    pub streams: u32,
    pub window: u32,
    pub lanes: u32,
}

/// Settings that cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A part is missing.
    #[error("the coordinator's settings have no {0}")]
    Missing(&'static str),
    /// A size is zero or the lanes do not fit.
    #[error("the coordinator's settings have {streams} streams, window {window}, {lanes} lanes")]
    Sizes {
        /// Streams.
        streams: u32,
        /// Steps of a window.
        window: u32,
        /// Lanes.
        lanes: u32,
    },
    /// The cell is unknown to this program.
    #[error("the coordinator asks for cell {0:?}, which this program does not know")]
    Cell(String),
    /// The model refuses its sizes.
    #[error(transparent)]
    Model(#[from] ModelError),
}

impl Settings {
    /// The layout of the model's gradient, as the exchange knows it.
    pub(crate) fn gradient_layout(&self) -> GradientLayout {
        let layout = self.model.gradient_layout();
        GradientLayout {
            dense: layout.dense_len,
            dense_offset: layout.dense_offset,
            rows: layout.rows,
            width: layout.row_width,
            most_rows: self.model.most_touched_rows(self.streams as usize * self.window as usize),
            rows_fold_into: layout.rows_fold_into,
        }
    }

    /// No gradient of the run, and no slice of one, is larger.
    pub(crate) fn most_gradient_bytes(&self) -> u64 {
        let layout = self.gradient_layout();
        4 * (layout.dense as u64 + layout.most_rows as u64 * layout.width as u64)
    }
}

impl TryFrom<RunSettings> for Settings {
    type Error = SettingsError;

    fn try_from(settings: RunSettings) -> Result<Self, SettingsError> {
        let RunSettings { seed, streams, window, lanes, .. } = settings;
        if streams == 0 || window == 0 || lanes == 0 || lanes > streams {
            return Err(SettingsError::Sizes { streams, window, lanes });
        }
        let model = model_config(settings.model.ok_or(SettingsError::Missing("model"))?)?;
        let optimizer = optimizer_config(settings.optimizer.ok_or(SettingsError::Missing("optimizer"))?)?;
        Ok(Self { seed, model, optimizer, streams, window, lanes })
    }
}

fn model_config(settings: ModelSettings) -> Result<ModelConfig, SettingsError> {
    let config = ModelConfig {
        cell: settings.cell.parse().map_err(|_| SettingsError::Cell(settings.cell.clone()))?,
        vocabulary: settings.vocabulary as usize,
        embedding: settings.embedding as usize,
        hidden: settings.hidden as usize,
        layers: settings.layers as usize,
        tied: settings.tied,
        dropout: settings.dropout,
        init: settings.init,
        softmax: softmax(settings.softmax),
    };
    config.validate()?;
    Ok(config)
}

fn softmax(settings: Option<model_settings::Softmax>) -> Softmax {
    match settings {
        None => Softmax::Full,
        Some(model_settings::Softmax::Adaptive(adaptive)) => Softmax::Adaptive {
            cutoffs: adaptive.cutoffs.into_iter().map(|cutoff| cutoff as usize).collect(),
            div_value: adaptive.div_value,
            head_bias: adaptive.head_bias,
        },
        Some(model_settings::Softmax::Sampled(sampled)) => {
            Softmax::Sampled { samples: sampled.samples as usize }
        }
    }
}

fn optimizer_config(settings: OptimizerSettings) -> Result<OptimizerConfig, SettingsError> {
    Ok(match settings.kind.ok_or(SettingsError::Missing("optimizer"))? {
        Kind::Sgd(_) => OptimizerConfig::Sgd,
        Kind::Adam(adam) => {
            OptimizerConfig::Adam { beta1: adam.beta1, beta2: adam.beta2, epsilon: adam.epsilon }
        }
    })
}
