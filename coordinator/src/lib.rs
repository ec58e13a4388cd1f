//! The coordinator: owns a run. Membership, lane assignment, the commit protocol, the central clip, journal, checkpoints
//! and metrics. It computes no model: weights and optimizer states are bytes to it, held by the workers.

mod admission;
mod append;
mod board;
pub mod checkpoint;
mod committed;
mod deposit;
mod driver;
pub mod exposition;
pub mod failpoint;
mod files;
mod half_made;
pub mod hostile;
mod intake;
mod journal;
mod metrics;
pub mod mirror;
mod observer;
mod open;
mod operations;
pub mod operator;
mod options;
mod outbox;
mod plan;
pub mod protocol;
#[cfg(test)]
mod reference;
mod replica;
mod run;
mod run_id;
mod schedule;
mod scrape;
mod server;
mod storage;
mod tensorboard;
mod tokens;
mod trigger;
pub mod verify;

pub use committed::{CommittedError, SlotFault};
pub use journal::{JournalError, Record};
pub use metrics::{StepMetrics, TestMetrics, ValidMetrics};
pub use observer::{Observer, Report};
pub use options::{Run, Start, Training};
pub use plan::Length;
pub use protocol::{Ending, Exchange};
pub use replica::{ReplicaLayout, Sections, TensorShape};
pub use run::{Control, Coordinator, Evaluated, Locks, RunError, Summary};
pub use schedule::{Rules, Schedule, ScheduleState, Unit};
pub use tokens::{Cut, CutError, SplitTokens, Splits, TokenSource, WindowError};
pub use trigger::Trigger;
