//! The worker: holds a full replica of the model, computes the lanes it is assigned, and exchanges gradients. It needs no
//! data, no configuration and no shared disk: everything reaches it over gRPC. It decides nothing about the run.

mod exchange;
pub mod failpoint;
mod intake;
mod outbox;
mod peers;
mod replica;
mod session;
mod settings;
mod tokens;
mod trainer;

pub use session::{WorkerError, WorkerOptions, work};
