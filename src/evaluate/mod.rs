//! `carousel evaluate`: the loss of a trained model over a text. What is here: the options and which of the four ways they
//! ask for. Each way has a file of its own: `carried` and `cluster` give the figure of a run's own validation, to the last
//! bit; `dynamic` and `cache` are the literature's ways to do better without further training.

mod cache;
mod carried;
mod cluster;
mod dynamic;
mod figures;
mod subject;
mod windows;

use std::num::NonZero;
use std::path::PathBuf;

use serde::Serialize;

use crate::checkpoint_model::CheckpointModel;
use crate::failure::Failure;
use crate::place;
use figures::Figures;
use subject::{SplitName, Subject};

/// Print the loss of a trained model over a text
#[derive(Debug, clap::Args)]
#[command(
    allow_negative_numbers = true,
    after_help = "Examples:\n  carousel evaluate runs/rust-source --split valid\n  carousel evaluate runs/rust-source --text notes.txt --streams 1 --json\n  \
                  carousel evaluate runs/rust-source --split valid --dynamic\n  carousel evaluate runs/rust-source --split valid --cache 500 --cache-theta 0.3 --cache-lambda 0.1\n  \
                  carousel evaluate runs/rust-source --workers 2"
)]
pub(crate) struct Arguments {
    /// A run's folder or a checkpoint in one
    #[arg(value_name = "RUN_OR_CHECKPOINT")]
    path: PathBuf,
    /// Which text of the run
    #[arg(long, value_enum, default_value = "valid")]
    split: SplitName,
    /// Another text
    #[arg(long, value_name = "FILE", conflicts_with = "split")]
    text: Option<PathBuf>,
    /// Parts of the text that are read side by side, each from an empty state; 1 is exact [default: the run's; 1 with --dynamic or --cache]
    #[arg(long, value_name = "N")]
    streams: Option<NonZero<u32>>,
    /// Steps that are computed at once; it changes no loss, only time and memory [default: the run's]
    #[arg(long, value_name = "N", conflicts_with = "dynamic")]
    window: Option<NonZero<u32>>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Threads that compute, of each worker with --workers [default: one for each core; 1 with --workers]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    #[command(flatten)]
    dynamic: dynamic::Options,
    #[command(flatten)]
    cache: cache::Options,
    #[command(flatten)]
    cluster: cluster::Options,
}

/// How a text was read.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Method {
    /// `carried`, `dynamic` or `cache`.
    method: &'static str,
    /// Parts of the text side by side.
    streams: usize,
    /// Steps computed at once; of dynamic evaluation, a segment.
    window: usize,
    /// Whether the weights are the average that the optimizer keeps, and not the last ones.
    averaged: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dynamic: Option<dynamic::Settings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<cache::Settings>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let dynamic = arguments.dynamic.settings()?;
    let cache = arguments.cache.settings()?;
    let figures = if arguments.cluster.is_asked_for() {
        with_workers(arguments)?
    } else {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = arguments.threads.map_or(cores, NonZero::get);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(Failure::failed)?;
        pool.install(|| here(arguments, dynamic, cache))?
    };
    figures.print(arguments.json)
}

impl Arguments {
    fn streams(&self, otherwise: u32) -> usize {
        self.streams.map_or(otherwise, NonZero::get) as usize
    }

    fn subject(
        &self,
        config: &crate::config::Config,
        tokenizer: &carousel_corpus::Tokenizer,
    ) -> Result<Subject, Failure> {
        match &self.text {
            Some(path) => Subject::file(config, path, tokenizer),
            None => Subject::split(config, self.split, tokenizer),
        }
    }
}

/// In this process.
fn here(
    arguments: &Arguments,
    dynamic: Option<dynamic::Settings>,
    cache: Option<cache::Settings>,
) -> Result<Figures, Failure> {
    let mut model = CheckpointModel::open(&place::copy(&arguments.path)?.path)?;
    let subject = arguments.subject(&model.config, &model.tokenizer)?;
    let train = &model.config.train;
    let alone = dynamic.is_some() || cache.is_some();
    let streams = arguments.streams(if alone { 1 } else { train.streams });
    let window = arguments.window.map_or(train.window, NonZero::get) as usize;
    let (window, sum) = match (&dynamic, &cache) {
        (Some(settings), _) => {
            (settings.segment, dynamic::evaluate(&mut model, &subject, streams, *settings)?)
        }
        (_, Some(settings)) => (window, cache::evaluate(&mut model, &subject, (streams, window), *settings)?),
        _ => (window, carried::evaluate(&mut model, &subject, (streams, window))?),
    };
    let name = match (&dynamic, &cache) {
        (Some(_), _) => "dynamic",
        (_, Some(_)) => "cache",
        _ => "carried",
    };
    let averaged = model.averaged;
    let method = Method { method: name, streams, window, averaged, dynamic, cache };
    Figures::new(&subject, method, sum.mean(), &model.tokenizer)
}

/// On worker processes.
fn with_workers(arguments: &Arguments) -> Result<Figures, Failure> {
    let copy = place::copy(&arguments.path)?;
    let trained = cluster::Trained::open(&copy.path)?;
    let subject = arguments.subject(&trained.config, &trained.tokenizer)?;
    let streams = arguments.streams(trained.config.train.streams);
    let window = arguments.window.map_or(trained.config.train.window, NonZero::get) as usize;
    let (tokenizer, averaged) = (trained.tokenizer.clone(), trained.averaged());
    let threads = arguments.threads.map_or(1, NonZero::get);
    let mean = cluster::evaluate(trained, &subject, (streams, window), (&arguments.cluster, threads))?;
    let method = Method { method: "carried", streams, window, averaged, dynamic: None, cache: None };
    Figures::new(&subject, method, mean, &tokenizer)
}
