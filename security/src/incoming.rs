//! The server's side of a door: connections that are let in, one after the other, for tonic to serve.
//!
//! Handshakes run beside each other, each with a time limit, so that a stranger who says nothing holds up nobody; and the
//! door has a number of places, so that a stranger who connects without end takes no more than those.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::{Credentials, Peer, Role};

/// A handshake, of TLS where there is one and then HTTP/2's first bytes, that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that was refused has so long to hear why.
const LINGER: Duration = Duration::from_secs(1);
/// Connections that are let in and not served yet.
const WAITING: usize = 64;
/// Refusals are told this seldom.
const TELLING: Duration = Duration::from_secs(1);
/// What every HTTP/2 client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// What a client without TLS hears that says something else: empty SETTINGS and GOAWAY with PROTOCOL_ERROR, by which also a
/// client that speaks TLS knows that nobody does here.
const GOODBYE: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";
/// After an error of the system, such as no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// How connections are made and let in.
#[derive(Clone, Debug, Default)]
pub enum Door {
    /// Anybody; nothing is encrypted.
    #[default]
    Open,
    /// Who has a certificate of the same authority.
    Locked(Arc<Credentials>),
}

impl Door {
    /// Whether it asks for certificates.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        matches!(self, Self::Locked(_))
    }
}

/// A connection that was let in. Its place is free again when it ends.
#[derive(Debug)]
pub struct Connection {
    stream: Side,
    /// Of HTTP/2's preface, which was read here: what tonic is still to read.
    preface: &'static [u8],
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
enum Side {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// The connections of a listener.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Connection>,
    accepting: tokio::task::AbortHandle,
}

impl Incoming {
    /// Accepts from now on, at most `places` at once. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the listener cannot be given to the reactor.
    pub fn new(listener: std::net::TcpListener, door: Door, places: usize) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (sender, connections) = mpsc::channel(WAITING);
        let accepting = tokio::spawn(accept(listener, door, places, sender)).abort_handle();
        Ok(Self { connections, accepting })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

/// Says who was refused, once a second at the most: strangers must not fill the log.
#[derive(Default)]
struct Refusals(Mutex<(Option<Instant>, u64)>);

impl Refusals {
    fn tell(&self, address: SocketAddr, why: &str) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| last.elapsed() < TELLING) {
            state.1 += 1;
            return;
        }
        match std::mem::take(&mut state.1) {
            0 => tracing::warn!("{address} was refused: {why}"),
            more => tracing::warn!("{address} was refused: {why}; {more} before it since the last line"),
        }
        state.0 = Some(Instant::now());
    }
}

async fn accept(
    listener: tokio::net::TcpListener,
    door: Door,
    places: usize,
    connections: mpsc::Sender<Connection>,
) {
    let free = Arc::new(Semaphore::new(places));
    let refusals = Arc::new(Refusals::default());
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = free.clone().try_acquire_owned() else {
            refusals.tell(address, &format!("{places} connections are there already"));
            continue;
        };
        let (door, refusals) = (door.clone(), refusals.clone());
        tokio::spawn(let_in((stream, address), (door, refusals), place, connections.clone()));
    }
}

/// Lets one in, or says why not.
async fn let_in(
    (stream, address): (TcpStream, SocketAddr),
    (door, refusals): (Door, Arc<Refusals>),
    place: OwnedSemaphorePermit,
    connections: mpsc::Sender<Connection>,
) {
    let shaken = tokio::time::timeout(HANDSHAKE, begin(stream, &door)).await;
    let (stream, role) = match shaken {
        Ok(Ok(Some(shaken))) => shaken,
        Ok(Ok(None)) => return tracing::debug!("{address} went without a word"),
        Ok(Err(error)) => return refusals.tell(address, &error.to_string()),
        Err(_) => {
            return refusals.tell(address, &format!("no handshake within {} s", HANDSHAKE.as_secs()));
        }
    };
    let peer = Peer::new(address, role, door.is_locked());
    let connection = Connection { stream, preface: PREFACE, peer, _place: place };
    if connections.send(connection).await.is_err() {
        tracing::debug!("{address} came when the door was closed");
    }
}

/// Everything up to the first request; `None`: whoever it was has only looked whether somebody listens.
async fn begin(stream: TcpStream, door: &Door) -> io::Result<Option<(Side, Option<Role>)>> {
    let (mut stream, role) = shake_hands(stream, door).await?;
    let greeted = match &mut stream {
        Side::Plain(stream) => greet(stream).await,
        Side::Tls(stream) => greet(stream).await,
    };
    match (greeted, stream) {
        (Ok(greeted), stream) => Ok(greeted.then_some((stream, role))),
        (Err(error), Side::Plain(mut stream)) => {
            stream.write_all(GOODBYE).await?;
            linger(stream).await;
            Err(error)
        }
        (Err(error), Side::Tls(_)) => Err(error),
    }
}

/// Reads HTTP/2's preface; whether anything came. A client that never says it would keep its place for ever.
async fn greet(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
    let (mut said, mut length) = ([0; PREFACE.len()], 0);
    while length < said.len() {
        let read = stream.read(&mut said[length..]).await?;
        if read == 0 && length == 0 {
            return Ok(false);
        }
        length += read;
        if read == 0 || said[..length] != PREFACE[..length] {
            let found = said[..length].escape_ascii();
            return Err(io::Error::other(format!("expected HTTP/2, found {length} bytes: {found}")));
        }
    }
    Ok(true)
}

async fn shake_hands(stream: TcpStream, door: &Door) -> io::Result<(Side, Option<Role>)> {
    stream.set_nodelay(true)?;
    let Door::Locked(credentials) = door else { return Ok((Side::Plain(stream), None)) };
    let acceptor = TlsAcceptor::from(credentials.current().server.clone());
    let stream = match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => stream,
        Err((error, stream)) => {
            linger(stream).await;
            return Err(error);
        }
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let role = certificate.and_then(Role::of);
    Ok((Side::Tls(Box::new(stream)), role))
}

/// A socket that is closed with bytes unread resets the connection, and the other end may never see the alert that says
/// why. So its bytes are read for a moment.
async fn linger(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    let drain = async {
        stream.shutdown().await?;
        while stream.read(&mut bytes).await? > 0 {}
        io::Result::Ok(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(LINGER, drain).await {
        tracing::debug!("a refused connection broke: {error}");
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.peer.cord().check(context)?;
        if !self.preface.is_empty() {
            let (now, later) = self.preface.split_at(buffer.remaining().min(self.preface.len()));
            buffer.put_slice(now);
            self.preface = later;
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Side::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Side::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.peer.cord().check(context)?;
        match &mut self.stream {
            Side::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Side::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.peer.cord().check(context)?;
        match &mut self.stream {
            Side::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Side::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Side::Plain(stream) => stream.is_write_vectored(),
            Side::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.peer.cord().check(context)?;
        match &mut self.stream {
            Side::Plain(stream) => Pin::new(stream).poll_flush(context),
            Side::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Side::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Side::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
