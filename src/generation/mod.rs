//! Writing with a trained model. What is here: what may be asked for and what comes of it. `choice` picks a token, `batch`
//! writes many samples side by side, `beam` searches the likeliest text, `stop` ends a text at a string, `output` shows it.
//! Where prompts come from is the command's business.

mod batch;
mod beam;
mod choice;
mod output;
mod stop;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::checkpoint_model::CheckpointModel;
use crate::failure::Failure;

pub(crate) use beam::BeamOptions;
pub(crate) use choice::Choice;
pub(crate) use output::{Form, Output};

/// How to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// Tokens after the prompt, at most.
    pub tokens: u64,
    pub choice: Choice,
    pub seed: u64,
    /// Samples of each prompt.
    pub samples: u32,
    /// A text ends where one of these would begin.
    pub stops: Vec<String>,
}

/// Why a text ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "ended", content = "stop")]
pub(crate) enum Ended {
    /// It has as many tokens as were asked for.
    Tokens,
    /// This string came.
    Stop(String),
    /// The user ended it.
    Interrupted,
}

/// One text that was written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Written {
    /// After the prompt and before the string that ended it.
    pub text: String,
    /// Those of the text, and of the string that ended it.
    pub tokens: Vec<u32>,
    /// Of the tokens after the prompt, by the model's own distribution, in nats.
    pub log_probability: f64,
    /// Of beam search: the log-probability over the length penalty.
    pub score: Option<f64>,
    pub ended: Ended,
}

/// A prompt, as it was given and as it is read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Prompt {
    pub text: String,
    pub tokens: Vec<u32>,
}

impl Prompt {
    /// `name` says where it came from.
    pub(crate) fn new(model: &CheckpointModel, text: String, name: &str) -> Result<Self, Failure> {
        let tokens = model.tokenizer.encode(&text)?;
        if tokens.is_empty() {
            return Err(Failure::bad_input(format!("{name}: {text:?} has no token, expected at least one")));
        }
        let unknown = tokens.iter().filter(|token| Some(**token) == model.tokenizer.unknown()).count();
        if unknown > 0 {
            let of = tokens.len();
            eprintln!(
                "warning: {name}: {unknown} of {of} tokens are not in the vocabulary and are read as <unk>"
            );
        }
        Ok(Self { text, tokens })
    }
}

/// Writes samples of every prompt.
pub(crate) fn sample(
    model: &mut CheckpointModel,
    prompts: &[Prompt],
    settings: &Settings,
    output: Output,
) -> Result<(), Failure> {
    let interrupted = listen_to_interrupts()?;
    let tokenizer = model.tokenizer.clone();
    let result = batch::write(model, &tokenizer, (prompts, settings), (output, &interrupted));
    conclude(result, &interrupted)
}

/// Writes the likeliest texts after every prompt, best first.
pub(crate) fn search(
    model: &mut CheckpointModel,
    prompts: &[Prompt],
    (settings, options): (&Settings, BeamOptions),
    output: Output,
) -> Result<(), Failure> {
    let interrupted = listen_to_interrupts()?;
    let result = beam::write(model, prompts, (settings, options), (output, &interrupted));
    conclude(result, &interrupted)
}

/// Why writing ended before its time.
#[derive(Debug, thiserror::Error)]
enum WritingError {
    /// Nobody reads any more, or the disk is full.
    #[error(transparent)]
    Output(#[from] std::io::Error),
    #[error(transparent)]
    Model(#[from] carousel_model::ModelError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

/// A reader who has gone had enough: no error.
fn conclude(result: Result<(), WritingError>, interrupted: &AtomicBool) -> Result<(), Failure> {
    match result {
        Err(WritingError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed(error)),
        Ok(()) if interrupted.load(Ordering::Relaxed) => Err(Failure::Stopped),
        Ok(()) => Ok(()),
    }
}

/// Ctrl-C and SIGTERM end the text at hand in good order, a second one at once.
fn listen_to_interrupts() -> Result<Arc<AtomicBool>, Failure> {
    use signal_hook::{consts, flag};
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [consts::SIGINT, consts::SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, interrupted.clone())
            .and_then(|_| flag::register(signal, interrupted.clone()))
            .map_err(|error| Failure::failed(format!("catching signals: {error}")))?;
    }
    Ok(interrupted)
}
