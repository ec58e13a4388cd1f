//! Whole training steps on synthetic tokens, timed: forward, backward, global norm, clip, SGD. No files and no printing.

use std::time::Instant;

use rayon::prelude::*;

use crate::{
    GradientView, Gradients, Isa, LaneStreams, LanguageModel, ModelConfig, ModelError, Optimizer,
    OptimizerConfig, Parameters, Softmax, Update, Window,
    head::Cluster,
    kernels::{Context, Scratch, fma_peak, with_team},
    philox4x32,
    stopwatch::Stage,
};

/// What to run.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchOptions {
    /// Shape of the model.
    pub config: ModelConfig,
    /// Rows of the batch (B).
    pub streams: usize,
    /// Time steps of a window (T).
    pub window: usize,
    /// Lanes the streams are cut into, at most B.
    pub lanes: usize,
    /// Steps before the clock starts.
    pub warmup: usize,
    /// Steps are measured for this long, and at least five.
    pub seconds: f64,
}

/// One part of a step.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// Such as "recurrence".
    pub name: &'static str,
    /// Median seconds a step.
    pub seconds: f64,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchReport {
    /// Instruction set in use.
    pub isa: &'static str,
    /// Threads of the rayon pool.
    pub threads: usize,
    /// Floats of the model.
    pub parameters: usize,
    /// Steps measured.
    pub steps: usize,
    /// Median seconds of a step.
    pub step_seconds: f64,
    /// Tokens (B · T) over the median step.
    pub tokens_per_second: f64,
    /// The step's parts, in their order; their sum is about `step_seconds`.
    pub phases: Vec<Phase>,
    /// Floating-point operations of a step: 6 times the multiply-adds of its products, per token.
    pub step_flops: f64,
    /// `step_flops` over the median step, in 10^9 a second.
    pub gflops: f64,
    /// FMA peak of all threads, measured before and after the steps (the larger), in 10^9 a second.
    pub peak_gflops: f64,
    /// `gflops` over `peak_gflops`.
    pub peak_fraction: f64,
    /// Mean loss of the last step, nats a token.
    pub loss: f64,
}

/// Runs training steps on the current rayon pool.
///
/// # Errors
/// An invalid configuration; no streams, steps or lanes; more lanes than streams; a `CAROUSEL_ISA` that cannot be used.
pub fn bench(options: &BenchOptions) -> Result<BenchReport, ModelError> {
    let isa = Isa::chosen()?;
    let before = peak(isa);
    let mut run = Run::new(options)?;
    for _ in 0..options.warmup {
        run.step()?;
    }
    run.laps.clear();
    let start = Instant::now();
    let mut loss = 0.0;
    while run.laps.len() < 5 || start.elapsed().as_secs_f64() < options.seconds {
        loss = run.step()?;
    }
    Ok(report(options, isa, &run.laps, before.max(peak(isa)), loss))
}

fn peak(isa: Isa) -> f64 {
    let scratch = Scratch::new();
    with_team(|team| fma_peak(Context { team, isa, scratch: &scratch }))
}

fn report(options: &BenchOptions, isa: Isa, laps: &[Lap], peak: f64, loss: f64) -> BenchReport {
    let median = |value: &dyn Fn(&Lap) -> f64| {
        let mut values: Vec<f64> = laps.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let step_seconds = median(&|lap| lap.whole);
    let tokens = (options.streams * options.window) as f64;
    let step_flops = step_flops(&options.config, tokens);
    let mut phases: Vec<Phase> =
        (0..NAMES).map(|at| Phase { name: name(at), seconds: median(&|lap| lap.stages[at]) }).collect();
    phases.retain(|phase| phase.seconds > 0.0);
    BenchReport {
        isa: isa.name(),
        threads: rayon::current_num_threads(),
        parameters: options.config.parameter_layout().len(),
        steps: laps.len(),
        step_seconds,
        tokens_per_second: tokens / step_seconds,
        phases,
        step_flops,
        gflops: step_flops / step_seconds / 1e9,
        peak_gflops: peak / 1e9,
        peak_fraction: step_flops / step_seconds / peak,
        loss,
    }
}

/// Floating-point operations of a training step over so many tokens (B · T): 6 times the multiply-adds of its products.
#[must_use]
pub fn step_flops(config: &ModelConfig, tokens: f64) -> f64 {
    6.0 * tokens * multiply_adds(config)
}

/// The softmax's share of a step's operations, in [0, 1].
#[must_use]
pub fn softmax_share(config: &ModelConfig) -> f64 {
    softmax_multiply_adds(config) / multiply_adds(config)
}

/// Multiply-adds of the products for one token, forward.
fn multiply_adds(config: &ModelConfig) -> f64 {
    let wiring = config.cell.wiring();
    let layer = |layer: usize| {
        let input = config.input_width(layer) * wiring.input.len();
        (input + config.width(layer) * wiring.hidden.len()) * config.width(layer)
    };
    (0..config.layers).map(layer).sum::<usize>() as f64 + softmax_multiply_adds(config)
}

/// Of the softmax: an adaptive one's tails for their share of the tokens, by Zipf's law.
fn softmax_multiply_adds(config: &ModelConfig) -> f64 {
    let entries = match config.softmax {
        Softmax::Sampled { samples } => samples + 1,
        Softmax::Full | Softmax::Adaptive { .. } => config.softmax.head_logits(config),
    };
    let tail = |tail: Cluster| {
        let log = |x: usize| libm::log1p(x as f64);
        let share = (log(tail.first + tail.tokens) - log(tail.first)) / log(config.vocabulary);
        share * (tail.width * (config.hidden + tail.tokens)) as f64
    };
    let tails: f64 = config.softmax.clusters(config).into_iter().map(tail).sum();
    (config.hidden * entries) as f64 + tails
}

/// A token from a random word: any alike; where their frequency matters, by Zipf's law.
fn token(config: &ModelConfig, word: u32) -> u32 {
    let vocabulary = config.vocabulary as u32;
    if config.softmax == Softmax::Full {
        return word % vocabulary;
    }
    let place = f64::from(word) / 2f64.powi(32);
    (libm::exp(place * libm::log1p(f64::from(vocabulary))) as u32).clamp(1, vocabulary) - 1
}

const NAMES: usize = Stage::ALL.len() + 2;

fn name(at: usize) -> &'static str {
    match at - at.min(Stage::ALL.len()) {
        _ if at < Stage::ALL.len() => Stage::ALL[at].name(),
        0 => "norm",
        _ => "update",
    }
}

/// Seconds of one step.
struct Lap {
    whole: f64,
    stages: [f64; NAMES],
}

struct Run {
    model: LanguageModel,
    parameters: Parameters,
    optimizer: Optimizer,
    window: usize,
    lanes: Vec<LaneStreams>,
    /// (T + 1, B) tokens.
    tokens: Vec<u32>,
    carries: Vec<f32>,
    laps: Vec<Lap>,
}

impl Run {
    fn new(options: &BenchOptions) -> Result<Self, ModelError> {
        let config = &options.config;
        let model = LanguageModel::new(config.clone())?;
        if options.lanes == 0 || options.lanes > options.streams {
            return Err(ModelError::EmptyWindow("streams in a lane"));
        }
        let bound = |lane: usize| options.streams * lane / options.lanes;
        let lane = |lane: usize| LaneStreams {
            lane,
            first_stream: bound(lane),
            streams: bound(lane + 1) - bound(lane),
        };
        let count = (options.window + 1) * options.streams;
        let token = |at: usize| token(config, philox4x32([at as u32, 0, 0, 0], [1, 2])[0]);
        Ok(Self {
            parameters: Parameters::initial(config, 1),
            optimizer: Optimizer::new(
                OptimizerConfig::Sgd { weight_decay: 0.0 },
                &config.parameter_layout(),
            )?,
            window: options.window,
            lanes: (0..options.lanes).map(lane).collect(),
            tokens: (0..count).map(token).collect(),
            carries: vec![0.0; options.streams * config.carry_len()],
            laps: Vec::new(),
            model,
        })
    }

    /// One training step; returns the mean loss.
    fn step(&mut self) -> Result<f64, ModelError> {
        let start = Instant::now();
        let streams = self.tokens.len() / (self.window + 1);
        let count = self.window * streams;
        let window = Window {
            seed: 1,
            step: self.laps.len() as u64,
            steps: self.window,
            lanes: &self.lanes,
            inputs: &self.tokens[..count],
            targets: &self.tokens[streams..],
            step_tokens: count as u64,
        };
        let all = 0..self.lanes.len();
        let mut gradients =
            self.model.gradients(&self.parameters, &window, &mut self.carries, std::slice::from_ref(&all))?;
        let computed = start.elapsed().as_secs_f64();
        let norm = self.fold_and_measure(&mut gradients);
        let normed = start.elapsed().as_secs_f64();
        self.update(&gradients, (5.0 / (norm + 1e-6)).min(1.0) as f32)?;
        let loss = gradients.losses.iter().map(|lane| lane.sum).sum::<f64>() / count as f64;
        self.model.recycle(gradients);
        let whole = start.elapsed().as_secs_f64();
        let mut stages = [0.0; NAMES];
        for (at, &stage) in Stage::ALL.iter().enumerate() {
            stages[at] = self.model.seconds(stage);
        }
        stages[NAMES - 2] = normed - computed;
        stages[NAMES - 1] = whole - normed;
        self.laps.push(Lap { whole, stages });
        Ok(loss)
    }

    /// Tied rows go into the dense part; the global norm.
    fn fold_and_measure(&self, gradients: &mut Gradients) -> f64 {
        let layout = self.model.config().gradient_layout();
        let partial = &mut gradients.partials[0];
        if layout.rows_fold_into.is_some() {
            for (&row, values) in partial.rows.iter().zip(partial.row_values.chunks_exact(layout.row_width)) {
                let place = &mut partial.dense[row as usize * layout.row_width..];
                place.iter_mut().zip(values).for_each(|(a, b)| *a += b);
            }
            partial.rows.clear();
            partial.row_values.clear();
        }
        let blocks: Vec<f64> = partial.dense.par_chunks(1 << 16).map(squares).collect();
        (blocks.iter().sum::<f64>() + squares(&partial.row_values)).sqrt()
    }

    fn update(&mut self, gradients: &Gradients, scale: f32) -> Result<(), ModelError> {
        let partial = &gradients.partials[0];
        let gradient =
            GradientView { dense: &partial.dense, rows: &partial.rows, row_values: &partial.row_values };
        let update = Update { learning_rate: 1.0, scale, ..Update::default() };
        let layout = self.model.config().gradient_layout();
        self.optimizer.apply(&mut self.parameters, &layout, gradient, update)
    }
}

fn squares(values: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    for chunk in values.chunks(16) {
        for (sum, &x) in sums.iter_mut().zip(chunk) {
            *sum += f64::from(x) * f64::from(x);
        }
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cell;

    #[test]
    fn a_small_bench_learns_and_accounts_for_its_time() {
        let config = ModelConfig {
            cell: Cell::Lstm,
            vocabulary: 50,
            embedding: 20,
            hidden: 20,
            layers: 1,
            tied: true,
            init: 0.1,
            ..ModelConfig::default()
        };
        let options = BenchOptions { config, streams: 5, window: 7, lanes: 2, warmup: 1, seconds: 0.0 };
        let report = bench(&options).unwrap();
        assert!(report.loss < 4.0 && report.peak_fraction > 0.0 && report.peak_fraction < 1.0, "{report:?}");
        let sum: f64 = report.phases.iter().map(|phase| phase.seconds).sum();
        assert!(sum < 2.0 * report.step_seconds && sum > 0.3 * report.step_seconds, "{report:?}");
        assert_eq!(report.step_flops, 6.0 * 35.0 * (2.0 * 20.0 * 80.0 + 20.0 * 50.0));
        assert!(bench(&BenchOptions { lanes: 6, ..options }).is_err());
    }
}
