//! The tables of docs/metrics.md, from the metrics that are served and the lines that are written. It is compiled for tests
//! alone. To write them anew: `UPDATE_DOCS=1 cargo test --release -p carousel-coordinator metrics_page`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use schemars::{JsonSchema, schema_for};
use serde_json::Value;

use crate::exposition::METRICS;
use crate::metrics::{StepMetrics, TestMetrics, ValidMetrics};
use crate::protocol::{Presence, Stage};

/// Each table, under its heading.
fn tables() -> [(&'static str, String); 5] {
    [
        ("## Prometheus", served()),
        ("### Labels", labels()),
        ("### A committed step", written::<StepMetrics>()),
        ("### A validation", written::<ValidMetrics>()),
        ("### The test at the end", written::<TestMetrics>()),
    ]
}

fn served() -> String {
    let mut table =
        "| metric | type | unit | labels | what it is |\n| --- | --- | --- | --- | --- |\n".to_owned();
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels) = (metric.name, metric.kind.name(), labels.join(", "));
        writeln!(table, "| `{name}` | {kind} | {} | {labels} | {} |", metric.unit, metric.help)
            .expect("a string takes everything");
    }
    table
}

fn labels() -> String {
    let names = |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let (stages, presences) = (names(&Stage::NAMES), names(&Presence::ALL.map(Presence::name)));
    format!(
        "| label | of | values |\n| --- | --- | --- |\n| `state` | `carousel_state` | {stages} |\n\
         | `state` | `carousel_workers` | {presences} |\n"
    )
}

/// The keys of a line.
fn written<T: JsonSchema>() -> String {
    let schema = schema_for!(T);
    let properties = schema.get("properties").and_then(Value::as_object).expect("a line has keys");
    let mut table = "| key | type | unit | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for (key, property) in properties.iter().collect::<BTreeMap<_, _>>() {
        let description = property["description"].as_str().unwrap_or_default().replace('\n', " ");
        let (meaning, unit) = description.split_once(" Unit: ").unwrap_or_else(|| {
            panic!("{key}: say its meaning and its unit above its field, as `Mean loss. Unit: nats a token.`")
        });
        let bare = |text: &str| text.trim_end_matches('.').replace("none", "");
        writeln!(
            table,
            "| `{key}` | {} | {} | {} |",
            kind_of(property),
            bare(unit),
            meaning.trim_end_matches('.')
        )
        .expect("a string takes everything");
    }
    table
}

fn kind_of(property: &Value) -> &'static str {
    let kinds = property["type"].as_array().map_or(std::slice::from_ref(&property["type"]), Vec::as_slice);
    match kinds[0].as_str() {
        Some("integer") => "whole number",
        Some("number") => "number",
        kind => panic!("a kind of figure that this table has no word for: {kind:?}"),
    }
}

/// The page with another table in the place of the first one under a heading.
fn with_table(page: &str, heading: &str, table: &str) -> String {
    let heading = format!("\n{heading}\n");
    let (before, after) = page.split_once(&heading).expect("docs/metrics.md has the heading");
    let begin = after.find("\n| ").expect("a table stands under the heading") + 1;
    let rows = after[begin..].split_inclusive('\n').take_while(|line| line.starts_with('|'));
    let end = begin + rows.map(str::len).sum::<usize>();
    format!("{before}{heading}{}{table}{}", &after[..begin], &after[end..])
}

#[test]
fn the_metrics_page_has_what_is_served_and_what_is_written() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let found = fs::read_to_string(&path).unwrap();
    let page =
        tables().iter().fold(found.clone(), |page, (heading, table)| with_table(&page, heading, table));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        return fs::write(&path, page).unwrap();
    }
    let differs = found.lines().zip(page.lines()).find(|(found, expected)| found != expected);
    assert!(
        found == page,
        "docs/metrics.md is old: run UPDATE_DOCS=1 cargo test --release -p carousel-coordinator metrics_page; \
         the first line that differs: {differs:?}"
    );
}

/// Prometheus' rules for names: a base unit and `_total` at the end.
#[test]
fn a_metric_ends_with_its_unit_and_a_counter_with_total() {
    for metric in METRICS {
        let base = metric.name.trim_end_matches("_total");
        assert_eq!(base != metric.name, metric.kind.name() == "counter", "{}", metric.name);
        assert_eq!(metric.unit == "seconds", base.ends_with("_seconds"), "{}", metric.name);
        assert_eq!(metric.unit.starts_with("nats"), base.ends_with("_nats"), "{}", metric.name);
    }
}
