//! What a worker says, checked. Bytes from the network are hostile until they are here: sizes against the run's layout
//! before memory is taken, indices against the run's lanes, rows against the vocabulary. Whether a message is wanted
//! now is the protocol's question, not this file's.

use std::time::Duration;

use carousel_corpus::StreamPlan;
use carousel_proto::bulk::{Assembler, BulkError};
use carousel_proto::digest::{Digest, NotADigest};
use carousel_proto::gradient::{Gradient, SquareSums};
use carousel_proto::v1::{self, Bulk, BulkStart, FromWorker, from_worker::Message};
use carousel_proto::{LaneTree, Node, Step, Term, lane_streams};

use crate::replica::ReplicaLayout;

/// What the messages of a run are checked against.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub layout: ReplicaLayout,
    pub streams: u32,
    pub lanes: u32,
}

/// The loss of a lane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LaneLoss {
    pub lane: u32,
    pub tokens: u64,
    pub sum: f64,
}

/// What a worker tells of the slice it has reduced.
#[derive(Debug, PartialEq)]
pub(crate) struct ReducedSlice {
    pub squares: SquareSums,
    /// The parameter offset of the first NaN or infinity.
    pub not_finite: Option<u64>,
}

/// A checked message.
#[derive(Debug, PartialEq)]
pub(crate) enum Content {
    Ready { step: Step, digest: Digest },
    Partial { term: Term, step: Step, node: Node, gradient: Gradient },
    Report { term: Term, step: Step, losses: Vec<LaneLoss>, took: Duration },
    Slice { term: Term, step: Step, slice: ReducedSlice },
    Carries { term: Term, step: Step, lanes: std::ops::Range<u32>, floats: Vec<f32> },
    Acknowledge { term: Term, step: Step },
    Evaluation { term: Term, split: v1::Split, losses: Vec<LaneLoss> },
    Digest { step: Step, digest: Digest },
    LoadFailed { step: Step },
    Progress,
    Leave,
    Failure { message: String },
}

/// Why a message was refused.
#[derive(Debug, thiserror::Error, PartialEq)]
pub(crate) enum Refusal {
    #[error("a message without content")]
    Empty,
    #[error("a second Hello")]
    SecondHello,
    #[error(transparent)]
    Bulk(#[from] BulkError),
    #[error(transparent)]
    Digest(#[from] NotADigest),
    #[error("a bulk of kind {0} is not a worker's to send")]
    Kind(i32),
    #[error("lane tree node at level {level}, index {index}: the run has {lanes} lanes")]
    Node { level: u32, index: u32, lanes: u32 },
    #[error("lanes from {first}, {count} of them: the run has {lanes}")]
    Lanes { first: u32, count: u32, lanes: u32 },
    #[error("{found} touched rows, expected at most {most}, ascending and below {of}")]
    Rows { found: usize, most: usize, of: usize },
    #[error("losses of {found} lanes, the run has {lanes}; or a lane out of range")]
    Losses { found: usize, lanes: u32 },
}

/// Turns one session's messages into checked content.
#[derive(Debug)]
pub(crate) struct Intake {
    limits: std::sync::Arc<Limits>,
    assembler: Assembler,
}

impl Intake {
    pub(crate) fn new(limits: std::sync::Arc<Limits>) -> Self {
        Self { limits, assembler: Assembler::default() }
    }

    /// Takes a message; parts of a bulk give content only when the bulk is whole.
    pub(crate) fn accept(&mut self, message: FromWorker) -> Result<Option<Content>, Refusal> {
        Ok(Some(match message.message.ok_or(Refusal::Empty)? {
            Message::Hello(_) => return Err(Refusal::SecondHello),
            Message::BulkStart(start) => {
                let floats = self.expected_floats(&start)?;
                return Ok(self.assembler.start(start, floats)?.map(|(s, f)| self.content_of(s, f)));
            }
            Message::BulkChunk(chunk) => {
                return Ok(self.assembler.chunk(&chunk)?.map(|(s, f)| self.content_of(s, f)));
            }
            Message::Ready(m) => {
                Content::Ready { step: Step(m.step), digest: Digest::try_from(&m.replica_digest[..])? }
            }
            Message::StepReport(m) => {
                let took = Duration::from_micros(m.microseconds);
                Content::Report {
                    term: Term(m.term),
                    step: Step(m.step),
                    losses: self.losses(&m.losses)?,
                    took,
                }
            }
            Message::SliceReport(m) => {
                let squares = SquareSums { dense: m.dense_squares, rows: m.row_squares };
                let slice = ReducedSlice { squares, not_finite: m.not_finite };
                Content::Slice { term: Term(m.term), step: Step(m.step), slice }
            }
            Message::Acknowledge(m) => Content::Acknowledge { term: Term(m.term), step: Step(m.step) },
            Message::EvaluationReport(m) => {
                Content::Evaluation { term: Term(m.term), split: m.split(), losses: self.losses(&m.losses)? }
            }
            Message::DigestReport(m) => {
                Content::Digest { step: Step(m.step), digest: Digest::try_from(&m.replica_digest[..])? }
            }
            Message::LoadFailed(m) => Content::LoadFailed { step: Step(m.step) },
            Message::Progress(v1::Progress {}) => Content::Progress,
            Message::Leave(v1::Leave {}) => Content::Leave,
            Message::Failure(m) => Content::Failure { message: shortened(&m.message) },
        }))
    }

    /// The size a bulk must have, from the run's layout and not from the sender.
    fn expected_floats(&self, start: &BulkStart) -> Result<usize, Refusal> {
        let layout = &self.limits.layout;
        match start.kind() {
            Bulk::Partial => {
                self.node(start)?;
                self.check_rows(&start.rows)?;
                Ok(layout.gradient.dense + start.rows.len() * layout.gradient.width)
            }
            Bulk::Carries => {
                let streams: usize = self.lanes(start.index, start.level)?.map(|l| self.streams_of(l)).sum();
                Ok(streams * layout.carry_floats())
            }
            _ => Err(Refusal::Kind(start.kind)),
        }
    }

    fn content_of(&self, start: BulkStart, floats: Vec<f32>) -> Content {
        let (term, step) = (Term(start.term), Step(start.step));
        match start.kind() {
            Bulk::Partial => {
                let node = Node { level: start.level, index: start.index };
                Content::Partial { term, step, node, gradient: Gradient { rows: start.rows, floats } }
            }
            // No other kind begins.
            _ => Content::Carries { term, step, lanes: start.index..start.index + start.level, floats },
        }
    }

    fn node(&self, start: &BulkStart) -> Result<Node, Refusal> {
        let node = Node { level: start.level, index: start.index };
        let lanes = self.limits.lanes;
        let exists = LaneTree::new(lanes).lanes_under(node).is_some();
        exists.then_some(node).ok_or(Refusal::Node { level: start.level, index: start.index, lanes })
    }

    fn lanes(&self, first: u32, count: u32) -> Result<std::ops::Range<u32>, Refusal> {
        let lanes = self.limits.lanes;
        let end = first.checked_add(count).filter(|&end| end <= lanes && count > 0);
        end.map(|end| first..end).ok_or(Refusal::Lanes { first, count, lanes })
    }

    fn streams_of(&self, lane: u32) -> usize {
        lane_streams(self.limits.streams, self.limits.lanes, lane).len()
    }

    fn check_rows(&self, rows: &[u32]) -> Result<(), Refusal> {
        let layout = &self.limits.layout.gradient;
        let (of, most) = (layout.rows, layout.most_rows);
        let ascending = rows.windows(2).all(|pair| pair[0] < pair[1]);
        let in_range = rows.last().is_none_or(|&last| (last as usize) < of);
        let fits = rows.len() <= most && ascending && in_range;
        fits.then_some(()).ok_or(Refusal::Rows { found: rows.len(), most, of })
    }

    fn losses(&self, losses: &[v1::LaneLoss]) -> Result<Vec<LaneLoss>, Refusal> {
        let lanes = self.limits.lanes;
        if losses.len() > lanes as usize || losses.iter().any(|l| l.lane >= lanes) {
            return Err(Refusal::Losses { found: losses.len(), lanes });
        }
        Ok(losses.iter().map(|l| LaneLoss { lane: l.lane, tokens: l.tokens, sum: l.sum }).collect())
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(2000).collect()
}

/// The corpus and the wire contract each state the cut of streams into lanes; they must be one rule.
pub(crate) fn cuts_agree(plan: &StreamPlan) -> bool {
    let (streams, lanes) = (plan.streams() as u32, plan.lanes() as u32);
    (0..lanes).all(|lane| {
        let wire = lane_streams(streams, lanes, lane);
        plan.lane_streams(lane as usize) == (wire.start as usize..wire.end as usize)
    })
}

#[cfg(test)]
mod tests;
