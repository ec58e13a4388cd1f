//! `carousel verify`: checks what a run has written.

use std::path::PathBuf;

use carousel_coordinator::verify::verify;

use crate::failure::Failure;

/// Check a run's journal and checkpoints
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  carousel verify runs/rust-source")]
pub(crate) struct Arguments {
    /// A run's folder
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let found = verify(&arguments.run).map_err(Failure::bad_input)?;
    println!("journal     {} steps, up to term {}", found.steps, found.last_term);
    for (path, digest) in &found.checkpoints {
        println!("whole       {}  {digest}", path.display());
    }
    for flaw in &found.flaws {
        println!("flaw        {flaw}");
    }
    match found.flaws.len() {
        0 => Ok(()),
        flaws => Err(Failure::failed(format!("{}: {flaws} flaws", arguments.run.display()))),
    }
}
