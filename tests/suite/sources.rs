//! Where text comes from, through the whole program: whatever it is stored as, the same text is the same run.

use std::io::Write;

use flate2::write::GzEncoder;

use crate::program::Workshop;

/// `text` cut behind every fourth line, a JSON object for each part.
fn json_lines(text: &str) -> String {
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let document = |part: &[&str]| serde_json::json!({ "id": 1, "body": part.concat() }).to_string() + "\n";
    lines.chunks(4).map(document).collect()
}

fn gzipped(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_same_text_is_the_same_run_whatever_it_is_stored_as() {
    let shop = Workshop::new();
    let text = shop.read("text.txt");
    shop.write("text.jsonl", &json_lines(&text));
    std::fs::write(shop.path("text.gz"), gzipped(&text)).unwrap();
    std::fs::write(shop.path("lines.jsonl.gz"), gzipped(&json_lines(&text))).unwrap();
    let whole = shop.trained("whole", &["--set", "train.steps=3"]);
    for (run, file, workers) in
        [("lines", "text.jsonl", 3), ("gz", "text.gz", 1), ("both", "lines.*.gz", 3), ("glob", "te*.gz", 1)]
    {
        let sets = [format!("data.train={file}"), format!("cluster.workers={workers}")];
        let mut further = vec!["--set", "train.steps=3", "--set", "data.field=body"];
        further.extend(sets.iter().flat_map(|set| ["--set", set]));
        assert_eq!(shop.trained(run, &further), whole, "{file}");
    }
    let evaluated = |file: &str| {
        let json = shop.succeed(&["evaluate", "lines", "--text", file, "--json"]);
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["loss"].clone()
    };
    assert_eq!(evaluated("text.gz"), evaluated("text.txt"));
    assert_eq!(evaluated("text.jsonl"), evaluated("text.txt"));
}

#[test]
fn a_text_that_cannot_be_read_is_refused_before_anything_is_made() {
    let shop = Workshop::new();
    shop.write("bad.jsonl", "{\"text\": \"a\"}\n{\"text\": 1}\n");
    std::fs::write(shop.path("cut.gz"), &gzipped(&shop.read("text.txt"))[..100]).unwrap();
    shop.write("x.parquet", "PAR1");
    let cases = [
        ("data.train=bad.jsonl", "bad.jsonl, line 2: \"text\" is a number, expected a string"),
        ("data.train=cut.gz", "cut.gz: the gzip stream is cut off"),
        ("data.format=csv", "data.format: found \"csv\", expected auto, text, jsonl or parquet"),
        ("data.train=ftp://host/x", "ftp://host/x: the scheme \"ftp\" is unknown; expected a path, s3://"),
        ("data.train=no*.txt", "matches"),
        #[cfg(not(feature = "parquet"))]
        (
            "data.train=x.parquet",
            "x.parquet: this build does not read Parquet; build it with: cargo build --release --features parquet",
        ),
        #[cfg(feature = "parquet")]
        ("data.train=x.parquet", "x.parquet: not a whole Parquet file"),
        #[cfg(not(feature = "cloud"))]
        (
            "data.train=s3://b/x",
            "this build does not open s3:// addresses; build it with: cargo build --release --features cloud",
        ),
    ];
    for (set, expected) in cases {
        let message = shop.refused(&["train", "run.toml", "--run", "new", "--set", set]);
        assert!(message.contains(expected), "{set}: {message}");
        assert!(!shop.path("new").exists(), "{set}");
    }
}

#[cfg(feature = "cloud")]
mod cloud {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Serves one text on loopback, with ranges; breaks its first answer with a body off in the middle.
    fn serve(text: String) -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/text.txt", listener.local_addr().unwrap());
        let answers = Arc::new(AtomicUsize::new(0));
        let counted = answers.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (text, answers) = (text.clone(), counted.clone());
                std::thread::spawn(move || answer(&stream, text.as_bytes(), &answers));
            }
        });
        (url, answers)
    }

    fn answer(stream: &TcpStream, text: &[u8], answers: &AtomicUsize) {
        let lines: Vec<String> = BufReader::new(stream)
            .lines()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .collect();
        let range = lines
            .iter()
            .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
        let start = range.as_ref().map_or(0, |range| range.split('-').next().unwrap().parse().unwrap());
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        let place = format!("content-range: bytes {start}-{}/{}\r\n", text.len() - 1, text.len());
        let place = if range.is_some() { place } else { String::new() };
        let length = text.len() - start;
        let mut out = stream;
        let head =
            format!("HTTP/1.1 {status}\r\n{place}content-length: {length}\r\nconnection: close\r\n\r\n");
        out.write_all(head.as_bytes()).unwrap();
        if lines[0].starts_with("GET") {
            let first = answers.fetch_add(1, Ordering::SeqCst) == 0;
            let end = if first { start + length / 2 } else { text.len() };
            out.write_all(&text[start..end]).unwrap();
        }
    }

    #[test]
    fn a_text_behind_an_address_is_the_same_run_though_its_connection_breaks() {
        let shop = Workshop::new();
        let whole = shop.trained("whole", &["--set", "train.steps=3"]);
        let (url, answers) = serve(shop.read("text.txt"));
        let train = format!("data.train={url}");
        assert_eq!(shop.trained("web", &["--set", "train.steps=3", "--set", &train]), whole);
        assert_eq!(answers.load(Ordering::SeqCst), 2, "the connection broke once");
        let train = format!("data.train={}", url.replace("text.txt", "text.txt/"));
        let message = shop.refused(&["train", "run.toml", "--run", "new", "--set", &train]);
        assert!(message.contains("does not list what it has"), "{message}");
    }
}
