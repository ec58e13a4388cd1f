//! The short way between two workers on one machine: a Unix domain socket, which costs less than TCP over the loopback
//! interface (docs/exchange.md). It is named after the TCP address in the abstract namespace: that belongs to the network namespace, as
//! the address does, so whoever listens under the name is who listens at the address. Where there is none, TCP remains.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::Uri;

/// Connections from peers on this machine; none ever come where there are no such sockets.
pub(super) struct Incoming(Option<UnixListenerStream>);

/// Listens beside the TCP address HOST:PORT, which this process listens at.
pub(super) fn listen(address: &str) -> Incoming {
    let listener = system::bind(address);
    if let Err(error) = &listener {
        tracing::debug!("peers on this machine will use TCP: {error}");
    }
    Incoming(listener.ok().map(UnixListenerStream::new))
}

impl Stream for Incoming {
    type Item = io::Result<UnixStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(stream) = self.0.as_mut() else { return Poll::Pending };
        loop {
            match std::task::ready!(Pin::new(&mut *stream).poll_next(context)) {
                Some(Ok(stream)) if !system::is_own(&stream) => {
                    tracing::warn!("a process of another user was refused at the local socket");
                }
                other => return Poll::Ready(other),
            }
        }
    }
}

/// Connects to the process that listens at a TCP address, when it is on this machine and of the same user.
pub(super) struct Connector {
    address: String,
}

impl Connector {
    pub(super) fn to(address: &str) -> Self {
        Self { address: address.into() }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = BoxFuture<Self::Response, io::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connected = system::connect(&self.address);
        Box::pin(async { connected.map(TokioIo::new) })
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{self, SocketAddr};

    use tokio::net::{UnixListener, UnixStream};

    fn name(address: &str) -> io::Result<SocketAddr> {
        SocketAddr::from_abstract_name(format!("carousel-exchange/{address}"))
    }

    pub(super) fn bind(address: &str) -> io::Result<UnixListener> {
        let listener = net::UnixListener::bind_addr(&name(address)?)?;
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener)
    }

    /// Connecting does not wait: such a socket is there or not.
    pub(super) fn connect(address: &str) -> io::Result<UnixStream> {
        let stream = net::UnixStream::connect_addr(&name(address)?)?;
        stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(stream)?;
        // Anybody may take a name in the abstract namespace: a gradient goes to the own user only.
        if is_own(&stream) { Ok(stream) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    /// Whether the process at the other end is of this process's user, as the system says.
    pub(super) fn is_own(stream: &UnixStream) -> bool {
        let own = std::fs::metadata("/proc/self").map(|own| own.uid());
        matches!((stream.peer_cred(), own), (Ok(found), Ok(own)) if found.uid() == own)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    use tokio::net::{UnixListener, UnixStream};

    pub(super) fn bind(_: &str) -> io::Result<UnixListener> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn connect(_: &str) -> io::Result<UnixStream> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn is_own(_: &UnixStream) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_stream::StreamExt;

    fn address() -> (TcpListener, String) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    #[tokio::test]
    async fn who_listens_at_the_address_is_reached_under_its_name() {
        let (_listener, address) = address();
        let mut incoming = listen(&address);
        let mut to = system::connect(&address).unwrap();
        to.write_all(b"here").await.unwrap();
        let mut from = incoming.next().await.unwrap().unwrap();
        let mut bytes = [0; 4];
        from.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"here");
    }

    #[tokio::test]
    async fn an_address_that_nobody_here_has_is_refused_at_once() {
        let (_listener, address) = address();
        let refused = system::connect(&address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
