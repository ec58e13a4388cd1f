//! Doors with real processes before and behind them: who is refused, what the refused are told, and that a locked run ends
//! with the bits of an open one. Handshakes in every combination are `security/tests/doors.rs`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use carousel_security::Authority;

use crate::netlab::{self, Lab};
use crate::program::{Running, Workshop, eventually, signal};

/// Steps for some seconds.
const LONG: [&str; 4] = ["--set", "train.steps=1500", "--set", "train.evaluate_every=400"];

/// A workshop with certificates and a token in `certs`.
fn workshop() -> Workshop {
    let shop = Workshop::new();
    let printed = shop.succeed(&["certs", "certs", "--days", "30"]);
    for part in ["coordinator", "worker", "operator", "observer", "token"] {
        assert!(printed.contains(part), "{printed}");
    }
    shop
}

/// A coordinator with these further arguments, and where it listens: ADDR:PORT.
fn coordinator(shop: &Workshop, run: &str, further: &[&str]) -> (Running, String) {
    let arguments = ["coordinator", "run.toml", "--run", run, "--listen", "127.0.0.1:0"];
    let mut command = shop.command(&[&arguments[..], further].concat());
    command.env("CAROUSEL_LOG", "info").env("NO_COLOR", "1");
    let mut coordinator = shop.spawn(command);
    coordinator.wait_for("listening   http");
    let printed = coordinator.printed();
    let line = printed.lines().find(|line| line.starts_with("listening")).unwrap();
    let address = line.rsplit_once("//").unwrap().1.trim().to_owned();
    (coordinator, address)
}

/// A run that begins when a second worker has come, and stands open until then.
const WAITING: [&str; 4] = ["--set", "train.steps=20", "--set", "cluster.workers=2"];
const LOCKED: [&str; 4] = ["--tls", "certs/coordinator", "--token-file", "certs/token"];

fn worker(shop: &Workshop, address: &str, further: &[&str]) -> Command {
    shop.command(&[&["worker", "--coordinator", address, "--threads", "1"][..], further].concat())
}

fn locked_worker(shop: &Workshop, address: &str) -> Command {
    worker(shop, address, &["--tls", "certs/worker", "--token-file", "certs/token"])
}

#[test]
fn a_locked_run_whose_worker_is_killed_ends_with_the_bits_of_the_open_one() {
    let shop = workshop();
    let quiet = shop.trained("quiet", &LONG);
    for exchange in ["mesh", "star"] {
        let exchange_key = format!("cluster.exchange={exchange}");
        let sets = ["--set", &exchange_key, "--set", "cluster.workers=3"];
        let (mut coordinator, address) = coordinator(&shop, exchange, &[&LOCKED[..], &LONG, &sets].concat());
        let mut workers = [(); 3].map(|()| shop.spawn(locked_worker(&shop, &address)));
        coordinator.wait_for("checkpoints/step-00000020");
        signal("KILL", workers[1].id());
        assert_eq!(workers[1].wait().unwrap().code(), None, "it was killed");
        coordinator.wait_for("left        worker");
        assert!(coordinator.wait().unwrap().success(), "{}", coordinator.said());
        for survivor in [0, 2] {
            assert!(workers[survivor].wait().unwrap().success(), "{}", workers[survivor].said());
        }
        assert_eq!(shop.digest(exchange), quiet, "{exchange}");
    }
}

#[test]
fn who_may_not_come_in_is_told_why_and_ends() {
    let shop = Workshop::new();
    // Certificates that expire at once, kept apart; then good ones of the same authority.
    Authority::make(&shop.path("certs"), 0, &[]).unwrap();
    std::fs::rename(shop.path("certs/worker"), shop.path("expired")).unwrap();
    shop.succeed(&["certs", "certs", "--renew", "--days", "30"]);
    shop.succeed(&["certs", "others"]);
    // The authority that the coordinator has, and a certificate of another.
    std::fs::create_dir(shop.path("forged")).unwrap();
    for (from, to) in [("certs/worker", "ca.crt"), ("others/worker", "tls.crt"), ("others/worker", "tls.key")]
    {
        std::fs::copy(shop.path(from).join(to), shop.path("forged").join(to)).unwrap();
    }
    shop.write("short", "too short");
    std::thread::sleep(Duration::from_millis(1100));
    let (mut coordinator, address) = coordinator(&shop, "run", &LOCKED);
    let token = ["--token-file", "certs/token"];
    let cases: [(&[&str], &str); 8] = [
        (&[], "asks for TLS and a certificate: give --tls"),
        (&["--tls", "others/worker"], "the other side's certificate is of another authority"),
        (&["--tls", "forged"], "this side's certificate is of another authority"),
        (&["--tls", "expired"], "this side's certificate has expired: carousel certs DIR --renew"),
        (&["--tls", "certs/observer"], "expected the worker's certificate, found observer's"),
        (&["--tls", "certs/worker"], "asks for its join token: give --token-file"),
        (&["--tls", "certs/worker", "--token-file", "others/token"], "the join token is not this run's"),
        (&["--tls", "certs/worker", "--token-file", "short"], "the token has 9 bytes"),
    ];
    for (further, because) in cases {
        let arguments = [&["worker", "--coordinator", &address][..], further].concat();
        let message = shop.refused(&arguments);
        assert!(message.contains(because), "{further:?}: {message:?} does not say {because:?}");
    }
    assert!(!coordinator.printed().contains("joined"), "{}", coordinator.printed());
    // The door is as it was for who belongs here.
    let mut good = shop.spawn(worker(&shop, &address, &[&["--tls", "certs/worker"][..], &token].concat()));
    assert!(coordinator.wait().unwrap().success(), "{}", coordinator.said());
    assert!(good.wait().unwrap().success(), "{}", good.said());
}

#[test]
fn tls_at_a_plain_port_is_told_so() {
    let shop = workshop();
    let (_coordinator, address) = coordinator(&shop, "run", &[]);
    let message = shop.refused(&["worker", "--coordinator", &address, "--tls", "certs/worker"]);
    assert!(message.contains("speaks no TLS: give both sides --tls, or neither"), "{message}");
}

#[test]
fn nobody_goes_beyond_this_machine_unlocked_unless_that_is_said() {
    let shop = workshop();
    let listen = ["coordinator", "run.toml", "--run", "new", "--listen", "0.0.0.0:0"];
    let connect = ["worker", "--coordinator", "192.0.2.1:7700"];
    for arguments in [&listen[..], &connect] {
        let message = shop.refused(arguments);
        assert!(message.contains("--tls DIR") && message.contains("--insecure"), "{message}");
    }
    assert!(!shop.path("new").exists());
    let mut open = shop.start(&[&listen[..], &["--insecure"]].concat());
    open.wait_for("listening   http://0.0.0.0:");
    assert!(open.said().contains("insecure"), "{}", open.said());
}

/// What came in over a connection, kept while it is passed on.
fn recording(to: String) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, heard) = (listener.local_addr().unwrap().to_string(), Arc::<Mutex<Vec<u8>>>::default());
    let kept = heard.clone();
    std::thread::spawn(move || {
        let (mut from, _) = listener.accept().unwrap();
        let mut on = TcpStream::connect(to).unwrap();
        on.set_nodelay(true).unwrap();
        from.set_nodelay(true).unwrap();
        let (mut back_from, mut back_to) = (on.try_clone().unwrap(), from.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to).unwrap_or_default());
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            kept.lock().unwrap().extend(&bytes[..count]);
            if on.write_all(&bytes[..count]).is_err() {
                return;
            }
        }
    });
    (address, heard)
}

/// Without TLS everything can be heard; the answer to a challenge is of no use to who hears it, and the token is not in it.
#[test]
fn a_join_that_was_overheard_cannot_be_said_again() {
    let shop = workshop();
    let token = ["--token-file", "certs/token"];
    let (mut coordinator, address) = coordinator(&shop, "run", &[&token[..], &WAITING].concat());
    let (proxy, heard) = recording(address.clone());
    let mut joined = shop.spawn(worker(&shop, &proxy, &token));
    coordinator.wait_for("joined      worker 1");
    let overheard = heard.lock().unwrap().clone();
    let secret = shop.read("certs/token");
    assert!(!overheard.windows(8).any(|part| part == &secret.as_bytes()[..8]), "the token is not in it");
    let mut again = TcpStream::connect(&address).unwrap();
    again.write_all(&overheard).unwrap();
    coordinator.wait_for("was refused: the challenge was answered before, or was never made");
    assert!(!coordinator.printed().contains("joined      worker 2"), "{}", coordinator.printed());
    let mut second = shop.spawn(worker(&shop, &address, &token));
    assert!(coordinator.wait().unwrap().success(), "{}", coordinator.said());
    assert!(joined.wait().unwrap().success() && second.wait().unwrap().success());
}

/// The TCP ports that a process listens at.
fn ports(id: u32) -> Vec<u16> {
    let links = std::fs::read_dir(format!("/proc/{id}/fd")).unwrap();
    let links = links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let sockets: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let table = std::fs::read_to_string(format!("/proc/{id}/net/tcp")).unwrap();
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let own = fields.len() > 9 && sockets.contains(&format!("socket:[{}]", fields[9]));
        (own && fields[3] == "0A")
            .then(|| u16::from_str_radix(fields[1].rsplit_once(':').unwrap().1, 16).unwrap())
    };
    table.lines().filter_map(port).collect()
}

#[test]
fn a_worker_lets_in_who_has_a_worker_s_certificate_alone() {
    let shop = workshop();
    let (mut coordinator, address) = coordinator(&shop, "run", &[&LOCKED[..], &WAITING].concat());
    let working = shop.spawn(locked_worker(&shop, &address));
    coordinator.wait_for("joined      worker 1");
    let port = eventually(|| ports(working.id()).first().copied()).unwrap();
    let mut plain = TcpStream::connect(("127.0.0.1", port)).unwrap();
    plain.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    let mut said = [0; 1];
    plain.read_exact(&mut said).unwrap();
    assert_eq!(said, [0x15], "an alert of TLS");
    shop.succeed(&["certs", "others"]);
    let there = format!("127.0.0.1:{port}");
    let message = shop.refused(&["worker", "--coordinator", &there, "--tls", "others/worker"]);
    assert!(message.contains("of another authority"), "{message}");
    // A worker that is sent to another as if that were its coordinator does not talk to it.
    let message = shop.refused(&["worker", "--coordinator", &there, "--tls", "certs/worker"]);
    assert!(message.contains("is no coordinator: its certificate is worker's"), "{message}");
    let _second = shop.spawn(locked_worker(&shop, &address));
    assert!(coordinator.wait().unwrap().success(), "{}", coordinator.said());
}

#[test]
fn renewed_certificates_are_taken_up_by_a_run_under_way_and_a_newcomer() {
    let shop = workshop();
    let (mut coordinator, address) =
        coordinator(&shop, "run", &[&LOCKED[..], &["--set", "train.steps=6000"]].concat());
    let mut first = shop.spawn(locked_worker(&shop, &address));
    coordinator.wait_for("joined      worker 1");
    let before = shop.read("certs/worker/tls.crt");
    shop.succeed(&["certs", "certs", "--renew"]);
    assert_ne!(shop.read("certs/worker/tls.crt"), before);
    std::thread::sleep(Duration::from_millis(1100));
    let mut late = shop.spawn(locked_worker(&shop, &address));
    coordinator.wait_for("joined      worker 2");
    assert!(coordinator.said().contains("certs/coordinator: renewed"), "{}", coordinator.said());
    assert!(coordinator.wait().unwrap().success(), "{}", coordinator.said());
    assert!(first.wait().unwrap().success() && late.wait().unwrap().success());
}

#[test]
fn no_secret_is_in_a_log_however_much_is_logged() {
    let shop = workshop();
    let arguments = ["coordinator", "run.toml", "--run", "run", "--listen", "127.0.0.1:0"];
    let steps = ["--set", "train.steps=3"];
    let mut command = shop.command(&[&arguments[..], &LOCKED, &steps].concat());
    command.env("CAROUSEL_LOG", "trace");
    let mut coordinator = shop.spawn(command);
    coordinator.wait_for("listening   https://");
    let printed = coordinator.printed();
    let address = printed.lines().find_map(|line| line.strip_prefix("listening   https://")).unwrap().trim();
    let mut command = locked_worker(&shop, address);
    command.env("CAROUSEL_LOG", "trace");
    let mut working = shop.spawn(command);
    assert!(coordinator.wait().unwrap().success() && working.wait().unwrap().success());
    let logs = coordinator.printed() + &coordinator.said() + &working.printed() + &working.said();
    assert!(logs.contains("TRACE"), "it was logged");
    let keys =
        ["certs/coordinator/tls.key", "certs/worker/tls.key", "certs/token"].map(|file| shop.read(file));
    for secret in keys.iter().flat_map(|key| key.lines()).filter(|line| !line.starts_with("-----")) {
        assert!(!logs.contains(secret.trim()), "a secret is in a log");
    }
}

/// Tokens a second of a run of two workers whose gradients go over TCP, each on a host of its own.
fn speed(shop: &Workshop, lab: &Lab, run: &str, locks: [&[&str]; 2]) -> f64 {
    let listen = format!("{}:7700", netlab::address(0));
    let sets =
        ["model.hidden=650", "model.embedding=650", "train.streams=20", "train.window=35", "train.lanes=4"];
    let sets = sets.into_iter().chain(["train.steps=24", "train.evaluate_every=1000", "cluster.workers=2"]);
    let sets: Vec<&str> = sets.chain(["cluster.exchange=mesh"]).flat_map(|set| ["--set", set]).collect();
    let arguments = ["coordinator", "run.toml", "--run", run, "--listen", &listen];
    let command = shop.command(&[&arguments[..], locks[0], &sets].concat());
    let mut coordinator = shop.spawn(lab.on(0, &command));
    coordinator.wait_for("listening   http");
    let work = |host| shop.spawn(lab.on(host, &worker(shop, &listen, locks[1])));
    let mut workers = [work(1), work(2)];
    assert!(coordinator.wait().unwrap().success(), "{}", coordinator.said());
    for worker in &mut workers {
        assert!(worker.wait().unwrap().success(), "{}", worker.said());
    }
    let steps = shop.metrics(run).into_iter().filter(|line| line.get("loss").is_some());
    let mut speeds: Vec<f64> =
        steps.map(|line| line["tokens"].as_f64().unwrap() / line["seconds"].as_f64().unwrap()).collect();
    assert!(speeds.len() >= 20, "{speeds:?}");
    speeds.sort_by(f64::total_cmp);
    speeds[speeds.len() / 2]
}

/// A measurement, for a machine that does nothing else (docs/security.md).
#[test]
#[ignore = "measures; run it alone"]
fn what_tls_costs() {
    let Some(lab) = Lab::open(3) else { return };
    let shop = workshop();
    let (open, locked) =
        ([&["--insecure"][..]; 2], [&LOCKED[..], &["--tls", "certs/worker", "--token-file", "certs/token"]]);
    for pair in 0..3 {
        let without = speed(&shop, &lab, &format!("open-{pair}"), open);
        let with = speed(&shop, &lab, &format!("locked-{pair}"), locked);
        println!("pair {pair}: {without:.0} tokens/s without TLS, {with:.0} with: {:.3}", with / without);
    }
}
