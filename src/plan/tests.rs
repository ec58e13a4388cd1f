//! Hand-calculated cases and laws of the costs.

use super::*;

/// 4,096,000 dense floats, hardly a row, one part at the end: exact by hand.
fn job() -> Job {
    let layout = GradientLayout {
        dense: 4_096_000,
        dense_offset: 0,
        rows: 10,
        width: 1,
        most_rows: 10,
        rows_fold_into: Some(0),
    };
    Job {
        flops: 1e9,
        parameters: 4_096_000,
        states: 0,
        layout,
        parts: vec![(1.0, 1.0)],
        streams: 64,
        window: 10,
        accumulate: 1,
        lanes: 16,
        carry: 100,
        activations: 100,
        vocabulary: 10,
    }
}

fn place(mbit: f64, ms: f64) -> Place {
    let (bandwidth, latency) = (BytesPerSecond(mbit * 1e6 / 8.0), Seconds(ms / 1e3));
    Place { flops: Flops(1e10), bandwidth, latency }
}

fn near(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-3, "found {found}, expected {expected}");
}

#[test]
fn two_workers_in_a_mesh_cost_what_a_hand_calculates() {
    let p = predict(&job(), 2, Exchange::Mesh, place(1000.0, 1.0));
    near(p.compute.0, 0.05);
    // Half of the partial sums out, then half of the reduced gradient: 16.384 MB at 125 MB/s over 1514/1448, and two ways.
    near(p.exchange.0, 16.384e6 / 125e6 * 1514.0 / 1448.0 + 0.002);
    near(p.commit.0, 0.002 + 4.0 * 4_096_000.0 * 3.0 / 8e9);
    near(p.worker.sent, 16.384e6 + 4.0 * 100.0 * 32.0);
}

#[test]
fn a_star_of_two_sends_twice_through_one_wire() {
    let p = predict(&job(), 2, Exchange::Star, place(1000.0, 1.0));
    near(p.coordinator.received, 2.0 * 16.384e6 + 4.0 * 100.0 * 64.0);
    near(p.coordinator.sent, 2.0 * 16.384e6 + 8.0 * 640.0);
    near(p.exchange.0, 4.0 * 16.384e6 / 125e6 * 1514.0 / 1448.0 + 0.002);
}

#[test]
fn one_worker_in_a_mesh_exchanges_nothing() {
    let p = predict(&job(), 1, Exchange::Mesh, place(10.0, 100.0));
    assert_eq!((p.exchange.0, p.coordinator.sent), (0.0, 5120.0));
}

#[test]
fn a_faster_wire_or_a_shorter_way_never_makes_a_step_longer() {
    for exchange in [Exchange::Mesh, Exchange::Star] {
        for workers in [2, 3, 7, 16] {
            let step = |mbit, ms| predict(&job(), workers, exchange, place(mbit, ms)).step.0;
            let by_rate: Vec<f64> = [10.0, 100.0, 1000.0, 10_000.0].map(|mbit| step(mbit, 1.0)).to_vec();
            assert!(by_rate.windows(2).all(|pair| pair[0] > pair[1]), "{by_rate:?}");
            let by_way: Vec<f64> = [0.1, 1.0, 20.0, 200.0].map(|ms| step(1000.0, ms)).to_vec();
            assert!(by_way.windows(2).all(|pair| pair[0] < pair[1]), "{by_way:?}");
        }
    }
}

#[test]
fn more_workers_than_lanes_are_idle_and_change_nothing() {
    let step = |workers| predict(&job(), workers, Exchange::Mesh, place(1000.0, 1.0));
    let (full, over) = (step(16), step(40));
    assert_eq!((full.idle, over.idle, full.step), (0, 24, over.step));
}

#[test]
fn the_worker_with_one_lane_more_decides() {
    let compute = |workers| predict(&job(), workers, Exchange::Mesh, place(1000.0, 1.0)).compute.0;
    near(compute(15), compute(8));
    near(compute(16), compute(8) / 2.0);
}

#[test]
fn a_slow_start_costs_round_trips_only_until_the_wire_is_full() {
    assert_eq!(slow_start(12.5e6, 0.0), 0.0);
    // 12.5 MB/s x 40 ms = 500 kB: flights of 14, 29, 58, 116, 232 and 463 kB are short of it.
    let lost = 6.0 * 0.04 - 14_480.0 * 63.0 / 12.5e6;
    near(slow_start(12.5e6, 0.04), lost);
}

#[test]
fn the_expected_rows_are_few_of_few_draws_and_all_of_many() {
    near(distinct(1000, 1.0), 1.0);
    near(distinct(1000, 1e9), 1000.0);
    assert!(distinct(1000, 500.0) < 400.0);
}
