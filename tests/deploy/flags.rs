//! What the files under `deploy/` say to the program, against what the program says of itself: every flag behind a
//! subcommand is in that subcommand's help, and every variable is one that the program or the file itself reads.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::deploy;

/// Every file under `deploy/`, in order of path.
fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![deploy("")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn subcommands() -> BTreeSet<String> {
    let help = help(&[]);
    let lines = help.lines().skip_while(|line| !line.starts_with("Commands:")).skip(1);
    lines.map_while(|line| Some(line.strip_prefix("  ")?.split_whitespace().next()?.to_owned())).collect()
}

fn help(subcommand: &[&str]) -> String {
    let output =
        Command::new(env!("CARGO_BIN_EXE_carousel")).args(subcommand).arg("--help").output().unwrap();
    assert!(output.status.success(), "carousel {subcommand:?} --help");
    String::from_utf8(output.stdout).unwrap()
}

/// A file as command lines of words: continued lines and the items of a YAML list are one, comments are none.
fn command_lines(text: &str) -> Vec<Vec<String>> {
    let mut lines: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let item = line.strip_prefix("- ");
        let whole = item.unwrap_or(line).trim_end_matches('\\');
        match lines.last_mut() {
            Some(last) if goes_on || item.is_some() => *last += &format!(" {whole}"),
            _ => lines.push(whole.to_owned()),
        }
        goes_on = line.ends_with('\\');
    }
    let split = |line: String| -> Vec<String> {
        let words = line.split(|c: char| c.is_whitespace() || "\"'`,[]()".contains(c));
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    lines.into_iter().map(split).collect()
}

/// The flags of each line that come behind a call of the program, with the subcommand that they go to.
fn flags(line: &[String], subcommands: &BTreeSet<String>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut subcommand: Option<&str> = None;
    let mut before = "";
    for word in line {
        let is_call = before.ends_with("carousel") || ["args:", "command:"].contains(&before);
        if is_call && !word.starts_with('-') {
            subcommand = subcommands.get(word).map(String::as_str);
        }
        if ["|", "||", "&&", "&", ";", "--"].contains(&word.as_str()) || word.ends_with(';') {
            subcommand = None;
        }
        if let (Some(subcommand), Some(flag)) = (subcommand, word.strip_prefix("--")) {
            let flag = flag.split('=').next().unwrap_or_default();
            found.push((subcommand.to_owned(), format!("--{flag}")));
        }
        before = word;
    }
    found
}

fn unknown_flags(text: &str, subcommands: &BTreeSet<String>) -> BTreeSet<String> {
    let lines = command_lines(text);
    let used = lines.iter().flat_map(|line| flags(line, subcommands)).collect::<BTreeSet<_>>();
    let is_unknown = |(subcommand, flag): &(String, String)| {
        let help = help(&[subcommand]);
        !help.split(|c: char| c.is_whitespace() || ",=[]".contains(c)).any(|word| word == flag)
    };
    used.into_iter().filter(is_unknown).map(|(subcommand, flag)| format!("{subcommand} {flag}")).collect()
}

fn variables(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.starts_with("CAROUSEL_") && word.len() > 9).collect()
}

/// Every variable that the program's own source names.
fn known_variables() -> BTreeSet<String> {
    let mut text = String::new();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The tests read what says where their engines are.
    let mut folders = vec![here.join("src"), here.join("tests/deploy")];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() { folders.push(path) } else { text += &fs::read_to_string(path).unwrap() }
        }
    }
    variables(&text).into_iter().map(str::to_owned).collect()
}

#[test]
fn every_flag_in_a_file_to_deploy_is_one_the_program_has() {
    let subcommands = subcommands();
    assert!(subcommands.contains("coordinator") && subcommands.contains("worker"), "{subcommands:?}");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for path in files() {
        let text = fs::read_to_string(&path).unwrap();
        seen += command_lines(&text).iter().map(|line| flags(line, &subcommands).len()).sum::<usize>();
        wrong.extend(
            unknown_flags(&text, &subcommands).into_iter().map(|flag| format!("{}: {flag}", path.display())),
        );
    }
    assert!(seen > 20, "only {seen} flags were found at all");
    assert!(wrong.is_empty(), "the program does not know:\n{}", wrong.join("\n"));
}

#[test]
fn every_variable_in_a_file_to_deploy_is_read_by_the_program_or_beside_it() {
    let known = known_variables();
    assert!(known.contains("CAROUSEL_LOG"), "{known:?}");
    let files: Vec<_> = files().into_iter().map(|path| (fs::read_to_string(&path).unwrap(), path)).collect();
    // `${NAME:-default}`: a script or a Compose file reads it by itself.
    let by_a_shell =
        |text: &str, name: &str| [":-", ":?"].iter().any(|how| text.contains(&format!("${{{name}{how}")));
    // In a unit systemd reads what the unit itself sets.
    let by_systemd = |text: &str, name: &str| {
        text.contains(&format!("Environment={name}=")) && text.contains(&format!("${{{name}}}"))
    };
    let reads = |text: &str, name: &str| by_a_shell(text, name) || by_systemd(text, name);
    let beside = |name: &str| files.iter().any(|(text, _)| reads(text, name));
    let named =
        files.iter().flat_map(|(text, path)| variables(text).into_iter().map(move |name| (name, path)));
    let wrong: Vec<String> = named
        .filter(|(name, _)| !known.contains(*name) && !beside(name))
        .map(|(name, path)| format!("{}: {name}", path.display()))
        .collect();
    assert!(wrong.is_empty(), "nobody reads:\n{}", wrong.join("\n"));
}

#[test]
fn a_misspelt_flag_is_found_in_yaml_in_a_shell_and_in_a_list() {
    let subcommands = subcommands();
    for text in [
        "args:\n  - worker\n  - --thread=4\n  - --threads=4\n",
        "    carousel worker \\\n      --thread 4 --threads 4 | tee --append x\n",
        "test: [\"CMD\", \"/usr/bin/carousel\", \"worker\", \"--thread\"]\n",
    ] {
        assert_eq!(
            unknown_flags(text, &subcommands),
            BTreeSet::from(["worker --thread".to_owned()]),
            "{text}"
        );
    }
}
