//! Interruptions and losses with real processes: each test proves that the fault fired, and compares with the run
//! without it. The themes that need more than one `train` are in files of their own.

mod coordinator;
mod failpoints;
mod network;
mod quiet;
mod workers;

use crate::cluster::address_of;
use crate::program::{Workshop, children, eventually, is_alive, signal};

/// Long enough to be interrupted in the middle, short enough for a test.
const LONG: &[&str] = &["--set", "train.steps=1500", "--set", "train.evaluate_every=400", "--workers", "2"];

fn start(shop: &Workshop, run: &str, further: &[&str]) -> crate::program::Running {
    let arguments: Vec<&str> =
        ["train", "run.toml", "--run", run].iter().chain(LONG).chain(further).copied().collect();
    shop.start(&arguments)
}

/// A signal as `timeout` sends it, to the process and to its group. Returns when both have been heard.
fn twice(name: &str, id: u32) {
    signal(name, id);
    std::thread::sleep(std::time::Duration::from_millis(20));
    signal(name, id);
    std::thread::sleep(std::time::Duration::from_millis(100));
}

fn last_step(shop: &Workshop, run: &str) -> u64 {
    shop.metrics(run)
        .iter()
        .filter(|line| line.get("loss").is_some())
        .map(|line| line["step"].as_u64().unwrap())
        .max()
        .unwrap()
}

#[test]
fn ctrl_c_checkpoints_and_resume_ends_with_the_same_bits() {
    let shop = Workshop::new();
    let quiet = shop.trained("quiet", LONG);
    let mut run = start(&shop, "stopped", &[]);
    run.wait_for("checkpoints/step-00000020");
    let workers = children(run.id());
    assert_eq!(workers.len(), 2);
    // The step under way cannot end before both signals are there.
    workers.iter().for_each(|&worker| signal("STOP", worker));
    twice("INT", run.id());
    workers.iter().for_each(|&worker| signal("CONT", worker));
    assert_eq!(run.wait().unwrap().code(), Some(130), "{}", run.said());
    assert!(run.said().contains("go on with --resume"), "{}", run.said());
    let stopped_at = last_step(&shop, "stopped");
    assert!((20..1500).contains(&stopped_at), "it was stopped in the middle: {stopped_at}");
    assert!(workers.iter().all(|&worker| !is_alive(worker)), "no worker is left");
    assert_ne!(shop.digest("stopped"), quiet);
    let resumed = shop.trained("stopped", &[LONG, &["--resume", "--workers", "3"]].concat());
    assert_eq!(resumed, quiet);
    let verified = shop.succeed(&["verify", "stopped"]);
    assert!(verified.contains("journal     1500 steps"), "{verified}");
    let steps: Vec<u64> = shop
        .metrics("stopped")
        .iter()
        .filter(|l| l.get("loss").is_some())
        .map(|l| l["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=1500).collect::<Vec<_>>(), "each step stands once in the metrics");
}

#[test]
fn a_killed_parent_leaves_no_orphan_and_resume_goes_on() {
    let shop = Workshop::new();
    let quiet = shop.trained("quiet", LONG);
    let mut run = start(&shop, "killed", &[]);
    run.wait_for("checkpoints/step-00000060");
    let workers = children(run.id());
    assert_eq!(workers.len(), 2);
    signal("KILL", run.id());
    assert_eq!(run.wait().unwrap().code(), None, "it was killed");
    let gone = eventually(|| workers.iter().all(|&worker| !is_alive(worker)).then_some(()));
    assert!(gone.is_some(), "a worker of a killed parent is left");
    assert_eq!(shop.trained("killed", &[LONG, &["--resume"]].concat()), quiet);
}

#[test]
fn a_killed_worker_changes_nothing() {
    let shop = Workshop::new();
    let quiet = shop.trained("quiet", LONG);
    for exchange in ["mesh", "star"] {
        let set = format!("cluster.exchange={exchange}");
        let mut run = start(&shop, exchange, &["--workers", "3", "--set", &set]);
        run.wait_for("checkpoints/step-00000020");
        signal("KILL", children(run.id())[1]);
        assert!(run.wait().unwrap().success(), "{}", run.said());
        assert!(run.printed().contains("left        worker"), "the fault fired: {}", run.printed());
        assert_eq!(shop.digest(exchange), quiet);
        let workers: Vec<u64> =
            shop.metrics(exchange).iter().filter_map(|line| line["workers"].as_u64()).collect();
        assert_eq!((workers[0], *workers.last().unwrap()), (3, 2), "two workers went on");
    }
}

#[test]
fn a_stopped_worker_is_left_behind_and_rejoins_when_it_wakes() {
    let shop = Workshop::new();
    let quiet = shop.trained("quiet", LONG);
    let mut run = start(&shop, "hung", &["--workers", "2"]);
    run.wait_for("checkpoints/step-00000020");
    let hung = children(run.id())[1];
    signal("STOP", hung);
    run.wait_for("kept the others waiting");
    signal("CONT", hung);
    run.wait_for("joined      worker 3");
    assert!(run.wait().unwrap().success(), "{}", run.said());
    assert_eq!(shop.digest("hung"), quiet);
    let terms: Vec<u64> = shop.metrics("hung").iter().filter_map(|line| line["term"].as_u64()).collect();
    assert!(terms.last() > terms.first(), "the membership changed: {terms:?}");
}

#[test]
fn sigterm_makes_a_worker_hand_its_lanes_over_and_leave() {
    let shop = Workshop::new();
    let quiet = shop.trained("quiet", LONG);
    let arguments = ["coordinator", "run.toml", "--run", "left", "--listen", "127.0.0.1:0"];
    let mut coordinator = shop.start(&[&arguments[..], &LONG[..4], &["--set", "cluster.workers=2"]].concat());
    let address = address_of(&mut coordinator);
    let work = || shop.start(&["worker", "--coordinator", &address, "--threads", "1"]);
    let (mut leaving, mut staying) = (work(), work());
    coordinator.wait_for("checkpoints/step-00000020");
    signal("STOP", coordinator.id());
    twice("TERM", leaving.id());
    signal("CONT", coordinator.id());
    assert!(leaving.wait().unwrap().success(), "it leaves in good order: {}", leaving.said());
    assert!(leaving.printed().starts_with("joined      as worker "), "{}", leaving.printed());
    assert!(coordinator.wait().unwrap().success(), "{}", coordinator.said());
    assert!(staying.wait().unwrap().success());
    assert!(staying.printed().ends_with("done        the run is over\n"), "{}", staying.printed());
    assert!(coordinator.printed().contains("it asked to leave"), "{}", coordinator.printed());
    assert_eq!(shop.digest("left"), quiet);
}

#[test]
fn sigterm_ends_a_worker_that_has_no_session() {
    let shop = Workshop::new();
    let arguments = ["coordinator", "run.toml", "--run", "gone", "--listen", "127.0.0.1:0"];
    let mut coordinator = shop.start(&[&arguments[..], &["--set", "cluster.workers=2"]].concat());
    let address = address_of(&mut coordinator);
    for was_there in [true, false] {
        let mut command = shop.command(&["worker", "--coordinator", &address, "--threads", "1"]);
        command.env("CAROUSEL_LOG", "info");
        let mut worker = shop.spawn(command);
        if was_there {
            coordinator.wait_for("joined      worker 1");
            signal("KILL", coordinator.id());
            coordinator.wait().unwrap();
        }
        let alone = eventually(|| worker.said().contains("trying again").then_some(()));
        assert!(alone.is_some(), "{}", worker.said());
        signal("TERM", worker.id());
        assert!(worker.wait().unwrap().success(), "there is nothing to hand over: {}", worker.said());
    }
}

#[test]
fn a_worker_that_joins_late_takes_part_and_changes_nothing() {
    let shop = Workshop::new();
    let quiet = shop.trained("quiet", LONG);
    let arguments = ["coordinator", "run.toml", "--run", "joined", "--listen", "127.0.0.1:0"];
    let mut coordinator = shop.start(&[&arguments[..], &LONG[..4]].concat());
    let address = address_of(&mut coordinator);
    let mut first = shop.start(&["worker", "--coordinator", &address, "--threads", "1"]);
    coordinator.wait_for("checkpoints/step-00000020");
    let mut late = shop.start(&["worker", "--coordinator", &address, "--threads", "1"]);
    assert!(coordinator.wait().unwrap().success(), "{}", coordinator.said());
    assert!(first.wait().unwrap().success() && late.wait().unwrap().success());
    assert_eq!(shop.digest("joined"), quiet);
    let workers: Vec<u64> =
        shop.metrics("joined").iter().filter_map(|line| line["workers"].as_u64()).collect();
    assert_eq!((workers[0], *workers.last().unwrap()), (1, 2), "it took part");
}

#[test]
fn without_any_worker_the_run_fails_and_names_what_remains() {
    let shop = Workshop::new();
    let mut run = start(&shop, "alone", &["--workers", "1"]);
    run.wait_for("checkpoints/step-00000020");
    signal("KILL", children(run.id())[0]);
    assert_eq!(run.wait().unwrap().code(), Some(1));
    let said = run.said();
    assert!(said.contains("checkpoint"), "{said}");
}

#[test]
fn a_damaged_checkpoint_is_passed_over() {
    let shop = Workshop::new();
    let quiet = shop.trained("run", &[]);
    let damaged = shop.path("run/checkpoints/latest/model.safetensors");
    let mut bytes = std::fs::read(&damaged).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let output = shop.run(&["digest", "run"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("passed over") && said.contains("model.safetensors: damaged"), "{said}");
    assert_ne!(String::from_utf8_lossy(&output.stdout), quiet, "an earlier checkpoint has another state");
    assert_eq!(shop.trained("run", &["--resume"]), quiet, "and leads to the same end");
}

#[test]
fn raising_the_steps_goes_on_as_if_the_run_had_never_ended() {
    let shop = Workshop::new();
    let sets = ["--set", "train.schedule=constant", "--set", "train.evaluate_every=25"];
    let long = shop.trained("long", &[&sets[..], &["--set", "train.steps=60"]].concat());
    shop.trained("short", &[&sets[..], &["--set", "train.steps=35"]].concat());
    let raised = shop.trained("short", &[&sets[..], &["--set", "train.steps=60", "--resume"]].concat());
    assert_eq!(raised, long);
}

#[test]
fn a_step_that_is_not_finite_stops_the_run_and_is_named() {
    let shop = Workshop::new();
    let sets =
        ["--set", "train.optimizer=sgd", "--set", "train.schedule=constant", "--set", "train.clip_norm=0"];
    let wild = [
        "--set",
        "train.learning_rate=1e20",
        "--set",
        "model.cell=rnn_relu",
        "--set",
        "train.checkpoint_every=1",
    ];
    let arguments = [&["train", "run.toml", "--run", "wild"][..], &sets, &wild].concat();
    let output = shop.run(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("is not finite")
            && said.contains("the last good checkpoint is wild/checkpoints/step-0"),
        "{said}"
    );
    let named = ["the gradient of ", "the loss"].iter().any(|what| said.contains(what));
    assert!(named, "{said}");
}

#[test]
fn a_schedule_that_depends_on_validation_is_resumed_with_what_it_remembers() {
    let shop = Workshop::new();
    let schedule =
        ["--set", "train.schedule={kind=\"plateau\",divide=2.0}", "--set", "train.evaluate_every=2"];
    let sets = [&schedule[..], &["--set", "train.learning_rate=0.2"]].concat();
    let long = shop.trained("long", &[&sets[..], &["--set", "train.steps=44"]].concat());
    shop.trained("short", &[&sets[..], &["--set", "train.steps=30"]].concat());
    let rates: Vec<f64> =
        shop.metrics("short").iter().filter_map(|line| line["learning_rate"].as_f64()).collect();
    assert!(rates[29] < rates[0] / 1.9, "the rate was divided before the run ended: {rates:?}");
    let raised = shop.trained("short", &[&sets[..], &["--set", "train.steps=44", "--resume"]].concat());
    assert_eq!(raised, long);
}

#[test]
fn a_checkpoint_that_finds_no_room_is_told_and_the_run_goes_on() {
    let shop = Workshop::new();
    let quiet = shop.trained("quiet", LONG);
    let mut run = start(&shop, "full", &[]);
    run.wait_for("checkpoints/step-00000020");
    // A file where the next checkpoint's folder would be made: what a full disk answers, without filling one.
    let blocked = (1..75).map(|n| shop.path(&format!("full/checkpoints/.step-{:08}.new", 20 * n)));
    let made: Vec<_> = blocked.filter(|path| std::fs::write(path, "in the way").is_ok()).collect();
    run.wait_for("unsaved     step");
    assert!(run.printed().contains("the run goes on"), "{}", run.printed());
    made.iter().for_each(|path| {
        if path.exists() {
            std::fs::remove_file(path).unwrap()
        }
    });
    assert!(run.wait().unwrap().success(), "{}", run.said());
    assert_eq!(shop.digest("full"), quiet);
}

#[test]
fn verify_names_what_is_damaged() {
    let shop = Workshop::new();
    shop.trained("run", &[]);
    assert!(shop.succeed(&["verify", "run"]).contains("journal     58 steps"));
    let damage = |name: &str| {
        let path = shop.path(name);
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
    };
    damage("run/checkpoints/step-00000040/carries.safetensors");
    damage("run/journal.bin");
    let output = shop.run(&["verify", "run"]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    for part in [
        "carries.safetensors: damaged",
        "at its end are torn or damaged",
        "step-00000058",
        "ends with step 57",
    ] {
        assert!(printed.contains(part), "{printed}");
    }
    assert!(shop.refused(&["verify", "nowhere"]).contains("nowhere"));
}
