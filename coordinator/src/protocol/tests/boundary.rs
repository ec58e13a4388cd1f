//! What is due between two steps, and a user's wish to stop.

use super::*;

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
fn a_checkpoint_that_is_wanted_is_made_once_at_the_next_boundary() {
    for steps in [2, 3] {
        let mut cluster = Cluster::of(RunPlan { checkpoint_every: None, ..plan() }, 2, Exchange::Mesh);
        [A, B].into_iter().for_each(|worker| cluster.join(worker));
        cluster.run_until(|a| matches!(a, Action::Assign { step, .. } if step.0 == steps));
        let without = cluster.checkpoints();
        cluster.handle(Event::CheckpointRequested);
        cluster.handle(Event::CheckpointRequested);
        assert_eq!(cluster.checkpoints(), without, "the step under way comes first");
        cluster.run_until(|a| *a == Action::WriteCheckpoint { step: Step(steps) });
        cluster.run();
        let told = cluster.checkpoints();
        assert_eq!(told.iter().filter(|line| **line == format!("checkpoint {steps}")).count(), 1, "{told:?}");
        assert_eq!(cluster.history(), quiet_history());
        assert_eq!(cluster.machine.saved_step(), Some(Step(7)));
    }
}

#[test]
fn nobody_saves_the_seed() {
    let mut cluster = Cluster::new(plan(), 1);
    cluster.join(A);
    cluster.handle(Event::CheckpointRequested);
    cluster.run();
    assert_eq!(cluster.checkpoints()[0], "checkpoint 1", "the first boundary that has something to save");
    assert_eq!(cluster.history(), quiet_history());
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
