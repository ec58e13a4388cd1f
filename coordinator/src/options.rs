//! What a run is made of, as handed over by whoever starts it: everything is already read, resolved and checked.

use std::path::PathBuf;

use carousel_proto::v1::RunSettings;

use crate::checkpoint::Checkpoint;
use crate::plan::Length;
use crate::protocol::Exchange;
use crate::replica::{ReplicaLayout, Sections};
use crate::schedule::Schedule;
use crate::tokens::TokenSource;

/// A run to be made or gone on with.
#[derive(Debug)]
pub struct Run {
    /// Its folder.
    pub folder: PathBuf,
    /// New, or from a checkpoint.
    pub start: Start,
    /// What workers are told.
    pub settings: RunSettings,
    /// The names and shapes of what workers hold.
    pub layout: ReplicaLayout,
    /// The tokens of all splits.
    pub tokens: TokenSource,
    /// How it trains.
    pub training: Training,
    /// How gradients are exchanged.
    pub exchange: Exchange,
    /// How many workers must be there before it starts.
    pub workers: usize,
    /// Whether workers may still be there that served the coordinator before this one, with their replicas.
    pub workers_outlive: bool,
}

/// Where a run starts from.
#[derive(Debug)]
pub enum Start {
    /// A new folder, with these files in it.
    New {
        /// The resolved configuration.
        config_toml: String,
        /// The tokenizer.
        tokenizer_json: String,
        /// The replica to start from; `None`: the one of the seed.
        replica: Option<Sections>,
    },
    /// A folder that exists.
    Resume {
        /// Its latest whole checkpoint, if there is one yet.
        checkpoint: Option<Box<Checkpoint>>,
        /// The resolved configuration, whose length may have been raised.
        config_toml: String,
    },
}

/// How a run trains: what the coordinator decides by.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// Epochs or steps.
    pub length: Length,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Its course.
    pub schedule: Schedule,
    /// The norm to which a gradient is clipped; `None`: never.
    pub clip_norm: Option<f64>,
    /// Steps between validations; `None`: each epoch.
    pub evaluate_every: Option<u64>,
    /// Steps between checkpoints; `None`: each epoch.
    pub checkpoint_every: Option<u64>,
    /// How many of the newest whole checkpoints stay, beside the best; 0: all. Not 1: when the newest is damaged, the one
    /// before it is what is left.
    pub keep_checkpoints: u64,
    /// Steps between comparisons of the replicas' digests; `None`: never.
    pub digest_every: Option<u64>,
}
