//! Checkpoints: a folder with the whole state of a run after a step, in formats others can read.
//!
//! ```text
//! model.safetensors      the parameters, PyTorch's names and shapes
//! optimizer.safetensors  <state>.<parameter>, as exp_avg.encoder.weight
//! carries.safetensors    h (and c): (layers, streams, hidden)
//! state.json             step, cursors, schedule, validation loss, digest; size and BLAKE3 hash of each file above
//! ```
//!
//! `latest` is a link to the newest, `best` to the one of the lowest validation loss.
//!
//! A checkpoint is written beside, fsynced, renamed, and its folder fsynced; reading checks every hash and the digest
//! before anything is used, so a torn or damaged one is never picked up.

mod crash;
pub(crate) mod keep;
mod read;
mod saver;
mod store;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use carousel_proto::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::replica::Sections;
use crate::schedule::ScheduleState;

pub(crate) use read::read_state;
pub(crate) use saver::{Desk, Saved, Saver};
pub(crate) use store::{BEST, LATEST, point_link, remove_quietly};
pub use store::{Found, RunFolder};
pub use write::Context;

/// The version of the checkpoint format that is written and read.
pub const FORMAT: u32 = 2;

pub(crate) const MODEL_FILE: &str = "model.safetensors";
pub(crate) const OPTIMIZER_FILE: &str = "optimizer.safetensors";
pub(crate) const CARRIES_FILE: &str = "carries.safetensors";
pub(crate) const STATE_FILE: &str = "state.json";

/// The state of a run after a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Commits made.
    pub step: u64,
    /// What the schedule remembers.
    pub schedule: ScheduleState,
    /// Parameters and optimizer states.
    pub sections: Sections,
    /// (streams, carry) floats.
    pub carries: Vec<f32>,
    /// The loss of the validation that the schedule asked for after this step, nats a token; `None` when it asked for none.
    pub valid_loss: Option<f64>,
}

/// A checkpoint that has been read and found whole.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Its `state.json`.
    pub state: StateFile,
    /// The state itself.
    pub snapshot: Snapshot,
}

/// `state.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StateFile {
    /// [`FORMAT`].
    pub format: u32,
    /// The program that wrote it.
    pub program_version: String,
    /// Commits made.
    pub step: u64,
    /// The epoch the next step belongs to, counted from 1.
    pub epoch: u64,
    /// The place of the next step in its epoch, counted from 0: with one window a step, the window it reads.
    pub window: u64,
    /// What the schedule remembers.
    pub schedule: ScheduleState,
    /// The loss of the validation that the schedule asked for after this step, nats a token.
    pub valid_loss: Option<f64>,
    /// Rows of the batch.
    pub streams: u64,
    /// Steps of an epoch; 0 where epochs differ, as random windows make them.
    pub windows_per_epoch: u64,
    /// Targets in an epoch, over all streams.
    pub tokens_per_epoch: u64,
    /// The digest of the tokens this run trains on and validates with.
    pub data_digest: String,
    /// The digest of parameters and optimizer states.
    pub replica_digest: String,
    /// The digest of the state.
    pub digest: String,
    /// The parameters in canonical order.
    pub parameters: Vec<String>,
    /// The optimizer's states in canonical order.
    pub optimizer_state: Vec<String>,
    /// The carry's tensors in canonical order.
    pub carry: Vec<String>,
    /// The other files.
    pub files: BTreeMap<String, FileHash>,
}

/// What a file must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    /// Its size.
    pub bytes: u64,
    /// The BLAKE3 hash of its bytes, hexadecimal.
    pub blake3: String,
}

/// Why a checkpoint could not be written or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// `state.json` is not what it should be.
    #[error("{path}: {source}")]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// The checkpoint was written by another version of the format.
    #[error("{path}: checkpoint format {found}, this program reads format {FORMAT}")]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A file is not the one that was written.
    #[error("{path}: damaged: found {found}, state.json says {expected}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Its size or hash.
        found: String,
        /// What state.json says.
        expected: String,
    },
    /// A safetensors file is broken.
    #[error("{path}: {source}")]
    Tensors {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: safetensors::SafeTensorError,
    },
    /// A tensor is missing or has another shape or type.
    #[error("{path}: tensor {name}: found {found}, expected {expected}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What there is.
        found: String,
        /// What there should be.
        expected: String,
    },
    /// The files are whole, but not the state that was hashed.
    #[error("{path}: the state has digest {found}, state.json says {expected}")]
    Digest {
        /// The checkpoint.
        path: PathBuf,
        /// As computed.
        found: Digest,
        /// As written.
        expected: String,
    },
    /// Another one is being written.
    #[error("{path}: the checkpoint of step {step} was not begun: another one is under way")]
    UnderWay {
        /// The run's folder.
        path: PathBuf,
        /// The step.
        step: u64,
    },
    /// The journal does not reach its step.
    #[error(
        "{path}: no room for all decisions yet, and a checkpoint claims no step that is not in the journal"
    )]
    Unjournalled {
        /// The journal.
        path: PathBuf,
    },
    /// The program failed while it wrote one.
    #[error("{path}: the program failed while it wrote the checkpoint of step {step}")]
    Panicked {
        /// The run's folder.
        path: PathBuf,
        /// The step.
        step: u64,
    },
    /// There is no checkpoint where one was looked for.
    #[error("{path}: {problem}")]
    None {
        /// The folder.
        path: PathBuf,
        /// What was found instead, and what was passed over.
        problem: String,
    },
}

impl CheckpointError {
    fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

#[cfg(test)]
pub(crate) mod tests;
