//! The recipes: the program takes each as it is, and trains it. Their texts are not part of the project; here they are made up.

use std::path::{Path, PathBuf};

use crate::program::Workshop;

/// The variables that name the recipes' texts, and the files in them where they are folders.
const TEXTS: &[(&str, &[&str])] = &[
    ("TINYSHAKESPEARE", &[]),
    ("TANG_POEMS", &[]),
    ("LINUX_KERNEL", &[]),
    ("PTB", &["ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"]),
    ("PTB_CHARS", &["ptb.char.train.txt", "ptb.char.valid.txt", "ptb.char.test.txt"]),
    ("WIKITEXT_2", &["wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"]),
];

fn recipes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// Runs `carousel train` on a recipe with its texts at these places.
fn train(shop: &Workshop, recipe: &Path, further: &[&str], place: impl Fn(&str) -> String) -> (bool, String) {
    let mut command = shop.command(&["train"]);
    command.arg(recipe).args(further);
    for (variable, _) in TEXTS {
        command.env(variable, place(variable));
    }
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn each_recipe_is_a_configuration_that_asks_for_its_text() {
    let shop = Workshop::new();
    assert!(recipes().len() >= 11, "{:?}", recipes());
    for recipe in recipes() {
        let (success, said) = train(&shop, &recipe, &[], |variable| format!("nowhere/{variable}"));
        assert!(!success && said.contains("data.train") && said.contains("nowhere/"), "{recipe:?}: {said}");
        assert!(!shop.path("runs").exists(), "{recipe:?}");
    }
}

#[test]
fn each_recipe_says_whose_figure_it_is_and_how_it_is_run() {
    for recipe in recipes() {
        let text = std::fs::read_to_string(&recipe).unwrap();
        let name = recipe.file_name().unwrap().to_str().unwrap();
        for part in [&format!("#     carousel train recipes/{name}\n"), "\n# Data ", "\n# Ours "] {
            assert!(text.contains(part), "{name} lacks {part:?}");
        }
    }
}

#[test]
fn each_recipe_trains() {
    let shop = Workshop::new();
    let words = made_up_text();
    for (variable, files) in TEXTS {
        std::fs::create_dir_all(shop.path(variable)).unwrap();
        let short = &words[..4000];
        match files {
            [] => shop.write(&format!("{variable}/text"), &words),
            [train, rest @ ..] => {
                shop.write(&format!("{variable}/{train}"), &words);
                rest.iter().for_each(|file| shop.write(&format!("{variable}/{file}"), short));
            }
        }
    }
    // Shorter windows than the recipes': what a test can wait for.
    let further = ["--set", "train.steps=2", "--set", "train.window=20", "--workers", "2"];
    for recipe in recipes() {
        let run = recipe.file_stem().unwrap().to_str().unwrap();
        let (success, said) =
            train(&shop, &recipe, &[&further[..], &["--run", run]].concat(), |variable| variable.to_owned());
        assert!(success && said.contains("is complete: 2 steps"), "{run}: {said}");
    }
}

/// More words than the hungriest recipe reads in two steps.
fn made_up_text() -> String {
    let mut state = 1u32;
    let mut word = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        format!("w{}", (state >> 16) % 300)
    };
    (0..2600).map(|_| format!("{} {} {} {} {}\n", word(), word(), word(), word(), word())).collect()
}
