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

/// The walk in ARCHITECTURE.md names functions and the files that have them.
#[test]
fn the_walk_through_a_step_names_what_is_there() {
    let text = read("ARCHITECTURE.md");
    let section = between(&text, "## One step", "\n## ");
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains(".rs` |"));
    let mut functions = 0;
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let (file, names) = (quoted(cells[3]), quoted(cells[4]));
        let code = read(file[0]);
        for name in &names {
            assert!(has_function(&code, name), "{}: no fn {name}, which ARCHITECTURE.md names", file[0]);
        }
        functions += names.len();
    }
    assert!(functions > 50, "found only {functions} functions");
}

/// What stands in backticks and begins with a folder of the house is a file or a folder there.
#[test]
fn documents_of_the_code_name_paths_that_are_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders =
        ["src/", "proto/", "model/", "corpus/", "storage/", "security/", "coordinator/", "worker/", "tests/"];
    for document in ["ARCHITECTURE.md", "docs/extending.md"] {
        let text = read(document);
        let paths: Vec<&str> =
            quoted(&text).into_iter().filter(|p| folders.iter().any(|f| p.starts_with(f))).collect();
        assert!(paths.len() > 10, "{document} names only {paths:?}");
        for path in paths.iter().filter(|path| !path.contains("NAME")) {
            assert!(root.join(path).exists(), "{document}: no {path}");
        }
    }
}

/// The drawing beside the protocol has its states, and the functions that go from one to the next.
#[test]
fn the_protocol_is_drawn_as_it_is() {
    let code = read("coordinator/src/protocol/mod.rs");
    let variants = between(&code, "enum Phase {", "\n}").lines().map(str::trim);
    let variants = variants.filter(|line| line.starts_with(char::is_uppercase));
    let name = |line: &str| line.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
    let phases: BTreeSet<String> = variants.map(name).collect();

    let drawing = read("coordinator/src/protocol/README.md");
    let arrows: Vec<&str> =
        between(&drawing, "stateDiagram-v2", "```").lines().filter(|l| l.contains("-->")).collect();
    let ends = arrows.iter().flat_map(|arrow| arrow.split(':').next().unwrap_or_default().split("-->"));
    let drawn: BTreeSet<String> = ends.map(|end| end.trim().to_owned()).filter(|end| end != "[*]").collect();
    let expected: BTreeSet<String> = phases.into_iter().chain(["Boundary".to_owned()]).collect();
    assert_eq!(drawn, expected);

    let mut files = Vec::new();
    rust_files(
        &std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("coordinator/src/protocol"),
        &mut files,
    );
    let all: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    for arrow in arrows.iter().filter(|arrow| !arrow.contains("Over --> [*]")) {
        let functions: Vec<&str> =
            arrow.split('(').skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert!(!functions.is_empty(), "no function goes along {arrow}");
        for function in functions {
            assert!(has_function(&all, function), "no fn {function}, which goes along {arrow}");
        }
    }
}

fn read(path: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands after `from`, up to `to`.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from:?}"));
    rest.split(to).next().unwrap_or_default()
}

/// What stands in backticks, line by line; blocks of code have none.
fn quoted(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with("```"));
    lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
}

fn has_function(code: &str, name: &str) -> bool {
    ["(", "<"].iter().any(|after| code.contains(&format!("fn {name}{after}")))
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
