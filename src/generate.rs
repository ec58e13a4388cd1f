//! `carousel generate`: a trained model writes. Prompts come from the command line, a file or standard input; how it writes is
//! `generation`'s business.

use std::io::Read;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use crate::checkpoint_model::CheckpointModel;
use crate::failure::Failure;
use crate::generation::{self, BeamOptions, Choice, Form, Output, Prompt, Settings};
use crate::place;

/// Let a trained model write
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  carousel generate runs/rust-source --prompt 'fn main() {' --tokens 300 --temperature 0.7 --seed 3\n  \
                  carousel generate runs/rust-source --prompt 'fn ' --samples 20 --top-p 0.95 --stop '}' --json\n  \
                  carousel generate runs/rust-source --prompts first-lines.txt --tokens 80 --beam 8 --json"
)]
#[command(allow_negative_numbers = true)]
#[command(group = clap::ArgGroup::new("before").required(true))]
pub(crate) struct Arguments {
    /// A run's folder or a checkpoint in one
    #[arg(value_name = "RUN_OR_CHECKPOINT")]
    path: PathBuf,
    /// What comes before; -: all of standard input
    #[arg(long, value_name = "TEXT", group = "before", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A prompt on each line of a file; -: of standard input
    #[arg(long, value_name = "FILE", group = "before")]
    prompts: Option<PathBuf>,
    /// How many tokens to write, at most
    #[arg(long, value_name = "N", default_value_t = 400)]
    tokens: u64,
    /// End a text where this begins; may be repeated
    #[arg(long, value_name = "STRING", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Texts for each prompt; with --beam the best
    #[arg(long, value_name = "N", default_value = "1")]
    samples: NonZero<u32>,
    /// The same seed writes the same
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// One JSON object for each text
    #[arg(long)]
    json: bool,
    /// Threads that compute [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZero<usize>>,
    #[command(flatten)]
    choice: ChoiceOptions,
    #[command(flatten)]
    beam: SearchOptions,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which token comes next")]
struct ChoiceOptions {
    /// Below 1: safer; above: wilder; 0: always the likeliest token
    #[arg(long, value_name = "T", default_value_t = 1.0)]
    temperature: f64,
    /// Only the K likeliest; 0: all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: u64,
    /// Only the nucleus: the fewest of the likeliest that reach P together; 1: all
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    top_p: f64,
    /// Make tokens that are there already less likely; 1: as likely as they are
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repetition_penalty: f64,
    /// How many of the last tokens count as there; 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    repetition_window: u64,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "The likeliest text")]
struct SearchOptions {
    /// Search with so many texts at a time instead of drawing
    #[arg(long, value_name = "N")]
    #[arg(conflicts_with_all = ["temperature", "top_k", "top_p", "repetition_penalty", "repetition_window", "seed"])]
    beam: Option<NonZero<usize>>,
    /// Above 0: longer texts gain (alpha)
    #[arg(long, value_name = "A", default_value_t = 0.0, requires = "beam")]
    length_penalty: f64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let settings = arguments.settings()?;
    let beam = arguments.beam_options()?;
    let mut model = CheckpointModel::open(&place::copy(&arguments.path)?.path)?;
    let prompts = arguments.prompts(&model)?;
    let form = if arguments.json { Form::Json } else { Form::Text };
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let threads = arguments.threads.map_or(cores, NonZero::get);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(Failure::failed)?;
    pool.install(|| {
        let output = Output::new(form, &prompts, settings.samples);
        match beam {
            Some(options) => generation::search(&mut model, &prompts, (&settings, options), output),
            None => generation::sample(&mut model, &prompts, &settings, output),
        }
    })
}

impl Arguments {
    fn settings(&self) -> Result<Settings, Failure> {
        let ChoiceOptions { temperature, top_k, top_p, repetition_penalty, repetition_window } = self.choice;
        let choice = Choice { temperature, top_k, top_p, repetition_penalty, repetition_window };
        if let Some(problem) = choice.problem() {
            Failure::unless(false, problem.option, problem.found, problem.expected)?;
        }
        let empty = self.stop.iter().any(String::is_empty);
        Failure::unless(!empty, "--stop", "\"\"", "at least one character")?;
        let (tokens, seed, samples) = (self.tokens, self.seed, self.samples.get());
        Ok(Settings { tokens, choice, seed, samples, stops: self.stop.clone() })
    }

    fn beam_options(&self) -> Result<Option<BeamOptions>, Failure> {
        let Some(width) = self.beam.beam else { return Ok(None) };
        let (width, length_penalty) = (width.get(), self.beam.length_penalty);
        let fits = length_penalty.is_finite() && length_penalty >= 0.0;
        Failure::unless(fits, "--length-penalty", length_penalty, "a finite number that is not negative")?;
        let samples = self.samples.get();
        let at_most = format!("at most --beam, {width}");
        Failure::unless(samples as usize <= width, "--samples", samples, &at_most)?;
        Ok(Some(BeamOptions { width, length_penalty }))
    }

    fn prompts(&self, model: &CheckpointModel) -> Result<Vec<Prompt>, Failure> {
        if let Some(path) = &self.prompts {
            let text = read(path, "--prompts")?;
            let line = |(at, line): (usize, &str)| {
                Prompt::new(model, line.to_owned(), &format!("--prompts {}, line {}", path.display(), at + 1))
            };
            let prompts = text.lines().enumerate().map(line).collect::<Result<Vec<Prompt>, Failure>>()?;
            Failure::unless(!prompts.is_empty(), "--prompts", "nothing", "at least one line")?;
            return Ok(prompts);
        }
        let text = match self.prompt.as_deref() {
            Some("-") => read(Path::new("-"), "--prompt")?,
            text => text.expect("one of --prompt and --prompts is required").to_owned(),
        };
        Ok(vec![Prompt::new(model, text, "--prompt")?])
    }
}

/// A file's text, or standard input's for `-`.
fn read(path: &Path, option: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if path == Path::new("-") {
        std::io::stdin().lock().read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text))
    };
    let of = path.display();
    read.map_err(|error| Failure::bad_input(format!("{option} {of}: {error}, expected text in UTF-8")))?;
    Ok(text)
}
