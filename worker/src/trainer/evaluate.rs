//! Losses of a whole split, forward only: no gradient, and the training's carries stay as they are. What becomes of the
//! figure is the coordinator's matter.

use carousel_proto::v1::{EvaluationReport, Progress, WindowSpan, from_worker::Message};

use super::step::lane_losses;
use super::{Trainer, TrainerError};
use crate::failpoint::{FailPoint, reach};
use crate::protocol::Fault;
use crate::replica::lanes_of;

impl Trainer {
    /// Every window of a split, from carries of zero, with the average of the weights where the optimizer keeps one; losses are
    /// added window after window. After each the coordinator is given a sign of life.
    pub(super) fn evaluate(&mut self) -> Result<(), TrainerError> {
        let evaluate = self.inbox.evaluate;
        let lanes = evaluate.first_lane..evaluate.first_lane + evaluate.lanes;
        let streams = lanes_of(&self.settings, lanes.clone());
        let width: usize = streams.iter().map(|lane| lane.streams).sum();
        let mut carries = vec![0.0; width * self.settings.model.carry_len()];
        let mut sums = vec![carousel_model::LaneLoss { tokens: 0, sum: 0.0 }; lanes.len()];
        let replica = self.replica.as_ref().ok_or(Fault::NoReplica)?;
        let averaged = replica.averaged(&self.settings)?;
        for index in 0..evaluate.windows {
            let steps = self.settings.window;
            let span = |index: u64| WindowSpan { start: index * u64::from(steps), steps };
            let tokens = self.window(evaluate.split(), span(index), &lanes)?;
            if index + 1 < evaluate.windows {
                self.link.tokens.fetch_ahead(evaluate.split(), span(index + 1), &lanes);
            }
            let window = self.model_window((&tokens, steps), &streams, (0, 1));
            let replica = self.replica.as_ref().ok_or(Fault::NoReplica)?;
            let parameters = averaged.as_ref().unwrap_or(&replica.parameters);
            let losses = self.model.evaluate(parameters, &window, &mut carries)?;
            for (sum, loss) in sums.iter_mut().zip(losses) {
                sum.tokens += loss.tokens;
                sum.sum += loss.sum;
            }
            self.link.outbox.send(Message::Progress(Progress {}))?;
            reach(FailPoint::EVALUATING, replica.step);
        }
        let losses = lane_losses(&lanes, &sums);
        let report = EvaluationReport { term: evaluate.term, split: evaluate.split, losses };
        Ok(self.link.outbox.send(Message::EvaluationReport(report))?)
    }
}
