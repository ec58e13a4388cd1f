//! One step, from its assignment to its commit, and who is too late for it.

use super::*;

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
