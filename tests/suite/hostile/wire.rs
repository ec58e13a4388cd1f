//! HTTP/2 by hand, for what no well-behaved library sends: frames are nine bytes and what follows them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
pub(super) const GOAWAY: u8 = 7;
const END_HEADERS: u8 = 4;

pub(super) const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// A connection on which these bytes were said.
pub(super) fn raw(address: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    // Who is refused early does not hear all of it.
    if let Err(error) = stream.write_all(bytes) {
        assert!(
            error.kind() == std::io::ErrorKind::ConnectionReset
                || error.kind() == std::io::ErrorKind::BrokenPipe
        );
    }
    stream
}

/// A connection after its preface.
pub(super) struct Wire(TcpStream);

impl Wire {
    pub(super) fn connect(address: &str) -> Self {
        let stream = raw(address, &[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat());
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self(stream)
    }

    /// Opens a stream and leaves it open.
    pub(super) fn request(&mut self, stream: u32, path: &str) {
        self.0.write_all(&frame(HEADERS, END_HEADERS, stream, &headers(path))).unwrap();
    }

    /// Opens streams and gives each up at once.
    pub(super) fn requests_given_up(&mut self, streams: u32, path: &str) {
        let pair = |turn| {
            let stream = 1 + 2 * turn;
            let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
            [frame(HEADERS, END_HEADERS, stream, &headers(path)), reset].concat()
        };
        let bytes: Vec<u8> = (0..streams).flat_map(pair).collect();
        // The other side may close the connection before it has all of it.
        if let Err(error) = self.0.write_all(&bytes) {
            println!("the connection was closed under way: {error}");
        }
    }

    /// Reads until a frame of this kind; gives its stream and its error.
    pub(super) fn wait_for(&mut self, kind: u8) -> (u32, u32) {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            self.0.read_exact(&mut payload).unwrap();
            if head[3] == kind {
                let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
                // GOAWAY has the last stream before its error.
                let error = if kind == GOAWAY { &payload[4..8] } else { &payload[..4] };
                return (number(&head[5..9]), number(error));
            }
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

/// A gRPC request's headers: the method and the scheme by their index, the others as they are.
fn headers(path: &str) -> Vec<u8> {
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let plain = |name: &str, value: &str| [vec![0], text(name), text(value)].concat();
    let path = [vec![0x04], text(path)].concat();
    let authority = [vec![0x01], text("here")].concat();
    let rest = [plain("content-type", "application/grpc"), plain("te", "trailers")].concat();
    [vec![0x83, 0x86], path, authority, rest].concat()
}
