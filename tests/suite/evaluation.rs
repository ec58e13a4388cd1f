//! `carousel evaluate` through the program: one figure whoever computes it, what it is a figure of, and the two ways to do
//! better than the trained weights alone.

use std::f64::consts::LN_2;

use serde_json::Value;

use crate::program::Workshop;

fn figures(shop: &Workshop, arguments: &[&str]) -> Value {
    let arguments: Vec<&str> = ["evaluate", "run", "--json"].iter().chain(arguments).copied().collect();
    serde_json::from_str(&shop.succeed(&arguments)).unwrap()
}

fn number(figures: &Value, key: &str) -> f64 {
    figures[key].as_f64().unwrap_or_else(|| panic!("{key} in {figures}"))
}

#[test]
fn threads_and_workers_change_no_bit_of_any_figure() {
    let shop = Workshop::new();
    shop.trained("run", &[]);
    for streams in [&["--streams", "1"][..], &["--streams", "5"], &[], &["--split", "train"]] {
        let alone = figures(&shop, &[streams, &["--threads", "1"]].concat());
        for by in [
            &["--threads", "2"][..],
            &["--workers", "1"],
            &["--workers", "3"],
            &["--workers", "2", "--threads", "2"],
        ] {
            assert_eq!(figures(&shop, &[streams, by].concat()), alone, "{streams:?} {by:?}");
        }
    }
    for method in [&["--dynamic"][..], &["--dynamic=sgd", "--streams", "2"], &["--cache", "50"]] {
        let alone = figures(&shop, &[method, &["--threads", "1"]].concat());
        assert_eq!(figures(&shop, &[method, &["--threads", "2"]].concat()), alone, "{method:?}");
    }
}

#[test]
fn an_evaluation_on_workers_leaves_the_run_as_it_was() {
    let shop = Workshop::new();
    let digest = shop.trained("run", &["--set", "train.steps=5"]);
    let list = || {
        let mut files: Vec<_> =
            std::fs::read_dir(shop.path("run")).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|file| (std::fs::read(&file).ok(), file)).collect::<Vec<_>>()
    };
    let before = list();
    figures(&shop, &["--workers", "2"]);
    assert!(list() == before, "every file of the run is as it was");
    assert_eq!(shop.digest("run"), digest);
}

#[test]
fn workers_started_by_hand_give_the_same_figure() {
    let shop = Workshop::new();
    shop.trained("run", &["--set", "train.steps=5"]);
    let alone = figures(&shop, &[]);
    let arguments = ["evaluate", "run", "--json", "--listen", "127.0.0.1:0", "--workers", "2"];
    let mut evaluation = shop.start(&arguments);
    evaluation.wait_for("listening   http://");
    let said = evaluation.said();
    let address = said.lines().find_map(|line| line.strip_prefix("listening   ")).unwrap().to_owned();
    let mut workers = [(); 2].map(|()| shop.start(&["worker", "--coordinator", &address, "--threads", "1"]));
    assert!(evaluation.wait().unwrap().success(), "{}", evaluation.said());
    assert_eq!(serde_json::from_str::<Value>(&evaluation.printed()).unwrap(), alone);
    workers.iter_mut().for_each(|worker| assert!(worker.wait().unwrap().success()));
}

/// The naive way: a window of one token at a time, which is one step after another.
#[test]
fn one_stream_is_the_text_read_token_by_token_from_its_beginning() {
    let shop = Workshop::new();
    shop.trained("run", &["--set", "train.steps=20"]);
    let text = shop.read("text.txt");
    shop.write("part.txt", &text[..400]);
    let by_one = figures(&shop, &["--text", "part.txt", "--streams", "1", "--window", "1"]);
    let whole = figures(&shop, &["--text", "part.txt", "--streams", "1", "--window", "1000"]);
    let off = (number(&by_one, "loss") - number(&whole, "loss")).abs();
    assert!(off < 1e-13, "{by_one} {whole}");
    // What a text's tokens are given by generation, token by token, is the same once more.
    let first: String = text.chars().take(1).collect();
    let written = shop.succeed(&["generate", "run", "--prompt", &first, "--tokens", "300", "--json"]);
    let written: Value = serde_json::from_str(&written).unwrap();
    shop.write("written.txt", &(first + written["text"].as_str().unwrap()));
    let read = figures(&shop, &["--text", "written.txt", "--streams", "1"]);
    assert_eq!(read["tokens"], 300);
    let (read, written) = (number(&read, "loss") * 300.0, -number(&written, "log_probability"));
    assert!((read - written).abs() < 1e-3, "{read} nats to read, {written} to write");
    // Streams that begin in the middle of the text begin with nothing.
    let many = figures(&shop, &["--text", "part.txt", "--streams", "7"]);
    assert!(number(&many, "loss") != number(&whole, "loss"));
    assert_eq!((&many["streams"], &whole["streams"]), (&Value::from(7), &Value::from(1)));
}

#[test]
fn bits_are_of_the_text_after_its_first_token() {
    let shop = Workshop::new();
    shop.write("accents.txt", "été à la carrière\nnoël déjà vu\n");
    for tokenizer in ["chars", "bytes", "words"] {
        let set = format!("data.tokenizer={tokenizer}");
        let (run, sets) = (
            format!("run-{tokenizer}"),
            ["--set", &set, "--set", "train.steps=4", "--set", "train.window=5"],
        );
        shop.trained(&run, &sets);
        let json = shop.succeed(&["evaluate", &run, "--json", "--text", "accents.txt", "--streams", "1"]);
        let figures: Value = serde_json::from_str(&json).unwrap();
        let bits = number(&figures, "loss") / LN_2 * number(&figures, "tokens");
        let expected = match tokenizer {
            // Characters, bytes, words and line ends, unknown tokens. What the training text has not is U+FFFD of three bytes.
            "chars" => (30, 44, 8, Some(7)),
            "bytes" => (31, 37, 9, None),
            // Every word is unknown: "<unk> <unk> <unk> <unk>\n<unk> ..." after the first.
            _ => (37, 37, 8, Some(6)),
        };
        let found = |key: &str| figures[key].as_u64().unwrap();
        let found = (found("characters"), found("bytes"), found("words"), figures["unknown_tokens"].as_u64());
        assert_eq!(found, expected, "{tokenizer}: {figures}");
        let (characters, bytes) = (expected.0 as f64, expected.1 as f64);
        assert!((number(&figures, "bits_per_character") - bits / characters).abs() < 1e-9);
        assert!((number(&figures, "bits_per_byte") - bits / bytes).abs() < 1e-9);
        let word_perplexity = (bits * LN_2 / expected.2 as f64).exp();
        assert!((number(&figures, "word_perplexity") / word_perplexity - 1.0).abs() < 1e-9);
    }
}

/// A text in which the same few sentences come again and again, as they do not in what the model was trained on.
#[test]
fn dynamic_evaluation_and_the_cache_help_on_a_text_of_its_own() {
    let shop = Workshop::new();
    let text = shop.read("text.txt");
    let few: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    shop.write("own.txt", &few.repeat(25));
    let words = ["--set", "data.tokenizer=words", "--set", "train.window=5", "--set", "train.epochs=12"];
    shop.trained("run", &words);
    let loss =
        |further: &[&str]| number(&figures(&shop, &[&["--text", "own.txt"], further].concat()), "loss");
    let plain = loss(&["--streams", "1"]);
    for method in [
        &["--dynamic"][..],
        &["--dynamic=sgd", "--dynamic-lr", "0.1"],
        &["--cache", "200", "--cache-lambda", "0.1"],
    ] {
        let better = loss(method);
        assert!(better < plain - 0.01, "{method:?}: {better}, without {plain}");
    }
    // With a rate next to nothing the weights stay, and the figure is the plain one's.
    let still = loss(&["--dynamic=sgd", "--dynamic-lr", "1e-30"]);
    assert!((still - plain).abs() < 1e-12, "{still} {plain}");
    assert!((loss(&["--cache", "50", "--cache-lambda", "0"]) - plain).abs() < 1e-12);
}

/// Arguments after `evaluate run`, and what the message must have in it.
const REFUSED: &[(&[&str], &[&str])] = &[
    (&["--split", "test"], &["--split test", "data.test"]),
    (&["--split", "tset"], &["tset", "valid", "test", "train"]),
    (&["--streams", "0"], &["--streams", "0"]),
    (&["--window", "0"], &["--window"]),
    (&["--text", "one.txt"], &["one.txt", "found 1 tokens", "at least 2"]),
    (&["--text", "text.txt", "--split", "valid"], &["--text", "--split"]),
    (&["--dynamic=adam"], &["adam", "rms", "sgd"]),
    (&["--dynamic", "--segment", "0"], &["--segment: found 0", "at least 1"]),
    (&["--dynamic", "--dynamic-lr", "0"], &["--dynamic-lr: found 0", "above 0"]),
    (&["--dynamic", "--dynamic-decay", "2"], &["--dynamic-decay: found 2", "0 to 1"]),
    (&["--dynamic", "--dynamic-epsilon", "0"], &["--dynamic-epsilon: found 0"]),
    (&["--dynamic", "--statistics", "0"], &["--statistics: found 0"]),
    (&["--segment", "5"], &["--dynamic"]),
    (&["--dynamic", "--cache", "5"], &["--dynamic", "--cache"]),
    (&["--dynamic", "--workers", "2"], &["--dynamic", "--workers"]),
    (&["--cache", "0"], &["--cache: found 0"]),
    (&["--cache", "9", "--cache-theta", "-1"], &["--cache-theta: found -1"]),
    (&["--cache", "9", "--cache-lambda", "1"], &["--cache-lambda: found 1", "below 1"]),
    (&["--cache-theta", "1"], &["--cache"]),
    (&["--workers", "0"], &["--workers"]),
];

#[test]
fn options_that_make_no_sense_are_named() {
    let shop = Workshop::new();
    shop.trained("run", &["--set", "train.steps=2"]);
    shop.write("one.txt", "x");
    for (further, parts) in REFUSED {
        let arguments: Vec<&str> = ["evaluate", "run"].iter().chain(*further).copied().collect();
        let message = shop.refused(&arguments);
        for part in *parts {
            assert!(message.contains(part), "{further:?}: {message:?} lacks {part:?}");
        }
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert!(shop.refused(&["evaluate", "run", "--listen", &address]).contains(&address));
    // A text that is not the run's any more would be read as other tokens.
    shop.write("text.txt", &shop.read("text.txt").replace("carousel", "carou?el"));
    let message = shop.refused(&["evaluate", "run"]);
    assert!(message.contains("data.train") && message.contains("tokenizer.json"), "{message}");
}

/// Whatever was trained: an average, layers of unequal width, another softmax, all that is for training alone.
#[test]
fn every_kind_of_model_is_measured_the_same_by_everybody() {
    let awd = [
        "model.hidden=[19,9]",
        "model.tied=true",
        "model.locked_dropout=true",
        "model.dropout_embedding=0.2",
        "model.weight_drop=0.4",
        "model.activation_regularisation=2",
        "model.label_smoothing=0.1",
    ];
    let averaged = ["train.optimizer={kind=\"asgd\",t0=9,weight_decay=0.01}", "train.learning_rate=0.5"];
    let adaptive = ["model.softmax={kind=\"adaptive\",cutoffs=[6,15],div_value=2.0}"];
    let sampled = ["model.softmax={kind=\"sampled\",samples=9}", "model.embedding=13"];
    for (sets, is_averaged) in
        [(&awd[..], false), (&averaged[..], true), (&adaptive[..], false), (&sampled[..], false)]
    {
        let shop = Workshop::new();
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        shop.trained("run", &[&sets[..], &["--set", "train.steps=25"]].concat());
        for further in [&[][..], &["--streams", "1"]] {
            let alone = figures(&shop, further);
            assert_eq!(alone["averaged"], is_averaged, "{sets:?}");
            assert_eq!(
                figures(&shop, &[further, &["--workers", "3"]].concat()),
                alone,
                "{sets:?} {further:?}"
            );
        }
        // Weights that hardly move: nothing of the training is left in what dynamic evaluation measures.
        let plain = number(&figures(&shop, &["--streams", "1"]), "loss");
        let still = number(&figures(&shop, &["--dynamic=sgd", "--dynamic-lr", "1e-30"]), "loss");
        assert!((still - plain).abs() < 1e-12, "{sets:?}: {still} {plain}");
        let cached = number(&figures(&shop, &["--cache", "50", "--cache-lambda", "0"]), "loss");
        assert!((cached - plain).abs() < 1e-12, "{sets:?}: {cached} {plain}");
        let written = shop.succeed(&["generate", "run", "--prompt", "t", "--tokens", "50", "--json"]);
        let written: Value = serde_json::from_str(&written).unwrap();
        shop.write("written.txt", &format!("t{}", written["text"].as_str().unwrap()));
        let read = number(&figures(&shop, &["--text", "written.txt", "--streams", "1"]), "loss") * 50.0;
        let off = (read + number(&written, "log_probability")).abs();
        assert!(off < 1e-3, "{sets:?}: {read} nats to read, {written} to write");
    }
}
