//! `carousel worker`: computes for a coordinator until that lets it go. It reads no configuration and writes no files.

use std::io::{Read, Write};
use std::num::NonZero;
use std::time::Duration;

use carousel_security::Role;
use carousel_worker::{News, WorkerError, WorkerOptions, work};

use crate::failure::Failure;
use crate::progress::printable;
use crate::security::{self, SecurityArguments};

/// Compute for a coordinator; needs neither data nor configuration
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  carousel worker --coordinator 127.0.0.1:7700 --threads 2\n  \
                  carousel worker --coordinator 192.0.2.10:7700 --threads 8 --tls certs/worker --token-file certs/token")]
pub(crate) struct Arguments {
    /// The coordinator's address
    #[arg(long, value_name = "HOST:PORT", env = "CAROUSEL_COORDINATOR")]
    coordinator: String,
    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    /// End when standard input does, as when the process that holds it ends
    #[arg(long, hide = true)]
    with_parent: bool,
    /// Seconds for which no coordinator may answer; then the worker ends: it never trains alone
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    wait: u64,
    #[command(flatten)]
    security: SecurityArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.with_parent {
        std::thread::spawn(end_with_standard_input);
    }
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = arguments.threads.map_or(cores, NonZero::get);
    let security = &arguments.security;
    let door = security.door(&[Role::Worker])?;
    let (coordinator, here) = security::coordinator_address(&arguments.coordinator, door.is_locked())?;
    security.check_reach(here, &door, format_args!("--coordinator {}", arguments.coordinator))?;
    let (tokens, join_token) = (crate::token_files::opener(), security.token()?);
    let patience = Duration::from_secs(arguments.wait);
    match work(&WorkerOptions { coordinator, threads, tokens, door, join_token, patience, tell }) {
        // The parent knows already.
        Err(WorkerError::Unfinished(_)) if arguments.with_parent => Ok(()),
        worked => Ok(worked?),
    }
}

/// A line for each turn. Whoever reads them may be gone: that ends no worker.
fn tell(news: News<'_>) {
    let line = match news {
        News::Joined(worker) => format!("joined      as {worker}"),
        News::Waiting(problem) => format!("waiting     for the coordinator: {}", printable(problem)),
        News::Over(reason) => format!("done        {}", printable(reason)),
    };
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        tracing::debug!("standard output: {error}");
    }
}

/// The parent never writes: a read returns only when the pipe's other end is closed, however that came.
fn end_with_standard_input() {
    let mut byte = [0u8; 1];
    loop {
        match std::io::stdin().read(&mut byte) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(1..) => {}
            _ => std::process::exit(0),
        }
    }
}
