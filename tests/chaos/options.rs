//! What is asked for on the command line. `cargo test` hands every test program the harness's own arguments too.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) const USAGE: &str = "expected [--minutes M] [--every SECONDS] [--workers N] [--seed S] [--exchange mesh|star] \
                                [--steps N] [--text FILE] [--only KIND] [--no-network]";

#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How long the undisturbed run is to take, about.
    pub length: Duration,
    /// From one fault to the next, on average.
    pub every: Duration,
    pub workers: usize,
    /// Decides which faults come, whom they hit and how long they last.
    pub seed: u64,
    pub exchange: String,
    /// Instead of `length`.
    pub steps: Option<u64>,
    /// What is trained on, instead of a made-up text.
    pub text: Option<PathBuf>,
    /// Only faults whose name has this in it.
    pub only: Option<String>,
    /// Whether cables may be pulled, where the machine allows it.
    pub network: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            length: Duration::from_secs(12),
            every: Duration::from_millis(1500),
            workers: 4,
            seed: 1,
            exchange: "mesh".into(),
            steps: None,
            text: None,
            only: None,
            network: true,
        }
    }
}

pub(crate) enum Asked {
    Run(Options),
    /// A list of tests, or tests of other names.
    Nothing,
}

impl Options {
    pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Result<Asked, String> {
        let mut options = Self::default();
        let mut named_otherwise = false;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--minutes" => options.length = seconds(60.0 * number::<f64>(&value()?)?)?,
                "--every" => options.every = seconds(number(&value()?)?)?,
                "--workers" => options.workers = number(&value()?)?,
                "--seed" => options.seed = number(&value()?)?,
                "--steps" => options.steps = Some(number(&value()?)?),
                "--text" => options.text = Some(value()?.into()),
                "--exchange" => options.exchange = value()?,
                "--only" => options.only = Some(value()?),
                "--no-network" => options.network = false,
                "--list" | "--ignored" => return Ok(Asked::Nothing),
                "--skip" | "--test-threads" | "--format" | "--color" => drop(value()?),
                "--nocapture" | "--no-capture" | "--exact" | "--quiet" | "-q" | "--include-ignored"
                | "--show-output" => {}
                name if !name.starts_with('-') => named_otherwise |= !"chaos".contains(name),
                _ => return Err(format!("unknown argument {argument}")),
            }
        }
        let possible = (1..=8).contains(&options.workers);
        if !possible {
            return Err(format!("{} workers: expected 1 to 8", options.workers));
        }
        Ok(if named_otherwise { Asked::Nothing } else { Asked::Run(options) })
    }
}

fn number<T: std::str::FromStr>(given: &str) -> Result<T, String> {
    given.parse().map_err(|_| format!("{given:?} is no such number"))
}

fn seconds(seconds: f64) -> Result<Duration, String> {
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if duration.is_zero() { Err("a duration of zero".into()) } else { Ok(duration) }
}
