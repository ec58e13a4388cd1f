//! What users get wrong, each done for real, and what they read then: kept word for word in `snapshots/`. A message names the
//! place, what was found, what was expected, and the next step. `cargo insta review` (or `INSTA_UPDATE=always`) takes new words.
//! That a refusal changes nothing is asked of every one of them here.

mod locks;
mod machine;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::Workshop;

/// Makes a mistake that is refused as bad input.
fn mistake(name: &str, shop: &Workshop, arguments: &[&str]) {
    mistake_with(name, shop, shop.command(arguments), 2);
}

/// Makes a mistake that ends with a code, keeps what is said of it, and sees that every file is as it was.
fn mistake_with(name: &str, shop: &Workshop, command: Command, code: i32) {
    let arguments: Vec<String> = command.get_args().map(|word| word.to_string_lossy().into_owned()).collect();
    let before = files(&shop.path(""));
    let mut running = shop.spawn(command);
    let status = running.wait().unwrap_or_else(|| panic!("{name}: {arguments:?} hangs"));
    let said = running.said();
    assert_eq!(status.code(), Some(code), "{name}: {arguments:?}\n{said}");
    assert!(!said.contains("panicked"), "{name}: {said}");
    assert!(files(&shop.path("")) == before, "{name}: {arguments:?} left something behind");
    let text = format!("$ carousel {}\n{}\nexit {code}", arguments.join(" "), said.trim_end());
    insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
        insta::assert_snapshot!(name, redacted(&text, shop));
    });
}

/// Every file below a folder but what the tests' own processes print.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_output = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("out-");
    let mut found = BTreeMap::new();
    for path in entries.filter(|path| !is_output(path)) {
        match path.is_dir() {
            true => found.extend(files(&path).into_iter().chain([(path, Vec::new())])),
            false => drop(found.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

/// Without what differs from one run of the test to the next, or with a version: the workshop's folder, ports, hashes.
fn redacted(text: &str, shop: &Workshop) -> String {
    let folder = shop.path("");
    let text = text.replace(folder.to_str().unwrap(), "FOLDER/");
    let protocol = format!("speaks protocol {}", carousel_proto::PROTOCOL_VERSION);
    let text = text.replace(&protocol, "speaks protocol OURS").replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let is_hash = |word: &str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric());
    let mut shown = String::new();
    for word in words {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let is_port = shown.ends_with("127.0.0.1:") && bare.parse::<u16>().is_ok();
        match (is_port, is_hash(bare)) {
            (true, _) => shown.push_str(&word.replace(bare, "PORT")),
            (_, true) => shown.push_str(&word.replace(bare, "HASH")),
            _ => shown.push_str(word),
        }
    }
    shown
}

/// Arguments of `carousel train run.toml --run new` behind a name.
fn settings(shop: &Workshop, cases: &[(&str, &[&str])]) {
    for (name, further) in cases {
        mistake(name, shop, &[&["train", "run.toml", "--run", "new"][..], further].concat());
    }
}

#[test]
fn mistakes_in_a_configuration_file() {
    let shop = Workshop::new();
    let cases = [
        ("typo_in_a_key", "[data]\ntrain = \"text.txt\"\nvalid_fracton = 0.1\n"),
        ("key_in_the_wrong_table", "[train]\nhidden = 256\n"),
        ("wrong_type", "[train]\nwindow = \"eleven\"\n"),
        ("negative_value", "[train]\nstreams = -7\n"),
        ("not_toml", "[train\nstreams = 7\n"),
        ("typo_in_an_option", "[train]\noptimizer = { kind = \"adam\", beta_1 = 0.8 }\n"),
        ("nothing_to_train_on", "[train]\nepochs = 1\n"),
    ];
    for (name, text) in cases {
        shop.write("wrong.toml", text);
        mistake(name, &shop, &["train", "wrong.toml"]);
    }
    mistake("configuration_missing", &shop, &["train", "absent.toml"]);
    std::fs::create_dir(shop.path("folder")).unwrap();
    mistake("configuration_is_a_folder", &shop, &["train", "folder"]);
}

#[test]
fn mistakes_in_a_setting() {
    let shop = Workshop::new();
    let cases: [(&str, &[&str]); 7] = [
        ("value_out_of_range", &["--set", "model.dropout=1.5"]),
        ("lanes_more_than_streams", &["--set", "train.lanes=8"]),
        ("epochs_and_steps_at_once", &["--set", "train={epochs=1,steps=9}"]),
        ("typo_in_a_kind", &["--set", "train.optimizer=adm"]),
        ("name_from_another_program", &["--set", "train.lr=1"]),
        ("setting_without_a_value", &["--set", "train.steps"]),
        ("setting_without_a_section", &["--set", "hidden=3"]),
    ];
    settings(&shop, &cases);
}

#[test]
fn mistakes_with_the_text() {
    let shop = Workshop::new();
    shop.write("empty.txt", "");
    shop.write("short.txt", "too short\n");
    std::fs::write(shop.path("latin1.txt"), b"fine\ncaf\xe9\n").unwrap();
    std::fs::create_dir(shop.path("folder")).unwrap();
    let cases: [(&str, &[&str]); 7] = [
        ("text_missing", &["--set", "data.train=absent.txt"]),
        ("text_empty", &["--set", "data.train=empty.txt"]),
        ("text_not_utf8", &["--set", "data.train=latin1.txt"]),
        ("text_too_short", &["--set", "data.train=short.txt"]),
        ("text_in_an_empty_folder", &["--set", "data.train=folder"]),
        ("tokenizer_that_is_none", &["--set", "data.tokenizer=chras"]),
        ("tokenizer_missing", &["--set", "data.tokenizer=absent.json"]),
    ];
    settings(&shop, &cases);
    #[cfg(not(feature = "cloud"))]
    settings(&shop, &[("bucket_without_cloud", &["--set", "data.train=s3://bucket/text"])]);
}

#[test]
fn mistakes_on_the_command_line() {
    let shop = Workshop::new();
    mistake("unknown_subcommand", &shop, &["trian", "run.toml"]);
    mistake("unknown_option", &shop, &["train", "run.toml", "--worker", "3"]);
    settings(&shop, &[("options_that_exclude_each_other", &["--resume", "--start-or-resume"])]);
    mistake("listening_at_a_name", &shop, &["coordinator", "run.toml", "--listen", "localhost:7700"]);
    mistake("address_without_a_port", &shop, &["worker", "--coordinator", "127.0.0.1"]);
    mistake("no_run_to_generate_from", &shop, &["generate", "nowhere", "--prompt", "the"]);
    mistake("file_in_the_place_of_a_run", &shop, &["evaluate", "text.txt"]);
}

#[test]
fn mistakes_with_a_run() {
    let shop = Workshop::new();
    shop.trained("run", &["--set", "train.steps=25"]);
    let run = |name: &str, further: &[&str]| {
        mistake(name, &shop, &[&["train", "run.toml", "--run", "run"][..], further].concat());
    };
    run("run_that_exists", &[]);
    settings(&shop, &[("resume_without_a_run", &["--resume"])]);
    let resume = ["--resume", "--set", "train.steps=30", "--set"];
    run("resume_with_other_settings", &[&resume[..], &["train.learning_rate=0.02"]].concat());
    run("resume_with_another_tokenizer", &[&resume[..], &["data.tokenizer=bytes"]].concat());
    shop.write("other.txt", &(shop.read("text.txt") + "A new letter: Q.\n"));
    let text = shop.read("text.txt");
    shop.write("text.txt", &shop.read("other.txt"));
    run("resume_with_another_text", &resume[..3]);
    shop.write("text.txt", &text);
    let unknown = shop.command(&["generate", "run", "--prompt", "the €", "--tokens", "1"]);
    mistake_with("prompt_with_an_unknown_character", &shop, unknown, 0);
    for checkpoint in ["step-00000020", "step-00000025"] {
        let weights = shop.path("run/checkpoints").join(checkpoint).join("model.safetensors");
        let mut bytes = std::fs::read(&weights).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&weights, bytes).unwrap();
    }
    run("every_checkpoint_damaged", &resume[..3]);
}
