//! What outsiders can send to a coordinator or leave in a run's files, through the decoders that take it: for the package
//! that fuzzes them. Always built, so that it cannot fall behind the decoders; no program calls it, and it decides nothing.

use std::path::Path;
use std::sync::Arc;

use carousel_proto::gradient::GradientLayout;
use carousel_proto::v1::{FromDepositor, FromWorker, WindowRequest};
use prost::Message;

use crate::deposit::Depositor;
use crate::intake::{Intake, Limits};
use crate::replica::{ReplicaLayout, TensorShape};
use crate::server::checked_hello;
use crate::tokens::{Cut, Splits, TokenSource};

/// What a worker says in its session: a Hello, then messages that come to the driver.
pub fn session(messages: &[&[u8]]) {
    let mut messages = messages.iter().map_while(|bytes| FromWorker::decode(*bytes).ok());
    let Some(first) = messages.next() else { return };
    // Goes on where a session would end: what comes after a bad Hello is worth a look too.
    drop(checked_hello(first));
    let mut intake = Intake::new(Arc::new(limits()));
    for message in messages {
        if intake.accept(message).is_err() {
            return;
        }
    }
}

/// A replica's copy, message by message.
pub fn deposit(messages: &[&[u8]]) {
    let limits = limits();
    let mut messages = messages.iter().map_while(|bytes| FromDepositor::decode(*bytes).ok());
    let Ok(mut depositor) = Depositor::new(messages.next()) else { return };
    for message in messages {
        match depositor.accept(message, &limits.layout) {
            Ok(None) => {}
            Ok(Some(said)) => return drop(depositor.finish(said, &limits.layout)),
            Err(_) => return,
        }
    }
}

/// Requests for windows of a small text.
///
/// # Panics
/// Never: the text is long enough for its cut.
pub fn windows(messages: &[&[u8]]) {
    let train: Vec<u32> = (0..700).map(|token| token % 5).collect();
    let splits = Splits { train: train.into(), valid: Some(vec![3; 90].into()), test: None };
    let tokens = TokenSource::new(splits, Cut { streams: 7, window: 11, lanes: 3 });
    let tokens = tokens.expect("700 tokens are enough for 7 streams of windows of 11");
    for request in messages.iter().map_while(|bytes| WindowRequest::decode(*bytes).ok()) {
        drop(tokens.windows(&request));
    }
}

/// A journal's bytes, as a coordinator that is started again finds them.
pub fn journal(bytes: &[u8]) {
    drop(crate::journal::decode(bytes, Path::new("journal.bin")));
}

/// The committed state's bytes.
pub fn committed(bytes: &[u8]) {
    drop(crate::committed::decode(bytes, Path::new("committed.bin")));
}

fn limits() -> Limits {
    let shape = |name: &str, shape: &[usize]| TensorShape { name: name.into(), shape: shape.into() };
    let layout = ReplicaLayout {
        parameters: vec![shape("encoder.weight", &[5, 2]), shape("decoder.bias", &[5])],
        optimizer_state: vec!["exp_avg".into()],
        carry: vec![shape("h", &[1, 3])],
        gradient: GradientLayout {
            dense: 5,
            dense_offset: 10,
            rows: 5,
            width: 2,
            most_rows: 3,
            rows_fold_into: None,
        },
    };
    Limits { layout, streams: 7, lanes: 3 }
}
