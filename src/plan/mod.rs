//! `carousel plan`: what a run would cost on so many workers behind such a network, before anybody rents them. It trains
//! nothing and contacts nobody; the formulas are in docs/plan.md.

mod advice;
mod cost;
mod job;
mod report;
mod units;

use std::num::NonZero;
use std::path::PathBuf;

use carousel_model::{BenchOptions, ModelConfig};

use self::cost::{Place, Prediction};
use self::units::{BytesPerSecond, Counts, Flops, Seconds};
use crate::config::{self, Config, Exchange};
use crate::failure::Failure;
use crate::launch;
use crate::prepare;

/// Predict step time, speed, memory and traffic of a run on more workers
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  carousel plan examples/rust-source.toml --bandwidth 10Gbit --latency 0.1ms\n  \
                  carousel plan recipes/zaremba-medium.toml --vocabulary 10000 --workers 1,2,4,...,64 --bandwidth 1Gbit \
                  --latency 0.2ms"
)]
pub(crate) struct Arguments {
    /// The configuration, a TOML file
    #[arg(value_name = "CONFIG.toml")]
    config: PathBuf,
    /// Worker counts: a list, a range as 1-8, a series as 1,2,4,...,1000
    #[arg(long, value_name = "N,N,..", default_value = "1,2,4,...,64")]
    workers: Counts,
    /// Of each host's wire, in each direction, as 1Gbit
    #[arg(long, value_name = "RATE")]
    bandwidth: BytesPerSecond,
    /// From one host to another, one way, as 0.2ms: half of what ping tells
    #[arg(long, value_name = "TIME")]
    latency: Seconds,
    /// Operations a second of one worker, as 40G [default: this machine is measured]
    #[arg(long, value_name = "RATE")]
    flops: Option<Flops>,
    /// Threads that are measured with, those of a worker [default: cluster.threads]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    /// Tokens of the vocabulary [default: the text is read as train would]
    #[arg(long, value_name = "N")]
    vocabulary: Option<NonZero<u32>>,
    /// Set a key of the configuration, as train.lanes=64; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    sets: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Seconds for which this machine is measured.
const MEASURED: f64 = 3.0;

/// All that is predicted.
struct Plan {
    place: Place,
    /// Whether the rate of a worker was measured here.
    is_measured: bool,
    lanes: u32,
    parameters: usize,
    step_flops: f64,
    alone: Prediction,
    /// For each worker count, ascending.
    mesh: Vec<Prediction>,
    star: Vec<Prediction>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = config::load(&arguments.config, &arguments.sets)?;
    let model = launch::model_config(&config, vocabulary(arguments, &config)?)?;
    let flops = match arguments.flops {
        Some(flops) => flops,
        None => measure(arguments, &config, &model)?,
    };
    let place = Place { flops, bandwidth: arguments.bandwidth, latency: arguments.latency };
    let plan = Plan { is_measured: arguments.flops.is_none(), ..plan(&config, &model, arguments, place)? };
    if arguments.json {
        println!("{}", report::as_json(&plan))
    } else {
        report::print(&plan)
    }
    Ok(())
}

fn plan(config: &Config, model: &ModelConfig, arguments: &Arguments, place: Place) -> Result<Plan, Failure> {
    let job = job::of(config, model)?;
    let line = |exchange| {
        let counts = arguments.workers.0.iter();
        counts.map(|workers| cost::predict(&job, *workers, exchange, place)).collect()
    };
    Ok(Plan {
        place,
        is_measured: false,
        lanes: job.lanes,
        parameters: job.parameters,
        step_flops: job.flops,
        alone: cost::predict(&job, 1, Exchange::Mesh, place),
        mesh: line(Exchange::Mesh),
        star: line(Exchange::Star),
    })
}

fn vocabulary(arguments: &Arguments, config: &Config) -> Result<usize, Failure> {
    match arguments.vocabulary {
        Some(vocabulary) => Ok(vocabulary.get() as usize),
        None => {
            let tokens = prepare::tokens_of(config, &arguments.config, |line| eprintln!("{line}"))?;
            Ok(tokens.tokenizer.vocabulary())
        }
    }
}

/// Whole steps of this model on this machine, with the threads of one worker.
fn measure(arguments: &Arguments, config: &Config, model: &ModelConfig) -> Result<Flops, Failure> {
    let threads = arguments.threads.map_or(config.cluster.threads as usize, NonZero::get);
    eprintln!("measuring this machine for {MEASURED} s, threads: {threads}; --flops skips it");
    let cut = launch::cut_of(config);
    let options = BenchOptions {
        config: model.clone(),
        streams: cut.streams,
        window: cut.window,
        lanes: cut.lanes,
        warmup: 1,
        seconds: MEASURED,
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(Failure::failed)?;
    let report = pool.install(|| carousel_model::bench(&options))?;
    Ok(Flops(report.gflops * 1e9))
}
