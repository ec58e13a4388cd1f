//! The run's settings as they come over the wire, checked and turned into the model's own types.

use carousel_model::{ModelConfig, ModelError, OptimizerConfig, Regularisation, Softmax};
use carousel_proto::gradient::GradientLayout;
use carousel_proto::v1::{self, ModelSettings, RunSettings, model_settings};

use crate::optimizer_settings::optimizer_config;

/// What a worker knows of its run.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub seed: u64,
    pub model: ModelConfig,
    pub optimizer: OptimizerConfig,
    pub streams: u32,
    pub window: u32,
    pub lanes: u32,
    /// No window has more time steps, and no step reads more windows.
    pub longest_window: u32,
    pub accumulate: u32,
    /// Largest absolute value of a gradient's element.
    pub clip_value: Option<f32>,
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
    /// A step would read nothing.
    #[error("the coordinator's settings have windows of up to {longest_window}, {accumulate} of them a step")]
    Windows {
        /// Time steps of the longest window.
        longest_window: u32,
        /// Windows of a step.
        accumulate: u32,
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
            most_rows: self.most_touched_rows(),
            rows_fold_into: layout.rows_fold_into,
        }
    }

    /// No step touches more rows.
    fn most_touched_rows(&self) -> usize {
        let positions = (self.streams as usize).saturating_mul(self.longest_window as usize);
        self.model.most_touched_rows(positions, self.accumulate as usize)
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
        let RunSettings { seed, streams, window, lanes, clip_value, longest_window, accumulate, .. } =
            settings;
        if streams == 0 || window == 0 || lanes == 0 || lanes > streams {
            return Err(SettingsError::Sizes { streams, window, lanes });
        }
        if longest_window == 0 || accumulate == 0 {
            return Err(SettingsError::Windows { longest_window, accumulate });
        }
        let model = model_config(settings.model.ok_or(SettingsError::Missing("model"))?)?;
        let optimizer = optimizer_config(settings.optimizer.ok_or(SettingsError::Missing("optimizer"))?)?;
        let clip_value = (clip_value > 0.0).then_some(clip_value);
        Ok(Self { seed, model, optimizer, streams, window, lanes, longest_window, accumulate, clip_value })
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
        hidden_below: settings.hidden_below.iter().map(|&width| width as usize).collect(),
        initialisation: settings.initialisation.parse()?,
        forget_bias: settings.forget_bias,
        regularisation: regularisation(settings.regularisation.unwrap_or_default()),
        softmax: softmax(settings.softmax),
    };
    config.validate()?;
    Ok(config)
}

fn regularisation(settings: v1::Regularisation) -> Regularisation {
    Regularisation {
        locked_dropout: settings.locked_dropout,
        dropout_embedding: settings.dropout_embedding,
        dropout_input: settings.dropout_input,
        dropout_hidden: settings.dropout_hidden,
        dropout_output: settings.dropout_output,
        weight_drop: settings.weight_drop,
        activation: settings.activation,
        temporal_activation: settings.temporal_activation,
        label_smoothing: settings.label_smoothing,
    }
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
