//! `carousel train`: a coordinator in this process and N workers, each a process of its own, on this machine.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use carousel_coordinator::{Control, Ending};

use crate::config::{Config, Sample};
use crate::failure::Failure;
use crate::launch::{self, RunArguments};
use crate::progress::Progress;
use crate::{checkpoint_model::CheckpointModel, sampler};

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
    let prepared = launch::prepare(&arguments.run, &workers)?;
    let listener = launch::listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = listener.local_addr().map_err(Failure::failed)?;
    let folder = prepared.run.folder.clone();
    let mut progress = Progress::new(&prepared.run);
    let coordinator = launch::coordinator(prepared.run, listener);
    let workers = Workers::start(&prepared.config, address, coordinator.control())?;
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
    let settings =
        sampler::Settings { tokens: sample.tokens, temperature: sample.temperature, seed: sample.seed };
    sampler::print(&mut model, &sample.prompt, settings)
}

/// The worker processes. Each ends when its standard input does, which this process holds: however this process ends,
/// none is left.
struct Workers {
    watch: thread::JoinHandle<()>,
}

/// After the run is over, workers that do not end by themselves are ended.
const GRACE: Duration = Duration::from_secs(5);

impl Workers {
    fn start(config: &Config, coordinator: SocketAddr, control: Control) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(Failure::failed)?;
        let mut children = Vec::new();
        for _ in 0..config.cluster.workers {
            let mut command = Command::new(&program);
            command.args(["worker", "--with-parent", "--coordinator", &format!("http://{coordinator}")]);
            command.args(["--threads", &config.cluster.threads.to_string()]);
            // A group of its own: Ctrl-C at the terminal is for the coordinator, which ends the step first.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            children.push(
                command.spawn().map_err(|error| Failure::failed(format!("starting a worker: {error}")))?,
            );
        }
        Ok(Self { watch: thread::spawn(move || watch(children, &control)) })
    }

    fn wait(self) {
        let deadline = Instant::now() + GRACE;
        while !self.watch.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        // What is left ends with this process, by its standard input.
    }
}

/// Collects the workers as they end; when none is left the run cannot go on.
fn watch(mut children: Vec<Child>, control: &Control) {
    let mut last = String::from("none was started");
    while !children.is_empty() {
        thread::sleep(Duration::from_millis(20));
        children.retain_mut(|child| match child.try_wait() {
            Ok(None) => true,
            Ok(Some(status)) => {
                last = format!("process {}: {status}", child.id());
                false
            }
            Err(error) => {
                last = format!("process {}: {error}", child.id());
                false
            }
        });
    }
    control
        .abort(format!("every worker process has ended, the last one {last}; the latest checkpoint remains"));
}
