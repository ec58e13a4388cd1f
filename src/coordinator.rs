//! `carousel coordinator`: owns a run and waits for workers from other machines.

use std::net::SocketAddr;

use crate::failure::Failure;
use crate::launch::{self, RunArguments};
use crate::progress::Progress;
use crate::security::{self, SecurityArguments};

/// Own a run and serve workers that connect to it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  carousel coordinator examples/rust-source.toml --listen 127.0.0.1:7700 --set cluster.workers=1\n  \
                  carousel worker --coordinator 127.0.0.1:7700 --threads 2"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArguments,
    /// Where workers connect to: 127.0.0.1:7700 for those of this machine, 0.0.0.0:7700 for every network
    #[arg(long, value_name = "ADDR:PORT", value_parser = security::socket_address)]
    listen: SocketAddr,
    #[command(flatten)]
    metrics: launch::MetricsArguments,
    // Last: its heading goes on to whatever follows.
    #[command(flatten)]
    security: SecurityArguments,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let locks = arguments.security.locks(arguments.listen)?;
    let scheme = security::scheme(&locks.door);
    let prepared = launch::prepare(&arguments.run, &[], true)?;
    let listener = launch::listen(arguments.listen)?;
    let metrics = arguments.metrics.listen()?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    let folder = launch::folder_of(&prepared.run);
    let mut progress = Progress::new(&prepared.run);
    let coordinator = launch::coordinator(prepared.run, listener, locks)?.with_metrics(metrics);
    println!("listening   {scheme}://{address}");
    let result = coordinator.run(&mut progress);
    progress.finish();
    launch::conclude(result, folder.path())
}
