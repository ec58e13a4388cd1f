//! What Prometheus reads: read here by a parser that forgives nothing, and by promtool where it is installed.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{Running, Workshop};

/// Status line and body of an answer.
fn ask(address: &str, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

fn get(address: &str, path: &str) -> (String, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"))
}

/// A coordinator that waits for a worker, and where its metrics are.
fn waiting(shop: &Workshop) -> (Running, String, String) {
    let arguments = [
        "coordinator",
        "run.toml",
        "--run",
        "run",
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        "--set",
        "train.epochs=5",
    ];
    let mut coordinator = shop.start(&arguments);
    coordinator.wait_for("listening   http://");
    let printed = coordinator.printed();
    let after = |start: &str| printed.lines().find_map(|line| line.strip_prefix(start)).unwrap().to_owned();
    let metrics = after("metrics     http://").replace("/metrics", "");
    (coordinator, after("listening   "), metrics)
}

fn is_name(name: &str) -> bool {
    name.starts_with("carousel_") && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
}

/// Samples by name and labels; panics on whatever the format does not allow.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'));
    let (mut samples, mut types, mut current) = (BTreeMap::new(), BTreeMap::new(), "");
    let mut helped = None;
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty() && !help.contains('\\'), "{line}");
            helped = Some(name);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(helped.take(), Some(name), "HELP comes right before TYPE: {line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(["gauge", "counter"].contains(&kind) && types.insert(name, kind).is_none(), "{line}");
            current = name;
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').map_or((series, None), |(n, l)| (n, Some(l)));
            assert_eq!(name, current, "a sample stands under its TYPE: {line}");
            check_labels(name, labels);
            assert!(
                samples.insert(series.to_owned(), value.parse::<f64>().unwrap()).is_none(),
                "twice: {line}"
            );
        }
    }
    samples
}

/// The labels are those that the table of the metrics says, and need no escape.
fn check_labels(metric: &str, labels: Option<&str>) {
    let labels = labels.map_or("", |labels| labels.strip_suffix('}').unwrap());
    let mut names = Vec::new();
    for label in labels.split_terminator(',') {
        let (name, value) = label.split_once('=').unwrap();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(!value.contains(['"', '\\']), "{label}");
        names.push(name);
    }
    let metric = carousel_coordinator::exposition::METRICS.iter().find(|known| known.name == metric).unwrap();
    assert_eq!(names, metric.labels, "{}", metric.name);
}

fn check_with_promtool(text: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        assert!(std::env::var_os("CI").is_none(), "CI must have promtool (Debian: prometheus)");
        let mut aloud = std::io::stderr();
        return writeln!(aloud, "SKIPPED: promtool (Debian: prometheus) is not installed").unwrap();
    };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn prometheus_reads_a_run_before_its_first_step_and_after() {
    let shop = Workshop::new();
    let (mut coordinator, listening, metrics) = waiting(&shop);
    let (head, text) = get(&metrics, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("text/plain; version=0.0.4"), "{head}");
    let samples = parse(&text);
    assert_eq!(samples["carousel_state{state=\"waiting\"}"], 1.0, "{text}");
    assert!(!samples.contains_key("carousel_loss_nats"), "there is none yet");
    let mut worker = shop.start(&["worker", "--coordinator", &listening, "--threads", "1"]);
    let begun = Instant::now();
    let (samples, text) = loop {
        let (_, text) = get(&metrics, "/metrics");
        let samples = parse(&text);
        if samples["carousel_steps_total"] > 0.0 {
            break (samples, text);
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{text}");
    };
    assert!(samples["carousel_loss_nats"] > 0.0 && samples["carousel_tokens_total"] > 0.0);
    assert_eq!(samples["carousel_workers_joined_total"], 1.0);
    check_with_promtool(&text);
    assert!(coordinator.wait().unwrap().success() && worker.wait().unwrap().success());
}

#[test]
fn health_and_refusals_are_told_by_their_code() {
    let shop = Workshop::new();
    let (_coordinator, _, metrics) = waiting(&shop);
    let (head, body) = get(&metrics, "/healthz");
    assert!(head.starts_with("HTTP/1.1 200 ") && body.starts_with("waiting, step 0 of "), "{head} {body}");
    let (head, _) = get(&metrics, "/etc/passwd");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    let (head, _) = ask(&metrics, "POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 405 ") && head.to_lowercase().contains("allow: get"), "{head}");
    let head = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(20_000));
    let mut stream = TcpStream::connect(&metrics).unwrap();
    // The server may end the connection before it has taken everything.
    let written = stream.write_all(head.as_bytes());
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    assert!(written.is_err() || read.is_err() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(get(&metrics, "/healthz").0.starts_with("HTTP/1.1 200 "), "and it serves on");
    let beyond = ["train", "run.toml", "--run", "other", "--metrics", "0.0.0.0:0"];
    let refused = shop.refused(&beyond);
    assert!(refused.contains("--insecure-metrics"), "{refused}");
    assert!(!shop.path("other").exists(), "nothing is half made");
}

#[test]
fn silent_clients_hold_nothing() {
    let shop = Workshop::new();
    let (_coordinator, _, metrics) = waiting(&shop);
    let silent: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(&metrics).unwrap()).collect();
    let begun = Instant::now();
    let mut stream = TcpStream::connect(&metrics).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(begun.elapsed() > Duration::from_secs(3), "the silent ones did take every place");
    drop(silent);
}

#[test]
fn the_documented_keys_are_those_of_the_lines() {
    let shop = Workshop::new();
    shop.write("test.txt", &shop.read("text.txt")[..400]);
    shop.trained("run", &["--set", "data.test=test.txt"]);
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/metrics.md")).unwrap();
    let (_, lines) = text.split_once("## metrics.jsonl").unwrap();
    let rows = lines.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: std::collections::BTreeSet<&str> = rows.map(|(key, _)| key).collect();
    let metrics = shop.metrics("run");
    let mut found: std::collections::BTreeSet<&str> =
        metrics.iter().flat_map(|line| line.as_object().unwrap().keys().map(String::as_str)).collect();
    // Only NT-ASGD's average has it.
    found.insert("averaged_from");
    assert_eq!(documented, found);
}
