//! `carousel status`, `drain`, `checkpoint` and `stop`: looking after a run from outside. What they ask goes to the
//! coordinator; nothing is decided here.

mod status;

use carousel_coordinator::operator::{Operator, OperatorError};

use crate::failure::Failure;
use crate::security::Certificates;
pub(crate) use status::Arguments as StatusArguments;

/// Where the coordinator is.
#[derive(Debug, clap::Args)]
pub(crate) struct Where {
    /// The coordinator's address
    #[arg(value_name = "HOST:PORT", env = "CAROUSEL_COORDINATOR")]
    address: String,
    #[command(flatten)]
    certificates: Certificates,
}

impl Where {
    fn connect(&self) -> Result<Operator, Failure> {
        Ok(Operator::connect(&self.address, self.certificates.door()?)?)
    }
}

/// Have a worker hand its lanes over and go
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "carousel drain [OPTIONS] [HOST:PORT] <WORKER_ID_OR_HOST>",
    after_help = "Examples:\n  carousel drain 127.0.0.1:7700 3\n  \
                  carousel drain 192.0.2.10:7700 node17 --tls certs/operator"
)]
pub(crate) struct DrainArguments {
    /// The coordinator's address, unless CAROUSEL_COORDINATOR has it; and a worker's number, or a host: all workers there
    #[arg(value_names = ["HOST:PORT", "WORKER_ID_OR_HOST"], num_args = 1..=2, required = true)]
    what: Vec<String>,
    #[command(flatten)]
    certificates: Certificates,
    /// Also the last worker: the run then waits for another one
    #[arg(long)]
    force: bool,
}

/// Save a checkpoint at the next step, and wait until it is on disk
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  carousel checkpoint 127.0.0.1:7700\n  \
                  carousel checkpoint 192.0.2.10:7700 --tls certs/operator")]
pub(crate) struct CheckpointArguments {
    #[command(flatten)]
    place: Where,
}

/// End the run after the step under way, at a checkpoint from which it can go on
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  carousel stop 127.0.0.1:7700\n  \
                  carousel stop 192.0.2.10:7700 --tls certs/operator")]
pub(crate) struct StopArguments {
    #[command(flatten)]
    place: Where,
}

pub(crate) fn status(arguments: &StatusArguments) -> Result<(), Failure> {
    status::run(arguments)
}

pub(crate) fn drain(arguments: &DrainArguments) -> Result<(), Failure> {
    let (address, worker) = match &arguments.what[..] {
        [address, worker] => (address.clone(), worker),
        what => (std::env::var("CAROUSEL_COORDINATOR").map_err(no_address)?, &what[0]),
    };
    let mut operator = Operator::connect(&address, arguments.certificates.door()?)?;
    let reply = operator.drain(worker, arguments.force)?;
    let workers: Vec<String> = reply.worker_ids.iter().map(u64::to_string).collect();
    println!("drained     worker {}, gone after step {}", workers.join(", "), reply.step);
    Ok(())
}

pub(crate) fn checkpoint(arguments: &CheckpointArguments) -> Result<(), Failure> {
    let made = arguments.place.connect()?.checkpoint()?;
    println!("checkpoint  {}", made.path);
    println!("step        {}", made.step);
    println!("digest      {}", made.digest);
    Ok(())
}

pub(crate) fn stop(arguments: &StopArguments) -> Result<(), Failure> {
    let step = arguments.place.connect()?.stop()?;
    println!("stopping    after the step that follows step {step}; go on with --resume");
    Ok(())
}

fn no_address(_: std::env::VarError) -> Failure {
    Failure::bad_input(
        "found one of HOST:PORT and WORKER_ID_OR_HOST, expected both, or CAROUSEL_COORDINATOR set",
    )
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Address { .. } | OperatorError::Refused { .. } => Self::bad_input(error),
            _ => Self::failed(error),
        }
    }
}
