//! `carousel digest`: one line that two equal states share.

use std::path::PathBuf;

use carousel_coordinator::checkpoint::RunFolder;

use crate::failure::Failure;
use crate::place;

/// Print the digest of a checkpoint's state, or of a run's latest checkpoint
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  carousel digest runs/rust-source")]
pub(crate) struct Arguments {
    /// A run's folder or a checkpoint
    #[arg(value_name = "CHECKPOINT_OR_RUN")]
    path: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let copy = place::copy(&arguments.path)?;
    let found = RunFolder::open_any(&copy.path)?;
    for passed_over in &found.passed_over {
        eprintln!("warning: passed over a checkpoint: {passed_over}");
    }
    println!("{}", found.checkpoint.digest());
    Ok(())
}
