//! The protocol against scripted and random workers.

use super::boundary::majority;
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
        let start = Start { exchange, workers_to_start, term: Term(1), step: Step(0), origin: Origin::Seed };
        let machine = Machine::new(plan, start);
        Self {
            machine,
            present: BTreeSet::new(),
            inbox: VecDeque::new(),
            log: Vec::new(),
            now: Duration::ZERO,
        }
    }

    fn join(&mut self, worker: WorkerId) {
        self.present.insert(worker);
        self.handle(Event::Joined { worker });
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
            Action::Load { worker, step } => vec![Event::Ready { worker, step, digest: digest(step) }],
            Action::Assign { worker, term, step, lanes, .. } => {
                let reported = (!lanes.is_empty()).then_some(Event::Reported { worker, term, step });
                let of_a_mesh =
                    [Event::Sliced { worker, term, step }, Event::Acknowledged { worker, term, step }];
                let of_a_mesh = of_a_mesh.into_iter().filter(|_| self.machine.exchange == Exchange::Mesh);
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
            _ => vec![],
        }
    }

    /// Delivers one waiting answer; answers of workers that are gone are lost, as on a broken connection.
    fn deliver(&mut self, index: usize) {
        let event = self.inbox.remove(index).unwrap();
        let from = match &event {
            Event::Ready { worker, .. }
            | Event::Reported { worker, .. }
            | Event::Digested { worker, .. }
            | Event::Sliced { worker, .. }
            | Event::Acknowledged { worker, .. }
            | Event::Evaluated { worker, .. }
            | Event::ReplicaReceived { worker, .. } => Some(*worker),
            _ => None,
        };
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

    /// The run's visible history: commits, evaluations, checkpoints, the ending; nothing about who did it when.
    fn history(&self) -> Vec<String> {
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
    let expected = "commit 1, commit 2, checkpoint 2, commit 3, Scheduled at 3, commit 4, checkpoint 4, commit 5, commit 6, \
                    Scheduled at 6, checkpoint 6, commit 7, checkpoint 7, FinalValid at 7, FinalTest at 7, Complete";
    assert_eq!(quiet_history().join(", "), expected);
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
        cluster.handle(Event::Reported { worker, term, step });
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
    assert!(cluster.log.contains(&Action::Load { worker: C, step: Step(3) }));
    cluster.run();
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn a_replica_with_another_digest_is_expelled() {
    let mut cluster = Cluster::new(plan(), 2);
    cluster.join(A);
    cluster.join(B);
    cluster.deliver(0);
    let wrong = digest(Step(99));
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
        cluster.now = Duration::from_millis(900);
        cluster.handle(Event::Tick);
        assert!(!is_expelled(&cluster, B), "not before the deadline");
        cluster.now = Duration::from_millis(1100);
        cluster.handle(Event::Tick);
        assert!(is_expelled(&cluster, B) && !is_expelled(&cluster, A), "the late one alone");
        cluster.run();
        assert_eq!(cluster.history(), quiet_history());
    }
}

#[test]
fn when_everybody_is_late_nobody_is_left_behind() {
    for exchange in [Exchange::Star, Exchange::Mesh] {
        let mut cluster = started(&[A, B], exchange);
        cluster.now = Duration::from_secs(500);
        cluster.handle(Event::Tick);
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
    [A, B].into_iter().for_each(|worker| cluster.handle(Event::Reported { worker, term, step }));
    cluster.now = Duration::from_secs(2);
    cluster.handle(Event::Tick);
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
    cluster.now = Duration::from_secs(4);
    cluster.handle(Event::Tick);
    assert!(is_expelled(&cluster, B) && !is_expelled(&cluster, A));
    cluster.run();
    assert_eq!(cluster.history(), quiet_history());
}

#[test]
fn when_all_are_alive_what_was_lost_on_the_way_is_made_again() {
    let (mut cluster, term) = waiting_for_slices();
    for worker in [A, B] {
        cluster.handle(Event::Digested { worker, step: Step(1), digest: digest(Step(1)) });
    }
    cluster.now = Duration::from_secs(4);
    cluster.handle(Event::Tick);
    assert!(!is_expelled(&cluster, A) && !is_expelled(&cluster, B));
    assert_eq!(cluster.machine.term(), term.next(), "the same step in a new term");
    cluster.run();
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
    assert_eq!(majority(&digests), digest(Step(1)));
    let digests = BTreeMap::from([(A, digest(Step(1))), (B, digest(Step(2))), (C, digest(Step(2)))]);
    assert_eq!(majority(&digests), digest(Step(2)));
}

#[test]
fn a_checkpoint_that_cannot_be_written_does_not_end_the_run() {
    let mut cluster = started(&[A], Exchange::Mesh);
    cluster.run_until(|a| matches!(a, Action::WriteCheckpoint { step: Step(2) }));
    cluster.inbox.clear();
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
    assert_eq!(history[history.len() - 3..], ["commit 5", "checkpoint 5", "Interrupted"]);
}

#[test]
fn a_stop_before_the_first_step_writes_nothing() {
    let mut cluster = Cluster::new(plan(), 2);
    cluster.join(A);
    cluster.handle(Event::StopRequested);
    assert_eq!(cluster.history(), ["Interrupted"]);
}

#[test]
fn without_any_replica_the_run_ends_and_says_so() {
    let mut cluster = Cluster::new(plan(), 1);
    cluster.join(A);
    cluster.run_until(|a| matches!(a, Action::Assign { step: Step(2), .. }));
    cluster.lose(A);
    assert_eq!(cluster.history().last().unwrap(), "EveryReplicaLost");
}

#[test]
fn a_resumed_run_that_is_complete_only_evaluates() {
    let origin = Origin::Checkpoint(digest(Step(7)));
    let start = Start { exchange: Exchange::Star, workers_to_start: 1, term: Term(5), step: Step(7), origin };
    let machine = Machine::new(plan(), start);
    let mut cluster = Cluster { machine, ..Cluster::new(plan(), 1) };
    cluster.join(A);
    cluster.run();
    assert_eq!(cluster.history(), ["FinalValid at 7", "FinalTest at 7", "Complete"]);
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
        prop_assert_eq!(cluster.history().into_iter().filter(|h| !h.starts_with("checkpoint")).collect::<Vec<_>>(),
                        quiet_history().into_iter().filter(|h| !h.starts_with("checkpoint")).collect::<Vec<_>>());
        let checkpoints: BTreeSet<String> = cluster.history().into_iter().filter(|h| h.starts_with("checkpoint")).collect();
        prop_assert_eq!(checkpoints, quiet_history().into_iter().filter(|h| h.starts_with("checkpoint")).collect::<BTreeSet<_>>());
    }
}
