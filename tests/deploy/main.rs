//! What `deploy/` holds, tried with the engines it is written for. Each part says aloud what it had to skip.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod docker;
mod engine;
mod flags;
mod kubernetes;
#[path = "../suite/program.rs"]
#[allow(dead_code, reason = "the suite's way of running the program, of which this needs a part")]
mod program;
mod slurm;
mod slurm_lab;
mod ssh;
mod systemd;

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// A file or folder of `deploy/`.
fn deploy(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// Past the harness, which keeps what a passing test prints to itself.
fn say_aloud(text: &str) {
    writeln!(std::io::stderr(), "{text}").expect("a test has a standard error");
}

/// What a test says when the machine lacks what it needs. CI can install it, and fails instead.
fn skipped(what: &str, missing: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI must have what {what} needs: {missing}");
    say_aloud(&format!("SKIPPED: {what}: {missing}"));
}

/// Whether a program is there: in a folder of PATH, or at a path of its own.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}
