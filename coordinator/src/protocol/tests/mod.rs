//! The protocol against scripted and random workers.

mod boundary;
mod membership;
mod step;

use super::loading::majority;
use super::*;
use crate::plan::Length;
use proptest::prelude::*;

const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);
const C: WorkerId = WorkerId(3);

fn plan() -> RunPlan {
    RunPlan {
        lanes: 4,
        epochs: Epochs::Even { updates: 3 },
        length: Length::Steps(7),
        evaluate_every: None,
        checkpoint_every: Some(2),
        digest_every: Some(3),
        has_valid: true,
        has_test: true,
    }
}

/// What a lane takes to compute.
const LANE: Duration = Duration::from_millis(5);

fn beginning(workers_to_start: usize, exchange: Exchange) -> Start {
    let (term, step, origin) = (Term(1), Step(0), Origin::Seed);
    Start { exchange, workers_to_start, term, step, origin, recent_steps: vec![] }
}

fn digest(step: Step) -> Digest {
    Digest::of_bytes(&step.0.to_le_bytes())
}

/// A cluster of honest workers and a driver that answer every action; what they were asked is recorded.
struct Cluster {
    machine: Machine,
    present: BTreeSet<WorkerId>,
    inbox: VecDeque<Event>,
    log: Vec<Action>,
    now: Duration,
}

impl Cluster {
    fn new(plan: RunPlan, workers: usize) -> Self {
        Self::of(plan, workers, Exchange::Star)
    }

    fn of(plan: RunPlan, workers_to_start: usize, exchange: Exchange) -> Self {
        Self::from(plan, beginning(workers_to_start, exchange))
    }

    fn from(plan: RunPlan, start: Start) -> Self {
        Self {
            machine: Machine::new(plan, start),
            present: BTreeSet::new(),
            inbox: VecDeque::new(),
            log: Vec::new(),
            now: Duration::ZERO,
        }
    }

    fn join(&mut self, worker: WorkerId) {
        self.join_with(worker, None);
    }

    fn join_with(&mut self, worker: WorkerId, held: Option<Held>) {
        self.present.insert(worker);
        self.handle(Event::Joined { worker, held });
    }

    /// Time passes, and the driver tells it ten times a second.
    fn wait(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = end.min(self.now + Duration::from_millis(100));
            self.handle(Event::Tick);
        }
    }

    fn wait_until(&mut self, time: Duration) {
        self.wait(time - self.now);
    }

    fn lose(&mut self, worker: WorkerId) {
        self.present.remove(&worker);
        self.handle(Event::Left { worker });
    }

    fn handle(&mut self, event: Event) {
        for action in self.machine.handle(self.now, event) {
            self.inbox.extend(self.answers(&action));
            self.log.push(action);
        }
    }

    fn answers(&self, action: &Action) -> Vec<Event> {
        match action.clone() {
            Action::Load { worker, step, .. } => vec![Event::Ready { worker, step, digest: digest(step) }],
            Action::Assign { worker, term, step, lanes, .. } => {
                let reported = (!lanes.is_empty()).then_some(Event::Reported {
                    worker,
                    term,
                    step,
                    took: LANE * lanes.len() as u32,
                });
                let of_a_mesh =
                    [Event::Sliced { worker, term, step }, Event::Acknowledged { worker, term, step }];
                let mesh = self.machine.exchange_of(step) == Exchange::Mesh;
                let of_a_mesh = of_a_mesh.into_iter().filter(|_| mesh);
                reported.into_iter().chain(of_a_mesh).collect()
            }
            Action::AskDigest { worker, step } => {
                vec![Event::Digested { worker, step, digest: digest(step) }]
            }
            Action::Reduce { term, step } => vec![Event::Reduced { term, step }],
            Action::SendReduced { worker, term, step } => vec![Event::Acknowledged { worker, term, step }],
            Action::Evaluate { worker, term, scope, .. } => vec![Event::Evaluated { worker, term, scope }],
            Action::FetchReplica { worker, step } => {
                vec![Event::ReplicaReceived { worker, step, digest: digest(step) }]
            }
            Action::WriteCheckpoint { step } => vec![Event::CheckpointWritten { step }],
            Action::Rollback => {
                let written = |action: &Action| match action {
                    Action::WriteCheckpoint { step } => Some(*step),
                    _ => None,
                };
                let last = self.log.iter().rev().find_map(written);
                let (step, digest) = (last.unwrap_or_default(), last.map(digest));
                vec![Event::RolledBack { step, digest }]
            }
            _ => vec![],
        }
    }

    /// Delivers one waiting answer; answers of workers that are gone are lost, as on a broken connection.
    fn deliver(&mut self, index: usize) {
        let event = self.inbox.remove(index).unwrap();
        let from = event.worker();
        if from.is_none_or(|worker| self.present.contains(&worker)) {
            self.handle(event);
        }
    }

    fn run(&mut self) {
        while !self.inbox.is_empty() {
            self.deliver(0);
        }
    }

    fn run_until(&mut self, reached: impl Fn(&Action) -> bool) {
        while !self.log.iter().any(&reached) {
            self.deliver(0);
        }
    }

    /// The run's visible history: commits, evaluations, the ending; nothing about who did it when.
    fn history(&self) -> Vec<String> {
        self.told().into_iter().filter(|line| !line.starts_with("checkpoint")).collect()
    }

    /// The checkpoints, which are made beside it.
    fn checkpoints(&self) -> Vec<String> {
        self.told().into_iter().filter(|line| line.starts_with("checkpoint")).collect()
    }

    fn told(&self) -> Vec<String> {
        let tell = |action: &Action| match action {
            Action::Commit { step, .. } => Some(format!("commit {}", step.0)),
            Action::SummarizeEvaluation { step, scope } => Some(format!("{scope:?} at {}", step.0)),
            Action::WriteCheckpoint { step } => Some(format!("checkpoint {}", step.0)),
            Action::Finish { ending } => Some(format!("{ending:?}")),
            _ => None,
        };
        self.log.iter().filter_map(tell).collect()
    }
}

fn quiet_history() -> Vec<String> {
    let mut cluster = Cluster::new(plan(), 1);
    cluster.join(A);
    cluster.run();
    cluster.history()
}

fn started(workers: &[WorkerId], exchange: Exchange) -> Cluster {
    let mut cluster = Cluster::of(plan(), workers.len(), exchange);
    workers.iter().for_each(|worker| cluster.join(*worker));
    cluster.run_until(|a| matches!(a, Action::Assign { step: Step(2), .. }));
    cluster
}

fn is_expelled(cluster: &Cluster, who: WorkerId) -> bool {
    cluster
        .log
        .iter()
        .any(|a| matches!(a, Action::Expel { worker, reason: ExpelReason::Overdue { .. } } if *worker == who))
}
