//! Looking after a run from outside: what is shown is so, and nothing that an operator does changes a bit.

mod metrics;
mod nobody;
mod start;

use serde_json::Value;

use crate::crew::Crew;
use crate::program::{Workshop, eventually, signal};

/// The run left alone, and one to be looked after: long enough to be caught in the middle.
const SETS: &[&str] = &["train.epochs=30", "cluster.workers=3"];

fn quiet(shop: &Workshop) -> String {
    shop.trained("quiet", &["--set", SETS[0]])
}

fn crew_of_three(shop: &Workshop) -> Crew<'_> {
    let mut crew = Crew::start(shop, None, ("run.toml", "run"), SETS);
    (0..3).for_each(|_| crew.add_worker(None));
    crew
}

fn status(shop: &Workshop, address: &str) -> Value {
    serde_json::from_str(&shop.succeed(&["status", address, "--json"])).unwrap()
}

/// Holds the run in the middle of step after step, by a worker that does not go on, while `look` looks.
fn while_it_stands<T>(crew: &Crew<'_>, look: impl FnOnce() -> T) -> T {
    signal("STOP", crew.workers[0].id());
    let seen = look();
    signal("CONT", crew.workers[0].id());
    seen
}

#[test]
fn a_status_tells_the_run_and_its_workers() {
    let shop = Workshop::new();
    let quiet = quiet(&shop);
    let mut crew = Crew::start(&shop, None, ("run.toml", "run"), SETS);
    crew.add_worker(None);
    let address = crew.address().to_owned();
    let waiting =
        eventually(|| Some(status(&shop, &address)).filter(|s| s["workers"][0]["state"] == "joined"));
    let waiting = waiting.expect("one of three workers is here");
    assert_eq!((&waiting["state"], &waiting["workers_awaited"]), (&"waiting".into(), &3.into()), "{waiting}");
    assert_eq!(
        (&waiting["loss"], &waiting["checkpoint"]),
        (&Value::Null, &Value::Null),
        "nothing has happened"
    );
    let text = shop.succeed(&["status", &address]);
    assert!(text.contains("state       waiting (1 of 3 workers are here)"), "{text}");
    (0..2).for_each(|_| crew.add_worker(None));
    crew.wait_for_step(3);
    let shown = || eventually(|| Some(status(&shop, &address)).filter(|s| s["state"] == "training"));
    let status = while_it_stands(&crew, shown).expect("what is shown is at most 0.1 s old");
    assert!(status["step"].as_u64().unwrap() >= 3 && status["last_step"].as_u64() > status["step"].as_u64());
    assert!(status["loss"].as_f64().unwrap() > 0.0 && status["tokens_per_second"].as_f64().unwrap() > 0.0);
    let workers = status["workers"].as_array().unwrap();
    let mut processes: Vec<u64> = workers.iter().map(|w| w["process"].as_u64().unwrap()).collect();
    processes.sort_unstable();
    let mut started: Vec<u64> = crew.workers.iter().map(|worker| worker.id().into()).collect();
    started.sort_unstable();
    assert_eq!(processes, started, "the processes that were started are those that are shown");
    let lanes: u64 = workers.iter().map(|w| w["lanes"].as_u64().unwrap()).sum();
    assert_eq!(lanes, 3, "each lane is somebody's: {status}");
    assert_eq!(crew.digest(), quiet);
}

#[test]
fn a_drained_worker_goes_in_good_order_and_the_bits_are_the_same() {
    let shop = Workshop::new();
    let quiet = quiet(&shop);
    let mut crew = crew_of_three(&shop);
    let address = crew.address().to_owned();
    crew.wait_for_step(3);
    let refused = shop.refused(&["drain", &address, "77"]);
    assert!(refused.contains("no worker \"77\" is here; those here are"), "{refused}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let refused = shop.refused(&["drain", &address, host.trim()]);
    assert!(refused.contains("would leave no worker"), "all of them are on this host: {refused}");
    let told = shop.succeed(&["drain", &address, "2"]);
    assert!(told.contains("drained     worker 2, gone after step"), "{told}");
    let gone = eventually(|| crew.workers.iter_mut().position(|worker| worker.has_ended()));
    let gone = gone.expect("a worker has gone");
    assert!(crew.workers[gone].wait().unwrap().success(), "{}", crew.workers[gone].said());
    let left = status(&shop, &address);
    let ids: Vec<u64> =
        left["workers"].as_array().unwrap().iter().map(|w| w["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 3]);
    assert!(crew.coordinator.printed().contains("worker 2: an operator drained it"), "{}", crew.story());
    assert_eq!(crew.digest(), quiet);
}

#[test]
fn a_checkpoint_now_is_on_disk_when_it_is_told_and_changes_nothing() {
    let shop = Workshop::new();
    let sets = ["train.epochs=30", "cluster.workers=2", "train.checkpoint_every=1000"];
    let quiet = quiet(&shop);
    let mut crew = Crew::start(&shop, None, ("run.toml", "run"), &sets);
    let address = crew.address().to_owned();
    let refused = shop.refused(&["checkpoint", &address]);
    assert!(refused.contains("nothing to save: no worker holds the state"), "{refused}");
    (0..2).for_each(|_| crew.add_worker(None));
    crew.wait_for_step(3);
    let told = shop.succeed(&["checkpoint", &address]);
    let path = told.lines().find_map(|line| line.strip_prefix("checkpoint  ")).unwrap();
    let digest = told.lines().find_map(|line| line.strip_prefix("digest      ")).unwrap();
    assert_eq!(shop.digest(path).trim_end(), digest, "it is whole, and it is the one that was told");
    assert!(!crew.coordinator.has_ended(), "the run was caught in the middle: {told}");
    assert_eq!(crew.digest(), quiet);
}

#[test]
fn a_run_that_is_stopped_goes_on_to_the_same_bits() {
    let shop = Workshop::new();
    let quiet = quiet(&shop);
    let mut crew = crew_of_three(&shop);
    crew.wait_for_step(3);
    let told = shop.succeed(&["stop", crew.address()]);
    assert!(told.starts_with("stopping"), "{told}");
    assert_eq!(crew.coordinator.wait().unwrap().code(), Some(130), "{}", crew.story());
    // Not well ended: whoever keeps workers running is to start them again.
    crew.workers.iter_mut().for_each(|worker| assert_eq!(worker.wait().unwrap().code(), Some(1)));
    let stopped_at = crew.commits().len();
    crew.resume();
    (0..3).for_each(|place| crew.replace_worker(place));
    assert_eq!(crew.digest(), quiet);
    assert!(crew.commits().len() > stopped_at, "it was stopped in the middle");
}

#[test]
fn health_is_told_before_workers_join_during_the_run_and_after_it() {
    let shop = Workshop::new();
    let mut crew = Crew::start(&shop, None, ("run.toml", "run"), SETS);
    let address = crew.address().to_owned();
    let healthy = shop.succeed(&["status", &address, "--health"]);
    assert!(healthy.starts_with("healthy: waiting, step 0 of "), "{healthy}");
    let no_worker = shop.run(&["status", &address, "--health", "--this-host"]);
    let said = String::from_utf8_lossy(&no_worker.stderr).into_owned();
    assert!(no_worker.status.code() == Some(1) && said.contains("has joined"), "{said}");
    (0..3).for_each(|_| crew.add_worker(None));
    crew.wait_for_step(2);
    // The address may come from the environment, as in a container.
    let mut command = shop.command(&["status", "--health", "--this-host"]);
    command.env("CAROUSEL_COORDINATOR", &address);
    assert!(shop.spawn(command).wait().unwrap().success());
    crew.digest();
    let after = shop.run(&["status", &address, "--health"]);
    assert_eq!(after.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&after.stderr).contains("unhealthy"), "{after:?}");
}
