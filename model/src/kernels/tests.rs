//! Every fast kernel equals its naive loop bit for bit, on every instruction set of this processor, at odd sizes.

use std::ops::Range;

use super::{
    Context, Decoder, Isa, Lane, Lanes, LeftPanel, Outputs, Packed, PackedRight, Panels, RowLoss, Scratch,
    SoftmaxGradient, Source, dense, lane_sums, math, pack_for_input, pack_for_output, pack_right, row_losses,
    vector::{LANES, Vector},
    weight_gradient, with_team,
};
use crate::{IGNORED_TARGET, philox4x32, tree::LaneTree};

/// Numbers of one case: a function of its number and the place of asking.
struct Draw {
    case: u32,
    asked: u32,
}

impl Draw {
    fn word(&mut self) -> u32 {
        self.asked += 1;
        philox4x32([self.case, self.asked, 0, 0], [11, 13])[0]
    }

    fn size(&mut self, range: Range<usize>) -> usize {
        range.start + self.word() as usize % range.len()
    }

    fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| (self.word() >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
    }

    fn panels(&mut self, rows: usize, columns: usize) -> (Vec<f32>, Panels) {
        let values = self.floats(rows * columns);
        (values.clone(), panels(&values, rows, columns))
    }
}

fn panels(values: &[f32], rows: usize, columns: usize) -> Panels {
    let mut panels = Panels::default();
    panels.shape(rows, columns);
    for (row, values) in values.chunks_exact(columns).enumerate() {
        panels.set_row(row, values);
    }
    panels
}

fn bits_of(panels: &Panels, rows: usize, columns: usize) -> Vec<u32> {
    let mut row_values = vec![0.0; columns];
    let mut bits = Vec::new();
    for row in 0..rows {
        panels.get_row(row, &mut row_values);
        bits.extend(row_values.iter().map(|x| x.to_bits()));
    }
    bits
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Runs each case on each instruction set with one, two and three threads.
fn everywhere(cases: u32, test: impl Fn(Context<'_>, Draw, &str) + Sync) {
    for threads in 1..=3 {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        for isa in Isa::available() {
            for case in 0..cases {
                let scratch = Scratch::new();
                let name = format!("case {case}, {}, {threads} threads", isa.name());
                let draw = Draw { case, asked: 0 };
                pool.install(|| {
                    with_team(|team| test(Context { team, isa, scratch: &scratch }, draw, &name))
                });
            }
        }
    }
}

/// C[r][j] = chain over k from `start`.
fn naive(
    a: &[f32],
    k: usize,
    b: impl Fn(usize, usize) -> f32,
    columns: usize,
    start: impl Fn(usize) -> f32,
) -> Vec<f32> {
    let row = |a: &[f32]| -> Vec<f32> {
        (0..columns).map(|j| (0..k).fold(start(j), |acc, k| a[k].mul_add(b(k, j), acc))).collect()
    };
    a.chunks_exact(k).flat_map(row).collect()
}

#[test]
fn forward_product_equals_the_naive_loop() {
    everywhere(40, |ctx, mut draw, name| {
        let (rows, k, n) = (draw.size(1..68), draw.size(1..68), draw.size(1..68));
        let (a, left) = draw.panels(rows, k);
        let (w, bias) = (draw.floats(n * k), draw.floats(n));
        let blocks: Vec<_> = (0..n).step_by(LANES).map(|row| (row, (n - row).min(LANES))).collect();
        let mut packed = Packed::default();
        pack_for_output(ctx, &mut packed, Source { values: &w, row: k }, &blocks);
        let start: Vec<[f32; LANES]> = blocks
            .iter()
            .map(|&(row, count)| std::array::from_fn(|i| if i < count { bias[row + i] } else { 0.0 }))
            .collect();
        let places: Vec<usize> = (0..blocks.len()).collect();
        let mut out = Panels::default();
        out.shape(rows, n);
        dense(ctx, &[left.view()], &packed, &mut out, (&places, &start));
        let expected = naive(&a, k, |k_, j| w[j * k + k_], n, |j| bias[j]);
        assert_eq!(bits_of(&out, rows, n), bits(&expected), "{name}: {rows} x {k} x {n}");
    });
}

#[test]
fn backward_product_continues_through_several_matrices() {
    everywhere(40, |ctx, mut draw, name| {
        let (rows, half, n) = (draw.size(1..68), draw.size(1..40), draw.size(1..68));
        let ((a, left), (b, right)) = (draw.panels(rows, half), draw.panels(rows, half));
        // Weight rows in three blocks, of which the chain runs through the last and then the first.
        let w = draw.floats(3 * half * n);
        let mut packed = Packed::default();
        pack_for_input(ctx, &mut packed, Source { values: &w, row: n }, &[(2 * half, half), (0, half)]);
        let places: Vec<usize> = (0..n.div_ceil(LANES)).collect();
        let mut out = Panels::default();
        out.shape(rows, n);
        dense(ctx, &[left.view(), right.view()], &packed, &mut out, (&places, &[]));
        let joined: Vec<f32> = (0..rows)
            .flat_map(|r| [&a[r * half..(r + 1) * half], &b[r * half..(r + 1) * half]].concat())
            .collect();
        let weight = |k: usize, j: usize| w[((k + 2 * half) % (3 * half)) * n + j];
        let expected = naive(&joined, 2 * half, weight, n, |_| 0.0);
        assert_eq!(bits_of(&out, rows, n), bits(&expected), "{name}: {rows} x {half} x {n}");
    });
}

#[test]
fn products_of_many_rows_and_long_chains_equal_the_naive_loop() {
    // Longer and taller than what goes through the caches at a time, whole and with a remainder of one.
    let sizes = [(721, 257, 33), (37, 1025, 17), (730, 730, 1)];
    for (rows, half, n) in sizes {
        let mut draw = Draw { case: rows as u32, asked: 0 };
        let ((a, left), (b, right)) = (draw.panels(rows, half), draw.panels(rows, half));
        let w = draw.floats(2 * half * n);
        let joined: Vec<f32> = (0..rows)
            .flat_map(|r| [&a[r * half..(r + 1) * half], &b[r * half..(r + 1) * half]].concat())
            .collect();
        let expected = bits(&naive(&joined, 2 * half, |k, j| w[k * n + j], n, |_| 0.0));
        everywhere(1, |ctx, _, name| {
            let mut packed = Packed::default();
            pack_for_input(ctx, &mut packed, Source { values: &w, row: n }, &[(0, half), (half, half)]);
            let places: Vec<usize> = (0..n.div_ceil(LANES)).collect();
            let mut out = Panels::default();
            out.shape(rows, n);
            dense(ctx, &[left.view(), right.view()], &packed, &mut out, (&places, &[]));
            assert!(bits_of(&out, rows, n) == expected, "{name}: {rows} x {half} x {n}");
        });
    }
}

/// Lanes of a window with one to three streams each, in groups of neighbours.
fn lanes(draw: &mut Draw) -> (usize, usize, Vec<Lane>, Vec<Range<usize>>) {
    let mut first = 0;
    let lanes: Vec<Lane> = (0..draw.size(1..8))
        .map(|_| {
            let lane = Lane { first, streams: draw.size(1..4) };
            first += lane.streams;
            lane
        })
        .collect();
    let cut = draw.size(0..lanes.len());
    let mut groups = vec![0..cut, cut..lanes.len()];
    groups.retain(|group| !group.is_empty());
    (draw.size(1..12), first, lanes, groups)
}

/// out[j][e] of a group: chains by lane, lanes added by the tree.
fn naive_by_lane(lanes: Lanes<'_>, group: &Range<usize>, step: impl Fn(f32, usize) -> f32) -> f32 {
    let mut tree = LaneTree::new();
    for lane in &lanes.lanes[group.clone()] {
        let mut acc = 0.0;
        for t in 0..lanes.steps {
            for s in lane.first..lane.first + lane.streams {
                acc = step(acc, t * lanes.streams + s);
            }
        }
        tree.push(acc, |a, b| a + b);
    }
    tree.finish(|a, b| a + b).unwrap()
}

fn left_panels<'a>(matrix: &'a Panels, columns: usize) -> Vec<LeftPanel<'a>> {
    let view = matrix.view();
    (0..columns)
        .step_by(LANES)
        .map(|j| (view.panels(j / LANES, LANES), j, (columns - j).min(LANES)))
        .collect()
}

#[test]
fn weight_gradient_equals_the_naive_loop_by_lane() {
    everywhere(40, |ctx, mut draw, name| {
        let (steps, streams, lanes, groups) = lanes(&mut draw);
        let lanes = Lanes { steps, streams, lanes: &lanes, groups: &groups };
        let (m, n) = (draw.size(1..68), draw.size(1..68));
        let ((a, left), (b, right)) = (draw.panels(steps * streams, m), draw.panels(steps * streams, n));
        let mut out = vec![vec![f32::NAN; m * n]; groups.len()];
        let mut packed = PackedRight::default();
        pack_right(ctx, lanes, right.view(), &mut packed);
        let outputs = Outputs::new(out.iter_mut().map(Vec::as_mut_slice), n);
        weight_gradient(ctx, lanes, &left_panels(&left, m), &packed, &outputs);
        for (group, out) in groups.iter().zip(&out) {
            let element = |j: usize, e: usize| {
                naive_by_lane(lanes, group, |acc, r| a[r * m + j].mul_add(b[r * n + e], acc))
            };
            let expected: Vec<f32> =
                (0..m).flat_map(|j| (0..n).map(move |e| (j, e))).map(|(j, e)| element(j, e)).collect();
            assert_eq!(bits(out), bits(&expected), "{name}: {m} x {n}, {groups:?}");
        }
    });
}

#[test]
fn lane_sums_equal_the_naive_loop_by_lane() {
    everywhere(30, |ctx, mut draw, name| {
        let (steps, streams, lanes, groups) = lanes(&mut draw);
        let lanes = Lanes { steps, streams, lanes: &lanes, groups: &groups };
        let n = draw.size(1..68);
        let ((a, left), (b, right)) = (draw.panels(steps * streams, n), draw.panels(steps * streams, n));
        let times: Vec<_> = left_panels(&right, n).iter().map(|panel| panel.0).collect();
        for product in [false, true] {
            let mut out = vec![vec![f32::NAN; n]; groups.len()];
            let outputs = Outputs::new(out.iter_mut().map(Vec::as_mut_slice), n);
            lane_sums(ctx, lanes, &left_panels(&left, n), product.then_some(&times), &outputs);
            for (group, out) in groups.iter().zip(&out) {
                let next = |acc: f32, r: usize, j: usize| match product {
                    true => a[r * n + j].mul_add(b[r * n + j], acc),
                    false => acc + a[r * n + j],
                };
                let expected: Vec<f32> =
                    (0..n).map(|j| naive_by_lane(lanes, group, |acc, r| next(acc, r, j))).collect();
                assert_eq!(bits(out), bits(&expected), "{name}: {n}, product {product}");
            }
        }
    });
}

fn exp(x: f32) -> f32 {
    math::exp(super::portable::Portable::splat(x)).to_array()[0]
}

/// Max, sum in 16 partials, and the tree over them, as the contract words it.
fn naive_softmax(logits: &[f32]) -> (f32, f64) {
    let max = logits.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let mut partials = [0.0f32; 16];
    for (j, &x) in logits.iter().enumerate() {
        partials[j % 16] += exp(x - max);
    }
    let p = partials.map(f64::from);
    let pair = |i: usize| (p[i] + p[i + 8]) + (p[i + 4] + p[i + 12]);
    (max, (pair(0) + pair(2)) + (pair(1) + pair(3)))
}

/// Turns one row of logits into its gradient; returns the loss.
fn naive_row(row: &mut [f32], target: u32, (scale, smoothing): (f64, f32)) -> f64 {
    let (max, sum) = naive_softmax(row);
    if target == IGNORED_TARGET {
        row.fill(0.0);
        return 0.0;
    }
    let nats = libm::log(sum) - (f64::from(row[target as usize]) - f64::from(max));
    let factor = (scale / sum) as f32;
    row.iter_mut().for_each(|x| *x = exp(*x - max) * factor - smoothing);
    row[target as usize] -= scale as f32;
    nats
}

#[test]
fn softmax_and_its_gradients_equal_the_naive_loops() {
    everywhere(15, |ctx, mut draw, name| {
        let (steps, streams, lanes, groups) = lanes(&mut draw);
        let lanes = Lanes { steps, streams, lanes: &lanes, groups: &groups };
        let rows = steps * streams;
        let (h, v) = (draw.size(1..40), [draw.size(1..68), draw.size(500..560), 1030][draw.size(0..3)]);
        let (x, hidden) = draw.panels(rows, h);
        let (w, bias) = (draw.floats(v * h), draw.floats(v));
        let token =
            |draw: &mut Draw| if draw.size(0..5) == 0 { IGNORED_TARGET } else { draw.size(0..v) as u32 };
        let targets: Vec<u32> = (0..rows).map(|_| token(&mut draw)).collect();
        let (scale, smoothing) = (1.0 / 77.0, [0.0, 1e-4][draw.size(0..2)]);
        let decoder = Decoder { weight: Source { values: &w, row: h }, bias: &bias };
        let mut logits = Panels::default();
        logits.shape(rows, v);
        decoder.logits(ctx, hidden.view(), &mut logits);
        let mut expected = naive(&x, h, |k, j| w[j * h + k], v, |j| bias[j]);
        assert_eq!(bits_of(&logits, rows, v), bits(&expected), "{name}: logits");
        let mut losses = vec![RowLoss::default(); rows];
        row_losses(ctx, logits.view(), &targets, scale, &mut losses);
        for ((row, loss), &target) in expected.chunks_exact_mut(v).zip(&losses).zip(&targets) {
            let nats = naive_row(row, target, (scale, smoothing));
            assert_eq!(loss.loss.to_bits(), nats.to_bits(), "{name}: loss");
        }
        let mut packed = PackedRight::default();
        pack_right(ctx, lanes, hidden.view(), &mut packed);
        let mut dw = vec![vec![f32::NAN; v * h]; groups.len()];
        let mut db = vec![vec![f32::NAN; v]; groups.len()];
        let mut dx = Panels::default();
        dx.shape(rows, h);
        let gradient = SoftmaxGradient {
            decoder,
            lanes,
            targets: &targets,
            losses: &losses,
            scale: scale as f32,
            smoothing,
            hidden: &packed,
            weight: Outputs::new(dw.iter_mut().map(Vec::as_mut_slice), h),
            bias: Some(Outputs::new(db.iter_mut().map(Vec::as_mut_slice), v)),
        };
        gradient.run(ctx, &mut logits, (&mut dx, &mut Packed::default()));
        assert_eq!(bits_of(&logits, rows, v), bits(&expected), "{name}: logit gradients");
        let dx_expected = naive(&expected, v, |k, j| w[k * h + j], h, |_| 0.0);
        assert_eq!(bits_of(&dx, rows, h), bits(&dx_expected), "{name}: hidden gradient");
        for (group, (dw, db)) in groups.iter().zip(dw.iter().zip(&db)) {
            let g = |r: usize, j: usize| expected[r * v + j];
            for j in [0, v / 2, v - 1] {
                let sum = naive_by_lane(lanes, group, |acc, r| acc + g(r, j));
                assert_eq!(db[j].to_bits(), sum.to_bits(), "{name}: bias");
                for e in [0, h / 2, h - 1] {
                    let sum = naive_by_lane(lanes, group, |acc, r| g(r, j).mul_add(x[r * h + e], acc));
                    assert_eq!(dw[j * h + e].to_bits(), sum.to_bits(), "{name}: decoder weight");
                }
            }
        }
    });
}
