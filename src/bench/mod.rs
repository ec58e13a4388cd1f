//! `carousel bench`: how fast this machine is. Alone it measures whole training steps; `exchange` the way of gradients
//! between workers; `train` both, in a run.

mod exchange;
mod model;
mod train;

use crate::failure::Failure;

/// Measure training steps on synthetic tokens, the exchange of gradients, or a run
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  carousel bench --model medium --threads 2 --lanes 4\n  carousel bench --model examples/rust-source.toml --json\n  carousel bench exchange --workers 2 --bytes 79200000\n  carousel bench train --model medium --workers 2"
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    model: model::Arguments,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    Exchange(exchange::Arguments),
    Train(train::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.what {
        None => model::run(&arguments.model),
        Some(What::Exchange(arguments)) => exchange::run(arguments),
        Some(What::Train(arguments)) => train::run(arguments),
    }
}

/// The middle of some measurements; the upper one of two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
