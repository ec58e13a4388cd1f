//! Messages that are taken, and hostile ones, one by one. What real connections make of them is `tests/suite/hostile.rs`.

use super::*;
use crate::replica::TensorShape;
use carousel_proto::gradient::GradientLayout;
use carousel_proto::v1::{BulkChunk, Hello, Ready, StepReport};

fn intake() -> Intake {
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
    Intake::new(Limits { layout, streams: 7, lanes: 3 }.into())
}

fn start(kind: Bulk, level: u32, index: u32, floats: u64, rows: &[u32]) -> FromWorker {
    let start =
        BulkStart { kind: kind.into(), term: 4, step: 9, level, index, bytes: 4 * floats, rows: rows.into() };
    FromWorker { message: Some(Message::BulkStart(start)) }
}

fn chunk(floats: usize) -> FromWorker {
    FromWorker { message: Some(Message::BulkChunk(BulkChunk { data: vec![0; 4 * floats].into() })) }
}

#[test]
fn a_whole_partial_is_content() {
    let mut intake = intake();
    assert_eq!(intake.accept(start(Bulk::Partial, 1, 0, 9, &[1, 4])), Ok(None));
    assert_eq!(intake.accept(chunk(4)), Ok(None));
    let gradient = Gradient { rows: vec![1, 4], floats: vec![0.0; 9] };
    let whole =
        Content::Partial { term: Term(4), step: Step(9), node: Node { level: 1, index: 0 }, gradient };
    assert_eq!(intake.accept(chunk(5)), Ok(Some(whole)));
}

#[test]
fn carries_are_as_many_as_the_lanes_have_streams() {
    // 7 streams in 3 lanes: 2, 2, 3.
    assert_eq!(intake().accept(start(Bulk::Carries, 2, 1, 15, &[])), Ok(None));
    let wrong = BulkError::WrongSize { announced: 4 * 12, expected: 4 * 15 };
    assert_eq!(intake().accept(start(Bulk::Carries, 2, 1, 12, &[])), Err(Refusal::Bulk(wrong)));
    for (first, count) in [(2, 2), (u32::MAX, 1), (0, 0), (1, u32::MAX)] {
        let refusal = Refusal::Lanes { first, count, lanes: 3 };
        assert_eq!(intake().accept(start(Bulk::Carries, count, first, 1, &[])), Err(refusal));
    }
}

#[test]
fn sizes_are_the_layout_s_not_the_sender_s() {
    let huge = start(Bulk::Partial, 0, 1, u64::MAX / 4, &[]);
    assert!(matches!(intake().accept(huge), Err(Refusal::Bulk(BulkError::WrongSize { expected: 20, .. }))));
    for kind in [Bulk::Reduced, Bulk::Replica] {
        let refusal = Refusal::Kind(kind.into());
        assert_eq!(intake().accept(start(kind, 0, 0, 5, &[])), Err(refusal), "not on a session");
    }
}

#[test]
fn nodes_and_rows_must_exist() {
    for (level, index) in [(0, 3), (1, 2), (3, 0), (31, 1)] {
        let refusal = Refusal::Node { level, index, lanes: 3 };
        assert_eq!(intake().accept(start(Bulk::Partial, level, index, 5, &[])), Err(refusal));
    }
    for rows in [&[5][..], &[2, 2], &[3, 1], &[0, 1, 2, 3, 4, 5]] {
        let message = start(Bulk::Partial, 0, 0, 5 + 2 * rows.len() as u64, rows);
        assert_eq!(intake().accept(message), Err(Refusal::Rows { found: rows.len(), most: 3, of: 5 }));
    }
}

#[test]
fn other_messages_are_checked_too() {
    let message = |message| FromWorker { message: Some(message) };
    assert_eq!(intake().accept(FromWorker { message: None }), Err(Refusal::Empty));
    assert_eq!(intake().accept(message(Message::Hello(Hello::default()))), Err(Refusal::SecondHello));
    assert!(matches!(intake().accept(message(Message::Ready(Ready::default()))), Err(Refusal::Digest(_))));
    let losses = vec![v1::LaneLoss { lane: 3, tokens: 1, sum: 1.0 }];
    let report = StepReport { term: 1, step: 1, losses, microseconds: 7 };
    assert_eq!(
        intake().accept(message(Message::StepReport(report))),
        Err(Refusal::Losses { found: 1, lanes: 3 })
    );
    assert_eq!(intake().accept(chunk(1)), Err(Refusal::Bulk(BulkError::Stray { bytes: 4 })));
}

#[test]
fn corpus_and_wire_cut_streams_alike() {
    for (streams, lanes) in [(7, 3), (32, 8), (5, 5), (1, 1), (20, 6)] {
        assert!(cuts_agree(&StreamPlan::training(1000, streams, 3, lanes).unwrap()));
    }
}
