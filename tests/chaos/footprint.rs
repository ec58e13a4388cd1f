//! What each process of a run holds while it goes on: resident memory and file descriptors, looked at every few seconds.
//! Whether that grows is for the reader of the report.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use crate::crew::Crew;

/// From one look to the next.
const EVERY: Duration = Duration::from_secs(2);
/// Looks at a process that lived shorter say nothing about growth.
const ENOUGH: usize = 16;

/// One look at one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    resident_kib: u64,
    descriptors: u64,
}

/// All looks: by place, then by process.
#[derive(Default)]
pub(crate) struct Footprints {
    last: Option<Instant>,
    looks: BTreeMap<String, BTreeMap<u32, Vec<Look>>>,
}

impl Footprints {
    /// Looks at all processes that are there, when it is time to.
    pub(crate) fn look(&mut self, crew: &Crew<'_>) {
        if self.last.is_some_and(|last| last.elapsed() < EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        self.add("coordinator".into(), crew.coordinator.id());
        for (place, worker) in crew.workers.iter().enumerate() {
            self.add(format!("worker {place}"), worker.id());
        }
    }

    fn add(&mut self, place: String, process: u32) {
        if let Some(look) = look(process) {
            self.looks.entry(place).or_default().entry(process).or_default().push(look);
        }
    }
}

/// `None`: it has ended.
fn look(process: u32) -> Option<Look> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_kib = resident.trim().strip_suffix(" kB")?.parse().ok()?;
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?.count() as u64;
    Some(Look { resident_kib, descriptors })
}

impl fmt::Display for Footprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, processes) in &self.looks {
            let Some(longest) = processes.values().max_by_key(|looks| looks.len()) else { continue };
            let most = |of: fn(&Look) -> u64| processes.values().flatten().map(of).max().unwrap_or_default();
            let mib = |kib: u64| kib as f64 / 1024.0;
            write!(
                f,
                "footprint   {place:<12} most {:6.1} MiB, {:>3} descriptors",
                mib(most(|look| look.resident_kib)),
                most(|look| look.descriptors)
            )?;
            if longest.len() >= ENOUGH {
                let (early, late) = ends(longest);
                write!(
                    f,
                    "; lived {:.1} min: {:.1} MiB and {} early, {:.1} MiB and {} late",
                    (EVERY * longest.len() as u32).as_secs_f64() / 60.0,
                    mib(early.resident_kib),
                    early.descriptors,
                    mib(late.resident_kib),
                    late.descriptors
                )?;
            }
            writeln!(f, " (the longest of {})", processes.len())?;
        }
        Ok(())
    }
}

/// The medians of the second eighth of a life and of its last: what a start takes is not growth.
fn ends(looks: &[Look]) -> (Look, Look) {
    let eighth = looks.len() / 8;
    let (early, late) = (&looks[eighth..2 * eighth], &looks[looks.len() - eighth..]);
    (median(early), median(late))
}

fn median(looks: &[Look]) -> Look {
    let middle = |of: fn(&Look) -> u64| {
        let mut values: Vec<u64> = looks.iter().map(of).collect();
        values.sort_unstable();
        values[values.len() / 2]
    };
    Look { resident_kib: middle(|look| look.resident_kib), descriptors: middle(|look| look.descriptors) }
}
