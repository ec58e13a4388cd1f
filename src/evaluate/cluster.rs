//! Evaluation on worker processes: a run that stands where the checkpoint does, has nothing left to train, and measures the
//! text as it would its own test text. Its files lie in a folder of their own that is gone at the end; the trained run's
//! folder is only read.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZero;
use std::path::Path;

use carousel_coordinator::checkpoint::{Checkpoint, RunFolder};
use carousel_coordinator::{
    Cut, Ending, Evaluated, Locks, Observer, Report, Run, Splits, Start, TokenSource,
};
use carousel_corpus::Tokenizer;

use super::carried::lanes;
use super::figures::Mean;
use super::subject::Subject;
use crate::checkpoint_model::weights_of;
use crate::config::{self, Config, Train};
use crate::failure::Failure;
use crate::launch;
use crate::security::{self, SecurityArguments};
use crate::train::Workers;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "On several processes or machines")]
pub(super) struct Options {
    /// Worker processes; the figure is the same for any number
    #[arg(long, value_name = "N", conflicts_with_all = ["dynamic", "cache"])]
    workers: Option<NonZero<u32>>,
    /// Start no workers: wait here for as many, started by hand on any machine with `carousel worker --coordinator`
    #[arg(long, value_name = "ADDR:PORT", conflicts_with_all = ["dynamic", "cache"])]
    #[arg(value_parser = security::socket_address)]
    listen: Option<SocketAddr>,
    #[command(flatten)]
    security: SecurityArguments,
}

impl Options {
    pub(super) fn is_asked_for(&self) -> bool {
        self.workers.is_some() || self.listen.is_some()
    }
}

/// A checkpoint with what belongs to it.
pub(super) struct Trained {
    pub config: Config,
    pub tokenizer: Tokenizer,
    checkpoint: Checkpoint,
}

impl Trained {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let found = RunFolder::open_any(path)?;
        for passed_over in &found.passed_over {
            eprintln!("warning: passed over a checkpoint: {passed_over}");
        }
        let folder = RunFolder::containing(path)?;
        let config = config::read_resolved(&folder.config())?;
        Ok(Self { config, tokenizer: launch::tokenizer_of(&folder)?, checkpoint: found.checkpoint })
    }

    /// Whether the workers will measure the average that the optimizer keeps, and not the last weights.
    pub(super) fn averaged(&self) -> bool {
        weights_of(&self.checkpoint).1
    }
}

pub(super) fn evaluate(
    trained: Trained,
    subject: &Subject,
    (streams, window): (usize, usize),
    (options, threads): (&Options, usize),
) -> Result<Mean, Failure> {
    let folder =
        tempfile::tempdir().map_err(|error| Failure::failed(format!("a temporary folder: {error}")))?;
    let lanes = lanes(trained.config.train.lanes, streams);
    let mut run = run_of(trained, subject, Cut { streams, window, lanes }, folder.path())?;
    let workers = options.workers.map_or(1, NonZero::get);
    run.workers = workers as usize;
    let address = options.listen.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let locks = match options.listen {
        Some(listen) => options.security.locks(listen)?,
        None => Locks::default(),
    };
    let scheme = security::scheme(&locks.door);
    let listener = launch::listen(address)?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    let coordinator = launch::coordinator(run, listener, locks)?;
    let started = match options.listen {
        Some(_) => {
            eprintln!("listening   {scheme}://{address}");
            None
        }
        None => Some(Workers::start(&crew(workers, threads), address, coordinator.control(), None)?),
    };
    let summary = coordinator.run(&mut Told)?;
    started.into_iter().for_each(Workers::wait);
    if summary.ending != Ending::Complete {
        return Err(Failure::Stopped);
    }
    let Evaluated { tokens, loss } = summary.test.expect("a run with a test text ends with its figure");
    Ok(Mean { tokens, loss })
}

/// How many workers `train` would start.
fn crew(workers: u32, threads: usize) -> Config {
    let mut config = Config::default();
    config.cluster.workers = workers;
    config.cluster.threads = u32::try_from(threads).unwrap_or(u32::MAX);
    config
}

/// The run: the trained one's model, optimizer and step, and nothing else of how it trained.
fn run_of(trained: Trained, subject: &Subject, cut: Cut, folder: &Path) -> Result<Run, Failure> {
    let Trained { mut config, tokenizer, mut checkpoint } = trained;
    let model = launch::model_config(&config, tokenizer.vocabulary())?;
    let size =
        |size: usize| u32::try_from(size).expect("sizes of the command line and of a configuration are u32");
    config.train = Train {
        streams: size(cut.streams),
        window: size(cut.window),
        lanes: size(cut.lanes),
        epochs: None,
        steps: Some(checkpoint.state.step),
        optimizer: config.train.optimizer,
        ..Train::default()
    };
    checkpoint.snapshot.carries = vec![0.0; cut.streams * model.carry_len()];
    // A token source has a training text; of this one nothing is read.
    let train = vec![0; cut.streams * cut.window + 1].into();
    let test = Some(subject.tokens.clone().into());
    let tokens = TokenSource::new(Splits { train, valid: None, test }, cut)?;
    let start = Start::Copy {
        checkpoint: Box::new(checkpoint),
        config_toml: toml::to_string_pretty(&config).map_err(Failure::failed)?,
        tokenizer_json: tokenizer.to_json(),
    };
    launch::run_of(&config, &model, tokens, (folder.join("run"), start))
}

/// What a person should know while workers compute.
struct Told;

impl Observer for Told {
    fn observe(&mut self, report: Report<'_>) {
        match report {
            Report::Waiting { joined, needed } => {
                eprintln!("waiting     for workers: {joined} of {needed} are here")
            }
            Report::Left { worker, reason } => {
                eprintln!("left        {worker}: {}", crate::progress::printable(reason))
            }
            _ => {}
        }
    }
}
