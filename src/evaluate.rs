//! `carousel evaluate`: the loss of a trained model over a text, in this process. The text is cut and the losses are
//! added exactly as the coordinator does it in a run, so the figures are the same to the last bit.

use std::num::NonZero;
use std::path::PathBuf;

use carousel_coordinator::{Cut, Splits, TokenSource};
use carousel_corpus::{SourceOptions, Split, Tokens, read_text};
use carousel_model::{LaneLoss, LaneStreams, Window};
use carousel_proto::lane_streams;
use carousel_proto::v1::{self, WindowRequest};
use serde::Serialize;

use crate::checkpoint_model::CheckpointModel;
use crate::failure::Failure;
use crate::{launch, prepare};

/// Print the loss of a trained model over a text
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  carousel evaluate runs/rust-source --split valid\n  carousel evaluate runs/rust-source --text notes.txt --json"
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
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum SplitName {
    Valid,
    Test,
}

/// The figures of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Figures {
    /// What was evaluated: `valid`, `test` or a path.
    text: String,
    /// Mean cross-entropy, nats a token.
    loss: f64,
    /// `exp(loss)`.
    perplexity: f64,
    /// `loss / ln 2`.
    bits_per_token: f64,
    /// Targets: every token but the first.
    tokens: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut model = CheckpointModel::open(&arguments.path)?;
    let (text, tokens) = tokens(arguments, &model)?;
    let cut = launch::cut_of(&model.config);
    let source =
        TokenSource::new(Splits { train: filler(cut).into(), valid: Some(tokens), test: None }, cut)?;
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = arguments.threads.map_or(cores, NonZero::get);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(Failure::failed)?;
    let losses = pool.install(|| evaluate(&mut model, &source, cut))?;
    let figures = figures(text, &losses);
    if arguments.json {
        println!("{}", serde_json::to_string(&figures).map_err(Failure::failed)?);
    } else {
        let Figures { text, loss, perplexity, bits_per_token, tokens } = figures;
        println!(
            "text            {text}\nloss            {loss:.6} nats a token\nperplexity      {perplexity:.4}"
        );
        println!("bits per token  {bits_per_token:.6}\ntokens          {tokens}");
    }
    Ok(())
}

/// The shortest training text a cut admits: a token source has one, an evaluation does not read it.
fn filler(cut: Cut) -> Vec<u32> {
    vec![0; cut.streams * cut.window + 1]
}

fn tokens(arguments: &Arguments, model: &CheckpointModel) -> Result<(String, Tokens), Failure> {
    if let Some(path) = &arguments.text {
        let text = read_text("--text", std::slice::from_ref(path), &SourceOptions::default())?;
        return Ok((path.display().to_string(), model.tokenizer.encode(&text)?.into()));
    }
    let (split, name) = match arguments.split {
        SplitName::Valid => (Split::Valid, "valid"),
        SplitName::Test => (Split::Test, "test"),
    };
    let run = prepare::tokens_of_run(&model.config, &model.tokenizer)?;
    let tokens = if split == Split::Valid { run.valid } else { run.test };
    let missing = || {
        Failure::bad_input(format!(
            "--split {name}: the run has no such text; expected data.{name} in its config.toml"
        ))
    };
    Ok((name.to_owned(), tokens.ok_or_else(missing)?))
}

fn evaluate(model: &mut CheckpointModel, source: &TokenSource, cut: Cut) -> Result<Vec<LaneLoss>, Failure> {
    let (streams, lanes) = (cut.streams as u32, cut.lanes as u32);
    let lane_of = |lane: u32| {
        let streams = lane_streams(streams, lanes, lane);
        LaneStreams { lane: lane as usize, first_stream: streams.start as usize, streams: streams.len() }
    };
    let all: Vec<LaneStreams> = (0..lanes).map(lane_of).collect();
    let windows = source.split(v1::Split::Valid).map_or(0, carousel_coordinator::SplitTokens::windows);
    let mut carries = vec![0.0; cut.streams * model.carry_floats];
    let mut sums = vec![LaneLoss { tokens: 0, sum: 0.0 }; cut.lanes];
    for window in 0..windows {
        let request = WindowRequest { split: v1::Split::Valid.into(), window, first_lane: 0, lanes };
        let reply = source.windows(&request).map_err(Failure::failed)?;
        let (inputs, targets) = (&reply.inputs[..], &reply.targets[..]);
        let window =
            Window { seed: 0, step: 0, steps: cut.window, lanes: &all, inputs, targets, step_tokens: 1 };
        let losses = model.model.evaluate(&model.parameters, &window, &mut carries)?;
        for (sum, loss) in sums.iter_mut().zip(losses) {
            sum.tokens += loss.tokens;
            sum.sum += loss.sum;
        }
    }
    Ok(sums)
}

fn figures(text: String, losses: &[LaneLoss]) -> Figures {
    let tokens: u64 = losses.iter().map(|l| l.tokens).sum();
    let loss = losses.iter().map(|l| l.sum).sum::<f64>() / tokens as f64;
    let (perplexity, bits_per_token) = (libm::exp(loss), loss / std::f64::consts::LN_2);
    Figures { text, loss, perplexity, bits_per_token, tokens }
}
