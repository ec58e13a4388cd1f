//! One step: forward, backward, the gradient's way out and back, the update.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use carousel_model::{Gradients, LaneStreams, Partial, Window};
use carousel_proto::gradient::Gradient;
use carousel_proto::v1::{
    self, Acknowledge, Assign, Bulk, BulkStart, SliceReport, Split, StepReport, WindowReply, WindowSpan,
    from_worker::Message,
};
use carousel_proto::{LaneTree, Node, Step, Term, WorkerId};
use tonic::{Code, Status};

use super::reading::Reading;
use super::{Computed, Trainer, TrainerError, check_size};
use crate::exchange::{Outgoing, Peer};
use crate::failpoint::{FailPoint, reach};
use crate::intake::ReducedGradient;
use crate::outbox::SessionOver;
use crate::protocol::{CarrySource, Event, Fault};
use crate::replica::lanes_of;
use crate::settings::Settings;

impl Trainer {
    /// Computes the assigned lanes. With a mesh the gradient's parts go to the peers as they are ready, with a star the
    /// whole goes to the coordinator.
    pub(super) fn compute(
        &mut self,
        at: (Term, Step),
        lanes: Range<u32>,
    ) -> Result<Vec<Event>, TrainerError> {
        reach(FailPoint::ASSIGNED, at.1);
        self.laps.begin();
        let assign = std::mem::take(&mut self.inbox.assign);
        let (carries, losses, took) = (Arc::default(), Vec::new(), Duration::ZERO);
        self.computed = Some(Computed { at, lanes: lanes.clone(), carries, losses, took });
        let mut events = vec![Event::Computed { term: at.0, step: at.1 }];
        if !assign.peers.is_empty() {
            let outgoing = self.exchange.begin(at, peers_of(&assign), self.link.own)?;
            events.extend(self.hand_out(at, outgoing)?);
        }
        if !lanes.is_empty() {
            let (nodes, gradients) = self.gradients(at, &assign, lanes)?;
            reach(FailPoint::COMPUTED, at.1);
            events.extend(self.give_out(at, &assign, (nodes, gradients))?);
        }
        Ok(events)
    }

    /// Forward and backward over the assigned lanes: the partial gradients, and the lane tree's nodes they are of.
    fn gradients(
        &mut self,
        at: (Term, Step),
        assign: &Assign,
        lanes: Range<u32>,
    ) -> Result<(Vec<Node>, Gradients), TrainerError> {
        let given = self.inbox.carries.take();
        let replica = self.replica.as_mut().ok_or(Fault::NoReplica)?;
        let mut carries = replica.carries(&self.settings, lanes.clone(), assign.carry(), given)?;
        let (nodes, ranges): (Vec<Node>, Vec<Range<usize>>) =
            groups(&self.settings, &lanes).into_iter().unzip();
        let reading = Reading::of(assign, &self.settings)?;
        let (gradients, took) = match reading.windows {
            [_] => self.one_window(at, &reading, &lanes, (&mut carries, &nodes, &ranges))?,
            _ => self.several_windows(at, &reading, &lanes, (&mut carries, &nodes, &ranges))?,
        };
        let losses = lane_losses(&lanes, &gradients.losses);
        let carries = Arc::new(carries);
        self.laps.computed();
        self.computed = Some(Computed { at, lanes, carries, losses, took });
        Ok((nodes, gradients))
    }

    /// The gradient of a step that reads one window: parts go out as they are finished.
    fn one_window(
        &mut self,
        at: (Term, Step),
        reading: &Reading<'_>,
        lanes: &Range<u32>,
        (carries, nodes, ranges): (&mut [f32], &[Node], &[Range<usize>]),
    ) -> Result<(Gradients, Duration), TrainerError> {
        let tokens = self.read(reading, 0, lanes)?;
        let began = Instant::now();
        let streams = lanes_of(&self.settings, lanes.clone());
        let window = self.model_window((&tokens, reading.windows[0].steps), &streams, reading.numbers(0));
        let parameters = &self.replica.as_ref().ok_or(Fault::NoReplica)?.parameters;
        let Self { model, exchange, link, contribution, .. } = self;
        let gradients = if reading.to_peers {
            contribution.take_back(model);
            let mut give = |part| contribution.give(at, nodes, (&mut *exchange, &mut link.peers), part);
            model.gradients_by_part(parameters, &window, (carries, ranges), &mut give)?
        } else {
            model.gradients(parameters, &window, carries, ranges)?
        };
        Ok((gradients, began.elapsed()))
    }

    /// A window of the step, which was fetched ahead; the one after it is fetched meanwhile.
    pub(super) fn read(
        &mut self,
        reading: &Reading<'_>,
        index: usize,
        lanes: &Range<u32>,
    ) -> Result<WindowReply, TrainerError> {
        let tokens = self.window(Split::Train, reading.windows[index], lanes)?;
        let next = reading.windows.get(index + 1).copied().or(reading.next);
        next.into_iter().for_each(|next| self.link.tokens.fetch_ahead(Split::Train, next, lanes));
        Ok(tokens)
    }

    /// What is left to go out after the computation: to the coordinator everything, to the peers the touched rows.
    fn give_out(
        &mut self,
        at: (Term, Step),
        assign: &Assign,
        (nodes, gradients): (Vec<Node>, Gradients),
    ) -> Result<Vec<Event>, TrainerError> {
        if assign.peers.is_empty() {
            self.send_partials(at, nodes.into_iter().zip(gradients.partials))?;
            return Ok(Vec::new());
        }
        let mut outgoing = self.contribution.take_outgoing();
        for (node, partial) in nodes.into_iter().zip(&gradients.partials) {
            outgoing.extend(self.exchange.contribute_rows(node, &partial.rows, &partial.row_values));
        }
        self.hand_out(at, outgoing)
    }

    /// Sends what the exchange wants sent; the whole gradient, when it is here, is an event.
    pub(super) fn hand_out(
        &mut self,
        at: (Term, Step),
        outgoing: Vec<Outgoing>,
    ) -> Result<Vec<Event>, TrainerError> {
        let (term, step) = (at.0.0, at.1.0);
        let mut events = Vec::new();
        for out in outgoing {
            match out {
                Outgoing::Send { to, content } => self.link.peers.send(&to, at, &content),
                Outgoing::Report { squares, not_finite } => {
                    let (dense_squares, row_squares) = (squares.dense, squares.rows);
                    let not_finite = not_finite.map(|offset| offset as u64);
                    let report = SliceReport { term, step, dense_squares, row_squares, not_finite };
                    self.link.outbox.send(Message::SliceReport(report))?;
                    reach(FailPoint::SLICE_SENT, at.1);
                }
                Outgoing::Whole(Gradient { rows, floats }) => {
                    events.extend(self.hold(ReducedGradient { at, rows, floats }));
                }
            }
        }
        Ok(events)
    }

    /// Keeps a whole reduced gradient when it is that of the computed step: a late one must not take its place.
    pub(super) fn hold(&mut self, gradient: ReducedGradient) -> Option<Event> {
        let (term, step) = gradient.at;
        let wanted = self.computed.as_ref().is_some_and(|computed| computed.at == gradient.at);
        wanted.then(|| {
            self.gradient = Some(gradient);
            self.laps.whole();
            Event::Gradient { term, step }
        })
    }

    /// The window of some lanes, of the size that they have.
    pub(super) fn window(
        &mut self,
        split: Split,
        span: WindowSpan,
        lanes: &Range<u32>,
    ) -> Result<WindowReply, TrainerError> {
        let reply = self.link.tokens.window(split, span, lanes).map_err(judge)?;
        let streams: usize = lanes_of(&self.settings, lanes.clone()).iter().map(|lane| lane.streams).sum();
        check_size(reply, streams * span.steps as usize)
    }

    pub(super) fn model_window<'a>(
        &self,
        (tokens, steps): (&'a WindowReply, u32),
        lanes: &'a [LaneStreams],
        (step, step_tokens): (u64, u64),
    ) -> Window<'a> {
        Window {
            seed: self.settings.seed,
            step,
            steps: steps as usize,
            lanes,
            inputs: &tokens.inputs,
            targets: &tokens.targets,
            step_tokens,
        }
    }

    fn send_partials(
        &self,
        (term, step): (Term, Step),
        partials: impl Iterator<Item = (Node, Partial)>,
    ) -> Result<(), SessionOver> {
        for (node, partial) in partials {
            let start = BulkStart {
                kind: Bulk::Partial.into(),
                term: term.0,
                step: step.0,
                level: node.level,
                index: node.index,
                rows: partial.rows,
                ..BulkStart::default()
            };
            self.link.outbox.send_bulk(start, vec![partial.dense.into(), partial.row_values.into()])?;
            reach(FailPoint::HALF_SENT, step);
        }
        Ok(())
    }

    /// The computed lanes' losses go to the coordinator, after the gradient.
    pub(super) fn report(&mut self, term: Term, step: Step) -> Result<(), SessionOver> {
        let Some(computed) = self.computed.as_mut().filter(|c| c.at == (term, step)) else { return Ok(()) };
        if computed.lanes.is_empty() {
            return Ok(());
        }
        let (term, step, losses) = (term.0, step.0, std::mem::take(&mut computed.losses));
        let microseconds = u64::try_from(computed.took.as_micros()).unwrap_or(u64::MAX);
        self.link.outbox.send(Message::StepReport(StepReport { term, step, losses, microseconds }))
    }

    /// The whole reduced gradient is here: hands the carries in and says so.
    pub(super) fn acknowledge(&self, term: Term, step: Step) -> Result<(), SessionOver> {
        let Some(computed) = self.computed.as_ref().filter(|c| c.at == (term, step)) else { return Ok(()) };
        let (term, step) = (term.0, step.0);
        if !computed.lanes.is_empty() {
            let (kind, level) = (Bulk::Carries.into(), computed.lanes.len() as u32);
            let index = computed.lanes.start;
            let start = BulkStart { kind, term, step, level, index, ..BulkStart::default() };
            self.link.outbox.send_bulk(start, vec![computed.carries.clone()])?;
        }
        self.link.outbox.send(Message::Acknowledge(Acknowledge { term, step }))?;
        reach(FailPoint::ACKNOWLEDGED, Step(step));
        Ok(())
    }

    /// The update. A worker that comes back with a gradient has no carries: the coordinator gives them anew.
    pub(super) fn apply(&mut self) -> Result<(), TrainerError> {
        self.laps.committed();
        let commit = self.inbox.commit;
        let replica = self.replica.as_mut().ok_or(Fault::NoReplica)?;
        let gradient = self.gradient.take().expect("the protocol applies a gradient that is held");
        reach(FailPoint::COMMITTED, Step(commit.step));
        replica.apply(&self.settings, &gradient, &commit)?;
        reach(FailPoint::APPLIED, Step(commit.step));
        match self.computed.take().filter(|computed| computed.at.1 == Step(commit.step)) {
            Some(Computed { carries, .. }) => {
                replica.keep_carries(Arc::try_unwrap(carries).unwrap_or_else(|shared| shared.to_vec()));
            }
            None => replica.forget_carries(),
        }
        self.exchange.recycle(gradient.floats);
        self.laps.applied(Step(commit.step));
        Ok(())
    }
}

/// A coordinator that says no is in the wrong, or this worker is; one that says nothing is gone.
fn judge(status: Status) -> TrainerError {
    match status.code() {
        Code::OutOfRange | Code::InvalidArgument | Code::Unimplemented | Code::DataLoss => {
            TrainerError::Tokens(Box::new(status))
        }
        _ => TrainerError::SessionOver,
    }
}

pub(super) fn carry_of(source: v1::CarrySource) -> CarrySource {
    match source {
        v1::CarrySource::Keep => CarrySource::Keep,
        v1::CarrySource::Zero => CarrySource::Zero,
        v1::CarrySource::Given | v1::CarrySource::Unspecified => CarrySource::Given,
    }
}

/// The lane-tree nodes a worker sums completely, each with its lanes as indices among the worker's own.
fn groups(settings: &Settings, lanes: &Range<u32>) -> Vec<(Node, Range<usize>)> {
    let tree = LaneTree::new(settings.lanes);
    let own = |lane: u32| (lane - lanes.start) as usize;
    let group = |node| {
        let under = tree.lanes_under(node).expect("a maximal node is in the tree");
        (node, own(under.start)..own(under.end))
    };
    tree.maximal_nodes(lanes.clone()).into_iter().map(group).collect()
}

fn peers_of(assign: &Assign) -> Vec<Peer> {
    let peer = |peer: &v1::Peer| Peer {
        worker: WorkerId(peer.worker_id),
        address: peer.exchange_address.clone(),
        lanes: peer.first_lane..peer.first_lane.saturating_add(peer.lanes),
    };
    assign.peers.iter().map(peer).collect()
}

pub(super) fn lane_losses(lanes: &Range<u32>, losses: &[carousel_model::LaneLoss]) -> Vec<v1::LaneLoss> {
    lanes
        .clone()
        .zip(losses)
        .map(|(lane, loss)| v1::LaneLoss { lane, tokens: loss.tokens, sum: loss.sum })
        .collect()
}
