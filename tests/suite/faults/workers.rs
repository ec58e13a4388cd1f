//! Workers that all go, and workers that stop and go on.

use std::time::Duration;

use super::quiet::{self, LONG};
use crate::crew::Crew;
use crate::program::{Workshop, is_alive, signal};

#[test]
fn without_any_worker_the_coordinator_waits_for_one() {
    for exchange in ["cluster.exchange=mesh", "cluster.exchange=star"] {
        let shop = Workshop::new();
        let mut crew = Crew::start(
            &shop,
            None,
            ("run.toml", "waits"),
            &[LONG, &[exchange, "cluster.workers=2"]].concat(),
        );
        (0..2).for_each(|_| crew.add_worker(None));
        crew.wait_for_step(200);
        (0..2).for_each(|place| crew.kill_worker(place));
        (1..=2).for_each(|worker| crew.coordinator.wait_for(&format!("left        worker {worker}")));
        std::thread::sleep(Duration::from_millis(500));
        assert!(is_alive(crew.coordinator.id()), "it waits\n{}", crew.story());
        assert!(crew.coordinator.printed().contains("waiting     for workers: 0"), "{}", crew.story());
        crew.replace_worker(0);
        assert_eq!(crew.digest(), quiet::long(), "{exchange}\n{}", crew.story());
        assert!(crew.coordinator.printed().contains("rolled back to step"), "{}", crew.story());
    }
}

#[test]
fn workers_stopped_again_and_again_change_nothing() {
    let shop = Workshop::new();
    let sets = [LONG, &["cluster.workers=3"]].concat();
    let mut crew = Crew::start(&shop, None, ("run.toml", "again"), &sets);
    (0..3).for_each(|_| crew.add_worker(None));
    crew.wait_for_step(20);
    for (number, place) in [0, 2, 1].into_iter().enumerate() {
        signal("STOP", crew.workers[place].id());
        crew.coordinator.wait_for_times("kept the others waiting", number + 1);
        signal("CONT", crew.workers[place].id());
        crew.coordinator.wait_for(&format!("joined      worker {}", 4 + number));
        // The next is stopped in a step, not while it serves this one the replica.
        let here = crew.commits().last().map_or(0, |(_, step)| *step);
        if number < 2 {
            crew.wait_for_step(here + 10);
        }
    }
    assert_eq!(crew.digest(), quiet::long(), "{}", crew.story());
}
