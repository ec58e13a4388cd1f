//! What is due when: pure arithmetic over steps, epochs and the configuration. It does not know who the workers are.

/// How long a run goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many passes over the training text.
    Epochs(u64),
    /// So many updates.
    Steps(u64),
}

/// The calendar of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPlan {
    /// Lanes of a step.
    pub lanes: u32,
    /// Windows (steps) of one epoch.
    pub windows_per_epoch: u64,
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
            Length::Epochs(epochs) => epochs.saturating_mul(self.windows_per_epoch),
            Length::Steps(steps) => steps,
        }
    }

    /// The epoch, counted from 1, that update `step` (counted from 1) belongs to.
    #[must_use]
    pub fn epoch_of(&self, step: u64) -> u64 {
        (step.max(1) - 1) / self.windows_per_epoch + 1
    }

    /// The window, counted from 0 within its epoch, that update `step` (counted from 1) reads.
    #[must_use]
    pub fn window_of(&self, step: u64) -> u64 {
        (step.max(1) - 1) % self.windows_per_epoch
    }

    /// Whether the schedule of the run asks for a validation after `step` commits.
    #[must_use]
    pub fn validation_due(&self, step: u64) -> bool {
        self.has_valid
            && step > 0
            && step.is_multiple_of(self.evaluate_every.unwrap_or(self.windows_per_epoch))
    }

    /// Whether replicas are compared after `step` commits.
    #[must_use]
    pub fn digest_due(&self, step: u64) -> bool {
        self.digest_every.is_some_and(|every| step > 0 && step.is_multiple_of(every))
    }

    /// Whether a checkpoint is due after `step` commits.
    #[must_use]
    pub fn checkpoint_due(&self, step: u64) -> bool {
        step > 0 && step.is_multiple_of(self.checkpoint_every.unwrap_or(self.windows_per_epoch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> RunPlan {
        RunPlan {
            lanes: 4,
            windows_per_epoch: 10,
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
        assert_eq!((plan.epoch_of(1), plan.window_of(1)), (1, 0));
        assert_eq!((plan.epoch_of(10), plan.window_of(10)), (1, 9));
        assert_eq!((plan.epoch_of(11), plan.window_of(11)), (2, 0));
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
}
