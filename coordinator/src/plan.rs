//! What is due when: pure arithmetic over steps, epochs and the configuration. It does not know who the workers are.

use std::sync::Arc;

/// How long a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many passes over the training text.
    Epochs(u64),
    /// So many updates.
    Steps(u64),
}

/// The updates of the epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Epochs {
    /// Every epoch has as many.
    Even {
        /// Updates of an epoch, at least 1.
        updates: u64,
    },
    /// They differ, as windows of random lengths do.
    Uneven {
        /// The last update of each epoch, ascending; as far as the run goes, and one epoch further.
        ends: Arc<[u64]>,
    },
}

impl Epochs {
    /// The epoch, counted from 1, of an update, and the updates before it.
    fn of(&self, step: u64) -> (u64, u64) {
        let before = step.max(1) - 1;
        match self {
            Self::Even { updates } => (before / updates + 1, before - before % updates),
            Self::Uneven { ends } => {
                let epoch = ends.partition_point(|end| *end <= before);
                (epoch as u64 + 1, epoch.checked_sub(1).map_or(0, |last| ends[last]))
            }
        }
    }

    /// Whether an epoch ends with this update.
    fn end_with(&self, step: u64) -> bool {
        match self {
            Self::Even { updates } => step.is_multiple_of(*updates),
            Self::Uneven { ends } => ends.binary_search(&step).is_ok(),
        }
    }

    /// The last update of an epoch, counted from 1.
    fn last_of(&self, epoch: u64) -> u64 {
        match self {
            Self::Even { updates } => epoch.saturating_mul(*updates),
            Self::Uneven { ends } => ends[epoch as usize - 1],
        }
    }
}

/// The calendar of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPlan {
    /// Lanes of a step.
    pub lanes: u32,
    /// The updates of the epochs.
    pub epochs: Epochs,
    /// When the run ends.
    pub length: Length,
    /// Steps between validations; `None`: at the end of each epoch.
    pub evaluate_every: Option<u64>,
    /// Steps between checkpoints; `None`: at the end of each epoch.
    pub checkpoint_every: Option<u64>,
    /// Steps between comparisons of the replicas' digests; `None`: never.
    pub digest_every: Option<u64>,
    /// Whether there is a validation text.
    pub has_valid: bool,
    /// Whether there is a test text.
    pub has_test: bool,
}

impl RunPlan {
    /// The step after which the run ends.
    #[must_use]
    pub fn last_step(&self) -> u64 {
        match self.length {
            Length::Epochs(epochs) => self.epochs.last_of(epochs),
            Length::Steps(steps) => steps,
        }
    }

    /// The epoch, counted from 1, that update `step` (counted from 1) belongs to.
    #[must_use]
    pub fn epoch_of(&self, step: u64) -> u64 {
        self.epochs.of(step).0
    }

    /// The place of update `step` (counted from 1) in its epoch, counted from 0. Where an update reads one window, that is the
    /// window's.
    #[must_use]
    pub fn place_of(&self, step: u64) -> u64 {
        step.max(1) - 1 - self.epochs.of(step).1
    }

    /// Whether something that is due every so many steps, or at the end of each epoch, is due after `step` commits.
    fn is_due(&self, step: u64, every: Option<u64>) -> bool {
        step > 0 && every.map_or_else(|| self.epochs.end_with(step), |every| step.is_multiple_of(every))
    }

    /// Whether the schedule of the run asks for a validation after `step` commits.
    #[must_use]
    pub fn validation_due(&self, step: u64) -> bool {
        self.has_valid && self.is_due(step, self.evaluate_every)
    }

    /// Whether replicas are compared after `step` commits.
    #[must_use]
    pub fn digest_due(&self, step: u64) -> bool {
        self.digest_every.is_some_and(|every| step > 0 && step.is_multiple_of(every))
    }

    /// Whether a checkpoint is due after `step` commits.
    #[must_use]
    pub fn checkpoint_due(&self, step: u64) -> bool {
        self.is_due(step, self.checkpoint_every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> RunPlan {
        RunPlan {
            lanes: 4,
            epochs: Epochs::Even { updates: 10 },
            length: Length::Epochs(3),
            evaluate_every: None,
            checkpoint_every: Some(4),
            digest_every: None,
            has_valid: true,
            has_test: false,
        }
    }

    #[test]
    fn steps_fall_into_epochs_and_windows() {
        let plan = plan();
        assert_eq!((plan.epoch_of(1), plan.place_of(1)), (1, 0));
        assert_eq!((plan.epoch_of(10), plan.place_of(10)), (1, 9));
        assert_eq!((plan.epoch_of(11), plan.place_of(11)), (2, 0));
        assert_eq!(plan.last_step(), 30);
    }

    #[test]
    fn what_is_due_follows_the_configuration() {
        let due = |f: &dyn Fn(u64) -> bool| (0..=20).filter(|&s| f(s)).collect::<Vec<_>>();
        assert_eq!(due(&|s| plan().validation_due(s)), [10, 20]);
        assert_eq!(due(&|s| plan().checkpoint_due(s)), [4, 8, 12, 16, 20]);
        let without = RunPlan { has_valid: false, ..plan() };
        assert!(due(&|s| without.validation_due(s)).is_empty());
    }

    #[test]
    fn uneven_epochs_are_counted_by_their_ends() {
        let plan = RunPlan { epochs: Epochs::Uneven { ends: [4, 9, 11, 16].into() }, ..plan() };
        let at: Vec<(u64, u64)> =
            [1, 4, 5, 9, 10, 11, 12, 16].map(|s| (plan.epoch_of(s), plan.place_of(s))).into();
        assert_eq!(at, [(1, 0), (1, 3), (2, 0), (2, 4), (3, 0), (3, 1), (4, 0), (4, 4)]);
        assert_eq!(plan.last_step(), 11);
        let due = |f: &dyn Fn(u64) -> bool| (0..=16).filter(|&s| f(s)).collect::<Vec<_>>();
        assert_eq!(due(&|s| plan.validation_due(s)), [4, 9, 11, 16]);
        assert_eq!(due(&|s| plan.checkpoint_due(s)), [4, 8, 12, 16], "every four steps");
    }
}
