//! `carousel bench train`: training as `carousel train` does it, a coordinator and worker processes on this machine, on
//! synthetic tokens. What it writes goes to a temporary folder that is removed at the end.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;

use carousel_coordinator::{Locks, Observer, Report};
use carousel_model::Cell;
use crossbeam::channel::{self, Receiver};
use serde_json::json;

use super::median;
use super::model::{SHAPES, cell, of_shape};
use crate::config::{self, Config, Exchange, KindOr, NumberOrKind, Optimizer, optimizer::Sgd};
use crate::failure::Failure;
use crate::launch;
use crate::train::Workers;

/// Measure training with worker processes on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  carousel bench train --model medium --workers 2 --threads 1")]
pub(super) struct Arguments {
    /// small, medium, large or char1
    #[arg(long, value_name = "MODEL", default_value = "medium")]
    model: String,
    /// Worker processes
    #[arg(long, value_name = "N", default_value = "2")]
    workers: NonZero<u32>,
    /// Threads that compute in each
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZero<u32>,
    /// Lanes
    #[arg(long, value_name = "N", default_value = "4")]
    lanes: NonZero<u32>,
    /// The cell
    #[arg(long, value_name = "CELL", default_value = "lstm", value_parser = cell())]
    cell: Cell,
    /// Steps that are measured, after three that are not
    #[arg(long, value_name = "N", default_value = "40")]
    steps: NonZero<u32>,
    /// How gradients are exchanged: mesh or star
    #[arg(long, value_name = "HOW", default_value = "mesh", value_parser = exchange)]
    exchange: Exchange,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const WARMUP: u64 = 3;

/// The parts of a step as workers tell them: the name of the figure, and what it is.
const PARTS: [(&str, &str); 6] = [
    ("compute", "forward and backward; the first parts of the gradient go out meanwhile"),
    ("exchange", "from then until the whole gradient is here"),
    ("reduce", "of both: taking in what peers sent"),
    ("commit", "from the whole gradient to the commit: acknowledgement, journal, the slower peer"),
    ("apply", "the update"),
    ("assign", "from the update to the next step"),
];

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = configuration(arguments)?;
    let folder = Temporary::new();
    let tokens = tokens(arguments)?;
    let vocabulary = shape(arguments)?[0];
    let prepared = launch::synthetic(config, vocabulary, tokens, folder.0.clone())?;
    let listener = launch::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    let coordinator = launch::coordinator(prepared.run, listener, Locks::default())?;
    let (tell, told) = channel::unbounded();
    let workers = Workers::start(&prepared.config, address, coordinator.control(), Some(tell))?;
    let mut steps = Steps::default();
    let result = coordinator.run(&mut steps);
    workers.wait();
    result?;
    report(arguments, steps, parts(&told));
    Ok(())
}

fn exchange(text: &str) -> Result<Exchange, String> {
    match text {
        "mesh" => Ok(Exchange::Mesh),
        "star" => Ok(Exchange::Star),
        _ => Err("expected mesh or star".into()),
    }
}

fn shape(arguments: &Arguments) -> Result<[usize; 6], Failure> {
    let named = SHAPES.iter().find(|(name, _)| *name == arguments.model);
    named.map(|(_, shape)| *shape).ok_or_else(|| {
        let expected = "small, medium, large or char1";
        Failure::bad_input(format!("--model: found {:?}, expected {expected}", arguments.model))
    })
}

fn configuration(arguments: &Arguments) -> Result<Config, Failure> {
    let options = of_shape(shape(arguments)?);
    let (mut config, steps) = (Config::default(), WARMUP + u64::from(arguments.steps.get()));
    let model = &mut config.model;
    model.cell = arguments.cell.to_string();
    model.layers = options.config.layers as u32;
    (model.embedding, model.hidden) =
        (options.config.embedding as u32, (options.config.hidden as u32).into());
    model.init = NumberOrKind(f64::from(options.config.init).into());
    let train = &mut config.train;
    (train.streams, train.window) = (options.streams as u32, options.window as u32);
    (train.lanes, train.steps) = (arguments.lanes.get(), Some(steps));
    (train.optimizer, train.learning_rate, train.clip_norm) =
        (KindOr(Optimizer::Sgd(Sgd::default())), 1.0, 5.0);
    config.cluster = config::Cluster {
        workers: arguments.workers.get(),
        threads: arguments.threads.get(),
        exchange: arguments.exchange,
        digest_every: 0,
        ..config::Cluster::default()
    };
    Ok(config)
}

/// Enough that no epoch ends: what comes at an epoch's end is not measured.
fn tokens(arguments: &Arguments) -> Result<Vec<u32>, Failure> {
    let [vocabulary, .., streams, window] = shape(arguments)?;
    let windows = 2 + WARMUP as usize + arguments.steps.get() as usize;
    let count = streams * (windows * window + 1);
    Ok((0..count as u64).map(|at| ((at * 0x9e37_79b9_7f4a_7c15) >> 33) as u32 % vocabulary as u32).collect())
}

/// The run's folder, removed at the end.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("carousel-bench-{}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // When the run could not be begun there is none.
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!("{}: {error}", self.0.display());
        }
    }
}

/// Seconds and tokens of the measured steps, from commit to commit.
#[derive(Default)]
struct Steps {
    seconds: Vec<f64>,
    tokens: u64,
}

impl Observer for Steps {
    fn observe(&mut self, report: Report<'_>) {
        if let Report::Step(m) = report
            && m.step > WARMUP
        {
            self.seconds.push(m.seconds);
            self.tokens = m.tokens;
        }
    }
}

/// Median milliseconds of each part over all workers and measured steps.
fn parts(told: &Receiver<String>) -> BTreeMap<&'static str, f64> {
    let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for line in told.try_iter() {
        let figures: BTreeMap<&str, u64> = line
            .split_whitespace()
            .filter_map(|word| word.split_once('='))
            .filter_map(|(name, figure)| Some((name, figure.parse().ok()?)))
            .collect();
        if figures.get("step").is_none_or(|step| *step <= WARMUP) {
            continue;
        }
        for (part, _) in PARTS {
            if let Some(us) = figures.get(format!("{part}_us").as_str()) {
                all.entry(part).or_default().push(*us as f64 / 1e3);
            }
        }
    }
    all.into_iter().map(|(part, values)| (part, median(values))).collect()
}

fn report(arguments: &Arguments, steps: Steps, parts: BTreeMap<&str, f64>) {
    let (measured, seconds) = (steps.seconds.len(), median(steps.seconds));
    let tokens_per_second = steps.tokens as f64 / seconds;
    let Arguments { model, workers, threads, lanes, .. } = arguments;
    if arguments.json {
        let report = json!({
            "model": model, "cell": arguments.cell.to_string(), "workers": workers, "threads": threads, "lanes": lanes,
            "steps": measured, "step_ms": seconds * 1e3, "tokens_per_second": tokens_per_second, "part_ms": parts,
        });
        return println!("{report}");
    }
    println!("{model}: {}, {workers} workers, threads of each: {threads}, {lanes} lanes\n", arguments.cell);
    println!("tokens/s        {tokens_per_second:10.0}");
    println!("ms a step       {:10.1}   median of {measured}, from commit to commit", seconds * 1e3);
    for (part, what) in PARTS {
        if let Some(ms) = parts.get(part) {
            println!("  {part:<14}{ms:10.1}   {what}");
        }
    }
}
