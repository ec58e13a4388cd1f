//! Addresses where no coordinator is: each is told in its own words, within seconds.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::program::Workshop;

const SOON: Duration = Duration::from_secs(30);

/// Exit code and message.
fn asked(shop: &Workshop, address: &str) -> (i32, String) {
    let begun = Instant::now();
    let output = shop.run(&["status", address]);
    assert!(begun.elapsed() < SOON, "{address} took {:?}", begun.elapsed());
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn an_address_that_is_none_is_bad_input() {
    let shop = Workshop::new();
    for wrong in ["localhost", "no port:x", ":7700", "http://"] {
        let (code, said) = asked(&shop, wrong);
        assert!(code == 2 && said.contains("expected HOST:PORT"), "{wrong}: {code} {said}");
    }
}

#[test]
fn where_nobody_listens_the_reason_is_told() {
    let shop = Workshop::new();
    let (listener, address) = listen();
    drop(listener);
    let (code, said) = asked(&shop, &address);
    assert!(
        code == 1 && said.contains("no coordinator can be reached there: Connection refused"),
        "{code} {said}"
    );
}

#[test]
fn a_web_server_is_no_coordinator() {
    let shop = Workshop::new();
    let (listener, address) = listen();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut head = [0; 64];
            let _ = stream.read(&mut head);
            let answer = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let (code, said) = asked(&shop, &address);
    assert!(code == 1 && said.contains("what answers there is no Carousel coordinator"), "{code} {said}");
}

#[test]
fn who_listens_and_says_nothing_is_given_up() {
    let shop = Workshop::new();
    let (listener, address) = listen();
    let (code, said) = asked(&shop, &address);
    assert!(code == 1 && said.contains("no answer within 5 s"), "{code} {said}");
    drop(listener);
}
