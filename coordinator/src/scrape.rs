//! The plain HTTP side for monitoring: GET /metrics and GET /healthz, and nothing else. It reads the board alone, so that no
//! client can hold the run up; slow and silent clients are cut off, and few are served at once.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use crate::board::Board;
use crate::exposition::exposition;

/// The text format that `exposition` writes.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";
/// From the first byte of a connection to its last.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at once; further ones wait in the listener's queue.
const MOST_CONNECTIONS: usize = 16;
/// Of a request's head; hyper's least.
const MOST_HEAD_BYTES: usize = 8192;

/// Serves until the runtime ends.
///
/// # Errors
/// When the listener cannot be used.
pub(crate) fn serve(listener: TcpListener, board: Arc<Board>) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        loop {
            let place = room.clone().acquire_owned().await.expect("nobody closes the semaphore");
            match listener.accept().await {
                Ok((stream, _)) => {
                    let board = board.clone();
                    tokio::spawn(async move {
                        talk(stream, board).await;
                        drop(place);
                    });
                }
                // As when there are no more file descriptors.
                Err(error) => {
                    tracing::debug!("metrics: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    });
    Ok(())
}

async fn talk(stream: TcpStream, board: Arc<Board>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(&request, &board);
        async { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .max_buf_size(MOST_HEAD_BYTES);
    let talk = server.serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(PATIENCE, talk).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("metrics: {error}"),
        Err(_) => tracing::debug!("metrics: a client was too slow"),
    }
}

fn answer<B>(request: &Request<B>, board: &Board) -> Response<String> {
    let known = matches!(request.uri().path(), "/metrics" | "/healthz");
    match (request.method(), request.uri().path()) {
        (_, _) if !known => {
            respond(StatusCode::NOT_FOUND, PLAIN_TEXT, "expected /metrics or /healthz\n".into())
        }
        (&Method::GET | &Method::HEAD, "/metrics") => {
            respond(StatusCode::OK, PROMETHEUS_TEXT, exposition(&board.read()))
        }
        (&Method::GET | &Method::HEAD, _) => {
            let (healthy, line) = board.read().health();
            let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            respond(code, PLAIN_TEXT, line + "\n")
        }
        _ => {
            let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN_TEXT, "expected GET\n".into());
            response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
            response
        }
    }
}

fn respond(code: StatusCode, kind: &'static str, text: String) -> Response<String> {
    let mut response = Response::new(text);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
