//! The runs: one left alone, one disturbed. Starts, hurts and mends; what it means is `report`'s.

use std::time::{Duration, Instant};

use crate::crew::Crew;
use crate::faults::{Dealer, Fault, Kind};
use crate::footprint::Footprints;
use crate::netlab::Lab;
use crate::options::Options;
use crate::program::{Workshop, signal};
use crate::watch::{Commit, Watch};

/// Steps of some tens of milliseconds where four workers share two cores.
pub(crate) const CONFIG: &str = r#"
seed = 5

[data]
train = "text.txt"
valid_fraction = 0.1

[model]
layers = 2
embedding = 96
hidden = 160
dropout = 0.1

[train]
streams = 16
window = 24
lanes = 8
optimizer = "adam"
learning_rate = 0.002
schedule = { kind = "cosine", warmup = 20 }
evaluate_every = 150
checkpoint_every = 50

[cluster]
threads = 1
digest_every = 100
"#;
/// How often the commits are looked at: the resolution of what is measured.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// A disturbed run that takes so much longer than was asked for, and a minute, does not get on.
const MUCH_LONGER: u32 = 10;
/// How long the run is tried to learn its speed.
const TRIAL: Duration = Duration::from_secs(3);

/// A run that came to its end.
pub(crate) struct Ended {
    pub digest: String,
    pub steps: u64,
    /// From its first commit to its last.
    pub seconds: f64,
}

/// A fault that was done.
pub(crate) struct Done {
    pub fault: Fault,
    /// Since the start.
    pub at: Duration,
    /// The last step that was committed before.
    pub step: u64,
    /// From the fault to the second commit after it, for the first may have been decided before it; `None` when the run
    /// ended first.
    pub recovery: Option<Duration>,
}

pub(crate) struct Disturbed {
    pub ended: Ended,
    pub done: Vec<Done>,
    /// Processes that ended though nobody had hurt them.
    pub surprises: Vec<String>,
    pub footprints: Footprints,
}

fn crew<'a>(
    shop: &'a Workshop,
    lab: Option<&'a Lab>,
    options: &Options,
    (run, steps): (&str, u64),
) -> (Crew<'a>, Watch) {
    let sets = [
        format!("train.steps={steps}"),
        format!("cluster.workers={}", options.workers),
        format!("cluster.exchange={}", options.exchange),
    ];
    let mut crew = Crew::start(shop, lab, ("chaos.toml", run), &sets.each_ref().map(String::as_str));
    (0..options.workers).for_each(|_| crew.add_worker(None));
    (crew, Watch::new(shop.path(&format!("{run}/metrics.jsonl"))))
}

/// How many steps take as long as was asked for.
pub(crate) fn calibrate(shop: &Workshop, lab: Option<&Lab>, options: &Options) -> u64 {
    let (mut crew, mut watch) = crew(shop, lab, options, ("trial", 1_000_000));
    let mut first = None;
    while first.is_none_or(|first: Instant| first.elapsed() < TRIAL) {
        assert!(!crew.coordinator.has_ended(), "{}", crew.story());
        watch.look();
        first = first.or(watch.commits.first().map(|commit| commit.at));
        std::thread::sleep(LOOK_EVERY);
    }
    let done = watch.commits.last().map_or(0, |commit| commit.step);
    let rate = done.saturating_sub(1) as f64 / watch.seconds().max(0.1);
    ((rate * options.length.as_secs_f64()) as u64).max(20)
}

/// The run that is left alone.
pub(crate) fn quiet(shop: &Workshop, lab: Option<&Lab>, options: &Options, steps: u64) -> Ended {
    let (mut crew, mut watch) = crew(shop, lab, options, ("quiet", steps));
    while !crew.coordinator.has_ended() {
        watch.look();
        std::thread::sleep(LOOK_EVERY);
    }
    watch.look();
    Ended { digest: crew.digest(), steps, seconds: watch.seconds() }
}

/// The same run, with a fault every few seconds.
pub(crate) fn disturbed(shop: &Workshop, lab: Option<&Lab>, options: &Options, steps: u64) -> Disturbed {
    let (crew, watch) = crew(shop, lab, options, ("disturbed", steps));
    let only = |kind: Kind| {
        let named = options.only.as_ref().is_none_or(|only| kind.to_string().contains(only.as_str()));
        named && (lab.is_some() || !kind.needs_network())
    };
    let mut dealer = Dealer::new(options.seed, (options.workers, options.every), only);
    let next = dealer.next();
    let mut storm = Storm {
        crew,
        watch,
        lab,
        dealer,
        next,
        steps,
        began: Instant::now(),
        last: Instant::now(),
        under_way: None,
        done: Vec::new(),
        times: Vec::new(),
        surprises: Vec::new(),
        footprints: Footprints::default(),
    };
    storm.blow(options.length * MUCH_LONGER + Duration::from_secs(60));
    storm.watch.look();
    let recovery = storm.times.iter().map(|time| recovery(*time, &storm.watch.commits));
    let done = storm.done.into_iter().zip(recovery);
    let done = done.map(|(done, recovery)| Done { recovery, ..done }).collect();
    let ended = Ended { digest: storm.crew.digest(), steps, seconds: storm.watch.seconds() };
    Disturbed { ended, done, surprises: storm.surprises, footprints: storm.footprints }
}

fn recovery(time: Instant, commits: &[Commit]) -> Option<Duration> {
    let second = commits.iter().filter(|commit| commit.at > time).nth(1)?;
    Some(second.at.duration_since(time))
}

/// A disturbed run under way.
struct Storm<'a> {
    crew: Crew<'a>,
    watch: Watch,
    lab: Option<&'a Lab>,
    dealer: Dealer,
    next: Fault,
    steps: u64,
    began: Instant,
    /// When the last fault was done or, later, mended.
    last: Instant,
    /// A fault that is still to be mended, and when.
    under_way: Option<(Fault, Instant)>,
    done: Vec<Done>,
    /// From when the recovery of each fault counts.
    times: Vec<Instant>,
    surprises: Vec<String>,
    footprints: Footprints,
}

impl Storm<'_> {
    fn blow(&mut self, patience: Duration) {
        while self.under_way.is_some() || !self.crew.coordinator.has_ended() {
            assert!(self.began.elapsed() < patience, "it does not end\n{}", self.crew.story());
            self.watch.look();
            self.footprints.look(&self.crew);
            match self.under_way {
                Some((fault, due)) if Instant::now() >= due => self.mend(fault),
                Some(_) => {}
                None => self.supervise(),
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Between faults: starts again whoever ended by himself, and does the next fault when it is due.
    fn supervise(&mut self) {
        let is_under_way = |commit: &Commit| commit.step < self.steps;
        if !self.watch.commits.last().is_some_and(is_under_way) || self.crew.coordinator.has_ended() {
            return;
        }
        for place in 0..self.crew.workers.len() {
            if self.crew.workers[place].has_ended() {
                self.surprises.push(format!("worker {place} ended: {}", self.crew.workers[place].said()));
                self.crew.replace_worker(place);
            }
        }
        if self.last.elapsed() >= self.next.after {
            let fault = std::mem::replace(&mut self.next, self.dealer.next());
            self.do_to_them(fault);
        }
    }

    fn do_to_them(&mut self, fault: Fault) {
        let now = Instant::now();
        let step = self.watch.commits.last().map_or(0, |commit| commit.step);
        self.done.push(Done { fault, at: now.duration_since(self.began), step, recovery: None });
        self.times.push(now);
        self.hurt(fault);
        self.under_way = Some((fault, now + fault.outage));
    }

    fn hurt(&mut self, Fault { kind, place, .. }: Fault) {
        let crew = &mut self.crew;
        match kind {
            Kind::WorkerKilled => crew.kill_worker(place),
            Kind::WorkerStopped => signal("STOP", crew.workers[place].id()),
            Kind::WorkerLeft => signal("TERM", crew.workers[place].id()),
            Kind::WorkerCut => self.lab.expect("cuts are dealt with a laboratory").cut(place + 1),
            Kind::CoordinatorKilled => crew.kill_coordinator(),
            Kind::CoordinatorCut => self.lab.expect("cuts are dealt with a laboratory").cut(0),
            Kind::AllKilled => {
                crew.kill_coordinator();
                (0..crew.workers.len()).for_each(|place| crew.kill_worker(place));
            }
        }
    }

    fn mend(&mut self, fault: Fault) {
        let (crew, place) = (&mut self.crew, fault.place);
        match fault.kind {
            Kind::WorkerKilled => crew.replace_worker(place),
            Kind::WorkerStopped => signal("CONT", crew.workers[place].id()),
            // It has its step to end first.
            Kind::WorkerLeft if !crew.workers[place].has_ended() => return,
            Kind::WorkerLeft => crew.replace_worker(place),
            Kind::WorkerCut => self.lab.expect("cuts are dealt with a laboratory").heal(place + 1),
            Kind::CoordinatorKilled => crew.resume(),
            Kind::CoordinatorCut => self.lab.expect("cuts are dealt with a laboratory").heal(0),
            Kind::AllKilled => {
                crew.resume();
                (0..crew.workers.len()).for_each(|place| crew.replace_worker(place));
            }
        }
        self.under_way = None;
        self.last = Instant::now();
        if fault.kind.halts_everybody() {
            *self.times.last_mut().expect("a fault under way was done") = self.last;
        }
    }
}
