//! `carousel bench` without a subcommand: how fast this machine trains, beside what its multiply-add units could do. Synthetic tokens, whole
//! training steps in this process; nothing is written.

use std::num::NonZero;
use std::path::Path;

use carousel_corpus::Corpus;
use carousel_model::{BenchOptions, BenchReport, Cell, ModelConfig, Softmax};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;

use crate::config;
use crate::failure::Failure;
use crate::launch;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// small, medium, large or char1 (the shapes of Zaremba et al. 2014, and one of characters), or a configuration
    #[arg(long, value_name = "MODEL", default_value = "medium")]
    model: String,
    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    /// Lanes [default: 4, or the configuration's]
    #[arg(long, value_name = "N")]
    lanes: Option<NonZero<usize>>,
    /// Another cell
    #[arg(long, value_name = "CELL", value_parser = cell())]
    cell: Option<Cell>,
    /// Another softmax: full, adaptive or sampled
    #[arg(long, value_name = "KIND")]
    softmax: Option<SoftmaxKind>,
    /// Another vocabulary; with another softmax than full, tokens are drawn by Zipf's law
    #[arg(long, value_name = "N")]
    vocabulary: Option<NonZero<u32>>,
    /// Clusters of the adaptive softmax [default: those of 2000, 10000 and 100000 that the vocabulary exceeds]
    #[arg(long, value_name = "N,N,..", value_delimiter = ',')]
    cutoffs: Vec<usize>,
    /// Tokens that the sampled softmax draws [default: 8192, at most half the vocabulary]
    #[arg(long, value_name = "N")]
    samples: Option<NonZero<usize>>,
    /// Seconds to measure for
    #[arg(long, value_name = "S", default_value_t = 8.0)]
    seconds: f64,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// `--softmax`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum SoftmaxKind {
    Full,
    Adaptive,
    Sampled,
}

impl Arguments {
    /// The softmax asked for, over so many tokens.
    fn softmax(&self, kind: SoftmaxKind, vocabulary: usize) -> Softmax {
        match kind {
            SoftmaxKind::Full => Softmax::Full,
            SoftmaxKind::Adaptive => {
                let usual = || [2000, 10_000, 100_000].into_iter().filter(|&cutoff| cutoff < vocabulary);
                let cutoffs = if self.cutoffs.is_empty() { usual().collect() } else { self.cutoffs.clone() };
                Softmax::Adaptive { cutoffs, div_value: 4.0, head_bias: false }
            }
            SoftmaxKind::Sampled => {
                let samples = self.samples.map_or((vocabulary / 2).min(8192), NonZero::get);
                Softmax::Sampled { samples }
            }
        }
    }
}

/// A named shape: vocabulary, embedding, hidden, layers, streams, window.
pub(super) const SHAPES: [(&str, [usize; 6]); 4] = [
    ("small", [10_000, 200, 200, 2, 20, 20]),
    ("medium", [10_000, 650, 650, 2, 20, 35]),
    ("large", [10_000, 1500, 1500, 2, 20, 35]),
    ("char1", [96, 96, 512, 1, 32, 50]),
];

/// A cell by its name; `--help` lists them.
pub(super) fn cell() -> impl TypedValueParser<Value = Cell> {
    let names = PossibleValuesParser::new(Cell::ALL.map(Cell::name));
    names.map(|name| name.parse().expect("it is one of the names"))
}

/// Steps before the clock starts.
const WARMUP: usize = 3;

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !(arguments.seconds.is_finite() && arguments.seconds > 0.0) {
        return Err(Failure::bad_input(format!(
            "--seconds: found {}, expected a number above 0",
            arguments.seconds
        )));
    }
    let options = options(arguments)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = arguments.threads.map_or(cores, NonZero::get);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(Failure::failed)?;
    let report = pool.install(|| carousel_model::bench(&options))?;
    if arguments.json {
        println!("{}", as_json(&arguments.model, &options, &report));
    } else {
        print(&arguments.model, &options, &report);
    }
    Ok(())
}

fn options(arguments: &Arguments) -> Result<BenchOptions, Failure> {
    let named = SHAPES.iter().find(|(name, _)| *name == arguments.model);
    let mut options = match named {
        Some((_, shape)) => of_shape(*shape),
        None => of_configuration(&arguments.model)?,
    };
    options.config.cell = arguments.cell.unwrap_or(options.config.cell);
    let config = &mut options.config;
    config.vocabulary = arguments.vocabulary.map_or(config.vocabulary, |n| n.get() as usize);
    if let Some(kind) = arguments.softmax {
        config.softmax = arguments.softmax(kind, config.vocabulary);
    }
    options.lanes = arguments.lanes.map_or(options.lanes, NonZero::get);
    options.seconds = arguments.seconds;
    if options.lanes > options.streams {
        let (lanes, streams) = (options.lanes, options.streams);
        return Err(Failure::bad_input(format!(
            "--lanes: found {lanes}, expected at most the {streams} streams"
        )));
    }
    Ok(options)
}

pub(super) fn of_shape([vocabulary, embedding, hidden, layers, streams, window]: [usize; 6]) -> BenchOptions {
    let (cell, tied, dropout, init) = (Cell::Lstm, false, 0.0, 0.05);
    let config = ModelConfig {
        cell,
        vocabulary,
        embedding,
        hidden,
        layers,
        tied,
        dropout,
        init,
        ..ModelConfig::default()
    };
    BenchOptions { config, streams, window, lanes: 4, warmup: WARMUP, seconds: 0.0 }
}

fn of_configuration(path: &str) -> Result<BenchOptions, Failure> {
    if !path.ends_with(".toml") {
        let expected = "small, medium, large, char1 or a configuration (.toml)";
        return Err(Failure::bad_input(format!("--model: found {path:?}, expected {expected}")));
    }
    let config = config::load(Path::new(path), &[])?;
    let vocabulary = Corpus::load(&launch::data_config(&config)?)?.tokenizer.vocabulary();
    let cut = launch::cut_of(&config);
    let (streams, window, lanes) = (cut.streams, cut.window, cut.lanes);
    let config = launch::model_config(&config, vocabulary)?;
    Ok(BenchOptions { config, streams, window, lanes, warmup: WARMUP, seconds: 0.0 })
}

/// The most memory this process has had, bytes; `None` where the system does not tell.
fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

fn print(name: &str, options: &BenchOptions, report: &BenchReport) {
    let BenchOptions { config, streams, window, lanes, .. } = options;
    let (cell, vocabulary, softmax) = (config.cell, config.vocabulary, config.softmax.name());
    let layers = match widths(config)[..] {
        [hidden] => format!("{} x {hidden}", config.layers),
        ref widths => format!("layers of {widths:?}"),
    };
    println!(
        "{name}: {cell}, {layers}, vocabulary {vocabulary}, {softmax} softmax, {streams} streams, window {window}"
    );
    println!(
        "{} parameters, {lanes} lanes, threads: {}, {}\n",
        report.parameters, report.threads, report.isa
    );
    println!("tokens/s                {:10.0}", report.tokens_per_second);
    println!("ms a step               {:10.2}   median of {}", report.step_seconds * 1e3, report.steps);
    for phase in &report.phases {
        let share = 100.0 * phase.seconds / report.step_seconds;
        println!("  {:<22}{:10.2}   {share:4.1} %", phase.name, phase.seconds * 1e3);
    }
    println!("GFLOP/s                 {:10.1}", report.gflops);
    println!("FMA peak                {:10.1}   GFLOP/s, measured in this run", report.peak_gflops);
    println!("of the peak             {:10.1} %", 100.0 * report.peak_fraction);
    match peak_memory() {
        Some(bytes) => println!("peak memory             {:10.0}   MB", bytes as f64 / 1e6),
        None => println!("peak memory                unknown   on this system"),
    }
}

/// The layers' widths; one, when it is that of all.
fn widths(config: &ModelConfig) -> Vec<usize> {
    let mut widths: Vec<usize> = (0..config.layers).map(|layer| config.width(layer)).collect();
    if widths.iter().all(|width| *width == config.hidden) {
        widths.truncate(1);
    }
    widths
}

fn as_json(name: &str, options: &BenchOptions, report: &BenchReport) -> serde_json::Value {
    let config = &options.config;
    let phases = report.phases.iter().map(|p| (p.name.to_owned(), json!(p.seconds * 1e3)));
    json!({
        "model": name,
        "cell": config.cell.to_string(),
        "vocabulary": config.vocabulary,
        "softmax": config.softmax.name(),
        "embedding": config.embedding,
        "hidden": match widths(config)[..] {
            [hidden] => json!(hidden),
            ref widths => json!(widths),
        },
        "layers": config.layers,
        "streams": options.streams,
        "window": options.window,
        "lanes": options.lanes,
        "threads": report.threads,
        "isa": report.isa,
        "parameters": report.parameters,
        "steps": report.steps,
        "tokens_per_second": report.tokens_per_second,
        "step_ms": report.step_seconds * 1e3,
        "phase_ms": phases.collect::<serde_json::Map<_, _>>(),
        "gflops": report.gflops,
        "peak_gflops": report.peak_gflops,
        "peak_fraction": report.peak_fraction,
        "peak_memory_bytes": peak_memory(),
        "loss": report.loss,
    })
}
