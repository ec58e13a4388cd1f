//! Text in, tokens out, through the whole program.

use crate::program::Workshop;

#[test]
fn a_folder_with_globs_is_read_in_order() {
    let shop = Workshop::new();
    let text = shop.read("text.txt");
    std::fs::create_dir_all(shop.path("texts/inner")).unwrap();
    let (first, second) = text.split_at(text[..text.len() / 2].rfind('\n').unwrap() + 1);
    shop.write("texts/a.txt", first);
    shop.write("texts/inner/b.txt", second);
    shop.write("texts/ignored.md", "not this");
    let whole = shop.trained("whole", &["--set", "train.steps=3"]);
    let sets =
        ["--set", "train.steps=3", "--set", "data.train=texts", "--set", "data.include=[\"**/*.txt\"]"];
    assert_eq!(shop.trained("folder", &sets), whole, "the same text is the same run");
    let list = ["--set", "train.steps=3", "--set", "data.train=[\"texts/a.txt\", \"texts/inner/b.txt\"]"];
    assert_eq!(shop.trained("list", &list), whole);
}

#[test]
fn tokenizers_train_evaluate_and_write() {
    let shop = Workshop::new();
    for tokenizer in ["chars", "bytes", "words"] {
        let set = format!("data.tokenizer={tokenizer}");
        let run = format!("run-{tokenizer}");
        shop.trained(&run, &["--set", &set, "--set", "train.steps=4", "--set", "train.window=5"]);
        let json = shop.succeed(&["evaluate", &run, "--json"]);
        let figures: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(figures["loss"].as_f64().unwrap() > 0.0);
        let written = shop.succeed(&["generate", &run, "--prompt", "a lane", "--tokens", "20"]);
        assert!(written.starts_with("a lane"), "{tokenizer}: {written:?}");
    }
    // The file one run has written is a tokenizer for another, and gives the same tokens.
    let file = shop.path("run-words/tokenizer.json");
    let sets =
        [format!("data.tokenizer={}", file.display()), "train.steps=4".into(), "train.window=5".into()];
    let further: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    assert_eq!(shop.trained("from-file", &further), shop.digest("run-words"));
}

#[test]
fn named_validation_and_test_texts_are_used() {
    let shop = Workshop::new();
    let text = shop.read("text.txt");
    shop.write("valid.txt", &text[..601]);
    shop.write("test.txt", &text[..401]);
    let sets = ["--set", "data.valid=valid.txt", "--set", "data.test=test.txt", "--set", "train.steps=4"];
    shop.trained("run", &sets);
    let metrics = shop.metrics("run");
    let line = |key: &str| metrics.iter().find(|line| line.get(key).is_some()).unwrap().clone();
    assert_eq!(line("valid_loss")["tokens"], 600, "every token but the first");
    assert_eq!(line("test_loss")["tokens"], 400);
    let json = shop.succeed(&["evaluate", "run", "--split", "test", "--json"]);
    let figures: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(figures["loss"], line("test_loss")["test_loss"], "to the last bit");
    let message = shop.refused(&["evaluate", "run", "--text", "absent.txt"]);
    assert!(message.contains("absent.txt"), "{message}");
}
