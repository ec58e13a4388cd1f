//! What users get wrong, and what they read then.

use crate::program::Workshop;

/// Arguments after `train run.toml --run new`, and what the message must have in it.
const REFUSED: &[(&[&str], &[&str])] = &[
    (&["--set", "train.lr=1"], &["--set train.lr=1", "unknown field `lr`"]),
    (&["--set", "train.lanes=8"], &["train.lanes: found 8", "at most train.streams, 7"]),
    (&["--set", "train.streams=0"], &["train.streams: found 0"]),
    (
        &["--set", "train.keep_checkpoints=1"],
        &["train.keep_checkpoints: found 1", "at least 2", "0 to keep all"],
    ),
    (&["--set", "train.window=4000"], &["training text", "one window of every stream needs 28001"]),
    (&["--set", "data.train=absent.txt"], &["data.train", "absent.txt"]),
    (&["--set", "data.train=${NO_SUCH_VARIABLE}/x"], &["NO_SUCH_VARIABLE"]),
    (&["--set", "data.train=empty.txt"], &["empty.txt"]),
    (&["--set", "data.train=latin1.txt"], &["latin1.txt", "UTF-8", "line 2"]),
    (&["--set", "data.tokenizer=absent.json"], &["absent.json"]),
    (&["--set", "data.tokenizer={kind=\"words\",min_cont=2}"], &["unknown field `min_cont`", "min_count"]),
    (&["--set", "data.documents=appart"], &["--set data.documents=appart", "`joined`", "`apart`"]),
    (&["--set", "data.documents=apart"], &["data.valid_fraction = 0.1", "none of the 1 documents"]),
    (&["--set", "data.prepared=nowhere"], &["no folder", "nowhere", "carousel prepare run.toml"]),
    (&["--set", "model.hidden=0"], &["model.hidden: found 0"]),
    (&["--set", "cluster.workers=0"], &["cluster.workers: found 0"]),
    (&["--resume"], &["new: there is no run", "--start-or-resume"]),
    (
        &["--set", "model.weights=absent.safetensors"],
        &["model.weights", "absent.safetensors", "No such file"],
    ),
    (&["--set", "model.weights=text.txt"], &["model.weights", "text.txt"]),
    (
        &["--set", "model.weights={path=\"a\",blake3=\"x\"}"],
        &["model.weights.blake3", "64 hexadecimal digits"],
    ),
];

#[test]
fn bad_input_is_named_and_nothing_is_started_or_written() {
    let shop = Workshop::new();
    shop.write("empty.txt", "");
    std::fs::write(shop.path("latin1.txt"), b"fine\ncaf\xe9\n").unwrap();
    for (further, parts) in REFUSED {
        let arguments: Vec<&str> =
            ["train", "run.toml", "--run", "new"].iter().chain(*further).copied().collect();
        let message = shop.refused(&arguments);
        for part in *parts {
            assert!(message.contains(part), "{further:?}: {message:?} lacks {part:?}");
        }
        assert!(!shop.path("new").exists(), "{further:?} left a folder behind");
    }
}

#[test]
fn a_broken_file_is_named_with_its_line() {
    let shop = Workshop::new();
    shop.write("broken.toml", "seed = 1\n[data]\ntrain = \"text.txt\"\nvalid_fracton = 0.1\n");
    let message = shop.refused(&["train", "broken.toml"]);
    for part in ["broken.toml", "line 4", "valid_fracton", "valid_fraction"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(shop.refused(&["train", "absent.toml"]).contains("absent.toml"));
    assert!(!shop.path("runs").exists());
}

#[test]
fn a_run_is_never_overwritten_and_only_gone_on_with_as_it_was() {
    let shop = Workshop::new();
    shop.trained("run", &["--set", "train.steps=5"]);
    let before = shop.read("run/config.toml");
    assert!(shop.refused(&["train", "run.toml", "--run", "run"]).contains("--resume"));
    let resume = ["train", "run.toml", "--run", "run", "--resume", "--set", "train.steps=6"];
    let with = |set: &str| shop.refused(&[&resume[..], &["--set", set]].concat());
    assert!(
        with("train.learning_rate=0.02")
            .contains("train.learning_rate is 0.02, the run's own config.toml has 0.01")
    );
    assert!(with("seed=9").contains("seed is 9"));
    assert!(with("train.steps=4").contains("train.steps is 4"));
    shop.write("text.txt", &shop.read("text.txt").replace("carousel", "carrousel"));
    let message = shop.refused(&resume);
    assert!(message.contains("text is not the one") || message.contains("tokenizer made from"), "{message}");
    assert_eq!(shop.read("run/config.toml"), before);
}

#[test]
fn a_taken_port_leaves_nothing_behind() {
    let shop = Workshop::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let message = shop.refused(&["coordinator", "run.toml", "--run", "new", "--listen", &address]);
    assert!(message.contains(&address), "{message}");
    assert!(!shop.path("new").exists());
}

#[test]
fn paths_that_are_no_run_are_named() {
    let shop = Workshop::new();
    for command in ["digest", "evaluate"] {
        let message = shop.refused(&[command, "nowhere"]);
        assert!(message.contains("nowhere") && message.contains("checkpoints/step-*"), "{message}");
    }
    let message = shop.refused(&["worker", "--coordinator", "not an address"]);
    assert!(message.contains("expected HOST:PORT"), "{message}");
}

#[test]
fn every_subcommand_shows_an_example() {
    let shop = Workshop::new();
    let help = shop.succeed(&["--help"]);
    for command in [
        "prepare",
        "train",
        "coordinator",
        "worker",
        "certs",
        "evaluate",
        "generate",
        "export",
        "digest",
        "verify",
        "bench",
    ] {
        assert!(help.contains(command), "{help}");
        let help = shop.succeed(&[command, "--help"]);
        let example = ["Example", "Examples"].map(|title| format!("{title}:\n  carousel {command} "));
        assert!(example.iter().any(|example| help.contains(example)), "{help}");
    }
}

#[test]
fn bench_measures_a_model_and_refuses_what_it_does_not_know() {
    let shop = Workshop::new();
    let json =
        shop.succeed(&["bench", "--model", "run.toml", "--threads", "1", "--seconds", "0.2", "--json"]);
    let figures: serde_json::Value = serde_json::from_str(&json).unwrap();
    for key in ["tokens_per_second", "step_ms", "gflops", "peak_gflops", "peak_fraction", "peak_memory_bytes"]
    {
        assert!(figures[key].as_f64().unwrap() > 0.0, "{key} in {json}");
    }
    let step = figures["step_ms"].as_f64().unwrap();
    assert!(
        (figures["tokens_per_second"].as_f64().unwrap() * step / 1e3 - 77.0).abs() < 1e-6,
        "7 streams of 11 steps"
    );
    assert!(shop.refused(&["bench", "--model", "tiny"]).contains("small, medium, large, char1"));
    assert!(shop.refused(&["bench", "--lanes", "21"]).contains("at most the 20 streams"));
    assert!(shop.refused(&["bench", "--cell", "lstn"]).contains("lstn"));
}

#[test]
fn a_folder_that_cannot_be_made_is_named_and_nothing_is_started() {
    let shop = Workshop::new();
    // A file where a folder is needed refuses even a superuser, whom a read-only folder would not.
    let message = shop.refused(&["train", "run.toml", "--run", "text.txt/run"]);
    assert!(message.contains("text.txt"), "{message}");
}

/// Every process checks the first round's sum itself, float by float.
#[test]
fn the_exchange_is_measured_between_processes() {
    let shop = Workshop::new();
    let flags = ["bench", "exchange", "--workers", "3", "--bytes", "1000004", "--rounds", "2", "--json"];
    let output = shop.command(&flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    // Reduce-scatter and all-gather: each sends what the two others own, and its own slice to both.
    let wire = report["wire_bytes"].as_u64().unwrap();
    assert!((4 * 1_000_004..4 * 1_000_004 + 4000).contains(&wire), "{report}");
    assert!(report["ms"].as_f64().unwrap() > 0.0 && report["workers"] == 3, "{report}");
    assert!(shop.refused(&["bench", "exchange", "--bytes", "10"]).contains("a multiple of 4"));
}
