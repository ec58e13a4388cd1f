//! What a run is made of, as handed over by whoever starts it: everything is already read, resolved and checked.

use std::path::PathBuf;

use carousel_corpus::WindowLengths;
use carousel_proto::v1::RunSettings;

use crate::checkpoint::Checkpoint;
use crate::mirror::Mirror;
use crate::open::plan_of;
use crate::plan::{Epochs, Length};
use crate::protocol::Exchange;
use crate::replica::{ReplicaLayout, Sections};
use crate::schedule::{Position, Rules, Schedule, ScheduleState, warmup_share};
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
    /// The bucket that the run is kept in, if it is.
    pub mirror: Option<Mirror>,
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
    /// A new folder, of a run that stands where a checkpoint of another one does.
    Copy {
        /// The checkpoint.
        checkpoint: Box<Checkpoint>,
        /// The resolved configuration.
        config_toml: String,
        /// The tokenizer.
        tokenizer_json: String,
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
    /// Steps of a linear rise before it, whatever the schedule.
    pub warmup: u64,
    /// NT-ASGD's n: the average begins when a validation is worse than the best more than n back. `None`: another optimizer.
    pub nonmonotone: Option<u32>,
    /// The lengths of its windows.
    pub windows: WindowLengths,
    /// Windows of an update, at least 1; an epoch's last update may have fewer.
    pub accumulate: u32,
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

impl Run {
    /// Updates of the first epoch, whether every epoch has as many, and the run's last step.
    #[must_use]
    pub fn calendar(&self) -> (u64, bool, u64) {
        let plan = plan_of(self);
        let (first, even) = match &plan.epochs {
            Epochs::Even { updates } => (*updates, true),
            Epochs::Uneven { ends } => (ends[0], false),
        };
        (first, even, plan.last_step())
    }
}

impl Training {
    /// The learning rate of the update at `position`; `stretch` is its windows' length against the configured one.
    #[must_use]
    pub(crate) fn rate(&self, position: Position, stretch: f64, state: &ScheduleState) -> f32 {
        let share = stretch * warmup_share(position.step, self.warmup);
        self.schedule.learning_rate(self.learning_rate, share, position, state)
    }

    /// What validations decide by.
    #[must_use]
    pub(crate) fn rules(&self) -> Rules {
        let patience = match self.schedule {
            Schedule::Plateau { patience, .. } => patience,
            _ => 0,
        };
        Rules { patience, nonmonotone: self.nonmonotone }
    }
}
