//! Doors with somebody at each side: who gets in, who is refused, and what the refused are told.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use carousel_security::{Allowed, Authority, Connector, Credentials, Door, Incoming, Role};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Endpoint, Server};

/// Answers every call with OK.
#[derive(Clone)]
struct Yes;

impl NamedService for Yes {
    const NAME: &'static str = "test.Yes";
}

impl Service<http::Request<Body>> for Yes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        Box::pin(async { Ok(Status::ok("yes").into_http()) })
    }
}

fn certs(folder: &Path, days: u32) -> PathBuf {
    let certs = folder.join(format!("certs-{days}"));
    Authority::make(&certs, days, &[]).unwrap();
    certs
}

fn door(certs: &Path, role: Role) -> Door {
    Door::Locked(Arc::new(Credentials::open(&certs.join(role.name()), &[role]).unwrap()))
}

/// Serves who has one of the roles.
fn serve(door: Door, roles: &'static [Role], places: usize) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = Incoming::new(listener, door, places).unwrap();
    let service = InterceptedService::new(Yes, Allowed::roles(roles));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
    address
}

/// Calls, and gives what went wrong as a user would be told.
async fn call(address: SocketAddr, door: Door, expected: Role) -> Result<(), String> {
    let connector = Connector::new(door, expected);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let called = async {
        let mut channel =
            endpoint.connect_with_connector(connector.clone()).await.map_err(|error| error.to_string())?;
        let request = http::Request::post("/test.Yes/Say").body(Body::default()).unwrap();
        std::future::poll_fn(|context| channel.poll_ready(context)).await.map_err(|e| e.to_string())?;
        let answer = channel.call(request).await.map_err(|error| error.to_string())?;
        match Status::from_header_map(answer.headers()) {
            Some(status) if status.code() != tonic::Code::Ok => Err(status.message().to_owned()),
            _ => Ok(()),
        }
    };
    let called = tokio::time::timeout(Duration::from_secs(20), called).await.unwrap();
    called.map_err(|problem| connector.fault().unwrap_or(problem))
}

fn refused(result: Result<(), String>, because: &str) {
    let problem = result.unwrap_err();
    assert!(problem.contains(because), "{problem:?} does not say {because:?}");
}

#[tokio::test]
async fn who_has_the_role_gets_in_and_who_has_another_is_told_which() {
    let folder = tempfile::tempdir().unwrap();
    let certs = certs(folder.path(), 30);
    let address = serve(door(&certs, Role::Coordinator), &[Role::Worker], 8);
    call(address, door(&certs, Role::Worker), Role::Coordinator).await.unwrap();
    for role in [Role::Observer, Role::Operator, Role::Coordinator] {
        let because = format!("needs the certificate of the worker, the one that came is {}'s", role.name());
        refused(call(address, door(&certs, role), Role::Coordinator).await, &because);
    }
}

#[tokio::test]
async fn a_client_does_not_talk_to_a_server_of_another_role() {
    let folder = tempfile::tempdir().unwrap();
    let certs = certs(folder.path(), 30);
    let address = serve(door(&certs, Role::Observer), &Role::ALL, 8);
    let called = call(address, door(&certs, Role::Worker), Role::Coordinator).await;
    refused(called, "the other side is no coordinator: its certificate is observer's");
}

#[tokio::test]
async fn who_has_no_certificate_is_told_to_give_one_and_tls_at_a_plain_port_to_give_none() {
    let folder = tempfile::tempdir().unwrap();
    let certs = certs(folder.path(), 30);
    let locked = serve(door(&certs, Role::Coordinator), &Role::ALL, 8);
    refused(call(locked, Door::Open, Role::Coordinator).await, "asks for TLS and a certificate: give --tls");
    let plain = serve(Door::Open, &[Role::Worker], 8);
    call(plain, Door::Open, Role::Coordinator).await.unwrap();
    let called = call(plain, door(&certs, Role::Worker), Role::Coordinator).await;
    refused(called, "speaks no TLS: give both sides --tls, or neither");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_both_sides() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (own, foreign) = (certs(one.path(), 30), certs(other.path(), 30));
    let address = serve(door(&own, Role::Coordinator), &Role::ALL, 8);
    let called = call(address, door(&foreign, Role::Worker), Role::Coordinator).await;
    refused(called, "the other side's certificate is of another authority");
    // A client that trusts the server, and whose own certificate the server does not know.
    std::fs::copy(own.join("ca/ca.crt"), foreign.join("worker/ca.crt")).unwrap();
    let called = call(address, door(&foreign, Role::Worker), Role::Coordinator).await;
    refused(called, "this side's certificate is of another authority");
}

#[tokio::test]
async fn what_has_expired_is_refused_by_both_sides_and_what_was_renewed_is_taken_without_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let certs = certs(folder.path(), 0);
    let (server, client) = (door(&certs, Role::Coordinator), door(&certs, Role::Worker));
    let address = serve(server, &[Role::Worker], 8);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let called = call(address, client.clone(), Role::Coordinator).await;
    refused(called, "the other side's certificate has expired");
    let keep = |file: &str| {
        let path = certs.join("worker").join(file);
        (path.clone(), std::fs::read(path).unwrap())
    };
    let expired = ["tls.crt", "tls.key"].map(keep);
    Authority::renew(&certs, 30, &[]).unwrap();
    let renewed = ["tls.crt", "tls.key"].map(keep);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    call(address, client.clone(), Role::Coordinator).await.unwrap();
    // The server is in date again, this client is not.
    expired.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let called = call(address, client.clone(), Role::Coordinator).await;
    refused(called, "this side's certificate has expired: carousel certs DIR --renew");
    renewed.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    call(address, client, Role::Coordinator).await.unwrap();
}

#[tokio::test]
async fn strangers_who_say_nothing_hold_nobody_up_and_take_no_more_than_the_places() {
    let folder = tempfile::tempdir().unwrap();
    let certs = certs(folder.path(), 30);
    let address = serve(door(&certs, Role::Coordinator), &[Role::Worker], 4);
    let silent: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
    let began = Instant::now();
    call(address, door(&certs, Role::Worker), Role::Coordinator).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // One place is left, and it is taken now; who comes after it is turned away at once.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let _fourth = TcpStream::connect(address).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut fifth = TcpStream::connect(address).unwrap();
    let read = tokio::task::spawn_blocking(move || {
        fifth.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        fifth.read(&mut [0; 1])
    });
    let read = read.await.unwrap();
    assert!(matches!(&read, Ok(0)) || read.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    drop(silent);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    call(address, door(&certs, Role::Worker), Role::Coordinator).await.unwrap();
}

#[tokio::test]
async fn who_speaks_another_language_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let certs = certs(folder.path(), 30);
    let address = serve(door(&certs, Role::Coordinator), &Role::ALL, 4);
    let said = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut said = [0; 1];
        stream.read_exact(&mut said).unwrap();
        said[0]
    });
    assert_eq!(said.await.unwrap(), 0x15, "an alert of TLS");
}

/// What a plain door says to these bytes, and how long it takes until it closes the connection.
fn say(address: SocketAddr, bytes: &[u8]) -> (Vec<u8>, Duration) {
    let began = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(bytes).unwrap();
    let (mut heard, mut buffer) = (Vec::new(), [0; 256]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (heard, began.elapsed()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                return (heard, began.elapsed());
            }
            read => heard.extend(&buffer[..read.unwrap()]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_door_closes_on_who_says_no_preface_and_on_who_says_but_a_part_of_it() {
    let address = serve(Door::Open, &[Role::Worker], 8);
    let asked = |bytes: &'static [u8]| tokio::task::spawn_blocking(move || say(address, bytes));
    let (nothing, part) = (asked(b""), asked(b"PRI * HTTP/2.0\r\n\r\nSM"));
    let (heard, took) = asked(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert_eq!(heard[heard.len() - 4..], [0, 0, 0, 1], "GOAWAY for an error of the protocol");
    assert!(took < Duration::from_secs(8), "{took:?}");
    for silent in [nothing, part] {
        let (heard, took) = silent.await.unwrap();
        assert_eq!(heard, b"");
        assert!(took > Duration::from_secs(9) && took < Duration::from_secs(15), "{took:?}");
    }
    call(address, Door::Open, Role::Coordinator).await.unwrap();
}
