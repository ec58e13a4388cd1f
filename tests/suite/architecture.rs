//! The house's arrows: who may know whom, from what cargo itself says.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Normal and build dependencies of each package of the workspace.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let metadata = MetadataCommand::new().no_deps().other_options(["--offline".to_owned()]).exec().unwrap();
    let outside_of_tests = |kind: DependencyKind| kind != DependencyKind::Development;
    let of = |package: &cargo_metadata::Package| {
        let names = package.dependencies.iter().filter(|d| outside_of_tests(d.kind)).map(|d| d.name.clone());
        (package.name.to_string(), names.collect())
    };
    metadata.packages.iter().map(of).collect()
}

fn of_the_house(all: &BTreeMap<String, BTreeSet<String>>, package: &str) -> Vec<String> {
    all[package].iter().filter(|name| all.contains_key(*name)).cloned().collect()
}

#[test]
fn the_arrows_are_those_of_the_design() {
    let all = dependencies();
    let none: [&str; 0] = [];
    for package in
        ["carousel-model", "carousel-corpus", "carousel-proto", "carousel-security", "carousel-storage"]
    {
        assert_eq!(of_the_house(&all, package), none, "{package} knows nobody");
    }
    let [corpus, model, proto, security] =
        ["corpus", "model", "proto", "security"].map(|name| format!("carousel-{name}"));
    assert_eq!(of_the_house(&all, "carousel-coordinator"), [corpus, proto.clone(), security.clone()]);
    assert_eq!(of_the_house(&all, "carousel-worker"), [model, proto, security]);
    let everyone = ["coordinator", "corpus", "model", "proto", "security", "storage", "worker"]
        .map(|name| format!("carousel-{name}"));
    assert_eq!(of_the_house(&all, "carousel"), everyone);
    // What fuzzes the decoders knows whoever has some; nobody knows it.
    assert!(
        all.iter().all(|(package, names)| package == "carousel-fuzz" || !names.contains("carousel-fuzz"))
    );
    assert_eq!(all.len(), 9, "a package that this test does not know: {:?}", all.keys());
}

#[test]
fn only_coordinator_worker_security_and_storage_know_the_network() {
    let network =
        ["tokio", "tokio-stream", "tonic", "tonic-prost", "tonic-prost-build", "hyper", "h2", "reqwest"];
    let knows = |names: &BTreeSet<String>| network.iter().any(|n| names.contains(*n));
    let who: Vec<String> =
        dependencies().into_iter().filter(|(_, names)| knows(names)).map(|(p, _)| p).collect();
    assert_eq!(who, ["carousel-coordinator", "carousel-security", "carousel-storage", "carousel-worker"]);
}

/// `unsafe` lives in `model/src/kernels` alone, and each block says why it is sound.
#[test]
fn unsafe_is_kept_in_the_kernels() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders =
        ["src", "proto", "model", "corpus", "coordinator", "worker", "storage", "security", "tests"];
    let mut files = Vec::new();
    folders.iter().for_each(|folder| rust_files(&root.join(folder), &mut files));
    assert!(files.len() > 40, "found only {files:?}");
    let word = ["un", "safe"].concat();
    for file in files.iter().filter(|f| !f.starts_with(root.join("model/src/kernels"))) {
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        let opens = [
            format!("{word} {{"),
            format!("{word} fn"),
            format!("{word} impl"),
            format!("allow({word}_code"),
        ];
        let found = code.into_iter().find(|line| opens.iter().any(|open| line.contains(open)));
        assert_eq!(found, None, "{}", file.display());
    }
}

fn rust_files(folder: &std::path::Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|e| e == "rs") {
            files.push(path);
        }
    }
}
