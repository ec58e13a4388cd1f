//! `carousel verify`: has what a run has written checked, and prints what was found. It mends nothing.

use std::path::PathBuf;

use carousel_coordinator::verify::{Verification, verify, verify_copy};

use crate::failure::Failure;
use crate::place;

/// Check a run's journal, committed state and checkpoints
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  carousel verify runs/rust-source")]
pub(crate) struct Arguments {
    /// A run's folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let copy = place::copy(&arguments.run)?;
    let verify = if copy.is_fetched() { verify_copy } else { verify };
    let found = verify(&copy.path).map_err(Failure::bad_input)?;
    print(&found);
    match found.flaws.len() {
        0 => Ok(()),
        flaws => Err(Failure::failed(format!("{}: {flaws} flaws", arguments.run.display()))),
    }
}

fn print(found: &Verification) {
    println!("journal     {} steps, up to term {}", found.steps, found.last_term);
    if let Some(epoch) = found.epoch.filter(|epoch| found.flaws.is_empty() && epoch.windows > 0) {
        let (whole, further) = (found.steps / epoch.windows, found.steps % epoch.windows);
        let (windows, streams) = (epoch.windows, epoch.streams);
        let epochs = if whole == 1 { "epoch" } else { "epochs" };
        println!(
            "ledger      {windows} steps of {streams} streams an epoch, each once: {whole} whole {epochs} and {further} steps of the next"
        );
    }
    if let Some(epoch) = found.epoch.filter(|epoch| found.flaws.is_empty() && epoch.windows == 0) {
        let (streams, tokens) = (epoch.streams, epoch.tokens);
        println!(
            "ledger      windows of random lengths of {streams} streams: {tokens} targets in each whole epoch"
        );
    }
    if let Some(step) = found.committed {
        println!("committed   step {step}");
    }
    for (path, digest) in &found.checkpoints {
        println!("whole       {}  {digest}", path.display());
    }
    if let Some(step) = found.best {
        println!("best        step {step}");
    }
    for flaw in &found.flaws {
        println!("flaw        {flaw}");
    }
}
