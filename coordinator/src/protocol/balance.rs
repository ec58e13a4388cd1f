//! Lanes by speed: who computes a lane in half the time gets twice the lanes. Pure: durations in, runs of lanes out. What is
//! decided here never reaches the weights.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ops::Range;
use std::time::Duration;

use carousel_proto::WorkerId;

/// Steps between two looks at the cut: each move of a lane sends its carries through the coordinator.
const LOOK_EVERY: u32 = 16;
/// A new cut must promise a step shorter by an eighth, or the lanes stay.
const GAIN: u32 = 8;

#[derive(Clone, Debug, Default)]
pub(super) struct Balance {
    /// Time of a lane, a moving average over about four steps.
    paces: BTreeMap<WorkerId, Duration>,
    /// Lanes of each worker, in order.
    counts: Vec<(WorkerId, u32)>,
    steps: u32,
}

impl Balance {
    /// Learns how long a worker computed for so many lanes.
    pub(super) fn learn(&mut self, worker: WorkerId, lanes: u32, took: Duration) {
        if lanes == 0 || took.is_zero() {
            return;
        }
        let pace = took / lanes;
        let before = self.paces.get(&worker).copied().unwrap_or(pace);
        self.paces.insert(worker, (before * 3 + pace) / 4);
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.paces.remove(&worker);
    }

    /// The lanes of each of these workers for the next step: as before, unless others are here now or a new cut pays.
    pub(super) fn cut(&mut self, lanes: u32, workers: &[WorkerId]) -> Vec<(WorkerId, Range<u32>)> {
        self.steps += 1;
        let same = self.counts.iter().map(|(worker, _)| worker).eq(workers);
        let total: u32 = self.counts.iter().map(|(_, count)| count).sum();
        if !same || total != lanes {
            self.counts = self.best(lanes, workers);
            self.steps = 0;
        } else if self.steps >= LOOK_EVERY {
            self.steps = 0;
            let best = self.best(lanes, workers);
            let (now, then) = (self.step_time(&self.counts), self.step_time(&best));
            if then + now / GAIN < now {
                self.counts = best;
            }
        }
        self.ranges()
    }

    fn ranges(&self) -> Vec<(WorkerId, Range<u32>)> {
        let mut first = 0;
        let range = |&(worker, count): &(WorkerId, u32)| {
            let range = first..first + count;
            first += count;
            (worker, range)
        };
        self.counts.iter().map(range).collect()
    }

    fn step_time(&self, counts: &[(WorkerId, u32)]) -> Duration {
        let usual = self.usual_pace();
        counts
            .iter()
            .map(|(w, count)| self.paces.get(w).copied().unwrap_or(usual) * *count)
            .max()
            .unwrap_or_default()
    }

    /// What is assumed of a worker that has not been measured yet.
    fn usual_pace(&self) -> Duration {
        let mut sorted: Vec<Duration> = self.paces.values().copied().collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(Duration::from_millis(1))
    }

    /// The shortest step: lane after lane to whoever would be done with it first. Everybody gets one lane while there are
    /// enough, so that everybody goes on being measured.
    fn best(&self, lanes: u32, workers: &[WorkerId]) -> Vec<(WorkerId, u32)> {
        let usual = self.usual_pace();
        let pace = |index: usize| self.paces.get(&workers[index]).copied().unwrap_or(usual);
        let mut counts: Vec<u32> = workers.iter().map(|_| 0).collect();
        let each = u32::from(lanes as usize >= workers.len());
        let mut next: BinaryHeap<Reverse<(Duration, usize)>> = BinaryHeap::new();
        for (index, count) in counts.iter_mut().enumerate() {
            *count = each;
            next.push(Reverse((pace(index) * (each + 1), index)));
        }
        for _ in 0..lanes - each * workers.len() as u32 {
            let Reverse((_, index)) = next.pop().expect("there is a worker");
            counts[index] += 1;
            next.push(Reverse((pace(index) * (counts[index] + 1), index)));
        }
        workers.iter().copied().zip(counts).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);
    const C: WorkerId = WorkerId(3);

    /// Steps in which each worker takes its pace (ms a lane) for each of its lanes; the cuts.
    fn run(balance: &mut Balance, lanes: u32, paces: &[(WorkerId, u64)], steps: u32) -> Vec<Vec<u32>> {
        let workers: Vec<WorkerId> = paces.iter().map(|(worker, _)| *worker).collect();
        let step = |_| {
            let cut = balance.cut(lanes, &workers);
            let counts: Vec<u32> = cut.iter().map(|(_, range)| range.len() as u32).collect();
            for ((worker, pace), &count) in paces.iter().zip(&counts) {
                balance.learn(*worker, count, Duration::from_millis(*pace) * count);
            }
            counts
        };
        (0..steps).map(step).collect()
    }

    #[test]
    fn lanes_are_cut_evenly_and_completely_at_first() {
        let mut balance = Balance::default();
        assert_eq!(balance.cut(7, &[A, B, C]), [(A, 0..3), (B, 3..5), (C, 5..7)]);
        assert_eq!(balance.cut(2, &[A, B, C]), [(A, 0..1), (B, 1..2), (C, 2..2)], "more workers than lanes");
    }

    #[test]
    fn a_worker_twice_as_fast_gets_twice_the_lanes() {
        let mut balance = Balance::default();
        let cuts = run(&mut balance, 12, &[(A, 10), (B, 20), (C, 20)], 40);
        assert_eq!((&cuts[0], cuts.last().unwrap()), (&vec![4, 4, 4], &vec![6, 3, 3]));
        let moves = cuts.windows(2).filter(|pair| pair[0] != pair[1]).count();
        assert_eq!(moves, 1, "and then keeps them");
    }

    #[test]
    fn noise_moves_nothing() {
        let mut balance = Balance::default();
        for round in 0..20 {
            let noise = [(A, 10 + round % 2), (B, 11 - round % 2)];
            let cuts = run(&mut balance, 16, &noise, 5);
            assert!(cuts.iter().all(|cut| *cut == [8, 8]), "{cuts:?}");
        }
    }

    #[test]
    fn who_was_slow_once_is_measured_again() {
        let mut balance = Balance::default();
        run(&mut balance, 4, &[(A, 10), (B, 1000)], 40);
        assert_eq!(run(&mut balance, 4, &[(A, 10), (B, 1000)], 1), [[3, 1]], "one lane is left to it");
        assert_eq!(run(&mut balance, 4, &[(A, 10), (B, 10)], 60).last().unwrap(), &[2, 2]);
    }

    #[test]
    fn others_get_a_new_cut_at_once() {
        let mut balance = Balance::default();
        run(&mut balance, 6, &[(A, 10), (B, 10)], 3);
        assert_eq!(balance.cut(6, &[A, B, C]), [(A, 0..2), (B, 2..4), (C, 4..6)]);
        balance.forget(B);
        assert_eq!(balance.cut(6, &[A, C]), [(A, 0..3), (C, 3..6)]);
    }
}
