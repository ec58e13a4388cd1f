//! Which windows each update reads: the cut of its epoch, `accumulate` windows at a time. The cut of the epoch under way is
//! kept, so that random lengths are drawn once.

use carousel_corpus::{Span, StreamPlan, WindowLengths};

use crate::plan::RunPlan;

#[derive(Debug)]
pub(super) struct Windows {
    lengths: WindowLengths,
    accumulate: usize,
    epoch: u64,
    spans: Vec<Span>,
}

/// What an update reads.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    /// In order; at least one.
    pub spans: Vec<Span>,
    /// Targets, over all streams.
    pub tokens: u64,
    /// The windows' length against the configured one: what a random window's learning rate is scaled by.
    pub stretch: f64,
}

impl Windows {
    pub(super) fn new(lengths: WindowLengths, accumulate: u32) -> Self {
        Self { lengths, accumulate: accumulate as usize, epoch: 0, spans: Vec::new() }
    }

    /// What update `step` (counted from 1) reads.
    pub(super) fn of(&mut self, step: u64, plan: &RunPlan, train: &StreamPlan) -> Reading {
        let spans = self.spans(step, plan, train).to_vec();
        let steps: u64 = spans.iter().map(|span| u64::from(span.steps)).sum();
        let configured = spans.len() as f64 * f64::from(self.lengths.window);
        let tokens = spans.iter().map(|span| train.tokens_in(*span)).sum();
        Reading { spans, tokens, stretch: steps as f64 / configured }
    }

    /// The first window that update `step` reads.
    pub(super) fn first(&mut self, step: u64, plan: &RunPlan, train: &StreamPlan) -> Span {
        let (epoch, place) = (plan.epoch_of(step), plan.place_of(step) as usize * self.accumulate);
        if epoch == self.epoch || self.lengths.random.is_none() {
            return self.spans(step, plan, train)[0];
        }
        // The first of another epoch: the cut of the one under way is still wanted.
        let mut spans = self.lengths.of_epoch(epoch, train.time_steps());
        spans.nth(place).expect("a step of an epoch reads a window of it")
    }

    fn spans(&mut self, step: u64, plan: &RunPlan, train: &StreamPlan) -> &[Span] {
        let (epoch, first) = (plan.epoch_of(step), plan.place_of(step) as usize * self.accumulate);
        let Some(_) = self.lengths.random else {
            let windows = first as u64..train.windows().min((first + self.accumulate) as u64);
            (self.epoch, self.spans) = (epoch, windows.map(|window| train.span(window)).collect());
            return &self.spans;
        };
        if self.epoch != epoch {
            (self.epoch, self.spans) = (epoch, self.lengths.of_epoch(epoch, train.time_steps()).collect());
        }
        let end = self.spans.len().min(first + self.accumulate);
        &self.spans[first..end]
    }
}

/// How many updates the epochs have, as far as `enough` wants to know them.
pub(crate) fn ends_of_epochs(
    lengths: &WindowLengths,
    accumulate: u32,
    time_steps: u64,
    enough: impl Fn(&[u64]) -> bool,
) -> Vec<u64> {
    let mut ends = Vec::new();
    while !enough(&ends) {
        let windows = lengths.of_epoch(ends.len() as u64 + 1, time_steps).count() as u64;
        let before = ends.last().copied().unwrap_or(0);
        ends.push(before + windows.div_ceil(u64::from(accumulate)));
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Epochs, Length};
    use carousel_corpus::RandomWindow;

    fn plan(epochs: Epochs) -> RunPlan {
        RunPlan {
            lanes: 1,
            epochs,
            length: Length::Epochs(2),
            evaluate_every: None,
            checkpoint_every: None,
            digest_every: None,
            has_valid: false,
            has_test: false,
        }
    }

    /// 3 streams of 7 windows of 4 time steps.
    fn train() -> StreamPlan {
        StreamPlan::training(3 * 7 * 4 + 1, 3, 4, 1).unwrap()
    }

    #[test]
    fn updates_read_the_windows_in_turn_and_an_epoch_s_last_one_what_is_left() {
        let lengths = WindowLengths { window: 4, random: None };
        let ends = ends_of_epochs(&lengths, 3, train().time_steps(), |ends| ends.len() == 2);
        assert_eq!(ends, [3, 6]);
        let plan = plan(Epochs::Even { updates: 3 });
        let mut windows = Windows::new(lengths, 3);
        let starts: Vec<Vec<u64>> = (1..=4)
            .map(|step| windows.of(step, &plan, &train()).spans.iter().map(|span| span.start).collect())
            .collect();
        assert_eq!(starts, [vec![0, 4, 8], vec![12, 16, 20], vec![24], vec![0, 4, 8]]);
        let reading = windows.of(3, &plan, &train());
        assert_eq!((reading.tokens, reading.stretch), (12, 1.0));
        assert_eq!(windows.first(2, &plan, &train()).start, 12);
    }

    #[test]
    fn random_windows_are_each_read_once_whatever_step_is_asked_for_first() {
        let random = RandomWindow { probability: 0.9, deviation: 1.0, minimum: 2, seed: 5 };
        let lengths = WindowLengths { window: 4, random: Some(random) };
        let ends = ends_of_epochs(&lengths, 2, 28, |ends| ends.len() == 3);
        let plan = plan(Epochs::Uneven { ends: ends.clone().into() });
        let of = |step: u64| Windows::new(lengths, 2).of(step, &plan, &train());
        let (mut windows, mut next) = (Windows::new(lengths, 2), 0);
        for step in 1..=ends[2] {
            let reading = windows.of(step, &plan, &train());
            if step < ends[2] {
                assert_eq!(windows.first(step + 1, &plan, &train()), of(step + 1).spans[0]);
            }
            assert_eq!(reading, of(step), "step {step} does not depend on the steps before");
            next = if plan.place_of(step) == 0 { 0 } else { next };
            for span in &reading.spans {
                assert_eq!(span.start, next, "step {step}");
                next += u64::from(span.steps);
            }
            let steps: u32 = reading.spans.iter().map(|span| span.steps).sum();
            assert_eq!(reading.tokens, 3 * u64::from(steps));
            assert_eq!(reading.stretch, f64::from(steps) / (4 * reading.spans.len()) as f64);
            assert_eq!(ends.contains(&step), next == 28, "an epoch ends with the text");
        }
    }
}
