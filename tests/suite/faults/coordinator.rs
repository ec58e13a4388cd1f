//! The coordinator is killed at moments that nobody chose, and everybody is.

use std::time::Duration;

use super::quiet::{self, LONG};
use crate::crew::Crew;
use crate::program::Workshop;

/// Milliseconds from a seed: between `least` and `least + 512`.
fn moments(mut seed: u64, least: u64) -> impl Iterator<Item = Duration> {
    std::iter::repeat_with(move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_millis(least + (seed >> 55))
    })
}

fn crew_of_three<'a>(shop: &'a Workshop, run: &str, exchange: &str) -> Crew<'a> {
    let sets = [LONG, &[exchange, "cluster.workers=3"]].concat();
    let mut crew = Crew::start(shop, None, ("run.toml", run), &sets);
    (0..3).for_each(|_| crew.add_worker(None));
    crew
}

#[test]
fn a_coordinator_killed_at_random_moments_finds_its_workers_again() {
    for (exchange, seed) in [("cluster.exchange=mesh", 1), ("cluster.exchange=star", 2)] {
        let shop = Workshop::new();
        let mut crew = crew_of_three(&shop, "often", exchange);
        crew.wait_for_step(20);
        let mut settled = Vec::new();
        for moment in moments(seed, 50).take(6) {
            std::thread::sleep(moment);
            assert!(!crew.coordinator.has_ended(), "it is killed in the middle\n{}", crew.story());
            crew.kill_coordinator();
            settled.push(crew.settled());
            crew.resume();
        }
        assert_eq!(crew.digest(), quiet::long(), "seed {seed}, {exchange}\n{}", crew.story());
        for worker in &mut crew.workers {
            assert!(worker.wait().is_some_and(|status| status.success()), "{}", worker.said());
        }
        let commits = crew.commits();
        let kept = |settled: &(u64, u64)| commits.contains(settled);
        assert!(settled.iter().all(kept), "what all workers had is not made again: {settled:?}");
        let steps: Vec<u64> = commits.iter().map(|(_, step)| *step).collect();
        assert_eq!(steps, (1..=3000).collect::<Vec<_>>(), "each step stands once in the metrics");
        assert!(shop.succeed(&["verify", "often"]).contains("journal     3000 steps"));
    }
}

#[test]
fn when_all_were_killed_the_run_goes_on_from_its_last_checkpoint() {
    for exchange in ["cluster.exchange=mesh", "cluster.exchange=star"] {
        let shop = Workshop::new();
        let mut crew = crew_of_three(&shop, "all", exchange);
        crew.wait_for_step(200);
        crew.kill_coordinator();
        (0..3).for_each(|place| crew.kill_worker(place));
        crew.resume();
        (0..3).for_each(|place| crew.replace_worker(place));
        assert_eq!(crew.digest(), quiet::long(), "{exchange}\n{}", crew.story());
        assert!(crew.coordinator.printed().contains("rolled back to step"), "{}", crew.story());
    }
}

/// Whoever killed the coordinator also takes some workers: what is left of the crew has the committed state.
#[test]
fn one_worker_that_survives_the_coordinator_keeps_the_run() {
    let shop = Workshop::new();
    let mut crew = crew_of_three(&shop, "one", "cluster.exchange=mesh");
    crew.wait_for_step(200);
    crew.kill_coordinator();
    (0..2).for_each(|place| crew.kill_worker(place));
    let settled = crew.settled();
    crew.resume();
    (0..2).for_each(|place| crew.replace_worker(place));
    assert_eq!(crew.digest(), quiet::long(), "{}", crew.story());
    assert!(crew.commits().contains(&settled), "{settled:?} was not made again\n{}", crew.story());
}
