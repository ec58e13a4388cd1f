//! What an update is made of, end to end: averages that begin when validation says so, windows of random lengths, several
//! windows an update; and that interruptions do not show in any of them.

use crate::crew::Crew;
use crate::program::Workshop;

/// The rate is so high that validations soon get worse: the average begins early. Everything that is drawn or remembered is on.
const AVERAGED: &[&str] = &[
    "train.optimizer={kind=\"nt_asgd\",nonmonotone=2,weight_decay=0.001}",
    "train.learning_rate=20",
    "train.schedule=constant",
    "train.random_window={probability=0.8,deviation=2.0,minimum=3}",
    "train.accumulate=2",
];

fn sets<'a>(keys: &[&[&'a str]]) -> Vec<&'a str> {
    keys.concat().into_iter().flat_map(|key| ["--set", key]).collect()
}

/// (step, loss) of each validation of a run, and the step from which it averages.
fn validations(shop: &Workshop, run: &str) -> (Vec<(u64, f64)>, Option<u64>) {
    let lines = shop.metrics(run);
    let losses = lines.iter().filter_map(|l| Some((l["step"].as_u64()?, l.get("valid_loss")?.as_f64()?)));
    let averaged_from = lines.iter().find_map(|line| line.get("averaged_from")?.as_u64());
    (losses.collect(), averaged_from)
}

#[test]
fn the_average_begins_where_the_validations_say_and_is_what_is_evaluated() {
    let shop = Workshop::new();
    let sets = sets(&[AVERAGED, &["train.evaluate_every=3", "train.steps=60"]]);
    shop.trained("run", &sets);
    let (losses, averaged_from) = validations(&shop, "run");
    // Merity 2017, algorithm 1, as its authors' program has it.
    let begins = |at: usize| at > 2 && losses[..at - 2].iter().any(|(_, loss)| *loss < losses[at].1);
    let expected = (0..losses.len()).find(|at| begins(*at)).map(|at| losses[at].0);
    assert_eq!(averaged_from, expected, "{losses:?}");
    assert!(expected.is_some_and(|step| step < 30), "{losses:?}");
    let state: serde_json::Value =
        serde_json::from_str(&shop.read("run/checkpoints/latest/state.json")).unwrap();
    assert_eq!(state["schedule"]["trigger"]["averaged_from"].as_u64(), expected);
    let output = shop.run(&["evaluate", "run", "--json"]);
    let figures: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(figures["averaged"], true);
    assert_eq!(
        figures["loss"].as_f64(),
        losses.last().map(|(_, loss)| *loss),
        "the same weights, to the last bit"
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the weights are the average that the optimizer keeps"), "{said}");
}

#[test]
fn before_it_begins_the_average_is_the_weights_themselves() {
    let shop = Workshop::new();
    let averaged = ["train.optimizer=nt_asgd", "train.learning_rate=0.5", "train.evaluate_every=20"];
    let plain = ["train.optimizer=sgd", "train.learning_rate=0.5", "train.evaluate_every=20"];
    shop.trained("averaged", &sets(&[&averaged]));
    shop.trained("plain", &sets(&[&plain]));
    let (losses, averaged_from) = validations(&shop, "averaged");
    assert_eq!((losses, averaged_from), validations(&shop, "plain"));
    assert!(shop.succeed(&["evaluate", "averaged", "--json"]).contains("\"averaged\":false"));
}

#[test]
fn a_run_that_is_raised_in_the_middle_of_its_average_goes_on_with_it() {
    let shop = Workshop::new();
    let keys = sets(&[AVERAGED, &["train.evaluate_every=4"]]);
    let long = shop.trained("long", &[&keys[..], &["--set", "train.steps=90"]].concat());
    shop.trained("short", &[&keys[..], &["--set", "train.steps=51"]].concat());
    let (_, averaged_from) = validations(&shop, "short");
    assert!(averaged_from.is_some_and(|step| step < 51), "the average has begun: {averaged_from:?}");
    let raised = [&keys[..], &["--set", "train.steps=90", "--resume", "--workers", "3"]].concat();
    assert_eq!(shop.trained("short", &raised), long);
    let verified = shop.succeed(&["verify", "short"]);
    assert!(verified.contains("windows of random lengths of 7 streams: 4466 targets"), "{verified}");
}

/// The coordinator and a worker are killed before and after the average begins; once so that the workers keep the run, once so
/// that only its checkpoint is left.
#[test]
fn who_is_killed_does_not_show_in_an_average_over_random_windows() {
    let shop = Workshop::new();
    let keys =
        [AVERAGED, &["train.evaluate_every=50", "train.steps=1200", "train.checkpoint_every=100"]].concat();
    let quiet = shop.trained("quiet", &sets(&[&keys]));
    let (_, averaged_from) = validations(&shop, "quiet");
    assert!(averaged_from.is_some_and(|step| step < 600), "the average begins in time: {averaged_from:?}");
    let mut crew =
        Crew::start(&shop, None, ("run.toml", "hurt"), &[&keys[..], &["cluster.workers=3"]].concat());
    (0..3).for_each(|_| crew.add_worker(None));
    crew.wait_for_step(60);
    crew.kill_worker(1);
    crew.replace_worker(1);
    crew.wait_for_step(650);
    crew.kill_coordinator();
    crew.resume();
    crew.wait_for_step(750);
    crew.kill_coordinator();
    (0..3).for_each(|place| crew.kill_worker(place));
    crew.resume();
    (0..3).for_each(|place| crew.replace_worker(place));
    assert_eq!(crew.digest(), quiet, "{}", crew.story());
    assert_eq!(validations(&shop, "hurt"), validations(&shop, "quiet"));
    assert!(crew.coordinator.printed().contains("rolled back to step"), "{}", crew.story());
}

/// At a rate of nothing the weights stay: an update over three windows then has the losses of three updates, mask for mask.
#[test]
fn an_update_over_several_windows_reads_what_as_many_updates_read() {
    let shop = Workshop::new();
    let keys =
        ["train.optimizer=sgd", "train.schedule=constant", "train.learning_rate=1e-38", "train.epochs=2"];
    let steps = |run: &str, accumulate: &str| {
        let accumulate = format!("train.accumulate={accumulate}");
        shop.trained(run, &sets(&[&keys, &[&accumulate]]));
        let of = |line: &serde_json::Value| Some((line["tokens"].as_u64()?, line.get("loss")?.as_f64()?));
        shop.metrics(run).iter().filter_map(of).collect::<Vec<_>>()
    };
    let (single, triple) = (steps("single", "1"), steps("triple", "3"));
    // 58 windows an epoch: the 20th update of each epoch has one.
    assert_eq!((single.len(), triple.len()), (116, 40));
    let epochs = single.chunks(58).flat_map(|epoch| epoch.chunks(3));
    for (step, (windows, update)) in epochs.zip(&triple).enumerate() {
        let tokens: u64 = windows.iter().map(|(tokens, _)| tokens).sum();
        let sum: f64 = windows.iter().map(|(tokens, loss)| *tokens as f64 * loss).sum();
        assert_eq!(update.0, tokens, "update {}", step + 1);
        let off = (update.1 - sum / tokens as f64).abs();
        // Masks are numbered by window: an epoch's short last update leaves two numbers out, and the next epoch has others.
        assert!(off < 1e-12 || step >= 20, "update {}: {} and {}", step + 1, update.1, sum / tokens as f64);
    }
}

/// AWD-LSTM: the learning rate of a window goes with its length, and every epoch reads the whole text.
#[test]
fn a_random_window_scales_its_learning_rate() {
    let shop = Workshop::new();
    let keys = ["train.random_window={deviation=2.0,minimum=3}", "train.schedule=constant", "train.epochs=3"];
    shop.trained("run", &sets(&[&keys]));
    let lines = shop.metrics("run");
    let steps = lines.iter().filter(|line| line.get("loss").is_some());
    let (mut lengths, mut tokens) = (Vec::new(), [0, 0, 0]);
    for step in steps {
        let targets = step["tokens"].as_u64().unwrap();
        let length = targets as f64 / 7.0;
        let rate = step["learning_rate"].as_f64().unwrap();
        assert!((rate - 0.01 * length / 11.0).abs() < 1e-8, "{step}");
        tokens[step["epoch"].as_u64().unwrap() as usize - 1] += targets;
        lengths.push(targets / 7);
    }
    assert_eq!(tokens, [4466; 3], "each epoch reads the whole text");
    assert!(lengths.iter().all(|length| *length <= 19), "11 and four deviations: {lengths:?}");
    lengths.sort_unstable();
    lengths.dedup();
    assert!(lengths.len() > 5, "lengths differ: {lengths:?}");
}

#[test]
fn bad_keys_are_refused_with_what_was_expected() {
    let shop = Workshop::new();
    for (key, parts) in [
        ("train.optimizer=adamx", &["unknown variant `adamx`", "`nt_asgd`"][..]),
        ("train.optimizer={kind=\"sgd\",weight_decay=-1}", &["train.optimizer.weight_decay: found -1"]),
        ("train.optimizer.momentum=0.5", &["unknown field `momentum`", "`beta1`"]),
        ("train.schedule={kind=\"steps\",milestones=[]}", &["train.schedule.milestones"]),
        ("train.warmup=10", &["train.warmup: found 10", "one warm-up"]),
        ("train.accumulate=0", &["train.accumulate: found 0", "1 to 10000"]),
        ("train.clip_value=-1", &["train.clip_value: found -1"]),
        (
            "train.random_window={deviation=99}",
            &["train.random_window.deviation: found 99", "train.window, 11"],
        ),
        ("train.random_window={variance=9}", &["unknown field `variance`", "`deviation`"]),
    ] {
        let message = shop.refused(&["train", "run.toml", "--run", "never", "--set", key]);
        for part in parts {
            assert!(message.contains(part), "{key}: {message:?} lacks {part:?}");
        }
        assert!(!shop.path("never").exists(), "{key}");
    }
}
