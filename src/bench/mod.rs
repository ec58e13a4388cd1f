//! `carousel bench`: how fast this machine is. Alone it measures whole training steps; `exchange` the way of gradients
//! between workers.

mod exchange;
mod model;

use crate::failure::Failure;

/// Measure training steps on synthetic tokens, or the exchange of gradients
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  carousel bench --model medium --threads 2 --lanes 4\n  carousel bench --model recipes/tinyshakespeare.toml --json\n  carousel bench exchange --workers 2 --bytes 79200000"
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
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.what {
        None => model::run(&arguments.model),
        Some(What::Exchange(arguments)) => exchange::run(arguments),
    }
}

/// The middle of some measurements; the upper one of two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
