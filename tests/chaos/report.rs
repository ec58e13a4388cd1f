//! What came of it, for a person: each fault with the time to recovery, what was kept, and whether the bits are equal.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::faults::Kind;
use crate::options::Options;
use crate::run::{Disturbed, Ended};

/// The rate of faults of the best published figure, with which the cost is compared.
const REFERENCE: Duration = Duration::from_secs(29);

pub(crate) fn opening(options: &Options, network: bool) {
    let (workers, exchange, seed, every) =
        (options.workers, &options.exchange, options.seed, options.every.as_secs_f64());
    let cables = if network { "" } else { ", without cables to pull" };
    println!("chaos       {workers} workers, {exchange}, seed {seed}, a fault every {every:.1} s{cables}");
}

pub(crate) fn quiet(quiet: &Ended) {
    let rate = quiet.steps as f64 / quiet.seconds;
    println!("left alone  {} steps in {:.1} s, {rate:.1} steps/s", quiet.steps, quiet.seconds);
}

pub(crate) struct Report {
    quiet: Ended,
    disturbed: Disturbed,
}

impl Report {
    pub(crate) fn new(quiet: Ended, disturbed: Disturbed) -> Self {
        Self { quiet, disturbed }
    }

    pub(crate) fn is_equal(&self) -> bool {
        self.quiet.digest == self.disturbed.ended.digest
    }

    /// Recovery times by kind, each in order.
    fn by_kind(&self) -> BTreeMap<Kind, Vec<Duration>> {
        let mut times: BTreeMap<Kind, Vec<Duration>> = BTreeMap::new();
        for done in &self.disturbed.done {
            times.entry(done.fault.kind).or_default().extend(done.recovery);
        }
        times.values_mut().for_each(|times| times.sort_unstable());
        times
    }

    fn faults(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for done in &self.disturbed.done {
            let (at, step, kind) = (done.at.as_secs_f64(), done.step, done.fault.kind);
            write!(f, "  {at:7.2} s  step {step:>6}  {kind:<20}")?;
            match done.recovery {
                Some(time) => writeln!(f, "  on again after {:.3} s", time.as_secs_f64())?,
                None => writeln!(f, "  at the run's end")?,
            }
        }
        let surprises = &self.disturbed.surprises;
        surprises.iter().try_for_each(|surprise| writeln!(f, "  unasked: {surprise}"))
    }

    fn recoveries(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by_kind = self.by_kind();
        let mut all: Vec<Duration> = by_kind.values().flatten().copied().collect();
        all.sort_unstable();
        for (name, times) in by_kind.iter().map(|(kind, times)| (kind.to_string(), times)) {
            recovery(f, &name, times)?;
        }
        recovery(f, "all faults", &all)
    }

    /// Throughput is steps a second, from a run's first commit to its last; the steps are the same.
    fn kept(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (quiet, disturbed) = (self.quiet.seconds, self.disturbed.ended.seconds);
        let faults = self.disturbed.done.len();
        let lost = (disturbed - quiet) / faults.max(1) as f64;
        let at_reference = REFERENCE.as_secs_f64() / (REFERENCE.as_secs_f64() + lost);
        writeln!(
            f,
            "throughput  {:.1} % kept: {disturbed:.1} s for the same steps",
            100.0 * quiet / disturbed
        )?;
        writeln!(
            f,
            "            {lost:.2} s lost a fault, over {faults} faults; at one each {} s that would keep {:.1} %",
            REFERENCE.as_secs(),
            100.0 * at_reference
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faults(f)?;
        self.recoveries(f)?;
        self.kept(f)?;
        write!(f, "{}", self.disturbed.footprints)?;
        let (quiet, disturbed) = (self.quiet.digest.trim_end(), self.disturbed.ended.digest.trim_end());
        match self.is_equal() {
            true => write!(f, "digest      equal: {quiet}"),
            false => write!(f, "digest      DIFFERENT: {quiet} left alone, {disturbed} disturbed"),
        }
    }
}

fn recovery(f: &mut fmt::Formatter<'_>, name: &str, sorted: &[Duration]) -> fmt::Result {
    let at =
        |share| percentile(sorted, share).map_or_else(|| "-".into(), |t| format!("{:.3}", t.as_secs_f64()));
    writeln!(f, "recovery    {name:<20} n {:>3}  p50 {} s  p99 {} s", sorted.len(), at(0.5), at(0.99))
}

/// The smallest time that this share of all does not exceed.
fn percentile(sorted: &[Duration], share: f64) -> Option<Duration> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied()
}
