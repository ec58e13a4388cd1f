//! The configuration of a run: one struct, as TOML; every key can be set on the command line. It knows files only as
//! paths; `launch` turns it into a run.

mod choice;
mod initialisation;
mod load;
pub(crate) mod optimizer;
mod output;
mod regularisation;
mod sample;
mod schedule;
mod softmax;
mod tokens;
mod validate;
mod weights;
mod window;

use std::path::PathBuf;

use carousel_coordinator::Schedule;
use serde::{Deserialize, Serialize};

pub(crate) use choice::{KindOr, OneOrMany};
pub(crate) use initialisation::{Init, NumberOrKind, Range};
pub(crate) use load::{load, read_resolved};
pub(crate) use optimizer::Optimizer;
pub(crate) use output::Output;
pub(crate) use regularisation::Widths;
pub(crate) use sample::Sample;
pub(crate) use softmax::{SoftmaxConfig, on_the_wire as softmax_on_the_wire};
pub(crate) use tokens::{Documents, TokenizerChoice, is_default};
pub(crate) use validate::validate;
pub(crate) use weights::Weights;
pub(crate) use window::RandomWindow;

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
    /// Where the run is kept; it does not reach the weights.
    #[serde(skip_serializing_if = "Output::is_default")]
    pub output: Output,
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
    /// What a file holds: `auto` (by its name), `text`, `jsonl` or `parquet`.
    pub format: String,
    /// The field of a JSON line, or the column of a Parquet file, that is the text.
    pub field: String,
    /// `chars`, `bytes`, `words`, `bpe`, `unigram`, or the path of a Hugging Face tokenizer.json; or a table with `kind`.
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
    /// A training text of more bytes than this, as it is stored, is prepared before a run of it begins.
    #[serde(skip_serializing_if = "is_usual_in_memory")]
    pub in_memory: u64,
}

fn is_usual_in_memory(bytes: &u64) -> bool {
    *bytes == Data::default().in_memory
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
            format: "auto".into(),
            field: "text".into(),
            tokenizer: TokenizerChoice::named("chars"),
            documents: Documents::Joined,
            eos: None,
            prepared: None,
            in_memory: 256 << 20,
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
    /// Units of a layer, or of each.
    pub hidden: Widths,
    /// Whether the decoder uses the embedding's matrix; needs embedding = hidden (of the last layer).
    pub tied: bool,
    /// Probability of dropping a non-recurrent connection, wherever none of its own is given.
    pub dropout: f32,
    /// One mask for all time steps of a window, in place of one for each.
    pub locked_dropout: bool,
    /// Probability of dropping a unit of the embedding's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout_input: Option<f32>,
    /// Probability of dropping a unit between layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout_hidden: Option<f32>,
    /// Probability of dropping a unit of the last layer's output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout_output: Option<f32>,
    /// Probability of dropping a token's embedding for a window.
    pub dropout_embedding: f32,
    /// Probability of dropping a recurrent weight for a window.
    pub weight_drop: f32,
    /// Alpha: strength of the mean square of the last layer's output.
    pub activation_regularisation: f32,
    /// Beta: strength of the mean square of its change from step to step.
    pub temporal_activation_regularisation: f32,
    /// Share of the uniform distribution in the training targets.
    pub label_smoothing: f32,
    /// How weights start: a number a, uniform in (-a, a); a name; a table with `kind`.
    pub init: NumberOrKind<Init>,
    /// Added to the forget gates' bias at the start.
    pub forget_bias: f32,
    /// What the last layer's output goes through.
    pub softmax: KindOr<SoftmaxConfig>,
    /// A file to start from instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Weights>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            cell: "lstm".into(),
            layers: 1,
            embedding: 128,
            hidden: 256.into(),
            tied: false,
            dropout: 0.0,
            locked_dropout: false,
            dropout_input: None,
            dropout_hidden: None,
            dropout_output: None,
            dropout_embedding: 0.0,
            weight_drop: 0.0,
            activation_regularisation: 0.0,
            temporal_activation_regularisation: 0.0,
            label_smoothing: 0.0,
            init: NumberOrKind(Init::Uniform(Range { range: 0.08 })),
            forget_bias: 0.0,
            softmax: KindOr(SoftmaxConfig::Full),
            weights: None,
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
    /// Windows of random lengths about `window`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_window: Option<RandomWindow>,
    /// Windows whose gradients are added for one update.
    pub accumulate: u32,
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
    pub schedule: KindOr<Schedule>,
    /// Steps of a linear rise of the learning rate, before whatever schedule.
    pub warmup: u64,
    /// The gradient's global L2 norm is clipped to this; 0: never.
    pub clip_norm: f64,
    /// Elements of the gradient are clipped to this absolute value, after the clip by norm; 0: never.
    pub clip_value: f32,
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
            random_window: None,
            accumulate: 1,
            lanes: 4,
            epochs: None,
            steps: None,
            optimizer: KindOr(Optimizer::Adam(optimizer::Adam::default())),
            learning_rate: 0.002,
            schedule: KindOr(Schedule::Constant),
            warmup: 0,
            clip_norm: 1.0,
            clip_value: 0.0,
            evaluate_every: None,
            checkpoint_every: None,
            keep_checkpoints: 3,
        }
    }
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
    /// Where workers get their windows: `coordinator`, or a prepared folder that every worker can open.
    pub tokens: String,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            workers: 2,
            threads: 1,
            exchange: Exchange::Mesh,
            digest_every: 500,
            tokens: "coordinator".into(),
        }
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
