//! Where the time of a step goes on this worker, told at debug level (`CAROUSEL_LOG=carousel_worker::trainer=debug`), one line
//! a commit. It decides nothing.

use std::time::{Duration, Instant};

use carousel_proto::Step;

/// When the parts of the step under way ended.
pub(super) struct Laps {
    /// The update before.
    applied: Instant,
    began: Instant,
    computed: Instant,
    /// The whole reduced gradient was here.
    whole: Instant,
    committed: Instant,
    /// Taking in what peers sent, since the step began.
    reducing: Duration,
}

impl Laps {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let reducing = Duration::ZERO;
        Self { applied: now, began: now, computed: now, whole: now, committed: now, reducing }
    }

    pub(super) fn begin(&mut self) {
        (self.began, self.reducing) = (Instant::now(), Duration::ZERO);
    }

    pub(super) fn computed(&mut self) {
        self.computed = Instant::now();
    }

    pub(super) fn received(&mut self, took: Duration) {
        self.reducing += took;
    }

    pub(super) fn whole(&mut self) {
        self.whole = Instant::now();
    }

    pub(super) fn committed(&mut self) {
        self.committed = Instant::now();
    }

    /// The step is over. `assign` is the time between two steps, `exchange` that from the computation's end to the whole gradient.
    pub(super) fn applied(&mut self, step: Step) {
        let now = Instant::now();
        let us = |from: Instant, to: Instant| to.saturating_duration_since(from).as_micros() as u64;
        tracing::debug!(
            step = step.0,
            assign_us = us(self.applied, self.began),
            compute_us = us(self.began, self.computed),
            exchange_us = us(self.computed, self.whole),
            reduce_us = self.reducing.as_micros() as u64,
            commit_us = us(self.whole, self.committed),
            apply_us = us(self.committed, now),
            "step"
        );
        self.applied = now;
    }
}
