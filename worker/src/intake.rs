//! What the coordinator says, checked and put together: bulk becomes whole buffers of the size this worker knows.

use carousel_proto::bulk::{Assembler, BulkError};
use carousel_proto::v1::{
    Assign, Bulk, BulkStart, Commit, Evaluate, FromCoordinator, LoadReplica, SendReplica, Shutdown, Welcome,
    from_coordinator::Message,
};
use carousel_proto::{Step, Term, lane_streams};

use crate::settings::Settings;

/// A reduced gradient.
#[derive(Debug)]
pub(crate) struct ReducedGradient {
    pub at: (Term, Step),
    pub rows: Vec<u32>,
    /// The dense part, then the touched rows.
    pub floats: Vec<f32>,
}

/// A whole message.
#[derive(Debug)]
pub(crate) enum Content {
    Welcome(Box<Welcome>),
    Section { index: u32, floats: Vec<f32> },
    Carries { floats: Vec<f32> },
    Gradient(ReducedGradient),
    LoadReplica(LoadReplica),
    Assign(Assign),
    Commit(Commit),
    Evaluate(Evaluate),
    SendReplica(SendReplica),
    AskDigest,
    Shutdown(Shutdown),
}

/// Why a message was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It is empty, or of a kind this program does not know.
    #[error("the coordinator sent a message without content")]
    Empty,
    /// It came before Welcome.
    #[error("the coordinator sent work before Welcome")]
    TooEarly,
    /// A second one.
    #[error("the coordinator sent a second Welcome")]
    SecondWelcome,
    /// A bulk that does not fit.
    #[error("the coordinator sent what does not fit: {0}")]
    Bulk(#[from] BulkError),
    /// A bulk of a kind that is not for workers.
    #[error("the coordinator sent a bulk of kind {0}")]
    Kind(i32),
    /// Lanes or rows the run does not have.
    #[error("the coordinator sent {what} out of range")]
    Range {
        /// What.
        what: &'static str,
    },
}

/// The sizes that bulk must have.
#[derive(Debug)]
struct Sizes {
    parameters: usize,
    dense: usize,
    row: usize,
    carry: usize,
    rows: usize,
    streams: u32,
    lanes: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Intake {
    sizes: Option<Sizes>,
    assembler: Assembler,
}

impl Intake {
    /// From Welcome on the sizes are known.
    pub(crate) fn expect(&mut self, settings: &Settings) {
        let gradient = settings.model.gradient_layout();
        self.sizes = Some(Sizes {
            parameters: settings.model.parameter_layout().len(),
            dense: gradient.dense_len,
            row: gradient.row_width,
            carry: settings.model.carry_len(),
            rows: gradient.rows,
            streams: settings.streams,
            lanes: settings.lanes,
        });
    }

    pub(crate) fn accept(&mut self, message: FromCoordinator) -> Result<Option<Content>, Refusal> {
        Ok(Some(match message.message.ok_or(Refusal::Empty)? {
            Message::BulkStart(start) => {
                let floats = self.expected_floats(&start)?;
                return Ok(self.assembler.start(start, floats)?.map(content_of));
            }
            Message::BulkChunk(chunk) => return Ok(self.assembler.chunk(&chunk)?.map(content_of)),
            Message::Welcome(m) => Content::Welcome(m.into()),
            Message::LoadReplica(m) => Content::LoadReplica(m),
            Message::Assign(m) => {
                self.lanes(m.first_lane, m.lanes)?;
                Content::Assign(m)
            }
            Message::Commit(m) => Content::Commit(m),
            Message::Evaluate(m) => {
                self.lanes(m.first_lane, m.lanes)?;
                Content::Evaluate(m)
            }
            Message::SendReplica(m) => Content::SendReplica(m),
            Message::AskDigest(_) => Content::AskDigest,
            Message::Shutdown(m) => Content::Shutdown(m),
        }))
    }

    fn sizes(&self) -> Result<&Sizes, Refusal> {
        self.sizes.as_ref().ok_or(Refusal::TooEarly)
    }

    fn lanes(&self, first: u32, count: u32) -> Result<std::ops::Range<u32>, Refusal> {
        let lanes = self.sizes()?.lanes;
        let end = first.checked_add(count).filter(|&end| end <= lanes);
        end.map(|end| first..end).ok_or(Refusal::Range { what: "lanes" })
    }

    fn expected_floats(&self, start: &BulkStart) -> Result<usize, Refusal> {
        let sizes = self.sizes()?;
        match start.kind() {
            Bulk::Replica => Ok(sizes.parameters),
            Bulk::Carries => {
                let lanes = self.lanes(start.index, start.level)?;
                let streams: usize =
                    lanes.map(|lane| lane_streams(sizes.streams, sizes.lanes, lane).len()).sum();
                Ok(streams * sizes.carry)
            }
            Bulk::Reduced => {
                let ascending = start.rows.windows(2).all(|pair| pair[0] < pair[1]);
                let in_range = start.rows.last().is_none_or(|&last| (last as usize) < sizes.rows);
                if !ascending || !in_range {
                    return Err(Refusal::Range { what: "rows" });
                }
                Ok(sizes.dense + start.rows.len() * sizes.row)
            }
            _ => Err(Refusal::Kind(start.kind)),
        }
    }
}

fn content_of((start, floats): (BulkStart, Vec<f32>)) -> Content {
    match start.kind() {
        Bulk::Replica => Content::Section { index: start.index, floats },
        Bulk::Carries => Content::Carries { floats },
        _ => Content::Gradient(ReducedGradient {
            at: (Term(start.term), Step(start.step)),
            rows: start.rows,
            floats,
        }),
    }
}
