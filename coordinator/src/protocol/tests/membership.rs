//! Who joins, leaves, is lost and comes back.

use super::*;

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
fn a_drained_worker_goes_as_one_that_leaves_and_the_wish_is_no_sign_of_its_life() {
    let mut cluster = started(&[A, B], Exchange::Mesh);
    cluster.handle(Event::DrainRequested { worker: B });
    assert_eq!(
        cluster.machine.present().collect::<Vec<_>>(),
        [(A, Presence::Active), (B, Presence::Leaving)]
    );
    cluster.run();
    assert!(cluster.log.contains(&Action::Release { worker: B }));
    assert_eq!(cluster.history(), quiet_history());
    assert_eq!(Event::DrainRequested { worker: B }.worker(), None);
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
fn a_newcomer_that_is_left_alone_goes_on_with_what_the_coordinator_has() {
    let mut cluster = started(&[A, B], Exchange::Mesh);
    cluster.run_until(|a| matches!(a, Action::FetchReplica { step: Step(2), .. }));
    let received = cluster.inbox.iter().position(|e| matches!(e, Event::ReplicaReceived { .. })).unwrap();
    cluster.deliver(received);
    cluster.join(C);
    cluster.lose(A);
    assert!(
        cluster
            .log
            .iter()
            .any(|a| matches!(a, Action::Load { worker: C, source: LoadSource::Peers { .. }, .. }))
    );
    cluster.inbox.retain(|event| !matches!(event, Event::Ready { .. }));
    cluster.lose(B);
    cluster.handle(Event::LoadFailed { worker: C });
    let load = |a: &Action| matches!(a, Action::Load { worker: C, source: LoadSource::Coordinator, .. });
    assert!(
        cluster.log.iter().any(load),
        "two workers were needed to begin, one is enough to go on: {:?}",
        cluster.log.last()
    );
    cluster.run();
    assert_eq!(cluster.history(), quiet_history());
}
