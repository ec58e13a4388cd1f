//! The promise: the trained bits do not depend on who computes.

use carousel_model::Cell;

use crate::program::{CONFIG, Running, Workshop};

/// What else the weights are made of; each is crossed with 1 and 3 workers.
const VARIANTS: &[&[&str]] = &[
    &["train.optimizer=sgd", "train.learning_rate=0.5", "train.schedule=constant"],
    &["model.tied=true", "model.embedding=13"],
    &["data.tokenizer=words", "model.layers=1", "train.window=3"],
    &["train.schedule={kind=\"zaremba\",after=1,divide=2.0}", "train.epochs=2", "train.clip_norm=0"],
    &["train.schedule={kind=\"plateau\",divide=4.0}", "train.evaluate_every=10"],
    &["model.dropout=0"],
    &["model.cell=rnn_tanh", "train.lanes=7"],
    &["data.tokenizer={kind=\"words\",min_count=20,max_vocab=12}", "train.window=3"],
    &["data.tokenizer={kind=\"bpe\",vocabulary=270}", "train.window=3"],
    &[
        "train.optimizer={kind=\"sgd\",weight_decay=0.01}",
        "train.learning_rate=0.5",
        "train.warmup=9",
        "train.schedule=constant",
    ],
    &["train.optimizer=momentum", "train.learning_rate=0.1", "train.schedule={kind=\"linear\",warmup=4}"],
    &["train.optimizer={kind=\"nesterov\",weight_decay=0.01}", "train.learning_rate=0.1"],
    &["train.optimizer={kind=\"adam\",weight_decay=0.01}", "model.tied=true", "model.embedding=13"],
    &["train.optimizer=adamw", "train.schedule={kind=\"steps\",milestones=[9,20],unit=\"steps\"}"],
    &["train.optimizer={kind=\"rmsprop\",momentum=0.9,centered=true}", "train.learning_rate=0.001"],
    &["train.optimizer=rmsprop"],
    &["train.optimizer={kind=\"adagrad\",lr_decay=0.01,initial_accumulator_value=0.1}"],
    &["train.optimizer={kind=\"asgd\",t0=9,weight_decay=0.01}", "train.learning_rate=0.5"],
    NT_ASGD,
    &["train.optimizer={kind=\"lion\",weight_decay=0.1}", "train.learning_rate=0.001"],
    &["train.schedule={kind=\"inverse_sqrt\",warmup=5}"],
    &[
        "train.schedule={kind=\"plateau\",divide=4.0,patience=1}",
        "train.evaluate_every=4",
        "train.learning_rate=0.5",
    ],
    &["train.clip_value=0.001"],
    &["train.random_window={deviation=2.0,minimum=3}", "train.epochs=2"],
    &["train.accumulate=3", "train.epochs=2"],
    ACCUMULATED,
    &["train.random_window={probability=0.5,deviation=3.0}", "train.accumulate=2", "train.steps=40"],
    &["model.locked_dropout=true"],
    &["model.dropout_input=0.5"],
    &["model.dropout_hidden=0.5"],
    &["model.dropout_output=0.5"],
    &["model.dropout_embedding=0.2"],
    &["model.dropout_embedding=0.2", "model.tied=true", "model.embedding=13"],
    &["model.weight_drop=0.4"],
    &["model.weight_drop=0.4", "model.cell=gru", "cluster.exchange=star"],
    &["model.activation_regularisation=2"],
    &["model.temporal_activation_regularisation=1"],
    &["model.label_smoothing=0.1"],
    &["model.hidden=[19,8]"],
    &["model.hidden=[19,12]", "model.tied=true", "model.embedding=12", "model.init=\"glorot\""],
    &["model.init={kind=\"orthogonal\",range=0.05}", "model.forget_bias=1"],
    &["model.init=pytorch"],
    &[
        "model.hidden=[19,9]",
        "model.tied=true",
        "model.locked_dropout=true",
        "model.dropout_embedding=0.2",
        "model.weight_drop=0.4",
        "model.activation_regularisation=2",
        "model.temporal_activation_regularisation=1",
        "model.label_smoothing=0.1",
        "model.init=orthogonal",
        "train.accumulate=2",
        "train.random_window={}",
    ],
    &["model.softmax={kind=\"adaptive\",cutoffs=[6,15],div_value=2.0}"],
    &[
        "model.softmax={kind=\"adaptive\",cutoffs=[],head_bias=true}",
        "train.optimizer=sgd",
        "train.learning_rate=0.5",
    ],
    &["model.softmax={kind=\"sampled\",samples=9}", "model.embedding=13"],
    &[
        "model.softmax={kind=\"sampled\",samples=7}",
        "model.embedding=13",
        "train.optimizer=sgd",
        "train.learning_rate=0.5",
    ],
];

const ACCUMULATED: &[&str] =
    &["train.accumulate=2", "model.tied=true", "model.embedding=13", "train.lanes=5"];

/// Averaging begins in the middle: the rate is so high that validations get worse.
const NT_ASGD: &[&str] = &[
    "train.optimizer={kind=\"nt_asgd\",nonmonotone=2,weight_decay=0.001}",
    "train.learning_rate=20",
    "train.evaluate_every=3",
    "train.schedule=constant",
    "train.epochs=2",
];

#[test]
fn any_number_of_workers_and_threads_gives_the_same_bits() {
    let shop = Workshop::new();
    let alone = shop.trained("w1", &["--workers", "1"]);
    for (run, workers, threads) in
        [("w2", "2", 1), ("w3", "3", 1), ("w4", "4", 1), ("w1t2", "1", 2), ("w2t2", "2", 2)]
    {
        let threads = format!("cluster.threads={threads}");
        assert_eq!(
            shop.trained(run, &["--workers", workers, "--set", &threads]),
            alone,
            "{workers} workers, {threads}"
        );
    }
    assert_ne!(shop.trained("seed", &["--set", "seed=4"]), alone, "another seed is another run");
    assert_ne!(
        shop.trained("lanes", &["--set", "train.lanes=2"]),
        alone,
        "lanes are part of the configuration"
    );
}

/// Also with tied weights, whose touched rows are folded into slices, with words, whose rows are many, with several windows an
/// update, which go out when the last of them is done, and with every softmax.
#[test]
fn star_and_mesh_give_the_same_bits() {
    let shop = Workshop::new();
    let softmaxes = VARIANTS.iter().copied().filter(|variant| variant[0].starts_with("model.softmax"));
    let variants = [&[][..], VARIANTS[1], VARIANTS[2], ACCUMULATED].into_iter().chain(softmaxes);
    for (number, variant) in variants.enumerate() {
        let sets: Vec<&str> = variant.iter().flat_map(|set| ["--set", set]).collect();
        let digest = |exchange: &str, workers: &str| {
            let run = format!("{exchange}{number}w{workers}");
            let exchange = format!("cluster.exchange={exchange}");
            shop.trained(&run, &[&sets[..], &["--workers", workers, "--set", &exchange]].concat())
        };
        let alone = digest("star", "1");
        for (exchange, workers) in [("star", "3"), ("mesh", "1"), ("mesh", "2"), ("mesh", "3"), ("mesh", "4")]
        {
            assert_eq!(digest(exchange, workers), alone, "{variant:?}, {exchange} of {workers}");
        }
    }
}

#[test]
fn every_option_gives_the_same_bits_with_one_and_three_workers() {
    cross(VARIANTS);
}

/// A cell is here by being in the list of cells.
#[test]
fn every_cell_gives_the_same_bits_with_one_and_three_workers() {
    let cells: Vec<String> = Cell::ALL.iter().map(|cell| format!("model.cell={cell}")).collect();
    let others = cells.iter().filter(|cell| *cell != "model.cell=lstm");
    let variants: Vec<[&str; 1]> = others.map(|cell| [cell.as_str()]).collect();
    cross(&variants.iter().map(|variant| &variant[..]).collect::<Vec<_>>());
}

/// What the program names when it refuses a kind is what it offers: one that no variant has would be trained by nobody here.
#[test]
fn every_optimizer_and_schedule_is_among_the_variants() {
    let shop = Workshop::new();
    for key in ["optimizer", "schedule"] {
        let none = format!("train.{key}=none");
        let said = shop.refused(&["train", "run.toml", "--run", "none", "--set", &none]);
        let offered = said.split_once("expected one of ").unwrap_or_else(|| panic!("{said}")).1;
        let names: Vec<&str> = offered.split('`').skip(1).step_by(2).collect();
        assert!(names.len() > 5, "{said}");
        for name in names {
            let (plain, table) = (format!("train.{key}={name}"), format!("kind=\"{name}\""));
            let has = |set: &&str| {
                *set == plain || (set.starts_with(&format!("train.{key}=")) && set.contains(&table))
            };
            let is_default = CONFIG.contains(&format!("{key} = {{ kind = \"{name}\""));
            assert!(
                is_default || VARIANTS.iter().copied().flatten().any(has),
                "{key} {name} is in no variant"
            );
        }
    }
}

/// Trains each variant with one worker and with three; each must change the weights, as no other does.
fn cross(variants: &[&[&str]]) {
    let shop = Workshop::new();
    let mut seen = vec![shop.trained("plain", &[])];
    for (number, variant) in variants.iter().enumerate() {
        let sets: Vec<&str> = variant.iter().flat_map(|set| ["--set", set]).collect();
        let digest = |workers: &str| {
            let further: Vec<&str> = ["--workers", workers].into_iter().chain(sets.iter().copied()).collect();
            shop.trained(&format!("v{number}w{workers}"), &further)
        };
        let alone = digest("1");
        assert_eq!(digest("3"), alone, "{variant:?}");
        assert!(!seen.contains(&alone), "{variant:?} changes nothing");
        seen.push(alone);
    }
}

#[test]
fn instruction_sets_give_the_same_bits() {
    let shop = Workshop::new();
    let trained_on = |isa: &str| {
        let run = format!("isa-{isa}");
        let mut command = shop.command(&["train", "run.toml", "--run", &run, "--set", "train.steps=8"]);
        let output = command.env("CAROUSEL_ISA", isa).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains("CAROUSEL_ISA") {
            println!("SKIPPED {isa}: this machine does not have it");
            return None;
        }
        assert!(output.status.success(), "{isa}: {said}");
        Some(shop.digest(&run))
    };
    let portable = trained_on("portable").expect("the portable path runs everywhere");
    for isa in ["avx2", "avx512"] {
        if let Some(digest) = trained_on(isa) {
            assert_eq!(digest, portable, "{isa}");
        }
    }
}

#[test]
fn coordinator_and_workers_by_hand_make_the_same_run() {
    let shop = Workshop::new();
    let by_train = shop.trained("train", &[]);
    let arguments =
        ["coordinator", "run.toml", "--run", "hand", "--listen", "127.0.0.1:0", "--set", "cluster.workers=2"];
    let mut coordinator = shop.start(&arguments);
    let address = address_of(&mut coordinator);
    // A worker needs no data, no configuration and no shared disk: it runs in an empty folder.
    let elsewhere = tempfile::tempdir().unwrap();
    let work = || {
        let mut command = shop.command(&["worker", "--coordinator", &address, "--threads", "1"]);
        command.current_dir(elsewhere.path()).spawn().unwrap()
    };
    let mut workers = [work(), work()];
    assert!(coordinator.wait().unwrap().success(), "{}", coordinator.said());
    for worker in &mut workers {
        assert!(worker.wait().unwrap().success(), "a worker ends well with its run");
    }
    assert_eq!(shop.digest("hand"), by_train);
    assert_eq!(elsewhere.path().read_dir().unwrap().count(), 0, "a worker writes nothing");
}

#[test]
fn more_workers_than_lanes_do_no_harm() {
    let shop = Workshop::new();
    let sets = ["--set", "train.lanes=1", "--set", "train.steps=5"];
    let alone = shop.trained("one", &sets);
    let three: Vec<&str> = sets.iter().copied().chain(["--workers", "3"]).collect();
    assert_eq!(shop.trained("three", &three), alone);
}

/// The address a coordinator says it listens on.
pub(crate) fn address_of(coordinator: &mut Running) -> String {
    coordinator.wait_for("http://");
    let printed = coordinator.printed();
    let line = printed.lines().find(|line| line.contains("http://")).unwrap();
    line[line.find("http://").unwrap()..].trim().to_owned()
}
