//! The worker: holds a full replica of the model, computes the lanes it is assigned, and exchanges gradients. It needs no
//! data, no configuration and no shared disk: everything reaches it over gRPC, but for windows of token files that the run
//! names for all workers, and which the program opens. It decides nothing about the run.

mod accumulation;
mod contribution;
mod departure;
mod deposit;
mod exchange;
mod exchange_bench;
pub mod failpoint;
pub mod hostile;
mod intake;
mod news;
mod optimizer_settings;
mod outbox;
mod peers;
pub mod protocol;
mod pull;
mod replica;
mod session;
mod settings;
mod tokens;
mod trainer;
mod worker;

pub use exchange_bench::{ExchangeBenchError, ExchangeMember};
pub use news::News;
pub use optimizer_settings::optimizer_settings;
pub use session::{WorkerError, WorkerOptions, host_name, work};
pub use tokens::{Opened, TokenOpener, WindowReader};
