//! The bound from a layout, and what becomes of a queue whose reader does not read, goes, or is dismissed.

use carousel_proto::bulk::CHUNK_BYTES;
use carousel_proto::gradient::GradientLayout;
use carousel_proto::v1::{AskDigest, BulkChunk, Shutdown, from_coordinator::Message};
use tokio_stream::StreamExt;

use super::*;
use crate::replica::{ReplicaLayout, TensorShape};

fn chunk(bytes: usize) -> FromCoordinator {
    FromCoordinator { message: Some(Message::BulkChunk(BulkChunk { data: vec![7; bytes].into() })) }
}

fn shutdown() -> FromCoordinator {
    let shutdown = Shutdown { reason: "too late".into(), ..Shutdown::default() };
    FromCoordinator { message: Some(Message::Shutdown(shutdown)) }
}

/// What the stream gives until it ends or waits.
async fn read(messages: &mut Messages) -> Vec<FromCoordinator> {
    let mut all = Vec::new();
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(20), messages.next()).await {
        all.push(message.unwrap());
    }
    all
}

/// Why the worker has to go; it must be said before long.
async fn told(watch: &Watch) -> String {
    tokio::time::timeout(PARTING * 2, watch.overstays()).await.expect("it has to go")
}

fn is_waiting(watch: &Watch) -> usize {
    watch.0.lock().bytes
}

#[test]
fn the_bound_is_twice_what_a_load_and_a_step_send_a_worker() {
    let shape = |shape: &[usize]| TensorShape { name: "w".into(), shape: shape.into() };
    let layout = ReplicaLayout {
        parameters: vec![shape(&[1000, 1000])],
        optimizer_state: vec!["m".into(), "v".into()],
        carry: vec![shape(&[2, 500])],
        gradient: GradientLayout { dense: 700_000, width: 100, most_rows: 500, ..GradientLayout::default() },
    };
    let most = most_waiting(&Limits { layout, streams: 20, lanes: 4 });
    let bulk = 4 * (3_000_000 + 750_000 + 20_000);
    assert!(most > 2 * bulk && most < 2 * bulk + bulk / 1000 + CONTROL_BYTES, "{most}");
}

#[tokio::test]
async fn who_reads_gets_everything_in_its_order_however_much_that_is() {
    let (outbox, mut messages, watch) = outbox(3 * CHUNK_BYTES);
    for turn in 0..50 {
        outbox.send(chunk(CHUNK_BYTES));
        outbox.send(chunk(turn));
        assert_eq!(read(&mut messages).await, [chunk(CHUNK_BYTES), chunk(turn)]);
        assert_eq!(is_waiting(&watch), 0);
    }
    outbox.send(chunk(1));
    drop(outbox);
    assert_eq!(messages.next().await.unwrap().unwrap(), chunk(1), "what was sent before the end");
    assert!(messages.next().await.is_none());
}

#[tokio::test]
async fn who_does_not_read_is_to_go_when_too_much_waits_and_nothing_waits_any_more() {
    let (outbox, mut messages, watch) = outbox(3 * CHUNK_BYTES);
    for _ in 0..2 {
        outbox.send(chunk(CHUNK_BYTES));
    }
    assert!(is_waiting(&watch) > 2 * CHUNK_BYTES);
    let early = tokio::time::timeout(Duration::from_millis(20), watch.overstays()).await;
    assert!(early.is_err(), "it is not over the bound yet: {early:?}");
    outbox.send(chunk(CHUNK_BYTES));
    let reason = told(&watch).await;
    assert!(reason.starts_with("it does not read: 314"), "three chunks and something for each: {reason}");
    assert!(reason.ends_with("waited for it, at most 3145728 may"), "{reason}");
    outbox.send(chunk(5));
    assert_eq!(is_waiting(&watch), 0);
    assert!(messages.next().await.is_none(), "the stream is over");
}

#[tokio::test]
async fn many_small_messages_count_as_well() {
    let (outbox, _messages, watch) = outbox(1 << 20);
    let small = FromCoordinator { message: Some(Message::AskDigest(AskDigest {})) };
    for _ in 0..5000 {
        outbox.send(small.clone());
    }
    assert!(told(&watch).await.starts_with("it does not read"));
}

#[tokio::test]
async fn who_is_dismissed_hears_the_reason_alone_and_has_to_be_gone_after_a_while() {
    let (outbox, mut messages, watch) = outbox(3 * CHUNK_BYTES);
    outbox.send(chunk(CHUNK_BYTES));
    outbox.dismiss(shutdown());
    assert!(is_waiting(&watch) < 1000, "the rest is dropped at once");
    let began = tokio::time::Instant::now();
    let reason = told(&watch).await;
    assert_eq!(reason, "it was still here 10 s after it was dismissed");
    assert!(began.elapsed() >= PARTING);
    assert_eq!(read(&mut messages).await, [shutdown()]);
    assert!(messages.next().await.is_none());
}

#[tokio::test]
async fn nothing_waits_for_who_has_gone() {
    let (outbox, messages, watch) = outbox(3 * CHUNK_BYTES);
    outbox.send(chunk(CHUNK_BYTES));
    let still = tokio::time::timeout(Duration::from_millis(20), watch.ended()).await;
    assert!(still.is_err());
    drop(messages);
    tokio::time::timeout(PARTING, watch.ended()).await.expect("nobody takes messages");
    outbox.send(chunk(CHUNK_BYTES));
    assert_eq!(is_waiting(&watch), 0);
}
