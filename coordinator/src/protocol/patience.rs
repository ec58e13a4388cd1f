//! How long a worker may keep the others waiting: learnt from the run's own steps, so that nobody has to set it. Pure:
//! durations in, a duration out.

use std::collections::VecDeque;
use std::time::Duration;

/// Steps that are remembered.
const REMEMBERED: usize = 16;
/// Before any step is known: a first step may have to fault a large model in.
const UNKNOWN: Duration = Duration::from_secs(120);
/// A stall of the machine's own, however short the steps.
const FLOOR: Duration = Duration::from_millis(700);
/// Median steps on top of the floor: 1.5 s for steps of 100 ms.
const STEPS: u32 = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct Patience {
    recent: VecDeque<Duration>,
}

impl Patience {
    /// Learns how long a step took, from its assignment to its commit.
    pub(super) fn learn(&mut self, step: Duration) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(step);
    }

    /// What was learnt last, oldest first.
    pub(super) fn recent(&self) -> impl Iterator<Item = Duration> + '_ {
        self.recent.iter().copied()
    }

    /// How long to wait for a part of a step.
    pub(super) fn deadline(&self) -> Duration {
        let mut sorted: Vec<Duration> = self.recent.iter().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).map_or(UNKNOWN, |median| FLOOR + *median * STEPS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_follows_the_median_step() {
        let mut patience = Patience::default();
        assert_eq!(patience.deadline(), UNKNOWN);
        (0..20).for_each(|_| patience.learn(Duration::from_millis(100)));
        assert!(patience.deadline() < Duration::from_secs(2));
        patience.learn(Duration::from_secs(50));
        assert!(patience.deadline() < Duration::from_secs(2), "one slow step does not count");
        (0..16).for_each(|_| patience.learn(Duration::from_secs(3)));
        assert_eq!(patience.deadline(), Duration::from_millis(24_700));
    }
}
