//! When a worker tries to reach its coordinator again. Pure: the time in, a pause out.

use std::time::Duration;

use super::{Action, Fault};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// A coordinator that has lost every replica waits twice as long for one to come back.
const LONGEST_PAUSE: Duration = Duration::from_millis(700);
/// How long a coordinator may be out of reach before the worker gives up, unless it is told otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Debug)]
pub(super) struct Reconnect {
    /// How long a coordinator may be out of reach.
    patience: Duration,
    /// Sessions that were lost, or not begun, since the last one that led to work.
    failures: u32,
    /// Since when no coordinator has answered.
    silent_since: Option<Duration>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self::new(PATIENCE)
    }
}

impl Reconnect {
    pub(super) fn new(patience: Duration) -> Self {
        Self { patience, failures: 0, silent_since: None }
    }

    /// A coordinator has answered; it may yet send this worker away.
    pub(super) fn reached(&mut self) {
        self.silent_since = None;
    }

    /// Work was assigned.
    pub(super) fn is_wanted(&mut self) {
        self.failures = 0;
    }

    pub(super) fn lost(&mut self, now: Duration) -> Action {
        let since = *self.silent_since.get_or_insert(now);
        if now.saturating_sub(since) >= self.patience {
            return Action::GiveUp(Fault::Unreachable(self.patience));
        }
        let after = (FIRST_PAUSE * (1 << self.failures.min(8))).min(LONGEST_PAUSE);
        self.failures += 1;
        Action::Connect { after }
    }
}
