//! Workers that read token files by themselves: the same run, and never other tokens.

use std::fs;

use crate::program::Workshop;

/// A workshop with a prepared folder, and a copy of it for the workers.
fn workshop(sets: &[&str]) -> Workshop {
    let shop = Workshop::new();
    let prepare = ["prepare", "run.toml", "--out", "tokens"];
    shop.succeed(&[&prepare[..], sets].concat());
    copy(&shop, "tokens", "shared");
    shop
}

fn copy(shop: &Workshop, from: &str, to: &str) {
    fs::create_dir(shop.path(to)).unwrap();
    for entry in fs::read_dir(shop.path(from)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), shop.path(to).join(entry.file_name())).unwrap();
    }
}

const PREPARED: [&str; 4] = ["--set", "data.prepared=tokens", "--set", "train.steps=6"];

#[test]
fn workers_that_read_token_files_train_the_same_run() {
    for sets in [&[][..], &["--set", "data.documents=apart", "--set", "data.valid_fraction=0"]] {
        let shop = workshop(sets);
        let expected = shop.trained("asked", &[&PREPARED[..], sets].concat());
        for workers in ["1", "3"] {
            let own = ["--workers", workers, "--set", "cluster.tokens=shared"];
            let run = format!("own{workers}");
            assert_eq!(
                shop.trained(&run, &[&PREPARED[..], sets, &own].concat()),
                expected,
                "{sets:?} {workers}"
            );
        }
        // The folder is gone that a run was told of; another place is named, and the run goes on.
        fs::rename(shop.path("shared"), shop.path("moved")).unwrap();
        let on = ["train", "run.toml", "--run", "own3", "--resume", "--set", "cluster.tokens=moved"];
        let on = [&on[..], &PREPARED[..2], &["--set", "train.steps=8"], sets].concat();
        shop.succeed(&on);
    }
}

#[test]
fn a_worker_ends_rather_than_read_other_tokens() {
    let shop = workshop(&[]);
    let text = shop.read("text.txt").replace("lane", "line");
    shop.write("other.txt", &text);
    shop.succeed(&["prepare", "run.toml", "--out", "other", "--set", "data.train=other.txt"]);
    let path = shop.path("shared/train.safetensors");
    let bytes = fs::read(&path).unwrap();
    let mut wrong = bytes.clone();
    // The low byte of the last token: another word of the vocabulary.
    wrong[bytes.len() - 2] ^= 1;
    let cases: [(&str, &str, Option<&[u8]>); 4] = [
        ("other", "not that of the coordinator's", None),
        ("nowhere", "nowhere/train.safetensors", None),
        ("shared", "it was altered", Some(&wrong)),
        ("shared", "it was cut short or grew", Some(&bytes[..bytes.len() - 2])),
    ];
    for (folder, expected, content) in cases {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let tokens = format!("cluster.tokens={folder}");
        let train = ["train", "run.toml", "--run", "new", "--workers", "1", "--set", &tokens];
        let output = shop.run(&[&train[..], &PREPARED].concat());
        let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
        assert!(!output.status.success() && said.contains(expected), "{folder}: {said}");
        assert!(
            shop.metrics("new").iter().all(|line| line.get("loss").is_none()),
            "no step was made: {said}"
        );
        fs::remove_dir_all(shop.path("new")).unwrap();
    }
}

#[test]
fn a_run_without_token_files_has_none_to_read() {
    let shop = Workshop::new();
    let message = shop.refused(&["train", "run.toml", "--run", "new", "--set", "cluster.tokens=shared"]);
    assert!(message.contains("cluster.tokens") && message.contains("carousel prepare"), "{message}");
    assert!(!shop.path("new").exists());
}
