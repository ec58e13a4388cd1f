//! docs/configuration.md: every key with its type, unit, default and meaning, from the types that read the configuration.
//! It is compiled for tests alone. A key without a meaning, and a number without a unit, fail; so does a page that is old.
//! To write it anew: `UPDATE_DOCS=1 cargo test --release --bin carousel configuration_page`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::Config;

/// A key of the configuration, or of one kind of a table with `kind`.
struct Key {
    /// As `--set` takes it.
    name: String,
    /// The kind whose option it is.
    kind: Option<String>,
    shape: String,
    unit: String,
    default: String,
    meaning: String,
}

/// Everything that can be said in a configuration.
#[derive(Default)]
struct Reference {
    keys: Vec<Key>,
    /// The kinds of a key, with their meanings.
    kinds: BTreeMap<String, Vec<(String, String)>>,
}

fn reference() -> Reference {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let schema = settings.into_generator().into_root_schema_for::<Config>();
    let mut reference = Reference::default();
    reference.table(schema.as_value(), "", None);
    reference
}

impl Reference {
    /// The properties of a table.
    fn table(&mut self, schema: &Value, prefix: &str, kind: Option<&str>) {
        let Some(properties) = schema["properties"].as_object() else { return };
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        let properties = properties.iter().collect::<BTreeMap<_, _>>().into_iter();
        for (name, property) in properties.filter(|(name, _)| *name != "kind") {
            let is_required = required.iter().any(|required| required == name);
            self.property(&format!("{prefix}{name}"), property, is_required, kind);
        }
    }

    fn property(&mut self, name: &str, schema: &Value, is_required: bool, kind: Option<&str>) {
        let (meaning, unit) = meaning_and_unit(text(&schema["description"]));
        let default = match schema.get("default") {
            _ if is_required => "must be given".into(),
            Some(default) => shown(default, schema),
            None => "none".into(),
        };
        let shape = shape(schema);
        let key = Key { name: name.into(), kind: kind.map(Into::into), shape, unit, default, meaning };
        self.keys.push(key);
        for choice in choices(schema) {
            match kind_of(choice) {
                Some(kind) => {
                    let (meaning, _) = meaning_and_unit(text(&choice["description"]));
                    self.kinds.entry(name.into()).or_default().push((kind.into(), meaning));
                    self.table(choice, &format!("{name}."), Some(kind));
                }
                None => self.table(choice, &format!("{name}."), kind),
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// `Rows of the batch. Unit: streams.` is `Rows of the batch` and `streams`.
fn meaning_and_unit(description: &str) -> (String, String) {
    let description = description.replace('\n', " ");
    let (meaning, unit) = description.split_once(" Unit: ").unwrap_or((&description, ""));
    let bare = |text: &str| text.trim().trim_end_matches('.').to_owned();
    (bare(meaning), bare(unit))
}

/// The schemas that a value may follow, without the one of nothing.
fn choices(schema: &Value) -> Vec<&Value> {
    let several = ["anyOf", "oneOf"].iter().find_map(|word| schema[word].as_array());
    match several {
        Some(several) => several.iter().filter(|choice| choice["type"] != "null").flat_map(choices).collect(),
        None => vec![schema],
    }
}

/// The kind that a table is of.
fn kind_of(schema: &Value) -> Option<&str> {
    schema["properties"]["kind"]["const"].as_str()
}

/// How a value is written.
fn shape(schema: &Value) -> String {
    let choices = choices(schema);
    let kinds = choices.iter().filter(|choice| kind_of(choice).is_some()).count();
    let mut shapes: Vec<String> = Vec::new();
    for choice in choices {
        let shape = match kind_of(choice) {
            Some(_) if kinds > 0 => "a kind, or a table with `kind`".into(),
            _ => simple_shape(choice),
        };
        if !shapes.contains(&shape) {
            shapes.push(shape);
        }
    }
    shapes.join(", ")
}

fn simple_shape(schema: &Value) -> String {
    if let Some(name) = schema["const"].as_str() {
        return match text(&schema["description"]) {
            "" => format!("`{name}`"),
            meaning => format!("`{name}` ({meaning})"),
        };
    }
    if let Some(names) = schema["enum"].as_array() {
        let names: Vec<String> = names.iter().map(|name| format!("`{}`", text(name))).collect();
        return names.join(", ");
    }
    let types = &schema["type"];
    let name = types.as_str().or_else(|| types.as_array()?.iter().map(text).find(|name| *name != "null"));
    match name.expect("a schema says what it is of") {
        "integer" => "whole number".into(),
        "boolean" => "`true`, `false`".into(),
        "string" => "text".into(),
        "object" => "table".into(),
        "array" => format!("list of {}s", simple_shape(&schema["items"])),
        other => other.into(),
    }
}

/// A default as one would write it.
fn shown(default: &Value, schema: &Value) -> String {
    match default {
        Value::Null => "none".into(),
        Value::Array(list) if list.is_empty() => "none".into(),
        Value::Object(table) if table.is_empty() => "none".into(),
        Value::Object(table) if table.contains_key("kind") => of_kind(table, schema),
        Value::Object(_) => "as below".into(),
        _ => format!("`{}`", written(default)),
    }
}

/// The kind alone where its options are those that it has anyway.
fn of_kind(table: &Map<String, Value>, schema: &Value) -> String {
    let kind = text(&table["kind"]);
    let choices = choices(schema);
    let own = choices.iter().find(|choice| kind_of(choice) == Some(kind)).expect("a default is of a kind");
    let differs = |(name, value): &(&String, &Value)| {
        *name != "kind" && own["properties"][name.as_str()]["default"] != **value
    };
    let options: String =
        table.iter().filter(differs).map(|(name, value)| format!(", {name} = {}", written(value))).collect();
    if options.is_empty() { format!("`{kind:?}`") } else { format!("`{{ kind = {kind:?}{options} }}`") }
}

fn written(value: &Value) -> String {
    match value.as_f64() {
        // What was an f32 is shown as one: 0.08, not 0.07999999821186066.
        Some(number) if value.is_f64() && f64::from(number as f32) == number => {
            format!("{:?}", number as f32)
        }
        _ => value.to_string(),
    }
}

/// The page's beginning.
const HEAD: &str = "# Configuration

A run is a TOML file. Every key can be set on the command line as well, as `--set train.window=35`; a name that stands for a table with `kind`
makes room for its options (`--set train.optimizer=adamw --set train.optimizer.weight_decay=0.1`). A key that is not here is refused. The resolved
file, with absolute paths, is kept with the run as `config.toml`. Relative paths are relative to the working directory.

This page is written from the types that read a configuration: `UPDATE_DOCS=1 cargo test --release --bin carousel configuration_page`.
";

/// The page: the keys outside of tables, then a section for each table.
fn page(reference: &Reference) -> String {
    let mut page = HEAD.to_owned();
    let is_section = |key: &Key| key.shape == "table" && !key.name.contains('.');
    let alone = reference.keys.iter().filter(|key| !key.name.contains('.') && !is_section(key));
    rows(&mut page, alone);
    for section in reference.keys.iter().filter(|key| is_section(key)) {
        let prefix = format!("{}.", section.name);
        write!(page, "\n## `[{}]`\n\n{}.\n", section.name, section.meaning)
            .expect("a string takes everything");
        let inside = |key: &&Key| key.name.starts_with(&prefix) && key.kind.is_none();
        rows(&mut page, reference.keys.iter().filter(inside));
        for (name, kinds) in reference.kinds.iter().filter(|(name, _)| name.starts_with(&prefix)) {
            kind_rows(&mut page, name, kinds, &reference.keys);
        }
    }
    page
}

fn rows<'a>(page: &mut String, keys: impl Iterator<Item = &'a Key>) {
    page.push_str("\n| key | type | unit | default | meaning |\n| --- | --- | --- | --- | --- |\n");
    for Key { name, shape, unit, default, meaning, .. } in keys {
        writeln!(page, "| `{name}` | {shape} | {} | {default} | {meaning} |", unit_shown(unit))
            .expect("a string takes everything");
    }
}

fn kind_rows(page: &mut String, name: &str, kinds: &[(String, String)], keys: &[Key]) {
    write!(page, "\n### `{name}`\n\n| kind | option | type | unit | default | meaning |\n")
        .expect("a string takes everything");
    page.push_str("| --- | --- | --- | --- | --- | --- |\n");
    let prefix = format!("{name}.");
    for (kind, meaning) in kinds {
        writeln!(page, "| `{kind}` | | | | | {meaning} |").expect("a string takes everything");
        for key in keys.iter().filter(|key| key.kind.as_ref() == Some(kind)) {
            let Some(option) = key.name.strip_prefix(&prefix) else { continue };
            let Key { shape, unit, default, meaning, .. } = key;
            writeln!(page, "| | `{option}` | {shape} | {} | {default} | {meaning} |", unit_shown(unit))
                .expect("a string takes everything");
        }
    }
}

fn unit_shown(unit: &str) -> &str {
    if unit == "none" { "" } else { unit }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_configuration_page_is_what_the_types_say() {
    let (path, page) = (root().join("docs/configuration.md"), page(&reference()));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(page.lines()).find(|(found, expected)| found != expected);
    assert!(
        found == page,
        "docs/configuration.md is old: run UPDATE_DOCS=1 cargo test --release --bin carousel configuration_page; \
         the first line that differs: {differs:?}"
    );
}

#[test]
fn every_key_and_kind_has_a_meaning_and_every_number_a_unit() {
    let Reference { keys, kinds } = reference();
    assert!(keys.len() > 60, "{} keys", keys.len());
    for key in &keys {
        assert!(!key.meaning.is_empty(), "{} has no meaning: say it above its field", key.name);
        let is_number = ["number", "whole number", "list of whole numbers"].contains(&key.shape.as_str())
            || key.shape.starts_with("whole number,");
        assert_eq!(
            is_number,
            !key.unit.is_empty(),
            "{}: {}. A number ends its meaning with `Unit: steps.`, or `Unit: none.`; nothing else has one",
            key.name,
            key.shape
        );
    }
    let silent = kinds.iter().flat_map(|(name, kinds)| kinds.iter().map(move |kind| (name, kind)));
    for (name, (kind, meaning)) in silent {
        assert!(!meaning.is_empty(), "{name}: kind {kind} has no meaning: say it above its variant");
    }
}

/// Whether a word is `section.key`, and not the name of a file.
fn is_key(word: &str) -> bool {
    let sections = ["data", "model", "train", "cluster", "output", "sample"];
    let endings = ["rs", "md", "toml", "json", "safetensors", "onnx", "txt", "py", "lua"];
    let (section, rest) = word.split_once('.').unwrap_or_default();
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    sections.contains(&section)
        && rest.split('.').all(is_name)
        && !endings.iter().any(|ending| rest.ends_with(ending))
}

/// The keys that a document has between backticks, but for Python.
fn named_in_document(text: &str) -> BTreeSet<String> {
    let blocks = text.split("```").map(|block| if block.starts_with("python") { "" } else { block });
    let text = blocks.collect::<Vec<_>>().join("```");
    let quoted = text.split('`').skip(1).step_by(2);
    let words =
        quoted.flat_map(|piece| piece.split(|c: char| !(c.is_ascii_alphanumeric() || "._/-".contains(c))));
    words.map(|word| word.trim_end_matches('.')).filter(|word| is_key(word)).map(str::to_owned).collect()
}

/// The keys that stand alone in a string of the code, as messages name them.
fn named_in_code(text: &str) -> BTreeSet<String> {
    text.split('"').filter(|piece| is_key(piece)).map(str::to_owned).collect()
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let of = |path: PathBuf| match path.is_dir() {
        true => files(&path, ending),
        false => Vec::from_iter(path.to_str().is_some_and(|name| name.ends_with(ending)).then_some(path)),
    };
    entries.flat_map(of).collect()
}

#[test]
fn documents_and_messages_name_only_keys_that_there_are() {
    let known: BTreeSet<String> = reference().keys.into_iter().map(|key| key.name).collect();
    let root = root();
    let mut documents = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    documents
        .extend(["docs", "deploy", "recipes"].iter().flat_map(|folder| files(&root.join(folder), ".md")));
    let code = files(&root.join("src"), ".rs");
    let read = |path: &PathBuf| fs::read_to_string(path).unwrap();
    let named = documents.iter().map(|path| (path, named_in_document(&read(path))));
    let mut seen = 0;
    for (path, keys) in named.chain(code.iter().map(|path| (path, named_in_code(&read(path))))) {
        for key in keys {
            assert!(known.contains(&key), "{}: {key} is no key of the configuration", path.display());
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} keys were found");
}
