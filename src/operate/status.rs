//! `carousel status`: how a run is, for people, for scripts and for health checks.

use carousel_coordinator::operator::Operator;
use carousel_proto::v1::{RunStatus, WorkerStatus};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::progress::printable;

use super::Where;

/// Show how a run is: its step, its loss, its workers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  carousel status 127.0.0.1:7700\n  \
                  carousel status 192.0.2.10:7700 --tls certs/observer\n  \
                  carousel status 127.0.0.1:7700 --health --this-host")]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Where,
    /// One JSON object, for scripts
    #[arg(long)]
    json: bool,
    /// Only say whether the coordinator is healthy: one line, exit code 0 or 1
    #[arg(long, conflicts_with = "json")]
    health: bool,
    /// With --health: healthy when a worker of this host has joined
    #[arg(long, requires = "health")]
    this_host: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.health {
        return health(arguments);
    }
    let status = arguments.place.connect()?.status()?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&as_json(&status)).map_err(Failure::failed)?);
    } else {
        print!("{}", as_text(&status));
    }
    Ok(())
}

/// Whatever is wrong is unhealthy: exit code 1, in one line.
fn health(arguments: &Arguments) -> Result<(), Failure> {
    let door = arguments.place.certificates.door()?;
    let asked = Operator::connect(&arguments.place.address, door).and_then(|mut operator| operator.status());
    let status = asked.map_err(|error| Failure::failed(format!("unhealthy: {error}")))?;
    let here = carousel_worker::host_name();
    if !status.healthy {
        return Err(Failure::failed(format!("unhealthy: {}", printable(&status.health))));
    }
    if arguments.this_host && !status.workers.iter().any(|worker| worker.host == here) {
        return Err(Failure::failed(format!("unhealthy: no worker of {here} has joined")));
    }
    println!("healthy: {}", printable(&status.health));
    Ok(())
}

/// The keys are documented in docs/operations.md; one that is not known yet is null.
fn as_json(status: &RunStatus) -> Value {
    let workers: Vec<Value> = status.workers.iter().map(worker_as_json).collect();
    let checkpoint = status.checkpoint.as_ref();
    json!({
        "protocol": status.protocol,
        "version": status.program_version,
        "run": status.folder,
        "run_id": status.run_id,
        "state": status.state,
        "workers_awaited": status.workers_awaited,
        "healthy": status.healthy,
        "health": status.health,
        "step": status.step,
        "last_step": status.last_step,
        "epoch": status.epoch,
        "term": status.term,
        "loss": status.loss,
        "learning_rate": status.learning_rate,
        "tokens_per_second": status.tokens_per_second,
        "checkpoint": checkpoint.map(|made| json!({"step": made.step, "path": made.path, "digest": made.digest})),
        "uptime_seconds": status.uptime_seconds,
        "workers": workers,
    })
}

fn worker_as_json(worker: &WorkerStatus) -> Value {
    json!({
        "id": worker.worker_id,
        "host": worker.host,
        "process": worker.process_id,
        "threads": worker.threads,
        "version": worker.program_version,
        "first_lane": worker.first_lane,
        "lanes": worker.lanes,
        "state": worker.state,
        "present_seconds": worker.present_seconds,
        "step_seconds": worker.step_seconds,
    })
}

fn as_text(status: &RunStatus) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let awaited = match status.workers_awaited {
        0 => String::new(),
        needed => format!(" ({} of {needed} workers are here)", status.workers.len()),
    };
    let checkpoint =
        status.checkpoint.as_ref().map(|made| format!("step {}, {}", made.step, printable(&made.path)));
    let lines = [
        ("run", format!("{}, id {}", printable(&status.folder), printable(&status.run_id))),
        ("state", format!("{}{awaited}", printable(&status.state))),
        (
            "step",
            format!("{} of {}, epoch {}, term {}", status.step, status.last_step, status.epoch, status.term),
        ),
        (
            "loss",
            or_none(
                status.loss.map(|loss| format!("{loss:.4} nats a token, perplexity {:.2}", libm::exp(loss))),
            ),
        ),
        ("rate", or_none(status.learning_rate.map(|rate| rate.to_string()))),
        ("speed", or_none(status.tokens_per_second.map(|speed| format!("{speed:.0} tokens/s")))),
        ("checkpoint", or_none(checkpoint)),
        ("up", duration(status.uptime_seconds)),
        ("version", format!("carousel {}, protocol {}", printable(&status.program_version), status.protocol)),
    ];
    let mut text: String = lines.iter().map(|(name, value)| format!("{name:<11} {value}\n")).collect();
    if !status.workers.is_empty() {
        text += &table(&status.workers);
    }
    text
}

fn table(workers: &[WorkerStatus]) -> String {
    let heads = ["worker", "host", "process", "threads", "lanes", "state", "since", "step"].map(String::from);
    let row = |worker: &WorkerStatus| {
        let lanes = match worker.lanes {
            0 => "-".into(),
            lanes => format!("{}-{}", worker.first_lane, worker.first_lane + lanes - 1),
        };
        [
            worker.worker_id.to_string(),
            printable(&worker.host),
            worker.process_id.to_string(),
            worker.threads.to_string(),
            lanes,
            printable(&worker.state),
            duration(worker.present_seconds),
            worker.step_seconds.map_or_else(|| "-".into(), |took| format!("{:.0} ms", 1000.0 * took)),
        ]
    };
    let rows: Vec<[String; 8]> = std::iter::once(heads).chain(workers.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    let line = |row: &[String; 8]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    format!("\n{}", rows.iter().map(line).collect::<String>())
}

fn duration(seconds: f64) -> String {
    let whole = seconds as u64;
    match (whole / 86400, whole / 3600 % 24, whole / 60 % 60, whole % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m} min {s} s"),
        (0, h, m, _) => format!("{h} h {m} min"),
        (d, h, _, _) => format!("{d} d {h} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_two_units_at_the_most() {
        let told: Vec<String> = [0.9, 59.0, 61.0, 3600.0, 90_061.0].map(duration).into();
        assert_eq!(told, ["0 s", "59 s", "1 min 1 s", "1 h 0 min", "1 d 1 h"]);
    }

    #[test]
    fn the_table_stands_in_columns_and_shows_nothing_a_terminal_obeys() {
        let worker = |worker_id, host: &str, lanes| WorkerStatus {
            worker_id,
            host: host.into(),
            lanes,
            first_lane: 4,
            state: "active".into(),
            step_seconds: (lanes > 0).then_some(0.0125),
            ..WorkerStatus::default()
        };
        let text = table(&[worker(1, "a\u{1b}[2J", 0), worker(12, "node-17", 3)]);
        let lines: Vec<&str> = text.trim_start().lines().collect();
        assert_eq!(lines.len(), 3);
        let at = lines[0].find("lanes").unwrap();
        assert_eq!((&lines[1][at..=at], &lines[2][at..at + 3]), ("-", "4-6"), "{text}");
        assert!(!text.contains('\u{1b}') && lines[2].ends_with("12 ms"), "{text}");
    }
}
