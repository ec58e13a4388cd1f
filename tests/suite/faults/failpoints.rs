//! A process fails at each named point of a step: the worker's points and the coordinator's, in a mesh and in a star.

use super::quiet::{self, LONG, SHORT};
use crate::crew::Crew;
use crate::program::{Workshop, eventually, signal};

/// A worker's points that every run passes; `worker-slice-sent` is the mesh's, `worker-half-loaded` and
/// `worker-serving` are passed when somebody joins.
const WORKER: &[&str] = &[
    "worker-assigned",
    "worker-computed",
    "worker-half-sent",
    "worker-acknowledged",
    "worker-committed",
    "worker-applied",
    "worker-depositing",
    "worker-evaluating",
];
const OF_THE_MESH: &[&str] = &["worker-slice-sent"];
const COORDINATOR: &[&str] = &[
    "coordinator-assigned",
    "coordinator-reduced",
    "coordinator-committed",
    "coordinator-journalled",
    "coordinator-saved",
    "coordinator-half-told",
    "coordinator-half-written",
    "coordinator-unnamed",
];
/// After the first checkpoint, before the first validation.
const STEP: u64 = 25;

fn sets<'a>(length: &[&'a str], exchange: &'a str) -> Vec<&'a str> {
    [length, &[exchange, "cluster.workers=3"]].concat()
}

/// Three workers; the one that joins first, whom the coordinator also asks for the replica, has the failpoint.
fn crew_of_three<'a>(shop: &'a Workshop, exchange: &str, failpoint: &str) -> Crew<'a> {
    let run = failpoint.replace(['@', ':', '='], "-");
    let mut crew = Crew::start(shop, None, ("run.toml", &run), &sets(SHORT, exchange));
    crew.add_worker(Some(failpoint));
    crew.coordinator.wait_for("joined      worker 1");
    crew.add_worker(None);
    crew.add_worker(None);
    crew
}

/// The worker ends at the point, as `ends` shows, and the others end the run as if it had never been there.
fn ends_at(exchange: &str, point: &str, action: &str, ends: &str) {
    let shop = Workshop::new();
    let mut crew = crew_of_three(&shop, exchange, &format!("{point}@{STEP}:{action}"));
    let status = crew.workers[0].wait().unwrap();
    let said = crew.workers[0].said();
    assert!(!status.success() && said.contains(&format!("failpoint {point} at step")), "{}", crew.story());
    assert!(said.contains(ends), "{said}");
    assert_eq!(crew.digest(), quiet::short(), "{exchange}, {point}\n{}", crew.story());
    let left = crew.coordinator.printed().contains("left        worker 1");
    assert!(left, "the coordinator noticed\n{}", crew.story());
}

/// The worker stands still at the point until it is left behind; then it wakes, with an old term.
fn stands_still_at(exchange: &str, point: &str) {
    let shop = Workshop::new();
    let mut crew = crew_of_three(&shop, exchange, &format!("{point}@{STEP}:stop"));
    crew.workers[0].wait_for(&format!("failpoint {point} at step"));
    crew.coordinator.wait_for("left        worker 1");
    signal("CONT", crew.workers[0].id());
    assert_eq!(crew.digest(), quiet::short(), "{exchange}, {point}\n{}", crew.story());
}

#[test]
fn a_worker_that_dies_at_any_point_of_a_mesh_changes_nothing() {
    WORKER.iter().chain(OF_THE_MESH).for_each(|point| ends_at("cluster.exchange=mesh", point, "abort", ""));
}

#[test]
fn a_worker_that_dies_at_any_point_of_a_star_changes_nothing() {
    WORKER.iter().for_each(|point| ends_at("cluster.exchange=star", point, "abort", ""));
}

#[test]
fn a_worker_that_stands_still_at_any_point_of_a_mesh_changes_nothing() {
    WORKER.iter().chain(OF_THE_MESH).for_each(|point| stands_still_at("cluster.exchange=mesh", point));
}

#[test]
fn a_worker_that_stands_still_at_any_point_of_a_star_changes_nothing() {
    WORKER.iter().for_each(|point| stands_still_at("cluster.exchange=star", point));
}

#[test]
fn a_worker_that_panics_or_runs_out_of_memory_changes_nothing() {
    for exchange in ["cluster.exchange=mesh", "cluster.exchange=star"] {
        for point in ["worker-computed", "worker-acknowledged", "worker-applied", "worker-depositing"] {
            ends_at(exchange, point, "panic", "a failpoint asked for it");
            ends_at(exchange, point, "oom", "memory allocation of");
        }
    }
}

#[test]
fn a_worker_that_pauses_is_waited_for() {
    for exchange in ["cluster.exchange=mesh", "cluster.exchange=star"] {
        let shop = Workshop::new();
        let mut crew = crew_of_three(&shop, exchange, &format!("worker-computed@{STEP}:sleep=300"));
        assert_eq!(crew.digest(), quiet::short());
        assert!(crew.workers[0].said().contains("failpoint worker-computed at step 25"));
    }
}

/// A run of one worker, under way; a second one joins, and one of them has a failpoint.
fn joined_late<'a>(
    shop: &'a Workshop,
    exchange: &str,
    (first, late): (Option<&str>, Option<&str>),
) -> Crew<'a> {
    let mut crew = Crew::start(shop, None, ("run.toml", "late"), &[LONG, &[exchange]].concat());
    crew.add_worker(first);
    crew.wait_for_step(20);
    crew.add_worker(late);
    crew
}

#[test]
fn a_newcomer_that_fails_while_it_loads_the_replica_changes_nothing() {
    for (exchange, action) in [("mesh", "abort"), ("star", "abort"), ("mesh", "stop")] {
        let shop = Workshop::new();
        let (exchange, failpoint) =
            (format!("cluster.exchange={exchange}"), format!("worker-half-loaded@0:{action}"));
        let mut crew = joined_late(&shop, &exchange, (None, Some(&failpoint)));
        let fired = eventually(|| {
            let said = crew.workers[1].said().contains("failpoint worker-half-loaded at step");
            (said || crew.coordinator.has_ended()).then_some(said)
        });
        assert_eq!(fired, Some(true), "{exchange}, {action}\n{}", crew.story());
        crew.coordinator.wait_for("left        worker 2");
        if action == "stop" {
            signal("CONT", crew.workers[1].id());
            crew.coordinator.wait_for("joined      worker 3");
        }
        assert_eq!(crew.digest(), quiet::long(), "{exchange}, {action}\n{}", crew.story());
    }
}

/// The only replica there is dies on its way to a newcomer, or to a checkpoint: the run goes back to the last one.
#[test]
fn the_only_worker_that_dies_while_it_hands_out_its_replica_changes_nothing() {
    for (exchange, point) in [("mesh", "worker-serving"), ("star", "worker-depositing")] {
        let shop = Workshop::new();
        let (exchange, failpoint) = (&format!("cluster.exchange={exchange}"), format!("{point}@25"));
        let mut crew = joined_late(&shop, exchange, (Some(&failpoint), None));
        assert!(!crew.workers[0].wait().unwrap().success(), "{}", crew.story());
        assert!(crew.workers[0].said().contains(&format!("failpoint {point} at step")), "{}", crew.story());
        assert_eq!(crew.digest(), quiet::long(), "{exchange}\n{}", crew.story());
    }
}

/// The coordinator dies at the point and is started again; the workers, all the same processes, are there to the end.
fn coordinator_dies_at(exchange: &str, point: &str, step: u64) {
    let shop = Workshop::new();
    let failpoint = format!("{point}@{step}");
    let sets = sets(SHORT, exchange);
    let mut crew = Crew::start_failing(&shop, None, ("run.toml", point), &sets, Some(&failpoint));
    (0..3).for_each(|_| crew.add_worker(None));
    let status = crew.coordinator.wait().unwrap();
    let said = crew.coordinator.said();
    assert!(!status.success() && said.contains(&format!("failpoint {point} at step")), "{}", crew.story());
    let settled = crew.settled();
    crew.resume();
    assert_eq!(crew.digest(), quiet::short(), "{exchange}, {point}\n{}", crew.story());
    assert!(crew.commits().contains(&settled), "{settled:?} was not made again\n{}", crew.story());
    for worker in &mut crew.workers {
        assert!(worker.wait().is_some_and(|status| status.success()), "{}", worker.said());
    }
    let verified = shop.succeed(&["verify", point]);
    assert!(verified.contains("journal     100 steps"), "{verified}");
}

#[test]
fn a_coordinator_that_dies_at_any_point_of_a_mesh_changes_nothing() {
    COORDINATOR.iter().for_each(|point| coordinator_dies_at("cluster.exchange=mesh", point, STEP));
}

#[test]
fn a_coordinator_that_dies_at_any_point_of_a_star_changes_nothing() {
    COORDINATOR.iter().for_each(|point| coordinator_dies_at("cluster.exchange=star", point, STEP));
}

/// Before the first checkpoint there is nothing but the workers' replicas; at the last step, nothing left to do.
#[test]
fn a_coordinator_that_dies_at_the_first_or_the_last_steps_changes_nothing() {
    for point in COORDINATOR {
        [5, 100].into_iter().for_each(|step| coordinator_dies_at("cluster.exchange=mesh", point, step));
    }
}

#[test]
fn a_coordinator_that_stands_still_finds_its_workers_waiting() {
    for point in ["coordinator-assigned", "coordinator-journalled", "coordinator-half-written"] {
        let shop = Workshop::new();
        let failpoint = format!("{point}@{STEP}:stop");
        let sets = sets(SHORT, "cluster.exchange=mesh");
        let mut crew = Crew::start_failing(&shop, None, ("run.toml", point), &sets, Some(&failpoint));
        (0..3).for_each(|_| crew.add_worker(None));
        crew.coordinator.wait_for(&format!("failpoint {point} at step"));
        let stopped = || std::fs::read_to_string(format!("/proc/{}/stat", crew.coordinator.id())).unwrap();
        assert!(eventually(|| stopped().contains(") T ").then_some(())).is_some(), "{}", stopped());
        std::thread::sleep(std::time::Duration::from_millis(1500));
        signal("CONT", crew.coordinator.id());
        assert_eq!(crew.digest(), quiet::short(), "{point}\n{}", crew.story());
    }
}

#[test]
fn a_failpoint_that_there_is_not_is_refused_before_anything_is_started() {
    let shop = Workshop::new();
    let mut command = shop.command(&["train", "run.toml", "--run", "new"]);
    let output = command.env("CAROUSEL_FAILPOINT", "worker-dreaming@3").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("worker-dreaming") && said.contains("coordinator-half-told"), "{said}");
    assert!(!shop.path("new").exists());
}
