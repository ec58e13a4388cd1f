//! `carousel train`: a coordinator in this process and N workers, each a process of its own, on this machine.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use carousel_coordinator::{Control, Ending, Locks};
use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};

use crate::checkpoint_model::CheckpointModel;
use crate::config::{Config, Sample};
use crate::failure::Failure;
use crate::generation::{self, Form, Output, Prompt, Settings};
use crate::launch::{self, RunArguments};
use crate::progress::Progress;

/// Train a model on this machine: a coordinator and several worker processes
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  carousel train examples/rust-source.toml --workers 2 --set train.epochs=1"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArguments,
    /// Worker processes [default: cluster.workers]
    #[arg(long, value_name = "N", overrides_with = "workers")]
    workers: Option<u32>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let workers: Vec<String> = arguments.workers.iter().map(|n| format!("cluster.workers={n}")).collect();
    let prepared = launch::prepare(&arguments.run, &workers, false)?;
    let listener = launch::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    let folder = prepared.run.folder.clone();
    let mut progress = Progress::new(&prepared.run);
    let coordinator = launch::coordinator(prepared.run, listener, Locks::default())?;
    let workers = Workers::start(&prepared.config, address, coordinator.control(), None)?;
    let result = coordinator.run(&mut progress);
    progress.finish();
    workers.wait();
    let complete = matches!(&result, Ok(summary) if summary.ending == Ending::Complete);
    launch::conclude(result, &folder)?;
    match &prepared.config.sample {
        Some(sample) if complete => show_sample(&folder, sample),
        _ => Ok(()),
    }
}

fn show_sample(folder: &std::path::Path, sample: &Sample) -> Result<(), Failure> {
    println!("\nwhat it writes, after {:?}:\n", sample.prompt);
    let mut model = CheckpointModel::open(folder)?;
    let settings = Settings {
        tokens: sample.tokens,
        choice: sample.choice(),
        seed: sample.seed,
        samples: sample.samples,
        stops: sample.stop.clone(),
    };
    let prompts = [Prompt::new(&model, sample.prompt.clone(), "sample.prompt")?];
    let output = Output::new(Form::Text, &prompts, settings.samples);
    generation::sample(&mut model, &prompts, &settings, output)
}

/// The worker processes. Each ends when its standard input does, which this process holds: however this process ends,
/// none is left.
pub(crate) struct Workers {
    all_ended: Receiver<()>,
}

/// After the run is over, workers that do not end by themselves are left to the end of this process.
const GRACE: Duration = Duration::from_secs(5);

impl Workers {
    /// Starts the workers that the configuration asks for. `told`: the lines in which they say how long the parts of a step took.
    pub(crate) fn start(
        config: &Config,
        coordinator: SocketAddr,
        control: Control,
        told: Option<Sender<String>>,
    ) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(Failure::failed)?;
        let (ended, endings) = channel::unbounded();
        for _ in 0..config.cluster.workers {
            let mut command = Command::new(&program);
            command.args(["worker", "--with-parent", "--coordinator", &format!("http://{coordinator}")]);
            command.args(["--threads", &config.cluster.threads.to_string()]);
            // Nothing of what locks other processes is meant for these.
            command.env_remove("CAROUSEL_TLS").env_remove("CAROUSEL_TOKEN_FILE");
            // A group of its own: Ctrl-C at the terminal is for the coordinator, which ends the step first.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            if told.is_some() {
                command.env("CAROUSEL_LOG", "warn,carousel_worker::trainer=debug").env("NO_COLOR", "1");
                command.stderr(Stdio::piped());
            }
            let mut child =
                command.spawn().map_err(|error| Failure::failed(format!("starting a worker: {error}")))?;
            if let (Some(lines), Some(told)) = (child.stderr.take(), told.clone()) {
                thread::spawn(move || pass_on(BufReader::new(lines), &told));
            }
            let ended = ended.clone();
            thread::spawn(move || collect(child, &ended));
        }
        let (finished, all_ended) = channel::bounded(1);
        thread::spawn(move || watch(&endings, &control, finished));
        Ok(Self { all_ended })
    }

    pub(crate) fn wait(self) {
        if self.all_ended.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("a worker has not ended {} s after the run", GRACE.as_secs());
        }
    }
}

/// Passes on the lines of a worker's standard error.
fn pass_on(lines: impl BufRead, told: &Sender<String>) {
    for line in lines.lines().map_while(Result::ok) {
        if told.send(line).is_err() {
            return;
        }
    }
}

/// Waits for a worker's end, holding its standard input open until then, and tells how it ended.
fn collect(mut child: Child, ended: &Sender<String>) {
    let held = child.stdin.take();
    let how = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    drop(held);
    if ended.send(format!("process {}: {how}", child.id())).is_err() {
        tracing::debug!("a worker ended after the run was over");
    }
}

/// When the last worker has ended the run cannot go on.
fn watch(endings: &Receiver<String>, control: &Control, finished: Sender<()>) {
    if let Some(last) = endings.iter().last() {
        let rest = "go on with --resume from the latest checkpoint";
        control.abort(format!("every worker process has ended, the last one, {last}; {rest}"));
    }
    drop(finished);
}
