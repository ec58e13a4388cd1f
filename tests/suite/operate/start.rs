//! `--start-or-resume`: one command line for a container, whatever was there when it was killed.

use std::fs;

use crate::program::Workshop;

#[test]
fn a_start_that_was_cut_short_anywhere_is_gone_on_with_by_the_same_command() {
    let shop = Workshop::new();
    let whole = shop.trained("whole", &[]);
    // What is there after each write of a start; "" is an empty folder, as of a volume.
    let parts = [
        "",
        "checkpoints",
        "tokenizer.json",
        "id",
        "config.new",
        "config.toml",
        "journal.bin",
        "committed.bin",
    ];
    for cut in 0..parts.len() {
        let run = format!("cut-{cut}");
        fs::create_dir(shop.path(&run)).unwrap();
        for part in &parts[1..=cut] {
            let (from, to) = (shop.path(&format!("whole/{part}")), shop.path(&format!("{run}/{part}")));
            match *part {
                "checkpoints" => fs::create_dir(to).unwrap(),
                "config.new" => fs::write(to, "half a configu").unwrap(),
                // Torn inside their headers.
                "journal.bin" | "committed.bin" => fs::write(to, &fs::read(from).unwrap()[..3]).unwrap(),
                _ => drop(fs::copy(from, to).unwrap()),
            }
        }
        assert_eq!(shop.trained(&run, &["--start-or-resume"]), whole, "after {:?}", parts[cut]);
    }
}

#[test]
fn a_run_that_is_there_is_gone_on_with_and_somebody_elses_folder_is_left_alone() {
    let shop = Workshop::new();
    // A schedule that does not look at the run's end, which is moved here.
    let constant = ["--set", "train.schedule=constant"];
    let longer = shop.trained("whole", &[&constant[..], &["--set", "train.epochs=2"]].concat());
    let again = [&constant[..], &["--start-or-resume"]].concat();
    let shorter = shop.trained("run", &again);
    assert_ne!(shorter, longer);
    assert_eq!(shop.trained("run", &again), shorter, "a complete run stays as it is");
    assert_eq!(shop.trained("run", &[&again[..], &["--set", "train.epochs=2"]].concat()), longer);
    fs::create_dir(shop.path("thesis")).unwrap();
    shop.write("thesis/chapter-1.tex", "x");
    let refused = shop.refused(&["train", "run.toml", "--run", "thesis", "--start-or-resume"]);
    assert!(refused.contains("thesis exists"), "{refused}");
    assert_eq!(fs::read_dir(shop.path("thesis")).unwrap().count(), 1);
    let refused = shop.refused(&["train", "run.toml", "--run", "run", "--resume", "--start-or-resume"]);
    assert!(refused.contains("cannot be used with"), "{refused}");
}
