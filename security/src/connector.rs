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

/// Connects through a door to somebody of a role; for `Endpoint::connect_with_connector`.
#[derive(Clone, Debug)]
pub struct Connector {
    door: Door,
    expected: Role,
    refused: Refused,
}

/// A stream of either kind.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connector {
    /// Whoever is reached must be of the role `expected`, where the door is locked.
    #[must_use]
    pub fn new(door: Door, expected: Role) -> Self {
        Self { door, expected, refused: Refused::default() }
    }

    /// What TLS has against a connection that this connector, or a clone of it, has made: some of it comes after the
    /// connection seemed to be there.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn connect(self, uri: Uri) -> io::Result<TokioIo<Box<dyn Io>>> {
        let host = uri.host().unwrap_or("localhost").trim_matches(['[', ']']).to_owned();
        let port = uri.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        let refused = self.refused;
        let Door::Locked(credentials) = self.door else {
            return Ok(TokioIo::new(Box::new(Heard { stream, silent: true, refused })));
        };
        let client = credentials.current().client(self.expected).map_err(io::Error::other)?;
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = TlsConnector::from(client).connect(name, stream).await?;
        Ok(TokioIo::new(Box::new(Heard { stream, silent: false, refused })))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// The other side answered plain words with a TLS alert.
#[derive(Debug, thiserror::Error)]
#[error("the other side asks for TLS: give --tls")]
struct TlsExpected;

/// A stream that hears why the other side will have none of it: what reads from it keeps such errors to itself.
struct Heard<S> {
    stream: S,
    /// Until something has come; then what comes is words.
    silent: bool,
    refused: Refused,
}

type Refused = Arc<Mutex<Option<String>>>;

impl<S> Heard<S> {
    fn keep(&self, error: io::Error) -> io::Error {
        if let Some(refused) = refusal(&error) {
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
        }
        error
    }
}

/// How a TLS alert begins. HTTP/2 begins with a short frame of settings: its first byte is 0.
const ALERT: [u8; 2] = [0x15, 0x03];

impl<S: Io> AsyncRead for Heard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let first = std::mem::replace(&mut self.silent, false);
        let read = match read {
            Ok(()) if first && buffer.filled()[before..].starts_with(&ALERT) => {
                Err(io::Error::other(TlsExpected))
            }
            read => read,
        };
        Poll::Ready(read.map_err(|error| self.keep(error)))
    }
}

impl<S: Io> AsyncWrite for Heard<S> {
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

/// What TLS has against a connection, anywhere among an error's causes: what was found, and what to do. None where it is
/// no matter of TLS, and so may pass.
#[must_use]
pub fn refusal(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner: Option<&(dyn Error + 'static)> = inner.map(|inner| inner as _);
        let innermost = inner.unwrap_or(error);
        if let Some(found) = innermost.downcast_ref::<rustls::Error>() {
            return Some(advice(found));
        }
        if let Some(found) = innermost.downcast_ref::<TlsExpected>() {
            return Some(found.to_string());
        }
        cause = inner.or_else(|| error.source());
    }
    None
}

fn advice(error: &rustls::Error) -> String {
    use rustls::Error as E;
    let what_to_do = match error {
        E::InvalidMessage(_) => "the other side speaks no TLS: give both sides --tls, or neither",
        E::AlertReceived(Alert::CertificateRequired) => "the other side asks for a certificate: give --tls",
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
        _ => return error.to_string(),
    };
    format!("{what_to_do} ({error})")
}
