//! The cut into streams, windows and lanes, against its definition.

use carousel_corpus::{IGNORED, PlanError, StreamPlan};
use proptest::prelude::*;

/// Inputs and targets of a window, (T, streams of the lane).
fn filled(plan: &StreamPlan, tokens: &[u32], window: u64, lane: usize) -> (Vec<u32>, Vec<u32>) {
    // What was in the buffers must not matter.
    let (mut inputs, mut targets) = (vec![9; 3], vec![9; 1000]);
    plan.fill(tokens, window, lane, &mut inputs, &mut targets);
    assert_eq!(inputs.len(), plan.window() * plan.lane_streams(lane).len());
    assert_eq!(inputs.len(), targets.len());
    (inputs, targets)
}

fn numbered(n: usize) -> Vec<u32> {
    (0..n as u32).collect()
}

#[test]
fn an_epoch_by_hand() {
    // 2 streams of 2 windows of 3 steps use 13 of 15 tokens.
    let plan = StreamPlan::training(15, 2, 3, 1).unwrap();
    assert_eq!(plan.windows(), 2);
    let tokens = numbered(15);
    assert_eq!(filled(&plan, &tokens, 0, 0), (vec![0, 6, 1, 7, 2, 8], vec![1, 7, 2, 8, 3, 9]));
    assert_eq!(filled(&plan, &tokens, 1, 0), (vec![3, 9, 4, 10, 5, 11], vec![4, 10, 5, 11, 6, 12]));
}

#[test]
fn an_evaluation_by_hand() {
    // 7 targets in 3 streams: [0, 2), [2, 4), [4, 7); windows of 2.
    let plan = StreamPlan::evaluation(8, 3, 2, 1).unwrap();
    assert_eq!(plan.windows(), 2);
    let tokens = numbered(8);
    assert_eq!(filled(&plan, &tokens, 0, 0), (vec![0, 2, 4, 1, 3, 5], vec![1, 3, 5, 2, 4, 6]));
    let no = IGNORED;
    assert_eq!(filled(&plan, &tokens, 1, 0), (vec![0, 0, 6, 0, 0, 0], vec![no, no, 7, no, no, no]));
    assert_eq!((plan.tokens_in_window(0), plan.tokens_in_window(1)), (6, 1));
}

#[test]
fn uneven_lanes() {
    let plan = StreamPlan::training(1000, 7, 5, 3).unwrap();
    let lanes: Vec<_> = (0..3).map(|lane| plan.lane_streams(lane)).collect();
    assert_eq!(lanes, [0..2, 2..4, 4..7]);
}

#[test]
fn one_token_too_few_is_an_error_with_the_numbers() {
    assert_eq!(StreamPlan::training(13, 3, 4, 1).unwrap().windows(), 1);
    let error = StreamPlan::training(12, 3, 4, 1).unwrap_err();
    assert_eq!(error, PlanError::TooFewTokens { tokens: 12, streams: 3, window: 4, needed: 13 });
    let text = error.to_string();
    for part in ["12 tokens", "13", "train.streams = 3", "train.window = 4"] {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(matches!(StreamPlan::training(0, 3, 4, 1), Err(PlanError::TooFewTokens { tokens: 0, .. })));
    assert_eq!(StreamPlan::evaluation(1, 3, 4, 1), Err(PlanError::NothingToPredict { tokens: 1 }));
    assert_eq!(StreamPlan::evaluation(0, 3, 4, 1), Err(PlanError::NothingToPredict { tokens: 0 }));
}

#[test]
fn impossible_sizes_are_errors() {
    for plan in [StreamPlan::training, StreamPlan::evaluation] {
        assert_eq!(plan(100, 0, 4, 1), Err(PlanError::Zero { size: "streams" }));
        assert_eq!(plan(100, 3, 0, 1), Err(PlanError::Zero { size: "window" }));
        assert_eq!(plan(100, 3, 4, 0), Err(PlanError::Zero { size: "lanes" }));
        assert_eq!(plan(100, 3, 4, 4), Err(PlanError::MoreLanesThanStreams { lanes: 4, streams: 3 }));
    }
    let huge = usize::MAX / 2;
    assert!(matches!(StreamPlan::training(100, huge, huge, 1), Err(PlanError::TooFewTokens { .. })));
    let plan = StreamPlan::evaluation(5, huge, huge, 1).unwrap();
    assert_eq!((plan.windows(), plan.tokens_in_window(0)), (1, 4));
}

#[test]
#[should_panic(expected = "window 2 of a plan with 2 windows")]
fn a_window_beyond_the_last_is_our_own_bug() {
    StreamPlan::training(15, 2, 3, 1).unwrap().tokens_in_window(2);
}

#[test]
#[should_panic(expected = "not those the plan was made for")]
fn another_text_is_our_own_bug() {
    let plan = StreamPlan::training(15, 2, 3, 1).unwrap();
    plan.fill(&numbered(16), 0, 0, &mut Vec::new(), &mut Vec::new());
}

proptest! {
    #[test]
    fn training_is_its_formula(streams in 1usize..9, window in 1usize..7, extra in 0usize..200, lane_seed in 0usize..9) {
        let (n, lanes) = (streams * window + 1 + extra, 1 + lane_seed % streams);
        let plan = StreamPlan::training(n, streams, window, lanes).unwrap();
        let windows = (n - 1) / (streams * window);
        prop_assert_eq!(plan.windows(), windows as u64);
        let tokens = numbered(n);
        for w in 0..windows {
            prop_assert_eq!(plan.tokens_in_window(w as u64), (streams * window) as u64);
            for lane in 0..lanes {
                let of_lane = lane * streams / lanes..(lane + 1) * streams / lanes;
                prop_assert_eq!(plan.lane_streams(lane), of_lane.clone());
                let (inputs, targets) = filled(&plan, &tokens, w as u64, lane);
                let mut at = 0;
                for t in 0..window {
                    for s in of_lane.clone() {
                        let expected = (s * windows * window + w * window + t) as u32;
                        prop_assert_eq!((inputs[at], targets[at]), (expected, expected + 1));
                        at += 1;
                    }
                }
            }
        }
    }

    #[test]
    fn evaluation_counts_every_target_once(n in 2usize..200, streams in 1usize..20, window in 1usize..9, lane_seed in 0usize..20) {
        let lanes = 1 + lane_seed % streams;
        let plan = StreamPlan::evaluation(n, streams, window, lanes).unwrap();
        let tokens = numbered(n);
        let mut seen = vec![0; n];
        for w in 0..plan.windows() {
            let mut counted = 0;
            for lane in 0..lanes {
                let (inputs, targets) = filled(&plan, &tokens, w, lane);
                for (&input, &target) in inputs.iter().zip(&targets) {
                    if target == IGNORED {
                        prop_assert_eq!(input, 0);
                        continue;
                    }
                    prop_assert_eq!(input + 1, target);
                    seen[target as usize] += 1;
                    counted += 1;
                }
            }
            prop_assert_eq!(plan.tokens_in_window(w), counted);
            prop_assert!(counted > 0, "window {} of {} is empty", w, plan.windows());
        }
        prop_assert_eq!(seen[0], 0);
        prop_assert!(seen[1..].iter().all(|&count| count == 1));
    }

    /// What the carry stands for: a stream goes on where its last window ended.
    #[test]
    fn streams_are_contiguous(n in 2usize..300, streams in 1usize..6, window in 1usize..9) {
        let tokens = numbered(n);
        let plans = [StreamPlan::training(n, streams, window, 1), StreamPlan::evaluation(n, streams, window, 1)];
        for plan in plans.into_iter().flatten() {
            for w in 1..plan.windows() {
                let (_, before) = filled(&plan, &tokens, w - 1, 0);
                let (inputs, targets) = filled(&plan, &tokens, w, 0);
                for s in (0..streams).filter(|&s| targets[s] != IGNORED) {
                    prop_assert_eq!(before[(window - 1) * streams + s], inputs[s]);
                }
            }
        }
    }

    #[test]
    fn the_number_of_lanes_moves_no_token(n in 50usize..300, streams in 1usize..9, lane_seed in 0usize..9) {
        let (window, lanes) = (3, 1 + lane_seed % streams);
        let tokens = numbered(n);
        let whole = StreamPlan::evaluation(n, streams, window, 1).unwrap();
        let cut = StreamPlan::evaluation(n, streams, window, lanes).unwrap();
        for w in 0..whole.windows() {
            let (expected, _) = filled(&whole, &tokens, w, 0);
            for lane in 0..lanes {
                let of_lane = cut.lane_streams(lane);
                let (inputs, _) = filled(&cut, &tokens, w, lane);
                for (at, &input) in inputs.iter().enumerate() {
                    let (t, s) = (at / of_lane.len(), of_lane.start + at % of_lane.len());
                    prop_assert_eq!(input, expected[t * streams + s]);
                }
            }
        }
    }
}
