//! Chaos: a run whose processes are killed, stopped and cut off every few seconds, beside the same run left alone. It shows
//! that the weights are the same and measures what the faults cost.
//!
//!     cargo test --release --test chaos -- --minutes 5 --every 7 --workers 4 --seed 1
//!
//! Without arguments a short form of half a minute. Ends with an error when the digests differ or the run does not end.
//! What the faults cost is printed and fails nothing: it depends on the machine.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

#[allow(dead_code, reason = "the suite uses the rest")]
#[path = "../suite/crew.rs"]
mod crew;
mod faults;
mod footprint;
#[allow(dead_code, reason = "the suite uses the rest")]
#[path = "../suite/netlab.rs"]
mod netlab;
mod options;
#[allow(dead_code, reason = "the suite uses the rest")]
#[path = "../suite/program.rs"]
mod program;
mod report;
mod run;
mod watch;

use std::process::ExitCode;

use netlab::Lab;
use options::{Asked, Options};
use program::Workshop;
use report::Report;

fn main() -> ExitCode {
    let options = match Options::from_arguments(std::env::args().skip(1)) {
        Ok(Asked::Run(options)) => options,
        Ok(Asked::Nothing) => return ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}\n{}", options::USAGE);
            return ExitCode::from(2);
        }
    };
    let shop = Workshop::new();
    shop.write("chaos.toml", run::CONFIG);
    if let Some(text) = &options.text {
        match std::fs::read_to_string(text) {
            Ok(text) => shop.write("text.txt", &text),
            Err(problem) => {
                eprintln!("{}: {problem}; expected a text file", text.display());
                return ExitCode::from(2);
            }
        }
    }
    let lab = if options.network { Lab::open(options.workers + 1) } else { None };
    report::opening(&options, lab.is_some());
    let steps = options.steps.unwrap_or_else(|| run::calibrate(&shop, lab.as_ref(), &options));
    let quiet = run::quiet(&shop, lab.as_ref(), &options, steps);
    report::quiet(&quiet);
    let disturbed = run::disturbed(&shop, lab.as_ref(), &options, steps);
    let report = Report::new(quiet, disturbed);
    println!("{report}");
    if report.is_equal() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
