//! The worker's side of a step: computes what it is assigned, holds the reduced gradient until the commit, applies it.
//! It runs on a thread of its own; the reactor's threads only carry messages.

use std::ops::Range;
use std::sync::Arc;

use carousel_model::{Gradients, LaneStreams, LanguageModel, ModelError, Partial, Window};
use carousel_proto::gradient::Gradient;
use carousel_proto::v1::{
    self, Acknowledge, Assign, Bulk, BulkStart, Commit, DigestReport, Evaluate, EvaluationReport,
    LoadReplica, Ready, Reduced, ReplicaSent, SendReplica, SliceReport, Split, StepReport, WindowReply,
    from_worker::Message,
};
use carousel_proto::{LaneTree, Node, Step, Term, WorkerId};

use crate::contribution::Contribution;
use crate::exchange::{Exchange, ExchangeError, Outgoing, Peer, PeerContent};
use crate::intake::{Content, ReducedGradient, Refusal};
use crate::outbox::{Outbox, SessionOver};
use crate::peers::Peers;
use crate::replica::{Replica, ReplicaError, lanes_of};
use crate::settings::{Settings, SettingsError};
use crate::tokens::TokenClient;

/// Why a worker could not go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The replica.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// A message that does not fit.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// Tokens could not be fetched.
    #[error("tokens: {0}")]
    Tokens(#[from] Box<tonic::Status>),
    /// The window that came has not the size asked for.
    #[error("a window of {found} tokens came, expected {expected}")]
    WindowSize {
        /// As came.
        found: usize,
        /// As asked for.
        expected: usize,
    },
    /// A peer or the coordinator broke the exchange.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// Something was asked of a worker without a replica.
    #[error("the coordinator asked for work before the replica was loaded")]
    NoReplica,
    /// The session ended meanwhile.
    #[error("the session is over")]
    SessionOver,
}

impl From<SessionOver> for TrainerError {
    fn from(SessionOver: SessionOver) -> Self {
        Self::SessionOver
    }
}

/// A computed step that is not committed yet.
struct Pending {
    at: (Term, Step),
    lanes: Range<u32>,
    /// At the end of the window.
    carries: Arc<Vec<f32>>,
}

pub(crate) struct Trainer {
    own: WorkerId,
    settings: Settings,
    model: LanguageModel,
    outbox: Outbox,
    tokens: TokenClient,
    peers: Peers,
    exchange: Exchange,
    contribution: Contribution,
    replica: Option<Replica>,
    arriving: Vec<Vec<f32>>,
    given_carries: Option<Vec<f32>>,
    pending: Option<Pending>,
    gradient: Option<ReducedGradient>,
}

impl Trainer {
    pub(crate) fn new(
        settings: Settings,
        outbox: Outbox,
        tokens: TokenClient,
        (own, peers): (WorkerId, Peers),
    ) -> Result<Self, TrainerError> {
        let model = LanguageModel::new(settings.model.clone())?;
        let exchange = Exchange::new(settings.gradient_layout(), settings.lanes);
        Ok(Self {
            own,
            peers,
            exchange,
            contribution: Contribution::default(),
            settings,
            model,
            outbox,
            tokens,
            replica: None,
            arriving: Vec::new(),
            given_carries: None,
            pending: None,
            gradient: None,
        })
    }

    /// Does what one message asks for.
    pub(crate) fn handle(&mut self, content: Content) -> Result<(), TrainerError> {
        match content {
            Content::Section { index, floats } => {
                if index == 0 {
                    self.arriving.clear();
                }
                self.arriving.push(floats);
            }
            Content::LoadReplica(m) => self.load(&m)?,
            Content::Carries { floats } => self.given_carries = Some(floats),
            Content::Assign(m) => self.compute(&m)?,
            Content::Gradient(gradient) => self.gradient = Some(gradient),
            Content::Reduced(m) => self.acknowledge(&m)?,
            Content::Commit(m) => self.commit(&m)?,
            Content::Evaluate(m) => self.evaluate(&m)?,
            Content::SendReplica(m) => self.send_replica(&m)?,
            Content::AskDigest => self.tell_digest()?,
            // The session's own.
            Content::Welcome(_) | Content::Shutdown(_) => {}
        }
        Ok(())
    }

    fn load(&mut self, message: &LoadReplica) -> Result<(), TrainerError> {
        let sections = std::mem::take(&mut self.arriving);
        let replica = if message.initial {
            Replica::initial(&self.settings)?
        } else {
            Replica::from_sections(&self.settings, Step(message.step), sections)?
        };
        let replica_digest = replica.digest().as_bytes().to_vec().into();
        self.replica = Some(replica);
        self.outbox.send(Message::Ready(Ready { step: message.step, replica_digest }))?;
        Ok(())
    }

    fn compute(&mut self, assign: &Assign) -> Result<(), TrainerError> {
        let lanes = assign.first_lane..assign.first_lane + assign.lanes;
        let at = (Term(assign.term), Step(assign.step));
        if !assign.peers.is_empty() {
            let outgoing = self.exchange.begin(at, peers_of(assign), self.own)?;
            self.hand_out(at, outgoing)?;
        }
        let gradients = if lanes.is_empty() {
            self.pending = Some(Pending { at, lanes, carries: Arc::default() });
            (Vec::new(), Gradients::default())
        } else {
            self.gradients(assign, lanes)?
        };
        self.give_out(assign, gradients)
    }

    /// Forward and backward over the assigned lanes: the partial gradients, and the lane tree's nodes they are of.
    fn gradients(
        &mut self,
        assign: &Assign,
        lanes: Range<u32>,
    ) -> Result<(Vec<Node>, Gradients), TrainerError> {
        let at = (Term(assign.term), Step(assign.step));
        let given = self.given_carries.take();
        let replica = self.replica.as_mut().ok_or(TrainerError::NoReplica)?;
        let mut carries = replica.carries(&self.settings, lanes.clone(), assign.carry(), given)?;
        let tokens = self.window(Split::Train, assign.window, &lanes)?;
        self.tokens.fetch_ahead(Split::Train, assign.next_window, &lanes);
        let streams = lanes_of(&self.settings, lanes.clone());
        let (nodes, ranges): (Vec<Node>, Vec<Range<usize>>) =
            groups(&self.settings, &lanes).into_iter().unzip();
        let window = self.model_window(&tokens, &streams, (assign.step, assign.step_tokens));
        let replica = self.replica.as_ref().ok_or(TrainerError::NoReplica)?;
        let gradients = if assign.peers.is_empty() {
            self.model.gradients(&replica.parameters, &window, &mut carries, &ranges)?
        } else {
            let Self { model, exchange, peers, contribution, .. } = self;
            contribution.take_back(model);
            let mut give = |part| contribution.give(at, &nodes, (&mut *exchange, &mut *peers), part);
            model.gradients_by_part(&replica.parameters, &window, (&mut carries, &ranges), &mut give)?
        };
        self.pending = Some(Pending { at, lanes, carries: Arc::new(carries) });
        Ok((nodes, gradients))
    }

    /// Star: the partial gradients go to the coordinator; mesh: a slice to each peer. The losses go to the coordinator.
    fn give_out(
        &mut self,
        assign: &Assign,
        (nodes, gradients): (Vec<Node>, Gradients),
    ) -> Result<(), TrainerError> {
        let at = (Term(assign.term), Step(assign.step));
        let lanes = assign.first_lane..assign.first_lane + assign.lanes;
        let losses = lane_losses(&lanes, &gradients.losses);
        if assign.peers.is_empty() {
            self.send_partials(at, nodes.into_iter().zip(gradients.partials))?;
        } else {
            let mut outgoing = self.contribution.take_outgoing();
            for (node, partial) in nodes.into_iter().zip(&gradients.partials) {
                let rows = self.exchange.contribute_rows(node, &partial.rows, &partial.row_values);
                outgoing.extend(rows);
            }
            self.hand_out(at, outgoing)?;
        }
        if !lanes.is_empty() {
            self.outbox.send(Message::StepReport(StepReport {
                term: assign.term,
                step: assign.step,
                losses,
            }))?;
        }
        Ok(())
    }

    /// Takes in what a peer sent.
    pub(crate) fn receive(
        &mut self,
        at: (Term, Step),
        worker: WorkerId,
        content: PeerContent,
    ) -> Result<(), TrainerError> {
        let outgoing = self.exchange.receive(at, worker, content)?;
        self.hand_out(at, outgoing)
    }

    /// Sends what the exchange wants sent; acknowledges the whole gradient when it is here.
    fn hand_out(&mut self, at: (Term, Step), outgoing: Vec<Outgoing>) -> Result<(), TrainerError> {
        let (term, step) = (at.0.0, at.1.0);
        for out in outgoing {
            match out {
                Outgoing::Send { to, content } => self.peers.send(&to, at, &content),
                Outgoing::Report { squares, not_finite } => {
                    let (dense_squares, row_squares) = (squares.dense, squares.rows);
                    let not_finite = not_finite.map(|offset| offset as u64);
                    let report = SliceReport { term, step, dense_squares, row_squares, not_finite };
                    self.outbox.send(Message::SliceReport(report))?;
                }
                Outgoing::Whole(Gradient { rows, floats }) => {
                    self.gradient = Some(ReducedGradient { at, rows, floats });
                    self.acknowledge(&Reduced { term, step })?;
                }
            }
        }
        Ok(())
    }

    fn window(&mut self, split: Split, window: u64, lanes: &Range<u32>) -> Result<WindowReply, TrainerError> {
        let reply = self.tokens.window(split, window, lanes).map_err(Box::new)?;
        let streams: usize = lanes_of(&self.settings, lanes.clone()).iter().map(|lane| lane.streams).sum();
        let expected = streams * self.settings.window as usize;
        for found in [reply.inputs.len(), reply.targets.len()] {
            if found != expected {
                return Err(TrainerError::WindowSize { found, expected });
            }
        }
        Ok(reply)
    }

    fn model_window<'a>(
        &self,
        tokens: &'a WindowReply,
        lanes: &'a [LaneStreams],
        (step, step_tokens): (u64, u64),
    ) -> Window<'a> {
        Window {
            seed: self.settings.seed,
            step,
            steps: self.settings.window as usize,
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
            self.outbox.send_bulk(start, vec![partial.dense.into(), partial.row_values.into()])?;
        }
        Ok(())
    }

    /// The whole reduced gradient is here: says so, and hands in the carries.
    fn acknowledge(&mut self, reduced: &Reduced) -> Result<(), SessionOver> {
        let at = (Term(reduced.term), Step(reduced.step));
        let Some(pending) = self.pending.as_ref().filter(|pending| pending.at == at) else { return Ok(()) };
        if self.gradient.as_ref().is_none_or(|gradient| gradient.at != at) {
            return Ok(());
        }
        if !pending.lanes.is_empty() {
            let start = BulkStart {
                kind: Bulk::Carries.into(),
                term: reduced.term,
                step: reduced.step,
                level: pending.lanes.len() as u32,
                index: pending.lanes.start,
                ..BulkStart::default()
            };
            self.outbox.send_bulk(start, vec![pending.carries.clone()])?;
        }
        self.outbox.send(Message::Acknowledge(Acknowledge { term: reduced.term, step: reduced.step }))
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), TrainerError> {
        let at = (Term(commit.term), Step(commit.step));
        let (Some(pending), Some(gradient)) = (self.pending.take(), self.gradient.take()) else {
            return Ok(());
        };
        if pending.at != at || gradient.at != at {
            return Ok(());
        }
        let carries = Arc::try_unwrap(pending.carries).unwrap_or_else(|shared| shared.to_vec());
        let replica = self.replica.as_mut().ok_or(TrainerError::NoReplica)?;
        replica.apply(&self.settings, &gradient, commit, carries)?;
        self.exchange.recycle(gradient.floats);
        Ok(())
    }

    /// Every window of a split, forward only, from carries of zero; losses are added window after window.
    fn evaluate(&mut self, evaluate: &Evaluate) -> Result<(), TrainerError> {
        let lanes = evaluate.first_lane..evaluate.first_lane + evaluate.lanes;
        let streams = lanes_of(&self.settings, lanes.clone());
        let width: usize = streams.iter().map(|lane| lane.streams).sum();
        let mut carries = vec![0.0; width * self.settings.model.carry_len()];
        let mut sums = vec![carousel_model::LaneLoss { tokens: 0, sum: 0.0 }; lanes.len()];
        for index in 0..evaluate.windows {
            let tokens = self.window(evaluate.split(), index, &lanes)?;
            if index + 1 < evaluate.windows {
                self.tokens.fetch_ahead(evaluate.split(), index + 1, &lanes);
            }
            let window = self.model_window(&tokens, &streams, (0, 1));
            let replica = self.replica.as_ref().ok_or(TrainerError::NoReplica)?;
            let losses = self.model.evaluate(&replica.parameters, &window, &mut carries)?;
            for (sum, loss) in sums.iter_mut().zip(losses) {
                sum.tokens += loss.tokens;
                sum.sum += loss.sum;
            }
        }
        let losses = lane_losses(&lanes, &sums);
        let report = EvaluationReport { term: evaluate.term, split: evaluate.split, losses };
        self.outbox.send(Message::EvaluationReport(report))?;
        Ok(())
    }

    fn tell_digest(&self) -> Result<(), TrainerError> {
        let replica = self.replica.as_ref().ok_or(TrainerError::NoReplica)?;
        let replica_digest = replica.digest().as_bytes().to_vec().into();
        self.outbox.send(Message::DigestReport(DigestReport { step: replica.step.0, replica_digest }))?;
        Ok(())
    }

    fn send_replica(&self, message: &SendReplica) -> Result<(), TrainerError> {
        let replica = self.replica.as_ref().ok_or(TrainerError::NoReplica)?;
        for (index, (_, floats)) in replica.sections().into_iter().enumerate() {
            let kind = Bulk::Replica.into();
            let start = BulkStart { kind, step: replica.step.0, index: index as u32, ..BulkStart::default() };
            self.outbox.send_bulk(start, vec![Arc::new(floats.to_vec())])?;
        }
        debug_assert_eq!(replica.step.0, message.step, "a replica is asked for at a boundary");
        let replica_digest = replica.digest().as_bytes().to_vec().into();
        self.outbox.send(Message::ReplicaSent(ReplicaSent { step: replica.step.0, replica_digest }))?;
        Ok(())
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

fn lane_losses(lanes: &Range<u32>, losses: &[carousel_model::LaneLoss]) -> Vec<v1::LaneLoss> {
    lanes
        .clone()
        .zip(losses)
        .map(|(lane, loss)| v1::LaneLoss { lane, tokens: loss.tokens, sum: loss.sum })
        .collect()
}
