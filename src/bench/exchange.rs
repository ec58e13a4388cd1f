//! `carousel bench exchange`: an all-reduce between processes on this machine, by the code that training exchanges its
//! gradients with. The first process starts the others, and speaks with them in lines over their standard input and output.

use std::io::{BufRead, BufReader, Write};
use std::num::NonZero;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use carousel_worker::ExchangeMember;
use serde_json::json;

use super::median;
use crate::failure::Failure;

/// Measure an all-reduce between processes on this machine
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  carousel bench exchange --workers 2 --bytes 79200000")]
pub(super) struct Arguments {
    /// Processes
    #[arg(long, value_name = "N", default_value = "2")]
    workers: NonZero<u32>,
    /// Bytes of the gradient, in floats of 4
    #[arg(long, value_name = "B", default_value = "79200000")]
    bytes: NonZero<usize>,
    /// Rounds that are measured, after two that are not
    #[arg(long, value_name = "N", default_value = "10")]
    rounds: NonZero<usize>,
    /// Threads that compute in each process
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZero<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Be one of the processes
    #[arg(long, hide = true)]
    place: Option<u32>,
}

const WARMUP: usize = 2;

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if !arguments.bytes.get().is_multiple_of(4) {
        let found = arguments.bytes;
        return Err(Failure::bad_input(format!("--bytes: found {found}, expected a multiple of 4")));
    }
    match arguments.place {
        Some(place) => be_member(arguments, place),
        None => measure(arguments),
    }
}

/// What one process says it measured.
struct Measured {
    seconds: Vec<f64>,
    /// Of every round, those of the warm-up too.
    sent_bytes: u64,
}

fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let members: Result<Vec<Member>, Failure> =
        (0..arguments.workers.get()).map(|place| Member::start(arguments, place)).collect();
    let mut members = members?;
    let addresses: Result<Vec<String>, Failure> = members.iter_mut().map(Member::hear).collect();
    let addresses = addresses?.join(" ");
    members.iter_mut().try_for_each(|member| member.say(&addresses))?;
    let mut seconds = Vec::new();
    for round in 0..WARMUP + arguments.rounds.get() {
        members.iter_mut().try_for_each(|member| member.hear().map(drop))?;
        members.iter_mut().try_for_each(|member| member.say("go"))?;
        let took: Result<Vec<f64>, Failure> = members.iter_mut().map(Member::hear_number).collect();
        if round >= WARMUP {
            seconds.push(took?[0]);
        }
    }
    let sent: Result<Vec<f64>, Failure> = members.iter_mut().map(Member::hear_number).collect();
    let measured = Measured { seconds, sent_bytes: sent?.iter().sum::<f64>() as u64 };
    // Nobody goes before everybody has all: what waits to be sent ends with its process.
    for member in &mut members {
        member.say("end")?;
        let status = member.process.wait().map_err(Failure::failed)?;
        if !status.success() {
            return Err(Failure::failed(format!("a process of the exchange ended with {status}")));
        }
    }
    report(arguments, measured);
    Ok(())
}

fn report(arguments: &Arguments, measured: Measured) {
    let rounds = WARMUP + arguments.rounds.get();
    let (workers, bytes) = (arguments.workers.get(), arguments.bytes.get());
    let wire = measured.sent_bytes / rounds as u64;
    let seconds = median(measured.seconds);
    let gigabytes = bytes as f64 / seconds / 1e9;
    if arguments.json {
        let report = json!({
            "workers": workers, "bytes": bytes, "rounds": arguments.rounds, "threads": arguments.threads,
            "ms": seconds * 1e3, "algorithm_gb_per_second": gigabytes, "wire_bytes": wire,
        });
        return println!("{report}");
    }
    println!("all-reduce of {:.1} MB between {workers} processes", bytes as f64 / 1e6);
    println!("ms              {:10.1}   median of {}, the first process's", seconds * 1e3, arguments.rounds);
    println!("GB/s            {gigabytes:10.2}   algorithm bandwidth: bytes over time");
    println!("on the wire     {:10.1}   MB a round, all processes together", wire as f64 / 1e6);
}

/// One of the processes, as the first one sees it; it ends with this.
struct Member {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Member {
    fn start(arguments: &Arguments, place: u32) -> Result<Self, Failure> {
        let flags = [
            ("--workers", arguments.workers.to_string()),
            ("--bytes", arguments.bytes.to_string()),
            ("--rounds", arguments.rounds.to_string()),
            ("--threads", arguments.threads.to_string()),
            ("--place", place.to_string()),
        ];
        let mut command = Command::new(std::env::current_exe().map_err(Failure::failed)?);
        command.args(["bench", "exchange"]).args(flags.iter().flat_map(|(name, value)| [*name, value]));
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::failed(format!("starting a process: {error}")))?;
        let input = process.stdin.take().expect("standard input is a pipe");
        let output = BufReader::new(process.stdout.take().expect("standard output is a pipe"));
        Ok(Self { process, input, output })
    }

    fn say(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.input, "{line}").map_err(Failure::failed)
    }

    fn hear(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(1..) => Ok(line.trim_end().to_owned()),
            _ => Err(Failure::failed("a process of the exchange ended early")),
        }
    }

    fn hear_number(&mut self) -> Result<f64, Failure> {
        let line = self.hear()?;
        line.parse().map_err(|_| Failure::failed(format!("a process said {line:?} for a number")))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // One that has ended is only waited for.
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            tracing::debug!("ending a process of the exchange: {error}");
        }
    }
}

/// The other end: makes its rounds as the first process says.
fn be_member(arguments: &Arguments, place: u32) -> Result<(), Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(arguments.threads.get()).build();
    pool.map_err(Failure::failed)?.install(|| {
        let mut lines = std::io::stdin().lines();
        let mut hear = || match lines.next() {
            Some(Ok(line)) => Ok(line),
            _ => Err(Failure::failed("the first process is gone")),
        };
        let mut member = ExchangeMember::new(place, arguments.bytes.get() / 4).map_err(Failure::failed)?;
        println!("{}", member.address());
        member.join(hear()?.split(' '));
        for _ in 0..WARMUP + arguments.rounds.get() {
            println!("ready");
            hear()?;
            let took = member.all_reduce().map_err(Failure::failed)?;
            println!("{}", took.as_secs_f64());
        }
        println!("{}", member.sent_bytes());
        hear().map(drop)
    })
}
