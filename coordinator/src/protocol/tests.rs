//! The protocol against scripted and random workers.

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
        windows_per_epoch: 3,
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

#[test]
fn a_quiet_run_commits_evaluates_checkpoints_and_ends() {
    let expected = "commit 1, commit 2, commit 3, Scheduled at 3, commit 4, commit 5, commit 6, Scheduled at 6, commit 7, \
                    FinalValid at 7, FinalTest at 7, Complete";
    assert_eq!(quiet_history().join(", "), expected);
    let mut cluster = Cluster::new(plan(), 1);
    cluster.join(A);
    cluster.run();
    assert_eq!(cluster.checkpoints(), ["checkpoint 2", "checkpoint 4", "checkpoint 6", "checkpoint 7"]);
}

#[test]
fn nothing_starts_before_enough_workers_joined() {
    let mut cluster = Cluster::new(plan(), 2);
    cluster.join(A);
    assert_eq!(cluster.log, [Action::Waiting { joined: 1, needed: 2 }]);
    cluster.join(B);
    cluster.run();
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn a_commit_waits_for_every_acknowledgement() {
    let mut cluster = Cluster::new(plan(), 2);
    cluster.join(A);
    cluster.join(B);
    cluster.run_until(|a| matches!(a, Action::SendReduced { worker: B, .. }));
    let (term, step) = (cluster.machine.term(), Step(1));
    cluster.inbox.clear();
    cluster.handle(Event::Acknowledged { worker: A, term, step });
    cluster.handle(Event::Acknowledged { worker: A, term, step });
    assert_eq!(cluster.machine.step(), Step(0), "one worker's word twice is not two workers' word");
    cluster.handle(Event::Acknowledged { worker: B, term: Term(term.0 - 1), step });
    assert_eq!(cluster.machine.step(), Step(0), "a message of another term changes nothing");
    cluster.handle(Event::Acknowledged { worker: B, term, step });
    assert_eq!(cluster.machine.step(), Step(1));
}

#[test]
fn a_mesh_commits_when_all_slices_are_reduced_and_handed_round() {
    let mut cluster = Cluster::of(plan(), 2, Exchange::Mesh);
    cluster.join(A);
    cluster.join(B);
    cluster.run_until(|a| matches!(a, Action::Assign { worker: B, .. }));
    cluster.inbox.clear();
    let (term, step) = (cluster.machine.term(), Step(1));
    for worker in [A, B] {
        cluster.handle(Event::Reported { worker, term, step, took: LANE });
        cluster.handle(Event::Acknowledged { worker, term, step });
    }
    cluster.handle(Event::Sliced { worker: A, term, step });
    assert!(
        !cluster.log.contains(&Action::Reduce { term, step }),
        "the clip needs the squares of every slice"
    );
    cluster.handle(Event::Sliced { worker: B, term, step });
    assert!(cluster.log.contains(&Action::Reduce { term, step }));
    cluster.handle(Event::Reduced { term, step });
    assert_eq!(cluster.machine.step(), Step(1), "acknowledgements before the clip count");
    assert!(
        !cluster.log.iter().any(|a| matches!(a, Action::SendReduced { .. })),
        "a mesh hands its slices round itself"
    );
}

#[test]
fn a_lost_worker_s_lanes_are_computed_again_with_given_carries() {
    let mut cluster = Cluster::new(plan(), 2);
    cluster.join(A);
    cluster.join(B);
    cluster.run_until(|a| matches!(a, Action::Assign { step: Step(2), worker: B, .. }));
    let before = cluster.machine.term();
    cluster.lose(B);
    let again = cluster.log.last().unwrap();
    let term = before.next();
    assert_eq!(
        *again,
        Action::Assign { worker: A, term, step: Step(2), lanes: 0..4, carry: CarryOrigin::Given },
        "a new term, the same step, all lanes"
    );
    cluster.run();
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn a_newcomer_gets_the_committed_replica_and_lanes_at_the_next_boundary() {
    let mut cluster = Cluster::new(plan(), 1);
    cluster.join(A);
    cluster.run_until(|a| matches!(a, Action::Assign { step: Step(3), .. }));
    cluster.join(C);
    cluster.run_until(|a| matches!(a, Action::Assign { worker: C, .. }));
    assert!(cluster.log.contains(&Action::FetchReplica { worker: A, step: Step(3) }));
    let source = LoadSource::Coordinator;
    assert!(cluster.log.contains(&Action::Load { worker: C, step: Step(3), source }));
    cluster.run();
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn a_replica_with_another_digest_is_expelled() {
    let mut cluster = Cluster::new(plan(), 2);
    cluster.join(A);
    cluster.join(B);
    cluster.inbox.clear();
    let wrong = digest(Step(99));
    cluster.handle(Event::Ready { worker: A, step: Step(0), digest: digest(Step(0)) });
    cluster.handle(Event::Ready { worker: B, step: Step(0), digest: wrong });
    let reason = ExpelReason::DigestDiffers { step: Step(0), expected: digest(Step(0)), found: wrong };
    assert!(cluster.log.contains(&Action::Expel { worker: B, reason }));
    assert!(cluster.machine.active().eq([A]));
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

#[test]
fn who_keeps_the_others_waiting_is_expelled_and_the_step_is_run_again() {
    for exchange in [Exchange::Star, Exchange::Mesh] {
        let mut cluster = started(&[A, B], exchange);
        cluster.present.remove(&B);
        cluster.run();
        cluster.wait_until(Duration::from_millis(600));
        assert!(!is_expelled(&cluster, B), "not before the deadline");
        cluster.wait_until(Duration::from_millis(1100));
        assert!(is_expelled(&cluster, B) && !is_expelled(&cluster, A), "the late one alone");
        cluster.run();
        assert_eq!(cluster.history(), quiet_history());
    }
}

#[test]
fn a_coordinator_that_stood_still_blames_nobody() {
    for exchange in [Exchange::Star, Exchange::Mesh] {
        let mut cluster = started(&[A, B], exchange);
        let late = cluster.inbox.iter().position(|event| event.worker() == Some(B)).unwrap();
        let late = cluster.inbox.remove(late).unwrap();
        cluster.run();
        cluster.now += Duration::from_secs(30);
        cluster.handle(Event::Tick);
        assert!(!is_expelled(&cluster, B), "{exchange:?}: what B said may wait to be read");
        cluster.inbox.push_back(late);
        cluster.run();
        assert_eq!(cluster.history(), quiet_history());
    }
}

#[test]
fn when_everybody_is_late_nobody_is_left_behind() {
    for exchange in [Exchange::Star, Exchange::Mesh] {
        let mut cluster = started(&[A, B], exchange);
        cluster.wait_until(Duration::from_secs(500));
        assert!(!is_expelled(&cluster, A) && !is_expelled(&cluster, B));
        cluster.run();
        assert_eq!(cluster.history(), quiet_history());
    }
}

/// A mesh in which both have reported but no slice is reduced: somebody's partial sums are missing.
fn waiting_for_slices() -> (Cluster, Term) {
    let mut cluster = started(&[A, B], Exchange::Mesh);
    cluster.inbox.clear();
    let (term, step) = (cluster.machine.term(), Step(2));
    for worker in [A, B] {
        cluster.handle(Event::Reported { worker, term, step, took: LANE });
    }
    cluster.wait_until(Duration::from_millis(600));
    for worker in [A, B] {
        assert!(cluster.log.contains(&Action::AskDigest { worker, step: Step(1) }), "everybody is asked");
    }
    cluster.inbox.clear();
    (cluster, term)
}

#[test]
fn a_silent_peer_is_told_from_those_who_wait_for_it() {
    let (mut cluster, _) = waiting_for_slices();
    cluster.present.remove(&B);
    cluster.handle(Event::Digested { worker: A, step: Step(1), digest: digest(Step(1)) });
    cluster.wait_until(Duration::from_secs(4));
    assert!(is_expelled(&cluster, B) && !is_expelled(&cluster, A));
    cluster.run();
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn when_all_are_alive_and_cannot_reach_each_other_the_coordinator_relays() {
    let (mut cluster, term) = waiting_for_slices();
    for worker in [A, B] {
        cluster.handle(Event::Digested { worker, step: Step(1), digest: digest(Step(1)) });
    }
    cluster.wait_until(Duration::from_secs(4));
    assert!(!is_expelled(&cluster, A) && !is_expelled(&cluster, B));
    let again = Action::Begin {
        term: term.next(),
        step: Step(2),
        exchange: Exchange::Star,
        shares: vec![(A, 0..2), (B, 2..4)],
    };
    assert!(cluster.log.contains(&again), "the same step in a new term, through the coordinator");
    cluster.run();
    assert!(
        cluster.log.iter().any(|a| matches!(a, Action::SendReduced { step: Step(7), .. })),
        "and what follows"
    );
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn a_worker_that_leaves_hands_its_lanes_over_at_the_boundary() {
    let mut cluster = started(&[A, B], Exchange::Mesh);
    cluster.handle(Event::Leaving { worker: B });
    assert!(!cluster.log.contains(&Action::Release { worker: B }), "the step under way is finished first");
    cluster.run();
    let released = cluster.log.iter().position(|a| *a == Action::Release { worker: B }).unwrap();
    let committed =
        cluster.log.iter().position(|a| matches!(a, Action::Commit { step: Step(2), .. })).unwrap();
    assert!(committed < released, "after the step it takes part in");
    let after: Vec<&Action> = cluster.log[released..].iter().collect();
    assert!(!after.iter().any(|a| matches!(a, Action::Assign { worker: B, .. })));
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn the_last_worker_hands_the_replica_over_before_it_leaves() {
    let mut cluster = started(&[A], Exchange::Mesh);
    cluster.handle(Event::Leaving { worker: A });
    cluster.run();
    assert!(cluster.log.contains(&Action::FetchReplica { worker: A, step: Step(2) }));
    assert!(cluster.log.contains(&Action::Release { worker: A }));
    assert_eq!(cluster.log.last(), Some(&Action::Waiting { joined: 0, needed: 1 }), "the coordinator waits");
    cluster.join(C);
    cluster.run();
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn a_replica_that_differs_is_named_and_expelled() {
    let mut cluster = started(&[A, B, C], Exchange::Mesh);
    cluster.run_until(|a| matches!(a, Action::AskDigest { worker: C, step: Step(3) }));
    cluster.inbox.clear();
    let (step, wrong) = (Step(3), digest(Step(77)));
    for (worker, digest) in [(A, digest(step)), (B, wrong), (C, digest(step))] {
        cluster.handle(Event::Digested { worker, step, digest });
    }
    let reason = ExpelReason::DigestDiffers { step, expected: digest(step), found: wrong };
    assert!(cluster.log.contains(&Action::Expel { worker: B, reason }));
    assert!(cluster.machine.active().eq([A, C]));
    cluster.run();
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn of_two_that_differ_the_one_that_was_here_first_is_believed() {
    let digests = BTreeMap::from([(A, digest(Step(1))), (B, digest(Step(2)))]);
    assert_eq!(majority(&digests), Some(digest(Step(1))));
    let digests = BTreeMap::from([(A, digest(Step(1))), (B, digest(Step(2))), (C, digest(Step(2)))]);
    assert_eq!(majority(&digests), Some(digest(Step(2))));
}

#[test]
fn a_checkpoint_that_cannot_be_written_does_not_end_the_run() {
    let mut cluster = started(&[A], Exchange::Mesh);
    cluster.run_until(|a| matches!(a, Action::WriteCheckpoint { step: Step(2) }));
    cluster.inbox.retain(|event| !matches!(event, Event::CheckpointWritten { .. }));
    cluster.handle(Event::CheckpointFailed { step: Step(2) });
    cluster.run();
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn a_stop_commits_the_step_under_way_and_checkpoints() {
    let mut cluster = Cluster::new(plan(), 1);
    cluster.join(A);
    cluster.run_until(|a| matches!(a, Action::Assign { step: Step(5), .. }));
    cluster.handle(Event::StopRequested);
    cluster.run();
    let history = cluster.history();
    assert_eq!(history[history.len() - 2..], ["commit 5", "Interrupted"]);
    assert_eq!(cluster.checkpoints().last().unwrap(), "checkpoint 5");
    let end = cluster.log.iter().rposition(|a| matches!(a, Action::Finish { .. })).unwrap();
    let saved = cluster.log.iter().rposition(|a| matches!(a, Action::WriteCheckpoint { .. })).unwrap();
    assert!(saved < end, "the end waits for it");
}

#[test]
fn a_stop_before_the_first_step_writes_nothing() {
    let mut cluster = Cluster::new(plan(), 2);
    cluster.join(A);
    cluster.handle(Event::StopRequested);
    assert_eq!(cluster.history(), ["Interrupted"]);
}

#[test]
fn when_every_worker_is_gone_the_run_waits_and_goes_back_to_its_checkpoint() {
    let mut cluster = Cluster::new(plan(), 1);
    cluster.join(A);
    cluster.run_until(|a| matches!(a, Action::Assign { step: Step(4), .. }));
    cluster.inbox.clear();
    cluster.handle(Event::CheckpointWritten { step: Step(2) });
    cluster.lose(A);
    assert_eq!(cluster.log.last(), Some(&Action::Waiting { joined: 0, needed: 1 }), "it waits and says so");
    cluster.wait(Duration::from_secs(60));
    cluster.join(B);
    assert!(!cluster.log.contains(&Action::Rollback), "somebody who still has the replica may come back");
    cluster.wait(Duration::from_secs(3));
    assert!(cluster.log.contains(&Action::Rollback));
    cluster.run();
    let commits: Vec<String> =
        cluster.history().into_iter().filter(|line| line.starts_with("commit")).collect();
    assert_eq!(
        commits[3..5],
        ["commit 3", "commit 4"],
        "what came after the checkpoint is made again: {commits:?}"
    );
    assert_eq!(cluster.history().last().unwrap(), "Complete");
}

#[test]
fn a_worker_that_was_only_cut_off_brings_the_replica_back() {
    let mut cluster = Cluster::new(plan(), 1);
    cluster.join(A);
    cluster.run_until(|a| matches!(a, Action::Assign { step: Step(4), .. }));
    cluster.inbox.clear();
    cluster.lose(A);
    cluster.join(B);
    cluster.join_with(C, Some(Held { step: Step(3), gradient: None }));
    let source = LoadSource::Held { commit: false };
    assert!(cluster.log.contains(&Action::Load { worker: C, step: Step(3), source }));
    cluster.run();
    assert!(!cluster.log.contains(&Action::Rollback));
    assert_eq!(cluster.history(), quiet_history());
}

fn after_the_coordinator(workers_to_start: usize, exchange: Exchange) -> Cluster {
    let origin = Origin::Workers { validated: true, checkpointed: Some(Step(2)) };
    let (term, step, recent_steps) = (Term(9), Step(3), vec![Duration::from_millis(100)]);
    Cluster::from(plan(), Start { exchange, workers_to_start, term, step, origin, recent_steps })
}

#[test]
fn a_restarted_coordinator_goes_on_from_the_last_commit() {
    let mut cluster = after_the_coordinator(3, Exchange::Mesh);
    cluster.join_with(A, Some(Held { step: Step(3), gradient: None }));
    cluster.join_with(B, Some(Held { step: Step(2), gradient: Some(Step(3)) }));
    assert!(!cluster.log.iter().any(|a| matches!(a, Action::Load { .. })), "the third may come back as well");
    cluster.wait(Duration::from_secs(3));
    let load = |worker, commit| Action::Load { worker, step: Step(3), source: LoadSource::Held { commit } };
    assert!(cluster.log.contains(&load(A, false)) && cluster.log.contains(&load(B, true)));
    cluster.run();
    assert!(!cluster.log.contains(&Action::Rollback));
    assert_eq!(cluster.history(), quiet_history()[4..], "validation after step 3 had been made");
}

#[test]
fn what_was_due_when_the_coordinator_was_lost_is_made_up_for() {
    let origin = Origin::Workers { validated: false, checkpointed: Some(Step(4)) };
    let start = Start { term: Term(9), step: Step(6), origin, ..beginning(1, Exchange::Star) };
    let mut cluster = Cluster::from(plan(), start);
    cluster.join_with(A, Some(Held { step: Step(6), gradient: None }));
    cluster.run();
    assert_eq!(cluster.history()[0], "Scheduled at 6");
    assert_eq!(cluster.checkpoints(), ["checkpoint 6", "checkpoint 7"]);
}

#[test]
fn workers_of_an_older_step_load_like_newcomers() {
    let mut cluster = after_the_coordinator(2, Exchange::Mesh);
    cluster.join_with(A, Some(Held { step: Step(3), gradient: Some(Step(4)) }));
    cluster.join_with(B, Some(Held { step: Step(1), gradient: Some(Step(2)) }));
    cluster.run();
    let source = LoadSource::Peers { workers: vec![A] };
    assert!(cluster.log.contains(&Action::Load { worker: B, step: Step(3), source }));
    assert_eq!(cluster.history(), quiet_history()[4..]);
}

#[test]
fn who_cannot_load_from_its_peers_loads_from_the_coordinator() {
    let mut cluster = started(&[A], Exchange::Mesh);
    cluster.join(B);
    cluster.run_until(|a| matches!(a, Action::Load { worker: B, source: LoadSource::Peers { .. }, .. }));
    cluster.inbox.retain(|event| !matches!(event, Event::Ready { worker: B, .. }));
    cluster.handle(Event::LoadFailed { worker: B });
    cluster.run();
    assert!(
        cluster
            .log
            .iter()
            .any(|a| matches!(a, Action::Load { worker: B, source: LoadSource::Coordinator, .. }))
    );
    assert!(cluster.log.iter().any(|a| matches!(a, Action::Assign { worker: B, .. })));
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn who_hangs_while_it_loads_or_evaluates_is_left_behind() {
    for hangs in [
        |a: &Action| matches!(a, Action::Load { worker: C, .. }),
        |a: &Action| matches!(a, Action::Evaluate { worker: C, .. }),
    ] {
        let mut cluster = started(&[A, B], Exchange::Mesh);
        cluster.join(C);
        cluster.run_until(hangs);
        cluster.present.remove(&C);
        cluster.run();
        (0..30).for_each(|_| cluster.wait(Duration::from_millis(100)));
        assert!(is_expelled(&cluster, C) && !is_expelled(&cluster, A) && !is_expelled(&cluster, B));
        cluster.run();
        assert_eq!(cluster.history(), quiet_history());
    }
}

#[test]
fn who_goes_on_giving_signs_of_life_is_waited_for() {
    let mut cluster = started(&[A, B], Exchange::Mesh);
    cluster.run_until(|a| matches!(a, Action::Evaluate { worker: B, .. }));
    cluster.inbox.retain(|event| !matches!(event, Event::Evaluated { worker: B, .. }));
    cluster.run();
    for _ in 0..100 {
        cluster.handle(Event::Heard { worker: B });
        cluster.wait(Duration::from_millis(600));
    }
    assert!(!is_expelled(&cluster, B));
    cluster.wait(Duration::from_secs(1));
    assert!(is_expelled(&cluster, B), "and no longer");
}

#[test]
fn a_checkpoint_does_not_stop_the_run_and_survives_the_loss_of_its_source() {
    let mut cluster = started(&[A, B], Exchange::Mesh);
    cluster.run_until(|a| matches!(a, Action::FetchReplica { worker: A, step: Step(2) }));
    cluster.inbox.retain(|event| !matches!(event, Event::ReplicaReceived { .. }));
    assert!(cluster.log.iter().any(|a| matches!(a, Action::Assign { step: Step(3), .. })), "steps go on");
    cluster.lose(A);
    cluster.run();
    assert_eq!(cluster.checkpoints()[0], "checkpoint 2", "made again at the same boundary, from B");
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn lanes_follow_speed() {
    let plan = RunPlan { lanes: 12, length: Length::Steps(60), has_valid: false, has_test: false, ..plan() };
    let mut cluster = Cluster::of(plan, 2, Exchange::Mesh);
    [A, B].into_iter().for_each(|worker| cluster.join(worker));
    while !cluster.inbox.is_empty() {
        for event in &mut cluster.inbox {
            if let Event::Reported { worker: B, took, .. } = event {
                *took = (*took).min(LANE * 12 / 4);
            }
        }
        cluster.deliver(0);
    }
    let last = cluster.log.iter().rev().find_map(|a| match a {
        Action::Begin { shares, .. } => Some(shares.clone()),
        _ => None,
    });
    let counts: Vec<usize> = last.unwrap().iter().map(|(_, lanes)| lanes.len()).collect();
    assert!(counts[1] > counts[0], "B is faster: {counts:?}");
    let given = |a: &Action| matches!(a, Action::Assign { carry: CarryOrigin::Given, .. });
    assert!(cluster.log.iter().any(given), "moved lanes come with their carries");
}

#[test]
fn a_resumed_run_that_is_complete_only_evaluates() {
    let origin = Origin::Checkpoint(digest(Step(7)));
    let start = Start { term: Term(5), step: Step(7), origin, ..beginning(1, Exchange::Star) };
    let mut cluster = Cluster::from(plan(), start);
    cluster.join(A);
    cluster.run();
    assert_eq!(cluster.history(), ["FinalValid at 7", "FinalTest at 7", "Complete"]);
    assert!(cluster.checkpoints().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever order answers come in, whoever is lost or joins (one worker always stays): the history of the run is
    /// the quiet one.
    #[test]
    fn faults_do_not_change_the_history(
        mesh in any::<bool>(),
        script in proptest::collection::vec((0u8..10, any::<prop::sample::Index>()), 0..120),
    ) {
        let mut cluster = Cluster::of(plan(), 1, if mesh { Exchange::Mesh } else { Exchange::Star });
        cluster.join(A);
        let mut next = 2;
        for (what, index) in script {
            let strangers: Vec<WorkerId> = cluster.present.iter().copied().filter(|w| *w != A).collect();
            match what {
                0 => { cluster.join(WorkerId(next)); next += 1; }
                1 if !strangers.is_empty() => cluster.lose(strangers[index.index(strangers.len())]),
                _ if !cluster.inbox.is_empty() => cluster.deliver(index.index(cluster.inbox.len())),
                _ => {}
            }
        }
        cluster.run();
        prop_assert_eq!(cluster.history(), quiet_history());
        let checkpoints = cluster.checkpoints();
        // Whose copy is lost with its worker is made at a later boundary.
        prop_assert_eq!(checkpoints.last().map(String::as_str), Some("checkpoint 7"), "the end is saved");
    }
}
