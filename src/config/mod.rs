//! The configuration of a run: one struct, as TOML; every key can be set on the command line. It knows files only as
//! paths; `launch` turns it into a run.

mod advice;
mod choice;
mod initialisation;
mod load;
pub(crate) mod optimizer;
mod output;
#[cfg(test)]
mod reference;
mod regularisation;
mod sample;
mod schedule;
#[cfg(test)]
mod schema;
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
    #[error("{}: {source}; expected a configuration, a TOML file", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{}: {}", path.display(), advice::of_file(source))]
    Toml { path: PathBuf, source: Box<toml::de::Error> },
    #[error("--set {given}: expected section.key=value, as train.epochs=3")]
    SetSyntax { given: String },
    #[error("--set {given}: {problem}")]
    Set { given: String, problem: String },
    #[error("{key}: found {found}, expected {expected}")]
    Value { key: &'static str, found: String, expected: String },
    #[error(transparent)]
    Path(#[from] carousel_corpus::CorpusError),
}

/// The whole configuration. Each key has its meaning here, and a number its unit: docs/configuration.md is made from them
/// (`reference`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Every random number of the run is a function of it. Unit: none.
    pub seed: u64,
    /// Which text, and into which tokens.
    pub data: Data,
    /// The network.
    pub model: Model,
    /// How it is trained.
    pub train: Train,
    /// Who computes, never what: nothing of it reaches the weights.
    pub cluster: Cluster,
    /// Where the run is kept; it does not reach the weights.
    #[serde(skip_serializing_if = "Output::is_default")]
    pub output: Output,
    /// The text that `train` prints at its end; without the table, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample: Option<Sample>,
}

/// `[data]`: which text, and into which tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Data {
    /// The training text: a file, a list, or a folder; `~/`, `${VAR}` and `${VAR:-default}` are expanded. It must be given.
    pub train: OneOrMany,
    /// The text that validates, in place of the end of the training text.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub valid: OneOrMany,
    /// The text that is measured once, at the end of the run.
    #[serde(skip_serializing_if = "OneOrMany::is_empty")]
    pub test: OneOrMany,
    /// Globs for files in a folder, relative to it; none: every file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// At most so much of the training text is read; none: all of it. Unit: bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// The last part of the training text, which validates where `data.valid` is not given; 0: none. Unit: share.
    pub valid_fraction: f64,
    /// What a file holds; `auto`: by its name.
    #[cfg_attr(test, schemars(with = "schema::Formats"))]
    pub format: String,
    /// The field of a JSON line, or the column of a Parquet file, that is the text.
    pub field: String,
    /// How text becomes tokens; a path is that of a Hugging Face tokenizer.json.
    pub tokenizer: TokenizerChoice,
    /// Whether the text is one, or each file, JSON line or row is a document by itself.
    #[serde(skip_serializing_if = "is_default")]
    #[cfg_attr(test, schemars(!skip_serializing_if))]
    pub documents: Documents,
    /// With documents apart, the token that ends one; none: `<eos>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eos: Option<String>,
    /// The folder that `carousel prepare` makes, or its address in a bucket; none: prepared/ and the configuration's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepared: Option<String>,
    /// A training text that is larger, as it is stored, is prepared before a run of it begins. Unit: bytes.
    #[serde(skip_serializing_if = "is_usual_in_memory")]
    #[cfg_attr(test, schemars(!skip_serializing_if))]
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Model {
    /// The kind of the recurrent layers.
    #[cfg_attr(test, schemars(with = "schema::Cells"))]
    pub cell: String,
    /// How many recurrent layers. Unit: layers.
    pub layers: u32,
    /// The width of a token's embedding. Unit: numbers a token.
    pub embedding: u32,
    /// The width of every recurrent layer; a list: of each, from the bottom. Unit: hidden units.
    pub hidden: Widths,
    /// Whether the decoder uses the embedding's matrix; needs embedding = hidden (of the last layer).
    pub tied: bool,
    /// Of dropping a unit of a non-recurrent connection, wherever it has no key of its own. Unit: probability.
    pub dropout: f32,
    /// Whether the masks of these are the same for all time steps of a window, in place of one for each.
    pub locked_dropout: bool,
    /// Of dropping a unit of the embedding's output; none: `model.dropout`. Unit: probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout_input: Option<f32>,
    /// Of dropping a unit between layers; none: `model.dropout`. Unit: probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout_hidden: Option<f32>,
    /// Of dropping a unit of the last layer's output; none: `model.dropout`. Unit: probability.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropout_output: Option<f32>,
    /// Of dropping a token's whole embedding, for a window. Unit: probability.
    pub dropout_embedding: f32,
    /// Of dropping a recurrent weight, for a window. Unit: probability.
    pub weight_drop: f32,
    /// Alpha: it times the mean square of the last layer's output is added to the loss. Unit: none.
    pub activation_regularisation: f32,
    /// Beta: it times the mean square of that output's change from time step to time step is added. Unit: none.
    pub temporal_activation_regularisation: f32,
    /// Of the uniform distribution in the training targets. Unit: share.
    pub label_smoothing: f32,
    /// How weights start; a number a: every tensor uniform in (-a, a).
    pub init: NumberOrKind<Init>,
    /// Added to the forget gates' bias at the start; for `lstm` and `lstm_peephole`. Unit: none.
    pub forget_bias: f32,
    /// How the last layer's output becomes a distribution over the tokens.
    pub softmax: KindOr<SoftmaxConfig>,
    /// A file of weights to start from, in place of the seed's.
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Train {
    /// Rows of the batch: contiguous runs of the training text, each with a state of its own. Unit: streams.
    pub streams: u32,
    /// What every stream advances in one window; gradients do not go beyond it. Unit: time steps.
    pub window: u32,
    /// Windows of random lengths about `train.window`; without the table, all have that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_window: Option<RandomWindow>,
    /// How many windows' gradients are added for one step. Unit: windows.
    pub accumulate: u32,
    /// Fixed groups of streams: the most workers that can share a step. They are part of what is computed. Unit: lanes.
    pub lanes: u32,
    /// Passes over the training text; this or `train.steps` must be given. Unit: epochs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    /// Updates of the weights; this or `train.epochs` must be given. Unit: steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// How a gradient moves the weights.
    pub optimizer: KindOr<Optimizer>,
    /// The learning rate before whatever the schedule makes of it. Unit: none.
    pub learning_rate: f64,
    /// How the learning rate changes over the run.
    pub schedule: KindOr<Schedule>,
    /// A linear rise of the learning rate, before whatever schedule. Unit: steps.
    pub warmup: u64,
    /// The gradient's global L2 norm is clipped to this; 0: never. Unit: L2 norm.
    pub clip_norm: f64,
    /// Elements of the gradient are clipped to this absolute value, after the clip by norm; 0: never. Unit: none.
    pub clip_value: f32,
    /// From validation to validation; none: at the end of each epoch. Unit: steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluate_every: Option<u64>,
    /// From checkpoint to checkpoint; none: at the end of each epoch. Unit: steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint_every: Option<u64>,
    /// The newest so many stay, beside the best; 0: all. Unit: checkpoints.
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cluster {
    /// How many must be there before the run starts; `carousel train` starts so many. Unit: workers.
    pub workers: u32,
    /// Of each worker that `carousel train` starts. Unit: threads.
    pub threads: u32,
    /// The way that gradients take. The same bits either way.
    pub exchange: Exchange,
    /// From one comparison of the replicas' digests to the next; 0: never. Unit: steps.
    pub digest_every: u64,
    /// Where workers get their windows: `coordinator`, or a prepared folder, or its address, that every worker can open.
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
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exchange {
    /// among the workers: each reduces a slice
    Mesh,
    /// through the coordinator
    Star,
}
