//! `carousel prepare`: a run over a prepared folder is the run over the text, an interrupted one leaves nothing that could
//! be taken for whole, and a folder that does not fit is named.

use std::fs;

use crate::durability::SmallDisk;
use crate::program::{Workshop, eventually, signal};

/// A workshop whose text is eight files.
fn documents() -> Workshop {
    let shop = Workshop::new();
    let text = shop.read("text.txt");
    fs::create_dir(shop.path("texts")).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    for (number, part) in lines.chunks(20).enumerate() {
        // Some with a line end at their end, and some without.
        let part = part.concat();
        shop.write(&format!("texts/{number}.txt"), if number % 2 == 0 { &part } else { part.trim_end() });
    }
    shop
}

#[test]
fn training_from_a_prepared_folder_is_training_from_the_text() {
    let shop = documents();
    let mut seen = Vec::new();
    for (number, sets) in [
        &["data.train=texts"][..],
        &["data.train=texts", "data.documents=apart", "data.valid_fraction=0.2"],
        &["data.train=texts", "data.documents=apart", "data.valid_fraction=0.2", "seed=4"],
        &["data.train=texts", "data.documents=apart", "data.valid_fraction=0", "data.tokenizer=bytes"],
        &[
            "data.train=texts",
            "data.documents=apart",
            "data.valid_fraction=0",
            "data.tokenizer=words",
            "train.window=3",
        ],
    ]
    .into_iter()
    .enumerate()
    {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let trained = |run: &str, workers: &str, further: &[&str]| {
            let sets = [&["--workers", workers], &sets[..], further].concat();
            shop.trained(&format!("{run}{number}w{workers}"), &sets)
        };
        let from_text = trained("text", "1", &[]);
        let folder = format!("tokens{number}");
        shop.succeed(&[&["prepare", "run.toml", "--out", &folder], &sets[..]].concat());
        let prepared = format!("data.prepared={folder}");
        for workers in ["1", "3"] {
            let digest = trained("file", workers, &["--set", &prepared]);
            assert_eq!(digest, from_text, "{sets:?} with {workers} workers");
        }
        assert_eq!(trained("text", "3", &[]), from_text, "{sets:?}");
        assert!(!seen.contains(&from_text), "{sets:?} changes nothing");
        seen.push(from_text);
    }
}

#[test]
fn the_folder_by_the_configuration_s_name_is_found_and_used() {
    let shop = Workshop::new();
    let prepared = shop.succeed(&["prepare", "run.toml", "--threads", "2"]);
    for part in ["train", "valid", "vocabulary  25", "MB/s", "prepared    prepared/run"] {
        assert!(prepared.contains(part), "{prepared}");
    }
    let again = shop.succeed(&["prepare", "run.toml"]);
    assert!(again.contains("prepared/run fits already"), "{again}");
    let said = shop.succeed(&["train", "run.toml", "--run", "run", "--set", "train.steps=4"]);
    assert!(said.contains("tokens      prepared/run fits and is used"), "{said}");
    let evaluated = shop.succeed(&["evaluate", "run", "--json"]);
    fs::remove_dir_all(shop.path("prepared")).unwrap();
    let from_text = shop.succeed(&["evaluate", "run", "--json"]);
    assert_eq!(evaluated, from_text, "the folder is gone, the text is not");
}

#[test]
fn a_text_too_large_for_memory_is_prepared_before_it_is_trained_on() {
    let shop = Workshop::new();
    let steps = ["--set", "train.steps=4"];
    let from_memory = shop.trained("small", &steps);
    assert!(!shop.path("prepared").exists());
    let large =
        [&["train", "run.toml", "--run", "large", "--set", "data.in_memory=5000"], &steps[..]].concat();
    let said = shop.succeed(&large);
    assert!(
        said.contains("larger than data.in_memory, 5000 bytes") && said.contains("prepared    prepared/run"),
        "{said}"
    );
    assert_eq!(shop.digest("large"), from_memory);
}

#[test]
fn a_run_goes_on_whether_its_tokens_were_in_memory_or_in_files() {
    let shop = Workshop::new();
    // Not the cosine, which knows its end.
    let to = |steps: &'static str| ["--set", "train.schedule=constant", "--set", steps];
    let whole = shop.trained("whole", &to("train.steps=30"));
    let resume = [&["--resume"], &to("train.steps=30")[..]].concat();
    shop.trained("text-then-file", &to("train.steps=20"));
    shop.succeed(&["prepare", "run.toml"]);
    assert_eq!(shop.trained("text-then-file", &resume), whole);
    shop.trained("file-then-text", &to("train.steps=20"));
    fs::remove_dir_all(shop.path("prepared")).unwrap();
    assert_eq!(shop.trained("file-then-text", &resume), whole);
    // And never with another text, in whichever way.
    shop.write("text.txt", &shop.read("text.txt").replace("adds", "adsd"));
    shop.succeed(&["prepare", "run.toml"]);
    let further = [&["train", "run.toml", "--resume"], &to("train.steps=40")[..], &["--run"]].concat();
    for run in ["text-then-file", "file-then-text"] {
        let message = shop.refused(&[&further[..], &[run]].concat());
        assert!(message.contains("text is not the one this run was made with"), "{message}");
    }
}

#[test]
fn a_folder_that_does_not_fit_is_named_with_what_to_do() {
    let shop = Workshop::new();
    shop.succeed(&["prepare", "run.toml"]);
    let train = ["train", "run.toml", "--run", "new"];
    let refused = |sets: &[&str], parts: &[&str]| {
        let message = shop.refused(&[&train[..], sets].concat());
        for part in parts.iter().chain(&["prepared/run", "carousel prepare run.toml"]) {
            assert!(message.contains(part), "{message:?} lacks {part:?}");
        }
        assert!(!shop.path("new").exists());
    };
    refused(&["--set", "data.tokenizer=words"], &["data.tokenizer = chars", "has words"]);
    refused(&["--set", "data.valid_fraction=0.2"], &["data.valid_fraction = 0.1", "has 0.2"]);
    refused(&["--set", "data.max_bytes=3000"], &["data.max_bytes = not set", "has 3000"]);
    let text = shop.read("text.txt");
    shop.write("text.txt", &text.replace("waits", "waist"));
    refused(&[], &["data.train", "text.txt has changed"]);
    // The command it names mends it.
    shop.succeed(&["prepare", "run.toml"]);
    shop.trained("new", &["--set", "train.steps=2"]);
    // A damaged file is named, and made again by the same command.
    let path = shop.path("prepared/run/train.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    bytes.pop();
    fs::write(&path, &bytes).unwrap();
    let message = shop.refused(&["train", "run.toml", "--run", "newer"]);
    assert!(message.contains("train.safetensors") && message.contains("cut short"), "{message}");
    shop.succeed(&["prepare", "run.toml"]);
    shop.trained("newer", &["--set", "train.steps=2"]);
}

#[test]
fn a_text_shorter_than_a_window_is_told_from_a_file_as_from_memory() {
    let shop = Workshop::new();
    shop.write("short.txt", "a few words\n");
    let arguments = ["train", "run.toml", "--run", "new", "--set", "data.train=short.txt"];
    let from_text = shop.refused(&arguments);
    shop.succeed(&["prepare", "run.toml", "--set", "data.train=short.txt"]);
    let message = shop.refused(&arguments);
    assert!(message.contains("one window of every stream needs 78"), "{message}");
    assert_eq!(message, from_text);
}

#[test]
fn other_things_in_the_folder_s_place_are_left_alone() {
    let shop = Workshop::new();
    fs::create_dir(shop.path("mine")).unwrap();
    shop.write("mine/thesis.txt", "years of work");
    let message = shop.refused(&["prepare", "run.toml", "--out", "mine"]);
    assert!(message.contains("mine/prepared.json: not a prepared folder"), "{message}");
    assert_eq!(shop.read("mine/thesis.txt"), "years of work");
}

/// Signals a `prepare` while it writes a token file; false when it was done before the signal came.
fn is_stopped_in_the_middle(shop: &Workshop, name: &str) -> bool {
    let (whole, partial) = (shop.path("prepared/run"), shop.path("prepared/run.partial"));
    // Else the files of the last one would pass for this one's.
    [&whole, &partial].iter().for_each(|folder| fs::remove_dir_all(folder).unwrap_or_default());
    let mut prepare = shop.start(&["prepare", "run.toml", "--set", "data.train=long.txt", "--threads", "1"]);
    let begun = eventually(|| {
        let file = fs::metadata(partial.join("train.safetensors"));
        (file.is_ok_and(|file| file.len() > 0) || prepare.has_ended()).then_some(())
    });
    assert!(begun.is_some());
    signal(name, prepare.id());
    match prepare.wait().unwrap().code() {
        None => true,
        Some(0) => false,
        Some(code) => panic!("exit code {code}: {}{}", prepare.printed(), prepare.said()),
    }
}

#[test]
fn a_killed_prepare_leaves_nothing_that_could_be_taken_for_whole() {
    let shop = Workshop::new();
    let text = shop.read("text.txt");
    shop.write("long.txt", &text.repeat(60_000_000 / text.len()));
    // Ctrl-C's own signal may be ignored by whoever runs the tests in the background; the one that ends a process like it is not.
    for name in ["KILL", "TERM"] {
        assert!((0..20).any(|_| is_stopped_in_the_middle(&shop, name)), "{name} always came too late");
        let partial = shop.path("prepared/run.partial");
        assert!(partial.join("train.safetensors").exists(), "the fault fired while a file was written");
        assert!(!shop.path("prepared/run").exists());
        let torn = ["train", "run.toml", "--run", "new", "--set", "data.prepared=prepared/run.partial"];
        assert!(shop.refused(&torn).contains("not a prepared folder"));
    }
    let short = ["prepare", "run.toml"];
    shop.succeed(&short);
    assert!(!shop.path("prepared/run.partial").exists(), "the next one clears what was left");
    shop.trained("run", &["--set", "train.steps=2"]);
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    let shop = Workshop::new();
    let text = shop.read("text.txt");
    shop.write("long.txt", &text.repeat(4_000_000 / text.len()));
    let Some(_disk) = SmallDisk::mount(shop.path("disk"), "2m") else { return };
    let output = shop.run(&["prepare", "run.toml", "--set", "data.train=long.txt", "--out", "disk/tokens"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("train.safetensors") && message.contains("No space left"), "{message}");
    assert_eq!(fs::read_dir(shop.path("disk")).unwrap().count(), 0, "the disk is as it was");
}

/// A run whose token file shrinks under it ends with a message; it is no SIGBUS, and no worker goes on asking.
#[test]
fn a_token_file_that_shrinks_under_a_run_ends_it() {
    let shop = Workshop::new();
    shop.succeed(&["prepare", "run.toml"]);
    let mut run = shop.start(&["train", "run.toml", "--run", "run", "--set", "train.steps=100000"]);
    run.wait_for("checkpoints/step-00000040");
    let file = fs::OpenOptions::new().write(true).open(shop.path("prepared/run/train.safetensors")).unwrap();
    file.set_len(4200).unwrap();
    let status = run.wait().expect("it ends");
    assert_eq!(status.code(), Some(1), "{}", run.said());
    assert!(run.said().contains("train.safetensors: 4200 bytes, expected"), "{}", run.said());
}
