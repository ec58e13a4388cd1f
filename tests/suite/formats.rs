//! The run's folder: other people's formats, under their names.

use crate::program::Workshop;
use safetensors::SafeTensors;

const STEP_KEYS: [&str; 10] = [
    "step",
    "epoch",
    "loss",
    "learning_rate",
    "grad_norm",
    "clip_scale",
    "tokens",
    "seconds",
    "workers",
    "term",
];

#[test]
fn the_run_s_folder_is_as_documented() {
    let shop = Workshop::new();
    shop.trained("run", &[]);
    for name in [
        "config.toml",
        "tokenizer.json",
        "metrics.jsonl",
        "journal.bin",
        "committed.bin",
        "tensorboard",
        "checkpoints/latest",
        "checkpoints/best",
    ] {
        assert!(shop.path("run").join(name).exists(), "{name}");
    }
    let metrics = shop.metrics("run");
    let steps: Vec<_> = metrics.iter().filter(|line| line.get("loss").is_some()).collect();
    assert_eq!(steps.len(), 58, "the windows of one epoch of the training text");
    let keys: Vec<&str> = steps[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert!(STEP_KEYS.iter().all(|key| keys.contains(key)) && keys.len() == STEP_KEYS.len(), "{keys:?}");
    assert_eq!(steps[0]["tokens"], 77, "7 streams of 11 steps");
    let (first, last) = (steps[0]["loss"].as_f64().unwrap(), steps[57]["loss"].as_f64().unwrap());
    assert!(last < first - 0.3, "it learns: {first} to {last}");
}

#[test]
fn weights_carry_pytorch_s_names_and_shapes() {
    let shop = Workshop::new();
    shop.trained("run", &["--set", "train.steps=2"]);
    let bytes = std::fs::read(shop.path("run/checkpoints/latest/model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<(String, Vec<usize>)> =
        file.tensors().into_iter().map(|(n, t)| (n, t.shape().to_vec())).collect();
    found.sort();
    let vocabulary = file.tensor("decoder.bias").unwrap().shape()[0];
    let expected: Vec<(String, Vec<usize>)> = [
        ("decoder.bias", vec![vocabulary]),
        ("decoder.weight", vec![vocabulary, 13]),
        ("encoder.weight", vec![vocabulary, 9]),
        ("rnn.bias_hh_l0", vec![52]),
        ("rnn.bias_hh_l1", vec![52]),
        ("rnn.bias_ih_l0", vec![52]),
        ("rnn.bias_ih_l1", vec![52]),
        ("rnn.weight_hh_l0", vec![52, 13]),
        ("rnn.weight_hh_l1", vec![52, 13]),
        ("rnn.weight_ih_l0", vec![52, 9]),
        ("rnn.weight_ih_l1", vec![52, 13]),
    ]
    .map(|(name, shape)| (name.to_owned(), shape))
    .into();
    assert_eq!(found, expected);
    let bytes = std::fs::read(shop.path("run/checkpoints/latest/carries.safetensors")).unwrap();
    assert_eq!(SafeTensors::deserialize(&bytes).unwrap().tensor("c").unwrap().shape(), [2, 7, 13]);
}

#[test]
fn evaluate_gives_the_run_s_own_figure_to_the_last_bit() {
    let shop = Workshop::new();
    shop.trained("run", &["--workers", "3"]);
    let metrics = shop.metrics("run");
    let last = metrics.iter().rev().find(|line| line.get("valid_loss").is_some()).unwrap();
    for threads in ["1", "2"] {
        let json = shop.succeed(&["evaluate", "run", "--json", "--threads", threads]);
        let figures: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(figures["loss"], last["valid_loss"], "{threads} threads");
        assert_eq!(figures["tokens"], last["tokens"]);
        let (loss, bits) = (figures["loss"].as_f64().unwrap(), figures["bits_per_token"].as_f64().unwrap());
        assert!((bits * std::f64::consts::LN_2 - loss).abs() < 1e-12);
        assert!((figures["perplexity"].as_f64().unwrap().ln() - loss).abs() < 1e-12);
    }
    let earlier = shop.succeed(&["evaluate", "run/checkpoints/step-00000020", "--json"]);
    let earlier: serde_json::Value = serde_json::from_str(&earlier).unwrap();
    assert!(earlier["loss"].as_f64() > last["valid_loss"].as_f64(), "an earlier checkpoint knows less");
}

#[test]
fn the_same_seed_writes_the_same() {
    let shop = Workshop::new();
    shop.trained("run", &["--set", "train.steps=10"]);
    let write =
        |seed: &str| shop.succeed(&["generate", "run", "--prompt", "the ", "--tokens", "60", "--seed", seed]);
    assert_eq!(write("1"), write("1"));
    assert_ne!(write("1"), write("2"));
    assert_eq!(
        write("1").trim_end_matches('\n').chars().count().max(60),
        write("1").trim_end_matches('\n').chars().count()
    );
}
