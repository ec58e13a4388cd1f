//! Runs that start from a file of weights: the promise holds for them too, and the file is part of what they are.

use std::fs;

use crate::program::{Workshop, signal};

/// A run's weights as a state dict.
fn export(shop: &Workshop, run: &str, file: &str) {
    shop.succeed(&["export", run, "--format", "pytorch", "--out", file]);
}

/// A state dict of some training.
fn trained_weights(shop: &Workshop) {
    shop.trained("before", &["--set", "train.steps=20", "--set", "seed=8"]);
    export(shop, "before", "weights.safetensors");
}

const FROM_FILE: &[&str] = &["--set", "model.weights=weights.safetensors"];

#[test]
fn the_weights_of_the_seed_read_from_a_file_make_the_run_of_the_seed() {
    let shop = Workshop::new();
    let plain = shop.trained("plain", &["--workers", "3"]);
    // A rate that moves no weight: what is left is what the seed gave.
    shop.trained("still", &["--set", "train.steps=1", "--set", "train.learning_rate=1e-38"]);
    export(&shop, "still", "weights.safetensors");
    assert_eq!(shop.trained("file", FROM_FILE), plain);
}

#[test]
fn any_number_of_workers_starts_from_the_same_file() {
    let shop = Workshop::new();
    trained_weights(&shop);
    for optimizer in ["adam", "sgd"] {
        let set = format!("train.optimizer={optimizer}");
        let digest = |run: &str, further: &[&str]| {
            let run = format!("{optimizer}-{run}");
            shop.trained(&run, &[FROM_FILE, &["--set", &set], further].concat())
        };
        let alone = digest("w1", &["--workers", "1"]);
        assert_eq!(digest("w3", &["--workers", "3"]), alone);
        assert_eq!(digest("star", &["--workers", "3", "--set", "cluster.exchange=star"]), alone);
        assert_ne!(shop.trained(&format!("{optimizer}-seed"), &["--set", &set]), alone, "the file counts");
    }
    let first: f64 = shop.metrics("adam-w1")[0]["loss"].as_f64().unwrap();
    let from_seed: f64 = shop.metrics("adam-seed")[0]["loss"].as_f64().unwrap();
    assert!(first < from_seed - 0.1, "it goes on where the other had come to: {first}, {from_seed}");
}

#[test]
fn a_run_from_a_file_resumes_without_it_but_never_with_another() {
    let shop = Workshop::new();
    trained_weights(&shop);
    let long = [FROM_FILE, &["--set", "train.steps=1500"]].concat();
    let quiet = shop.trained("quiet", &long);
    let mut run = shop.start(&[&["train", "run.toml", "--run", "run"], &long[..]].concat());
    run.wait_for("joined");
    signal("KILL", run.id());
    assert_eq!(run.wait().unwrap().code(), None, "it was killed");
    let weights = fs::read(shop.path("weights.safetensors")).unwrap();
    let resume = [&["train", "run.toml", "--run", "run", "--resume"], &long[..]].concat();
    let mut other = weights.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(shop.path("weights.safetensors"), &other).unwrap();
    assert!(shop.refused(&resume).contains("model.weights.blake3 is "), "another file is another run");
    fs::remove_file(shop.path("weights.safetensors")).unwrap();
    shop.succeed(&resume);
    assert_eq!(shop.digest("run"), quiet);
    let verified = shop.succeed(&["verify", "run"]);
    assert!(verified.contains("journal     1500 steps"), "{verified}");
}

/// Killed while the first checkpoint is written: there is no run yet, and surely none from the seed.
#[test]
fn a_run_that_died_before_it_had_its_weights_is_no_run() {
    let shop = Workshop::new();
    trained_weights(&shop);
    let arguments = [&["train", "run.toml", "--run", "run"], FROM_FILE].concat();
    let mut command = shop.command(&arguments);
    let status = command.env("CAROUSEL_FAILPOINT", "coordinator-half-written@0:abort").status().unwrap();
    assert_eq!(status.code(), None, "it was killed");
    assert!(shop.path("run/checkpoints").exists(), "it had begun");
    let message = shop.refused(&[&arguments[..], &["--resume"]].concat());
    assert!(message.contains("run: there is no run to go on with"), "{message}");
    // Its checkpoints taken away, a run that was whole is refused too.
    shop.trained("whole", &[FROM_FILE, &["--set", "train.steps=2"]].concat());
    fs::remove_dir_all(shop.path("whole/checkpoints")).unwrap();
    fs::create_dir(shop.path("whole/checkpoints")).unwrap();
    let resume = ["train", "run.toml", "--run", "whole", "--resume", "--set", "train.steps=2"];
    let message = shop.refused(&[&resume[..], FROM_FILE].concat());
    assert!(message.contains("started from model.weights, and no checkpoint of it is left"), "{message}");
}

#[test]
fn a_file_of_another_model_is_refused_and_nothing_is_written() {
    let shop = Workshop::new();
    trained_weights(&shop);
    let refused = |sets: &[&str]| {
        let message = shop.refused(&[&["train", "run.toml", "--run", "new"], FROM_FILE, sets].concat());
        assert!(!shop.path("new").exists(), "{message}");
        message
    };
    let message = refused(&["--set", "model.hidden=14"]);
    assert!(message.contains("tensor rnn.weight_ih_l0: found [52, 9], expected [56, 9]"), "{message}");
    let message = refused(&["--set", "model.layers=1"]);
    assert!(message.contains("no place for rnn.bias_hh_l1, rnn.bias_ih_l1"), "{message}");
    let message = refused(&["--set", "model.cell=lstm_peephole"]);
    assert!(message.contains("no tensor rnn.w_ci_l0"), "{message}");
}
