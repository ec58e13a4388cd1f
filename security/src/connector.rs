//! The client's side of a door: connects to an address, and goes on only with somebody of the expected role.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use rustls::AlertDescription as Alert;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;
use tonic::transport::Uri;

use crate::{Door, Role};

/// The first byte of a TLS record that a server sends unasked, an alert; no HTTP/2 server begins with it.
const ALERT: u8 = 0x15;

/// The innermost reason of a failure: what is around it says no more than that something failed.
#[must_use]
pub fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Connects through a door to somebody of a role; for `Endpoint::connect_with_connector`.
#[derive(Clone, Debug)]
pub struct Connector {
    door: Door,
    expected: Role,
    fault: Fault,
}

/// A stream of either kind.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connector {
    /// Whoever is reached must be of the role `expected`, where the door is locked.
    #[must_use]
    pub fn new(door: Door, expected: Role) -> Self {
        Self { door, expected, fault: Fault::default() }
    }

    /// What TLS had against a connection: what was found, and what to do about it. None where it was no matter of TLS, and
    /// so may pass. HTTP/2 keeps no cause of a broken connection; therefore it is kept here.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.fault.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn connect(self, uri: Uri) -> io::Result<TokioIo<Watched>> {
        let host = uri.host().unwrap_or("localhost").trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let Self { door, expected, fault } = self;
        let Door::Locked(credentials) = door else { return Ok(Watched::new(stream, fault, true)) };
        let client = credentials.current().client(expected).map_err(io::Error::other)?;
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = TlsConnector::from(client).connect(name, stream).await;
        Ok(Watched::new(stream.inspect_err(|error| fault.note(error))?, fault, false))
    }
}

/// The first fault of a connector's connections.
#[derive(Clone, Debug, Default)]
struct Fault(Arc<Mutex<Option<String>>>);

impl Fault {
    fn note(&self, error: &io::Error) {
        let found = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(found) = found {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| advice(found));
        }
    }
}

/// A stream whose faults are noted: with TLS 1.3 a server judges a certificate after the client's handshake is done, and the
/// answer comes with the first bytes read.
pub struct Watched {
    stream: Box<dyn Io>,
    fault: Fault,
    /// Nothing was read yet of a stream that should not be TLS.
    fresh: bool,
}

impl Watched {
    fn new(stream: impl Io + 'static, fault: Fault, fresh: bool) -> TokioIo<Self> {
        TokioIo::new(Self { stream: Box::new(stream), fault, fresh })
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let mut read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if self.fresh && buffer.filled().get(before) == Some(&ALERT) {
            read = Err(io::Error::other(rustls::Error::AlertReceived(Alert::CertificateRequired)));
        }
        self.fresh &= buffer.filled().len() == before;
        Poll::Ready(read.inspect_err(|error| self.fault.note(error)))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Watched>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

fn advice(error: &rustls::Error) -> String {
    use rustls::Error as E;
    let what_to_do = match error {
        E::InvalidMessage(_) => "the other side speaks no TLS: give both sides --tls, or neither",
        E::AlertReceived(Alert::CertificateRequired) => {
            "the other side asks for TLS and a certificate: give --tls"
        }
        E::AlertReceived(Alert::CertificateExpired) => {
            "this side's certificate has expired: carousel certs DIR --renew makes a new one"
        }
        E::AlertReceived(Alert::UnknownCA | Alert::DecryptError | Alert::BadCertificate) => {
            "this side's certificate is of another authority than the other's: take both from one carousel certs"
        }
        E::InvalidCertificate(
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature,
        ) => {
            "the other side's certificate is of another authority than this side's: take both from one carousel certs"
        }
        E::InvalidCertificate(
            rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. },
        ) => "the other side's certificate has expired: carousel certs DIR --renew makes a new one",
        E::General(text) => return text.clone(),
        _ => return error.to_string(),
    };
    format!("{what_to_do} ({error})")
}
