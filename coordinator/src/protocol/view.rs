//! The protocol as it is shown to people: where it stands and who is here. Nothing in the protocol depends on it.

use carousel_proto::{Step, WorkerId};

use super::{Machine, Phase, Standing};

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Workers are awaited, so many.
    Waiting {
        /// Workers needed.
        needed: u32,
    },
    /// It goes back to its last checkpoint.
    RollingBack,
    /// Newcomers load the replica.
    Loading,
    /// Steps are made.
    Training,
    /// A text is evaluated.
    Evaluating,
    /// It waits for a checkpoint.
    Saving,
    /// It is over.
    Ended,
}

impl Stage {
    /// Every stage's name, as status and metrics have it.
    pub const NAMES: [&'static str; 7] =
        ["waiting", "rolling_back", "loading", "training", "evaluating", "saving", "ended"];

    /// One of [`Stage::NAMES`].
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[match self {
            Self::Waiting { .. } => 0,
            Self::RollingBack => 1,
            Self::Loading => 2,
            Self::Training => 3,
            Self::Evaluating => 4,
            Self::Saving => 5,
            Self::Ended => 6,
        }]
    }

    /// While waiting: how many workers must be there.
    #[must_use]
    pub fn workers_awaited(self) -> u32 {
        match self {
            Self::Waiting { needed } => needed,
            _ => 0,
        }
    }
}

/// How a worker takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is welcome, and has not been told yet where its replica comes from.
    Joined,
    /// It loads the replica.
    Loading,
    /// It holds the committed replica.
    Active,
    /// It goes at the next boundary.
    Leaving,
}

impl Presence {
    /// Every presence.
    pub const ALL: [Self; 4] = [Self::Joined, Self::Loading, Self::Active, Self::Leaving];

    /// As status and metrics have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Loading => "loading",
            Self::Active => "active",
            Self::Leaving => "leaving",
        }
    }
}

impl Machine {
    /// What the run is doing.
    #[must_use]
    pub fn stage(&self) -> Stage {
        match self.phase {
            Phase::Gathering => {
                Stage::Waiting { needed: u32::try_from(self.workers_to_start).unwrap_or(u32::MAX) }
            }
            Phase::RollingBack => Stage::RollingBack,
            Phase::Loading { .. } => Stage::Loading,
            Phase::Computing { .. }
            | Phase::Reducing
            | Phase::Acknowledging { .. }
            | Phase::Comparing { .. } => Stage::Training,
            Phase::Evaluating { .. } => Stage::Evaluating,
            Phase::FetchingReplica | Phase::Saving => Stage::Saving,
            Phase::Over => Stage::Ended,
        }
    }

    /// Everybody who is here, in the order of joining.
    pub fn present(&self) -> impl Iterator<Item = (WorkerId, Presence)> + '_ {
        self.members.iter().map(|(worker, member)| {
            let presence = match member.standing {
                _ if self.leaving.contains(worker) => Presence::Leaving,
                Standing::New => Presence::Joined,
                Standing::Loading => Presence::Loading,
                Standing::Active => Presence::Active,
            };
            (*worker, presence)
        })
    }

    /// The step of the last whole checkpoint, if the run has one.
    #[must_use]
    pub fn saved_step(&self) -> Option<Step> {
        self.saving.written()
    }
}
