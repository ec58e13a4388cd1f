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

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::{Credentials, Peer, Role};

/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that are let in and not served yet.
const WAITING: usize = 64;
/// Refusals are told this seldom.
const TELLING: Duration = Duration::from_secs(1);
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
        self.peer
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
    let shaken = tokio::time::timeout(HANDSHAKE, shake_hands(stream, &door)).await;
    let (stream, role) = match shaken {
        Ok(Ok(shaken)) => shaken,
        Ok(Err(error)) => return refusals.tell(address, &error.to_string()),
        Err(_) => {
            return refusals.tell(address, &format!("no handshake within {} s", HANDSHAKE.as_secs()));
        }
    };
    let peer = Peer { address: Some(address), role, locked: door.is_locked() };
    let connection = Connection { stream, peer, _place: place };
    if connections.send(connection).await.is_err() {
        tracing::debug!("{address} came when the door was closed");
    }
}

async fn shake_hands(stream: TcpStream, door: &Door) -> io::Result<(Side, Option<Role>)> {
    stream.set_nodelay(true)?;
    let Door::Locked(credentials) = door else { return Ok((Side::Plain(stream), None)) };
    let acceptor = TlsAcceptor::from(credentials.current().server.clone());
    let stream = acceptor.accept(stream).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let role = certificate.and_then(Role::of);
    Ok((Side::Tls(Box::new(stream)), role))
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
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
