//! The configuration of a run: one struct, as TOML; every key can be set on the command line. It knows files only as
//! paths; `launch` turns it into a run.

mod choice;
mod load;
mod tokens;
mod validate;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use choice::{KindOr, OneOrMany};
pub(crate) use load::{load, read_resolved};
pub(crate) use tokens::{Documents, TokenizerChoice, is_default};
pub(crate) use validate::validate;

/// A configuration that cannot be used: each variant names the place, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: {source}", path.display())]
    Toml { path: PathBuf, source: Box<toml::de::Error> },
    #[error("--set {given}: expected section.key=value")]
    SetSyntax { given: String },
    #[error("--set {given}: {problem}")]
    Set { given: String, problem: String },
    #[error("{key}: found {found}, expected {expected}")]
    Value { key: &'static str, found: String, expected: String },
    #[error(transparent)]
    Path(#[from] carousel_corpus::CorpusError),
}

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Every random number of the run is a function of it.
    pub seed: u64,
    pub data: Data,
    pub model: Model,
    pub train: Train,
    pub cluster: Cluster,
    /// What `train` prints at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
}

/// `[data]`: which text, and into which tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Data {
    /// A file, a list, or a folder; `~/`, `${VAR}` and `${VAR:-default}` are expanded.
    pub train: OneOrMany,
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub valid: OneOrMany,
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub test: OneOrMany,
    /// Globs for files in a folder, relative to it; none: every file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// At most so many bytes of the training text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// The last part of the training text that validates, where no file is named.
    pub valid_fraction: f64,
    /// `chars`, `bytes`, `words`, `bpe`, or the path of a Hugging Face tokenizer.json; or a table with `kind`.
    pub tokenizer: TokenizerChoice,
    /// `joined`, or `apart`: each ended by `eos`, those of the training text shuffled by the seed.
    #[serde(skip_serializing_if = "is_default")]
    pub documents: Documents,
    /// With documents apart, the token that ends one; none: `<eos>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos: Option<String>,
    /// The folder that `carousel prepare` makes; none: prepared/ and the configuration's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepared: Option<String>,
}

impl Default for Data {
    fn default() -> Self {
        let none = OneOrMany::default;
        Self {
            train: none(),
            valid: none(),
            test: none(),
            include: Vec::new(),
            max_bytes: None,
            valid_fraction: 0.1,
            tokenizer: TokenizerChoice::named("chars"),
            documents: Documents::Joined,
            eos: None,
            prepared: None,
        }
    }
}

/// `[model]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Model {
    pub cell: String,
    pub layers: u32,
    /// Floats of a token's embedding.
    pub embedding: u32,
    /// Units of a layer.
    pub hidden: u32,
    /// Whether the decoder uses the embedding's matrix; needs embedding = hidden.
    pub tied: bool,
    /// Probability of dropping a non-recurrent connection.
    pub dropout: f32,
    /// Weights start uniform in (-init, init).
    pub init: f32,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            cell: "lstm".into(),
            layers: 1,
            embedding: 128,
            hidden: 256,
            tied: false,
            dropout: 0.0,
            init: 0.08,
        }
    }
}

/// `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Train {
    /// Rows of the batch.
    pub streams: u32,
    /// Time steps of truncated backpropagation.
    pub window: u32,
    /// Fixed groups of streams: the most workers that can share a step.
    pub lanes: u32,
    /// Passes over the training text; or `steps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Updates; or `epochs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    pub optimizer: KindOr<Optimizer>,
    /// The highest learning rate.
    pub learning_rate: f64,
    pub schedule: KindOr<ScheduleConfig>,
    /// The gradient's global L2 norm is clipped to this; 0: never.
    pub clip_norm: f64,
    /// Steps between validations; none: at the end of each epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<u64>,
    /// Steps between checkpoints; none: at the end of each epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<u64>,
    /// Newest checkpoints that stay, beside the best; 0: all.
    pub keep_checkpoints: u64,
}

impl Default for Train {
    fn default() -> Self {
        Self {
            streams: 32,
            window: 64,
            lanes: 4,
            epochs: None,
            steps: None,
            optimizer: KindOr(Optimizer::Adam(Adam::default())),
            learning_rate: 0.002,
            schedule: KindOr(ScheduleConfig::Constant),
            clip_norm: 1.0,
            evaluate_every: None,
            checkpoint_every: None,
            keep_checkpoints: 3,
        }
    }
}

/// `train.optimizer`: a name, or a table with `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Optimizer {
    Sgd,
    Adam(Adam),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Adam {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
}

impl Default for Adam {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 }
    }
}

/// `train.schedule`: a name, or a table with `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum ScheduleConfig {
    Constant,
    Cosine {
        /// Steps of linear rise.
        #[serde(default)]
        warmup: u64,
        /// Share of the rate that is left at the end.
        #[serde(default)]
        floor: f64,
    },
    Zaremba {
        /// The last epoch at the full rate.
        after: u64,
        /// Divisor for each epoch beyond it.
        divide: f64,
    },
    Plateau {
        /// Divisor when a validation is not better than the best before it.
        divide: f64,
    },
}

/// `[cluster]`: who computes, never what.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cluster {
    /// Workers that must be there before the run starts; `train` starts so many.
    pub workers: u32,
    /// Threads of each worker that `train` starts.
    pub threads: u32,
    pub exchange: Exchange,
    /// Steps between comparisons of the replicas; 0: never.
    pub digest_every: u64,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { workers: 2, threads: 1, exchange: Exchange::Mesh, digest_every: 500 }
    }
}

/// How gradients are exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exchange {
    /// Among the workers: each reduces a slice.
    Mesh,
    /// Through the coordinator.
    Star,
}

/// `[sample]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sample {
    pub prompt: String,
    pub tokens: u64,
    pub temperature: f64,
    pub seed: u64,
}

impl Default for Sample {
    fn default() -> Self {
        Self { prompt: "\n".into(), tokens: 400, temperature: 0.8, seed: 1 }
    }
}
