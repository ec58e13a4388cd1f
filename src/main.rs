//! `carousel`: trains recurrent language models on many CPU machines at once. This file is the command line; each
//! subcommand has a file of its own.

mod bench;
mod bucket;
mod certs;
mod checkpoint_model;
mod config;
mod coordinator;
mod digest;
mod evaluate;
mod export;
mod failpoint;
mod failure;
mod generate;
mod generation;
mod import;
mod launch;
mod learning;
mod operate;
mod place;
mod plan;
mod prepare;
mod progress;
mod resume;
mod security;
mod storage;
mod token_files;
mod train;
mod verify;
mod worker;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Trains recurrent language models on many CPU machines at once: the trained weights are a pure function of
/// configuration, data and seed, whatever the number of workers and threads.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Prepare(prepare::Arguments),
    Train(train::Arguments),
    Coordinator(coordinator::Arguments),
    Worker(worker::Arguments),
    Status(operate::StatusArguments),
    Drain(operate::DrainArguments),
    Checkpoint(operate::CheckpointArguments),
    Stop(operate::StopArguments),
    Evaluate(evaluate::Arguments),
    Generate(generate::Arguments),
    Export(export::Arguments),
    Digest(digest::Arguments),
    Verify(verify::Arguments),
    Bench(bench::Arguments),
    Certs(certs::Arguments),
    Plan(plan::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("CAROUSEL_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    // Colours are for people: a log file is read by other programs too.
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    subscriber.with_ansi(colours).with_target(false).init();
    match failpoint::arm().and_then(|()| run(arguments.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn run(command: Command) -> Result<(), failure::Failure> {
    match command {
        Command::Prepare(arguments) => prepare::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Coordinator(arguments) => coordinator::run(&arguments),
        Command::Worker(arguments) => worker::run(&arguments),
        Command::Status(arguments) => operate::status(&arguments),
        Command::Drain(arguments) => operate::drain(&arguments),
        Command::Checkpoint(arguments) => operate::checkpoint(&arguments),
        Command::Stop(arguments) => operate::stop(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Generate(arguments) => generate::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Digest(arguments) => digest::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Certs(arguments) => certs::run(&arguments),
        Command::Plan(arguments) => plan::run(&arguments),
    }
}
