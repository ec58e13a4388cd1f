//! Clients that mean harm, against the program as it runs: each is refused with its reason, none holds a run up for long,
//! and the weights are those of a quiet run.

mod client;
mod wire;

use std::io::Read;
use std::net::TcpStream;
use std::time::Duration;

use carousel_proto::PROTOCOL_VERSION;
use carousel_proto::v1::{
    Bulk, BulkChunk, BulkStart, FromCoordinator, Hello, Ready, from_coordinator, from_worker::Message,
};
use tonic::Code;

use crate::crew::Crew;
use crate::program::{Running, Workshop};
use client::{Client, hello};
use wire::Wire;

/// Steps for a few seconds, in which all of it happens.
const SETS: &[&str] = &["train.steps=3000", "train.evaluate_every=1000", "cluster.workers=2"];

/// What a coordinator of this small run may take at most, with everything below done to it.
const MOST_RESIDENT_KIB: u64 = 160 << 10;

/// The most memory that a process has had.
fn most_resident_kib(process: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What is heard at a connection until the coordinator closes it.
fn heard(mut stream: TcpStream) -> Vec<u8> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut all = Vec::new();
    match stream.read_to_end(&mut all) {
        Ok(_) => all,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => all,
        Err(error) => panic!("it was not closed: {error}; heard {all:?}"),
    }
}

fn refused(address: &str, message: Message) -> (Code, String) {
    let status = Client::connect(address).session(message).map(|_| ()).unwrap_err();
    (status.code(), status.message().to_owned())
}

/// What a worker's session cannot be, each with the reason that it is told.
fn say_what_is_no_session(address: &str) {
    let other = Hello { protocol: PROTOCOL_VERSION + 1, program_version: "9.9.9".into(), ..hello() };
    let (code, message) = refused(address, Message::Hello(other));
    assert_eq!(code, Code::FailedPrecondition);
    let both = [
        format!("protocol {PROTOCOL_VERSION},"),
        format!("(carousel 9.9.9) speaks {}", PROTOCOL_VERSION + 1),
    ];
    assert!(both.iter().all(|version| message.contains(version)), "{message}");

    let first = refused(address, Message::Ready(Ready::default()));
    assert_eq!(first, (Code::InvalidArgument, "expected Hello as the first message".into()));

    let (code, message) = refused(address, Message::BulkChunk(BulkChunk { data: vec![0; 5 << 20].into() }));
    assert_eq!(code, Code::OutOfRange);
    assert!(message.contains("the limit is: 4194304 bytes"), "{message}");

    let status = Client::connect(address).session_with_a_header_of(20_000).map(|_| ()).unwrap_err();
    assert!(status.message().contains("431"), "{status}");
}

/// More of HTTP/2 than one client may have.
fn overdo_http2(address: &str) {
    let path = "/carousel.v1.Training/FetchWindows";
    let mut wire = Wire::connect(address);
    (0..65).for_each(|turn| wire.request(1 + 2 * turn, path));
    assert_eq!(wire.wait_for(wire::RST_STREAM), (129, wire::REFUSED_STREAM), "the 65th stream");

    let mut wire = Wire::connect(address);
    wire.requests_given_up(500, path);
    assert_eq!(wire.wait_for(wire::GOAWAY).1, wire::ENHANCE_YOUR_CALM);
}

#[test]
fn what_is_no_session_is_refused_with_its_reason_and_the_run_does_not_know_of_it() {
    let shop = Workshop::new();
    let sets = ["train.steps=40", "cluster.workers=1"];
    let mut crew = Crew::start(&shop, None, ("run.toml", "beset"), &sets);
    let address = crew.address().to_owned();

    // Three that say too little are given up after a while, beside the others.
    let silent = TcpStream::connect(&address).unwrap();
    let half = wire::raw(&address, &wire::PREFACE[..20]);
    let client = Client::connect(&address);
    let without_hello = std::thread::spawn(move || client.session_without_a_word().map(|_| ()).unwrap_err());

    let goodbye = heard(wire::raw(&address, b"GET /metrics HTTP/1.1\r\n\r\n"));
    assert_eq!(goodbye[9..][3], wire::GOAWAY, "after empty settings: {goodbye:?}");
    heard(wire::raw(&address, &[0xff; 70_000]));
    crew.coordinator.wait_for("was refused: expected HTTP/2, found");
    say_what_is_no_session(&address);
    overdo_http2(&address);

    assert_eq!([heard(silent), heard(half)], [b"", b""]);
    crew.coordinator.wait_for("was refused: no handshake within 10 s");
    let status = without_hello.join().unwrap();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "expected Hello within 10 s, found nothing");

    assert!(!crew.coordinator.printed().contains("joined"), "{}", crew.story());
    let most = most_resident_kib(&crew.coordinator);
    assert!(most < MOST_RESIDENT_KIB, "{most} KiB");
    crew.add_worker(None);
    assert_eq!(crew.digest(), shop.trained("quiet", &["--set", "train.steps=40"]), "{}", crew.story());
}

/// The reason that a session's last message gives for its end.
fn reason(said: &[FromCoordinator]) -> &str {
    match said.last().and_then(|last| last.message.as_ref()) {
        Some(from_coordinator::Message::Shutdown(shutdown)) => &shutdown.reason,
        _ => panic!("expected Shutdown as the last message, found {said:?}"),
    }
}

/// Joins three times: never to read, never to answer, and to announce a terabyte where the run's gradient has some thousand
/// bytes. Gives back the first of them.
fn join_badly(address: &str) -> client::Session {
    let deaf = Client::connect(address).session(Message::Hello(hello())).unwrap();
    let mute = Client::connect(address).session(Message::Hello(hello())).unwrap();
    let said = mute.read_out();
    assert!(reason(&said).starts_with("it kept the others waiting for"), "{said:?}");

    let liar = Client::connect(address).session(Message::Hello(hello())).unwrap();
    let kind = Bulk::Partial.into();
    liar.say(Message::BulkStart(BulkStart { kind, bytes: 1 << 40, ..BulkStart::default() }));
    let said = liar.read_out();
    let lie = "it sent what does not fit: a bulk of 1099511627776 bytes was announced where";
    assert!(reason(&said).starts_with(lie), "{said:?}");
    deaf
}

#[test]
fn who_joins_and_does_not_read_or_answer_or_lies_changes_nothing() {
    let shop = Workshop::new();
    let sets: Vec<&str> = SETS.iter().flat_map(|set| ["--set", set]).collect();
    let quiet = shop.trained("quiet", &sets);
    for exchange in ["star", "mesh"] {
        let exchange_set = format!("cluster.exchange={exchange}");
        let mut crew = Crew::start(&shop, None, ("run.toml", exchange), &[SETS, &[&exchange_set]].concat());
        (0..2).for_each(|_| crew.add_worker(None));
        crew.wait_for_step(200);
        let address = crew.address().to_owned();
        let _idle: Vec<Wire> = (0..50).map(|_| Wire::connect(&address)).collect();
        let _deaf = join_badly(&address);
        // The one that never reads; it came first.
        crew.coordinator.wait_for("left        worker 3: it kept the others waiting");
        let steps = crew.commits().last().unwrap().1;
        assert!(steps < 2500, "all of it was done to a run under way: {steps}");
        crew.wait_for_step(2500);
        let most = most_resident_kib(&crew.coordinator);
        assert!(most < MOST_RESIDENT_KIB, "{most} KiB");
        assert_eq!(crew.digest(), quiet, "{exchange}\n{}", crew.story());
    }
}
