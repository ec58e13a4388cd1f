//! The plain evaluation: every stream's state is carried from window to window. The losses are added exactly as workers and
//! coordinator do it in a run, so the figure is a run's own to the last bit.

use carousel_model::{LaneLoss, LaneStreams, Window};
use carousel_proto::lane_streams;

use super::figures::Sum;
use super::subject::Subject;
use super::windows::Windows;
use crate::checkpoint_model::CheckpointModel;
use crate::failure::Failure;

/// Lanes of an evaluation over so many streams: the run's, where there are streams enough. They decide the order in which
/// losses are added.
pub(super) fn lanes(of_the_run: u32, streams: usize) -> usize {
    streams.min(of_the_run as usize)
}

pub(super) fn evaluate(
    model: &mut CheckpointModel,
    subject: &Subject,
    (streams, steps): (usize, usize),
) -> Result<Sum, Failure> {
    let lanes = lanes(model.config.train.lanes, streams);
    let lane_of = |lane: usize| {
        let range = lane_streams(streams as u32, lanes as u32, lane as u32);
        LaneStreams { lane, first_stream: range.start as usize, streams: range.len() }
    };
    let all: Vec<LaneStreams> = (0..lanes).map(lane_of).collect();
    let mut windows = Windows::evaluation(&subject.tokens, streams, steps)?;
    let mut carries = vec![0.0; streams * model.carry_floats];
    let mut sums = vec![LaneLoss { tokens: 0, sum: 0.0 }; lanes];
    for index in 0..windows.count() {
        let tokens = windows.get(index);
        let (inputs, targets) = (tokens.inputs, tokens.targets);
        let window = Window { seed: 0, step: 0, steps, lanes: &all, inputs, targets, step_tokens: 1 };
        let losses = model.model.evaluate(&model.parameters, &window, &mut carries)?;
        for (sum, loss) in sums.iter_mut().zip(losses) {
            sum.tokens += loss.tokens;
            sum.sum += loss.sum;
        }
    }
    Ok(Sum {
        tokens: sums.iter().map(|lane| lane.tokens).sum(),
        nats: sums.iter().map(|lane| lane.sum).sum(),
    })
}
