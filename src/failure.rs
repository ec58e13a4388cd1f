//! How the program ends when it does not end well: one readable message and an exit code.

use std::error::Error;
use std::fmt::Display;
use std::io::ErrorKind;

use carousel_coordinator::checkpoint::CheckpointError;
use carousel_coordinator::{CutError, JournalError, RunError};
use carousel_corpus::CorpusError;
use carousel_model::ModelError;
use carousel_worker::WorkerError;

use crate::config::ConfigError;

/// Why a subcommand ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What the user gave cannot be worked with; nothing was started or written.
    #[error("error: {}{}", .0, next_step(&**.0))]
    BadInput(Box<dyn Error + Send + Sync>),
    /// It was worked on, and went wrong.
    #[error("error: {}{}", .0, next_step(&**.0))]
    Failed(Box<dyn Error + Send + Sync>),
    /// The user ended it, and nothing is lost.
    #[error("stopped     after step {step}; go on with --resume")]
    Interrupted { step: u64 },
    /// The user ended it; there is nothing to go on with.
    #[error("stopped")]
    Stopped,
}

impl Failure {
    pub(crate) fn bad_input(problem: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::BadInput(problem.into())
    }

    pub(crate) fn failed(problem: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(problem.into())
    }

    /// Refuses an option by its name, with what was found and what was expected.
    pub(crate) fn unless(holds: bool, option: &str, found: impl Display, expected: &str) -> Result<(), Self> {
        let refusal = || Self::bad_input(format!("{option}: found {found}, expected {expected}"));
        if holds { Ok(()) } else { Err(refusal()) }
    }

    /// 2: bad input; 1: failure; 130: interrupted, as shells say it.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::BadInput(_) => 2,
            Self::Failed(_) => 1,
            Self::Interrupted { .. } | Self::Stopped => 130,
        }
    }
}

/// What to do about what the operating system said, wherever below an error it said so.
fn next_step(error: &(dyn Error + 'static)) -> &'static str {
    let mut causes = std::iter::successors(Some(error), |&error| error.source());
    let said = causes.find_map(|error| error.downcast_ref::<std::io::Error>());
    match said.map(std::io::Error::kind) {
        Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
            "; make room there and give the command again, with --resume where a run had begun"
        }
        Some(ErrorKind::ReadOnlyFilesystem) => "; name a place that can be written to",
        Some(ErrorKind::PermissionDenied) => "; let this user have it, or name another place",
        Some(ErrorKind::AlreadyExists) => "; something else is there: name another place",
        Some(ErrorKind::NotADirectory) => "; a file is where a folder should be: name another place",
        Some(ErrorKind::AddrInUse) => "; end what listens there, or name another port",
        Some(ErrorKind::AddrNotAvailable) => "; name an address that this machine has",
        _ => "",
    }
}

macro_rules! from {
    ($variant:ident: $($error:ty),+) => {
        $(impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        })+
    };
}

from!(BadInput: ConfigError, CorpusError, CutError, CheckpointError, ModelError);

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Exists { .. }
            | RunError::Listen { .. }
            | RunError::Journal(JournalError::Locked { .. }) => Self::bad_input(error),
            _ => Self::failed(error),
        }
    }
}

impl From<WorkerError> for Failure {
    fn from(error: WorkerError) -> Self {
        match error {
            WorkerError::Address { .. } | WorkerError::Refused(_) => Self::bad_input(error),
            _ => Self::failed(error),
        }
    }
}
