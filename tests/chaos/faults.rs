//! Which faults there are, and the order in which a seed deals them: a pure function of the seed, with no process in it.

use std::fmt;
use std::time::Duration;

/// A fault: what is done to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// SIGKILL to a worker, which is started again.
    WorkerKilled,
    /// SIGSTOP to a worker, and SIGCONT.
    WorkerStopped,
    /// SIGTERM to a worker, which is started again.
    WorkerLeft,
    /// A worker's cable is pulled and put in again.
    WorkerCut,
    /// SIGKILL to the coordinator, which is started again.
    CoordinatorKilled,
    /// The coordinator's cable is pulled and put in again.
    CoordinatorCut,
    /// SIGKILL to everybody; all are started again.
    AllKilled,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::WorkerKilled,
        Self::WorkerStopped,
        Self::WorkerLeft,
        Self::WorkerCut,
        Self::CoordinatorKilled,
        Self::CoordinatorCut,
        Self::AllKilled,
    ];

    pub(crate) fn needs_network(self) -> bool {
        matches!(self, Self::WorkerCut | Self::CoordinatorCut)
    }

    /// Whether nobody can go on before the fault is over, so that recovery is counted from there.
    pub(crate) fn halts_everybody(self) -> bool {
        self == Self::CoordinatorCut
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::WorkerKilled => "worker killed",
            Self::WorkerStopped => "worker stopped",
            Self::WorkerLeft => "worker left",
            Self::WorkerCut => "worker cut off",
            Self::CoordinatorKilled => "coordinator killed",
            Self::CoordinatorCut => "coordinator cut off",
            Self::AllKilled => "all killed",
        })
    }
}

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub kind: Kind,
    /// The place of the worker it hits, where it hits one.
    pub place: usize,
    /// From the fault before, or from the start.
    pub after: Duration,
    /// Until what was stopped or cut goes on, or what was killed is started again.
    pub outage: Duration,
}

/// Deals faults: every kind once, in an order of the seed's, then all of them again in another.
pub(crate) struct Dealer {
    random: Random,
    kinds: Vec<Kind>,
    deck: Vec<Kind>,
    workers: usize,
    every: Duration,
}

impl Dealer {
    pub(crate) fn new(seed: u64, (workers, every): (usize, Duration), only: impl Fn(Kind) -> bool) -> Self {
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| only(*kind)).collect();
        assert!(!kinds.is_empty(), "no fault is left to be dealt");
        Self { random: Random(seed), kinds, deck: Vec::new(), workers, every }
    }

    pub(crate) fn next(&mut self) -> Fault {
        if self.deck.is_empty() {
            self.deck = self.kinds.clone();
        }
        let kind = self.deck.swap_remove(self.random.below(self.deck.len()));
        let place = self.random.below(self.workers);
        let after = self.every.mul_f64(0.5 + self.random.fraction());
        let outage = match kind {
            Kind::WorkerStopped | Kind::WorkerCut => {
                Duration::from_secs_f64(0.5 + 2.0 * self.random.fraction())
            }
            Kind::CoordinatorCut => Duration::from_secs_f64(0.2 + self.random.fraction()),
            // What a supervisor needs to start a process again.
            _ => Duration::from_millis(100),
        };
        Fault { kind, place, after, outage }
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// In [0, 1).
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}
