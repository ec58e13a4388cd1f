//! A web server of one object, in a thread, that can be told to misbehave. Loopback only.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the server does, and what it saw.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) state: Arc<Mutex<State>>,
}

/// How it behaves from the next request on.
pub(crate) struct State {
    pub(crate) content: Vec<u8>,
    pub(crate) tag: Option<String>,
    /// Each answer ends after so many bytes of its body.
    pub(crate) cut_after: Option<usize>,
    /// As long as it is not zero, `cut_after` holds; counted down with each answer that has a body.
    pub(crate) cuts: usize,
    /// Whether it knows ranges.
    pub(crate) ranges: bool,
    /// Of every answer; anything but 200 comes without a body.
    pub(crate) status: u16,
    /// Every request's first line and its range.
    pub(crate) seen: Vec<String>,
}

impl Server {
    pub(crate) fn start(content: &[u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/text.txt", listener.local_addr().unwrap());
        let state = State {
            content: content.to_vec(),
            tag: Some("\"one\"".into()),
            cut_after: None,
            cuts: 0,
            ranges: true,
            status: 200,
            seen: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        // Ends with the process: each connection is a thread, so that one that waits holds nobody up.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { url, state }
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// The requests that had a body in their answer.
    pub(crate) fn gets(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.seen.iter().filter(|line| line.starts_with("GET")).cloned().collect()
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some((request, headers)) = read_request(&mut reader) {
        let (head, body) = answer(&request, &headers, &mut state.lock().unwrap());
        let mut stream = &stream;
        if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_err() {
            return;
        }
        let promised = head
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.lines().next().and_then(|length| length.trim().parse::<usize>().ok()));
        if !request.starts_with("HEAD") && promised != Some(body.len()) {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, Vec<String>)> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let request = lines.remove(0);
    Some((request, lines))
}

fn header<'a>(headers: &'a [String], name: &str) -> Option<&'a str> {
    let of = |line: &'a String| line.split_once(": ").filter(|(key, _)| key.eq_ignore_ascii_case(name));
    headers.iter().find_map(of).map(|(_, value)| value)
}

/// The head of an answer, and as much of its body as is sent.
fn answer(request: &str, headers: &[String], state: &mut State) -> (String, Vec<u8>) {
    let range = header(headers, "range");
    state.seen.push(format!("{request} {}", range.unwrap_or("whole")));
    if state.status != 200 {
        return (format!("HTTP/1.1 {} no\r\ncontent-length: 0\r\n\r\n", state.status), Vec::new());
    }
    if let (Some(wanted), Some(tag)) = (header(headers, "if-match"), &state.tag)
        && wanted != tag
    {
        return ("HTTP/1.1 412 no\r\ncontent-length: 0\r\n\r\n".into(), Vec::new());
    }
    let tag = state.tag.as_ref().map_or(String::new(), |tag| format!("etag: {tag}\r\n"));
    let length = state.content.len();
    let (start, end) = match range.filter(|_| state.ranges).map(|range| parse(range, length)) {
        Some(range) => range,
        None => (0, length),
    };
    let partial = range.is_some() && state.ranges;
    let status = if partial { "206 Partial Content" } else { "200 OK" };
    let content_range = if partial {
        format!("content-range: bytes {start}-{}/{length}\r\n", end - 1)
    } else {
        String::new()
    };
    let head = format!("HTTP/1.1 {status}\r\n{tag}{content_range}content-length: {}\r\n\r\n", end - start);
    if request.starts_with("HEAD") {
        return (head, Vec::new());
    }
    let sent = match state.cut_after.filter(|_| state.cuts > 0) {
        Some(bytes) => {
            state.cuts -= 1;
            bytes.min(end - start)
        }
        None => end - start,
    };
    (head, state.content[start..start + sent].to_vec())
}

fn parse(range: &str, length: usize) -> (usize, usize) {
    let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let end = end.parse::<usize>().map_or(length, |last| last + 1);
    (start.parse().unwrap(), end.min(length))
}
