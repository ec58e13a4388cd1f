//! What a step reads: one window of every stream, or several, whose gradients are added.

use std::ops::Range;
use std::time::{Duration, Instant};

use carousel_model::{FinishedPart, Gradients, LaneLoss, Partial};
use carousel_proto::v1::{Assign, WindowSpan};
use carousel_proto::{Node, Step, Term};

use super::{Trainer, TrainerError};
use crate::accumulation::Accumulation;
use crate::protocol::Fault;
use crate::replica::lanes_of;
use crate::settings::Settings;

/// The windows of a step, checked.
pub(super) struct Reading<'a> {
    /// At least one, in order.
    pub windows: &'a [WindowSpan],
    /// The next step's first, worth fetching ahead.
    pub next: Option<WindowSpan>,
    /// Whether gradients go to peers, and not to the coordinator.
    pub to_peers: bool,
    /// The number of the first window in the run, if every step read as many as a step may.
    first: u64,
    step_tokens: u64,
}

impl<'a> Reading<'a> {
    pub(super) fn of(assign: &'a Assign, settings: &Settings) -> Result<Self, TrainerError> {
        let windows = &assign.windows[..];
        let fits = |span: &WindowSpan| (1..=settings.longest_window).contains(&span.steps);
        let (found, most) = (windows.len(), settings.accumulate);
        if !(1..=most as usize).contains(&found) || !windows.iter().all(fits) {
            return Err(TrainerError::Windows { found, most, longest: settings.longest_window });
        }
        let first = assign.step.saturating_sub(1).saturating_mul(u64::from(most)) + 1;
        let (next, to_peers, step_tokens) = (assign.next, !assign.peers.is_empty(), assign.step_tokens);
        let next = next.filter(fits);
        Ok(Self { windows, next, to_peers, first, step_tokens })
    }

    /// The number by which a window's random masks are drawn, which no other window of the run has, and the targets of the step.
    /// With one window a step it is the step's.
    pub(super) fn numbers(&self, index: usize) -> (u64, u64) {
        (self.first + index as u64, self.step_tokens)
    }
}

impl Trainer {
    /// The gradient of a step that reads several windows: one accumulator a lane, folded to the worker's nodes at the end.
    pub(super) fn several_windows(
        &mut self,
        at: (Term, Step),
        reading: &Reading<'_>,
        lanes: &Range<u32>,
        (carries, nodes, ranges): (&mut [f32], &[Node], &[Range<usize>]),
    ) -> Result<(Gradients, Duration), TrainerError> {
        let streams = lanes_of(&self.settings, lanes.clone());
        let single: Vec<Range<usize>> = (0..lanes.len()).map(|lane| lane..lane + 1).collect();
        let mut sum = Accumulation::new(self.settings.gradient_layout());
        let mut losses = vec![LaneLoss { tokens: 0, sum: 0.0 }; lanes.len()];
        let mut took = Duration::ZERO;
        for index in 0..reading.windows.len() {
            let tokens = self.read(reading, index, lanes)?;
            let began = Instant::now();
            let steps = reading.windows[index].steps;
            let window = self.model_window((&tokens, steps), &streams, reading.numbers(index));
            let parameters = &self.replica.as_ref().ok_or(Fault::NoReplica)?.parameters;
            let gradients = self.model.gradients(parameters, &window, carries, &single)?;
            for (lane, further) in losses.iter_mut().zip(&gradients.losses) {
                lane.tokens += further.tokens;
                lane.sum += further.sum;
            }
            let partials = sum.add(gradients.partials);
            self.model.recycle(Gradients { losses: Vec::new(), partials });
            took += began.elapsed();
        }
        let mut partials = sum.fold(ranges);
        if reading.to_peers {
            self.give_whole(at, nodes, &mut partials);
        }
        Ok((Gradients { losses, partials }, took))
    }

    /// Gives the dense gradients to the exchange; the touched rows go out with what is left.
    fn give_whole(&mut self, at: (Term, Step), nodes: &[Node], partials: &mut [Partial]) {
        let groups = partials.iter_mut().map(|partial| std::mem::take(&mut partial.dense)).collect();
        let Self { model, exchange, link, contribution, .. } = self;
        contribution.take_back(model);
        contribution.give(at, nodes, (exchange, &mut link.peers), FinishedPart { start: 0, groups });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        use carousel_proto::v1;
        let sgd = v1::optimizer_settings::Kind::Sgd(v1::Sgd::default());
        let model = v1::ModelSettings {
            cell: "lstm".into(),
            vocabulary: 5,
            embedding: 2,
            hidden: 2,
            layers: 1,
            initialisation: "uniform".into(),
            ..Default::default()
        };
        let settings = v1::RunSettings {
            model: Some(model),
            optimizer: Some(v1::OptimizerSettings { kind: Some(sgd) }),
            streams: 2,
            window: 4,
            lanes: 1,
            longest_window: 6,
            accumulate: 3,
            ..Default::default()
        };
        Settings::try_from(settings).unwrap()
    }

    fn assign(step: u64, steps: &[u32]) -> Assign {
        let windows = steps.iter().map(|&steps| WindowSpan { start: 0, steps }).collect();
        Assign { step, windows, ..Assign::default() }
    }

    #[test]
    fn every_window_of_the_run_has_a_number_of_its_own() {
        let numbers =
            |step, index| Reading::of(&assign(step, &[6, 1, 4]), &settings()).unwrap().numbers(index).0;
        let all: Vec<u64> = (1..=3).flat_map(|step| (0..3).map(move |index| numbers(step, index))).collect();
        assert_eq!(all, (1..=9).collect::<Vec<_>>());
    }

    #[test]
    fn windows_that_do_not_fit_the_settings_are_refused() {
        for steps in [&[][..], &[0], &[7], &[1, 1, 1, 1], &[1, u32::MAX]] {
            let refused = Reading::of(&assign(1, steps), &settings()).err();
            assert!(matches!(refused, Some(TrainerError::Windows { most: 3, longest: 6, .. })), "{steps:?}");
        }
    }
}
