//! Cables are pulled: a coordinator and three workers, each on a host of its own.

use std::time::Duration;

use super::quiet::{self, LONG};
use crate::crew::Crew;
use crate::netlab::Lab;
use crate::program::{Workshop, signal};

/// A run under way: the coordinator on host 0, worker n + 1 at place n on host n + 1.
fn crew_of_three<'a>(shop: &'a Workshop, lab: &'a Lab, exchange: &str) -> Crew<'a> {
    let sets = [LONG, &[exchange, "cluster.workers=3"]].concat();
    let mut crew = Crew::start(shop, Some(lab), ("run.toml", "cut"), &sets);
    for worker in 1..=3 {
        crew.add_worker(None);
        crew.coordinator.wait_for(&format!("joined      worker {worker}"));
    }
    crew.wait_for_step(20);
    crew
}

/// Nothing reaches a host any more.
fn assert_cut(lab: &Lab, host: usize) {
    let before = lab.received(host);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(lab.received(host), before, "the cable is out");
}

#[test]
fn a_worker_whose_cable_is_pulled_is_left_behind_and_comes_back() {
    for exchange in ["cluster.exchange=mesh", "cluster.exchange=star"] {
        let Some(lab) = Lab::open(4) else { return };
        let shop = Workshop::new();
        let mut crew = crew_of_three(&shop, &lab, exchange);
        lab.cut(2);
        assert_cut(&lab, 2);
        crew.coordinator.wait_for("left        worker 2");
        lab.heal(2);
        crew.coordinator.wait_for("joined      worker 4");
        assert_eq!(crew.digest(), quiet::long(), "{exchange}\n{}", crew.story());
    }
}

#[test]
fn a_coordinator_whose_cable_is_pulled_goes_on_when_it_is_back() {
    for exchange in ["cluster.exchange=mesh", "cluster.exchange=star"] {
        let Some(lab) = Lab::open(4) else { return };
        let shop = Workshop::new();
        let mut crew = crew_of_three(&shop, &lab, exchange);
        lab.cut(0);
        assert_cut(&lab, 0);
        std::thread::sleep(Duration::from_secs(2));
        assert!(!crew.coordinator.has_ended(), "{}", crew.story());
        lab.heal(0);
        assert_eq!(crew.digest(), quiet::long(), "{exchange}\n{}", crew.story());
    }
}

#[test]
fn two_workers_that_do_not_reach_each_other_end_their_run() {
    let Some(lab) = Lab::open(4) else { return };
    let shop = Workshop::new();
    let mut crew = crew_of_three(&shop, &lab, "cluster.exchange=mesh");
    lab.part(1, 3);
    assert_eq!(crew.digest(), quiet::long(), "{}", crew.story());
}

/// The rule drops in silence: both ends believe that they are connected.
#[test]
fn a_half_open_connection_is_noticed() {
    for exchange in ["cluster.exchange=mesh", "cluster.exchange=star"] {
        let Some(lab) = Lab::open(4) else { return };
        let shop = Workshop::new();
        let mut crew = crew_of_three(&shop, &lab, exchange);
        lab.silence(3);
        crew.coordinator.wait_for("left        worker 3");
        lab.unsilence(3);
        crew.coordinator.wait_for("joined      worker 4");
        assert_eq!(crew.digest(), quiet::long(), "{exchange}\n{}", crew.story());
    }
}

/// The worker dies behind the cut, so that nothing ever tells the coordinator that the connection is over.
#[test]
fn a_worker_that_dies_behind_a_cut_is_replaced() {
    let Some(lab) = Lab::open(4) else { return };
    let shop = Workshop::new();
    let mut crew = crew_of_three(&shop, &lab, "cluster.exchange=mesh");
    lab.cut(1);
    crew.kill_worker(0);
    lab.heal(1);
    crew.replace_worker(0);
    crew.coordinator.wait_for("left        worker 1");
    assert_eq!(crew.digest(), quiet::long(), "{}", crew.story());
}

/// Both at once: the coordinator's successor starts behind the same cut, and the workers find it after the heal.
#[test]
fn a_coordinator_killed_behind_a_cut_finds_its_workers_again() {
    let Some(lab) = Lab::open(4) else { return };
    let shop = Workshop::new();
    let mut crew = crew_of_three(&shop, &lab, "cluster.exchange=mesh");
    lab.cut(0);
    signal("STOP", crew.workers[1].id());
    crew.kill_coordinator();
    crew.resume();
    lab.heal(0);
    signal("CONT", crew.workers[1].id());
    assert_eq!(crew.digest(), quiet::long(), "{}", crew.story());
}

/// Never everybody at once is left behind; but when no connection gives a sign of life any more, the run is a newcomer's.
#[test]
fn when_every_worker_is_cut_off_a_newcomer_takes_the_run_over() {
    let Some(lab) = Lab::open(4) else { return };
    let shop = Workshop::new();
    let sets = [LONG, &["cluster.workers=2"]].concat();
    let mut crew = Crew::start(&shop, Some(&lab), ("run.toml", "over"), &sets);
    (0..2).for_each(|_| crew.add_worker(None));
    crew.wait_for_step(20);
    [1, 2].into_iter().for_each(|host| lab.cut(host));
    crew.add_worker(None);
    assert_eq!(crew.digest(), quiet::long(), "{}", crew.story());
    for worker in [1, 2] {
        let left = format!("left        worker {worker}");
        assert!(crew.coordinator.printed().contains(&left), "{}", crew.story());
    }
}
