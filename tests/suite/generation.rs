//! `carousel generate` through the program: samples that do not see each other, texts that end where they should, prompts from
//! everywhere.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::program::{Workshop, eventually, signal};

fn trained(sets: &[&str]) -> Workshop {
    let shop = Workshop::new();
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    shop.trained("run", &sets);
    shop
}

/// `generate run --json` with these arguments: its lines.
fn written(shop: &Workshop, arguments: &[&str]) -> Vec<Value> {
    let arguments: Vec<&str> = ["generate", "run", "--json"].iter().chain(arguments).copied().collect();
    shop.succeed(&arguments).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn fed(mut command: Command, input: &str) -> std::process::Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_sample_is_the_same_whoever_is_written_beside_it() {
    let shop = trained(&["train.steps=30"]);
    let base = ["--prompt", "the ", "--tokens", "40", "--top-k", "9", "--repetition-penalty", "1.1"];
    let with = |further: &[&str]| written(&shop, &[&base[..], further].concat());
    let three = with(&["--samples", "3"]);
    assert_eq!(with(&[])[0], three[0], "alone");
    assert_eq!(with(&["--samples", "70"])[..3], three[..], "among seventy, in two batches");
    assert_eq!(with(&["--samples", "3", "--threads", "2"]), with(&["--samples", "3", "--threads", "1"]));
    assert!(three[0]["text"] != three[1]["text"] && three[1]["text"] != three[2]["text"]);
    assert_ne!(with(&["--seed", "2"])[0]["text"], three[0]["text"]);
    // Prompts of different lengths side by side.
    shop.write("prompts.txt", "a\nthe \nevery worker");
    let lines = written(&shop, &[&["--prompts", "prompts.txt"], &base[2..], &["--samples", "3"]].concat());
    assert_eq!(lines.len(), 9);
    assert_eq!(lines[3..6], three[..]);
    assert_eq!(lines[8]["prompt"], "every worker");
}

#[test]
fn a_text_ends_at_a_stop_string_across_tokens_or_at_its_length() {
    let shop = trained(&["train.epochs=6", "train.schedule=constant"]);
    let base = ["--prompt", "the ", "--tokens", "200", "--samples", "8"];
    let with = |further: &[&str]| written(&shop, &[&base[..], further].concat());
    let whole = with(&[]);
    // Several characters, so several tokens: it never lies in one.
    let stopped = with(&["--stop", ".\n", "--stop", "qqq"]);
    let mut ended = 0;
    for (stopped, whole) in stopped.iter().zip(&whole) {
        let (text, all) = (stopped["text"].as_str().unwrap(), whole["text"].as_str().unwrap());
        assert_eq!(whole["ended"], "tokens");
        assert_eq!(whole["tokens"].as_array().unwrap().len(), 200);
        match all.find(".\n") {
            Some(at) => {
                assert_eq!(
                    (text, &stopped["ended"], &stopped["stop"]),
                    (&all[..at], &"stop".into(), &".\n".into())
                );
                assert_eq!(
                    stopped["tokens"].as_array().unwrap().len(),
                    at + 2,
                    "those of the stop string too"
                );
                ended += 1;
            }
            None => assert_eq!((text, &stopped["ended"]), (all, &"tokens".into())),
        }
    }
    assert!(ended > 0, "a trained model ends a line: {whole:?}");
    let shown = shop.succeed(&["generate", "run", "--prompt", "the ", "--tokens", "200", "--stop", ".\n"]);
    assert_eq!(
        shown,
        format!("the {}\n", stopped[0]["text"].as_str().unwrap()),
        "nothing of the stop string is shown"
    );
}

#[test]
fn a_beam_finds_a_likelier_text_than_greed_and_its_figures_are_the_model_s() {
    let shop = trained(&["train.epochs=2"]);
    let base = ["--prompt", "a ", "--tokens", "12"];
    let greedy = written(&shop, &[&base[..], &["--temperature", "0"]].concat());
    let beams = written(&shop, &[&base[..], &["--beam", "8", "--samples", "3"]].concat());
    let probability = |line: &Value| line["log_probability"].as_f64().unwrap();
    assert_eq!(beams.len(), 3);
    assert!(beams.windows(2).all(|pair| probability(&pair[0]) >= probability(&pair[1])), "best first");
    assert!(probability(&beams[0]) >= probability(&greedy[0]), "{beams:?} {greedy:?}");
    let one = written(&shop, &[&base[..], &["--beam", "1"]].concat());
    assert_eq!(one[0]["tokens"], greedy[0]["tokens"], "a beam of one is greed");
    assert!((probability(&one[0]) - probability(&greedy[0])).abs() < 1e-9);
    // What it cost to write is what it costs to read.
    shop.write("found.txt", &format!("a {}", beams[0]["text"].as_str().unwrap()));
    let json = shop.succeed(&["evaluate", "run", "--text", "found.txt", "--streams", "1", "--json"]);
    let whole: Value = serde_json::from_str(&json).unwrap();
    shop.write("prompt.txt", "a ");
    let json = shop.succeed(&["evaluate", "run", "--text", "prompt.txt", "--streams", "1", "--json"]);
    let prompt: Value = serde_json::from_str(&json).unwrap();
    let nats = |of: &Value| of["loss"].as_f64().unwrap() * of["tokens"].as_f64().unwrap();
    assert!((nats(&whole) - nats(&prompt) + probability(&beams[0])).abs() < 1e-3);
}

#[test]
fn prompts_come_from_standard_input_whole_or_by_line() {
    let shop = trained(&["train.steps=10"]);
    let base = ["generate", "run", "--tokens", "10", "--json"];
    let lines = |further: &[&str], input: &str| {
        let output = fed(shop.command(&[&base[..], further].concat()), input);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let whole = lines(&["--prompt", "-"], "a lane\nthe ");
    assert_eq!((whole.len(), &whole[0]["prompt"]), (1, &"a lane\nthe ".into()));
    let by_line = lines(&["--prompts", "-"], "a lane\nthe \n");
    assert_eq!(by_line.len(), 2);
    assert_eq!(by_line[1], written(&shop, &["--prompt", "the ", "--tokens", "10"])[0]);
    let output = fed(shop.command(&[&base[..], &["--prompts", "-"]].concat()), "fine\n\nfine\n");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--prompts -, line 2") && said.contains("has no token"), "{said}");
    assert!(output.stdout.is_empty(), "nothing is written before all prompts are known to be good");
}

#[test]
fn the_sample_of_a_configuration_is_written_like_any_other() {
    let shop = Workshop::new();
    let sample = [
        "sample.prompt=\"a \"",
        "sample.tokens=30",
        "sample.top_k=5",
        "sample.stop=[\"\\n\"]",
        "sample.samples=2",
    ];
    let sets: Vec<&str> = sample.iter().flat_map(|set| ["--set", set]).collect();
    let printed =
        shop.succeed(&[&["train", "run.toml", "--run", "run", "--set", "train.steps=9"], &sets[..]].concat());
    let written = shop.succeed(&[
        "generate",
        "run",
        "--prompt",
        "a ",
        "--tokens",
        "30",
        "--top-k",
        "5",
        "--stop",
        "\n",
        "--samples",
        "2",
        "--temperature",
        "0.8",
    ]);
    assert!(written.starts_with("=== sample 1 ===\na "), "{written}");
    assert!(printed.ends_with(&written), "{printed}\n{written}");
    let refused = |set| shop.refused(&["train", "run.toml", "--run", "new", "--set", set]);
    assert!(refused("sample.top_p=1.5").contains("sample.top_p: found 1.5, expected above 0 and at most 1"));
    assert!(refused("sample.topp=0.5").contains("unknown field `topp`"));
}

#[test]
fn an_interrupt_ends_the_text_in_good_order() {
    let shop = trained(&["train.steps=3"]);
    let mut writing = shop.start(&["generate", "run", "--prompt", "a lane", "--tokens", "100000000"]);
    writing.wait_for("a lane");
    signal("INT", writing.id());
    assert_eq!(writing.wait().unwrap().code(), Some(130));
    assert!(writing.printed().ends_with('\n') && writing.said() == "stopped\n", "{}", writing.said());
    let mut json = shop.start(&[
        "generate",
        "run",
        "--prompt",
        "a",
        "--tokens",
        "100000000",
        "--json",
        "--samples",
        "2",
    ]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    signal("INT", json.id());
    assert_eq!(json.wait().unwrap().code(), Some(130));
    for line in json.printed().lines() {
        assert_eq!(serde_json::from_str::<Value>(line).unwrap()["ended"], "interrupted");
    }
    assert_eq!(json.printed().lines().count(), 2);
}

#[test]
fn a_reader_who_has_gone_is_no_error() {
    let shop = trained(&["train.steps=3"]);
    let mut command = shop.command(&["generate", "run", "--prompt", "a lane", "--tokens", "100000000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"a lane");
    let status = eventually(|| child.try_wait().unwrap());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.is_some_and(|status| status.success()) && said.is_empty(), "{status:?} {said}");
}

/// Arguments after `generate run --tokens 5`, and what the message must have in it.
const REFUSED: &[(&[&str], &[&str])] = &[
    (&[], &["--prompt", "--prompts"]),
    (&["--prompt", "a", "--prompts", "text.txt"], &["--prompt", "--prompts"]),
    (&["--prompt", ""], &["--prompt", "has no token"]),
    (&["--prompts", "absent.txt"], &["--prompts", "absent.txt"]),
    (&["--prompts", "empty.txt"], &["--prompts: found nothing"]),
    (&["--prompt", "a", "--temperature", "-1"], &["--temperature: found -1", "not negative"]),
    (&["--prompt", "a", "--top-p", "0"], &["--top-p: found 0", "above 0 and at most 1"]),
    (&["--prompt", "a", "--top-k", "-1"], &["--top-k"]),
    (&["--prompt", "a", "--repetition-penalty", "0"], &["--repetition-penalty: found 0"]),
    (&["--prompt", "a", "--stop", ""], &["--stop: found \"\"", "at least one character"]),
    (&["--prompt", "a", "--samples", "0"], &["--samples"]),
    (&["--prompt", "a", "--beam", "0"], &["--beam"]),
    (&["--prompt", "a", "--beam", "2", "--top-k", "3"], &["--beam", "--top-k"]),
    (&["--prompt", "a", "--beam", "2", "--samples", "3"], &["--samples: found 3", "at most --beam, 2"]),
    (&["--prompt", "a", "--length-penalty", "1"], &["--beam"]),
    (&["--prompt", "a", "--beam", "2", "--length-penalty", "-1"], &["--length-penalty: found -1"]),
];

#[test]
fn options_that_make_no_sense_are_named() {
    let shop = trained(&["train.steps=2"]);
    shop.write("empty.txt", "");
    for (further, parts) in REFUSED {
        let arguments: Vec<&str> =
            ["generate", "run", "--tokens", "5"].iter().chain(*further).copied().collect();
        let message = shop.refused(&arguments);
        for part in *parts {
            assert!(message.contains(part), "{further:?}: {message:?} lacks {part:?}");
        }
    }
}
