//! The additions by hand, and that neither the holders of lanes nor the owners of slices change a bit.

use super::*;
use proptest::prelude::*;

/// 3 blocks less a bit of dense floats, 7 rows of 3.
const DENSE: usize = 3 * BLOCK - 5;

fn layout(rows_fold_into: Option<usize>) -> GradientLayout {
    GradientLayout { dense: DENSE, dense_offset: 21, rows: 7, width: 3, most_rows: 7, rows_fold_into }
}

fn small(rows_fold_into: Option<usize>) -> GradientLayout {
    GradientLayout { dense: 6, dense_offset: 8, rows: 5, width: 2, most_rows: 5, rows_fold_into }
}

fn whole(layout: &GradientLayout) -> Slice {
    layout.slices(1).remove(0)
}

fn lane(index: u32) -> Gradient {
    let value = |i: u32| ((index * 31 + i * 17) % 23) as f32 * 0.37 - 3.1;
    let rows: Vec<u32> = (0..7).filter(|r| (index + r).is_multiple_of(2)).collect();
    let floats = (0..DENSE as u32 + 3 * rows.len() as u32).map(value).collect();
    Gradient { rows, floats }
}

fn bits(gradient: &Gradient) -> (Vec<u32>, Vec<u32>) {
    (gradient.rows.clone(), gradient.floats.iter().map(|f| f.to_bits()).collect())
}

/// What the holder of a node sends: the tree under it, summed by the same rule, rows kept apart.
fn partial(lanes: Range<u32>) -> Gradient {
    let tree = LaneTree::new(lanes.len() as u32);
    let singles =
        (0..tree.lanes()).map(|index| (Node { level: 0, index }, lane(lanes.start + index))).collect();
    layout(None).reduce(tree, singles, &whole(&layout(None)))
}

#[test]
fn rows_are_merged_and_untouched_ones_left_alone() {
    let left = Gradient { rows: vec![1, 4], floats: vec![0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, -0.0, 4.0] };
    let right =
        Gradient { rows: vec![1, 2], floats: vec![0.5, 0.0, 0.0, 0.0, 0.0, 1.0, 10.0, 20.0, 5.0, 6.0] };
    let sum = add(left, &right, 6, 2);
    assert_eq!(sum.rows, [1, 2, 4]);
    assert_eq!(sum.floats, [0.5, 0.0, 0.0, 0.0, 0.0, 1.0, 11.0, 22.0, 5.0, 6.0, -0.0, 4.0]);
    assert!(sum.floats[10].is_sign_negative(), "an absent row is no zero that is added");
}

#[test]
fn tied_rows_are_folded_into_the_dense_part() {
    let gradient =
        Gradient { rows: vec![0, 2], floats: vec![1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 10.0, 20.0, 30.0, 40.0] };
    let partials = BTreeMap::from([(Node { level: 0, index: 0 }, gradient)]);
    let sum = small(Some(0)).reduce(LaneTree::new(1), partials, &whole(&small(Some(0))));
    assert_eq!(sum, Gradient { rows: vec![], floats: vec![11.0, 21.0, 1.0, 1.0, 31.0, 41.0] });
}

#[test]
fn norm_and_clip() {
    let gradient = Gradient { rows: vec![7], floats: vec![3.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 4.0] };
    let sums = small(None).square_sums(&gradient, &whole(&small(None)));
    assert_eq!(norm(&[sums]), 5.0);
    assert_eq!(clip_scale(5.0, Some(1.0)), (1.0 / (5.0 + 1e-6)) as f32);
    assert_eq!((clip_scale(5.0, Some(6.0)), clip_scale(5.0, None)), (1.0, 1.0));
}

#[test]
fn the_place_of_what_is_not_finite_is_a_parameter_s() {
    let with = |at: usize, value: f32| {
        let mut floats = vec![1.0; 8];
        floats[at] = value;
        small(None).first_non_finite(&Gradient { rows: vec![3], floats }, &whole(&small(None)))
    };
    assert_eq!(with(0, 1.0), None);
    assert_eq!(with(3, f32::NAN), Some(11));
    assert_eq!(with(7, f32::NEG_INFINITY), Some(7), "the second float of row 3");
}

#[test]
fn slices_cover_everything_once_and_end_on_blocks() {
    for owners in 1..9 {
        let slices = layout(None).slices(owners);
        assert_eq!((slices[0].dense.start, slices[owners - 1].dense.end), (0, DENSE));
        assert_eq!((slices[0].rows.start, slices[owners - 1].rows.end), (0, 7));
        for pair in slices.windows(2) {
            assert_eq!(pair[0].dense.end, pair[1].dense.start);
            assert!(pair[0].dense.end.is_multiple_of(BLOCK) || pair[0].dense.end == DENSE);
            assert_eq!(pair[0].rows.end, pair[1].rows.start);
        }
    }
}

#[test]
fn segments_cover_a_slice_and_runs_are_cut_at_their_bounds() {
    let dense = BLOCK..BLOCK + 2 * SEGMENT + 7;
    let all: Vec<_> = segments(&dense).collect();
    assert_eq!(
        all,
        [BLOCK..BLOCK + SEGMENT, BLOCK + SEGMENT..BLOCK + 2 * SEGMENT, BLOCK + 2 * SEGMENT..dense.end]
    );
    assert_eq!(cut_at_segments(&(0..usize::MAX / 2), &dense).collect::<Vec<_>>(), all);
    let run = BLOCK + SEGMENT - 3..BLOCK + SEGMENT + 2;
    let cuts: Vec<_> = cut_at_segments(&run, &dense).collect();
    assert_eq!(cuts, [run.start..BLOCK + SEGMENT, BLOCK + SEGMENT..run.end]);
    assert_eq!(cut_at_segments(&(0..BLOCK), &dense).count(), 0, "a run before the slice");
    assert_eq!(cut_at_segments(&(dense.end..dense.end + 5), &dense).count(), 0, "a run after the slice");
}

#[test]
fn pieces_that_overlap_or_end_inside_a_float_are_refused() {
    let mut pieces = Pieces::default();
    let bytes = |n: usize| bytes::Bytes::from(vec![0; n]);
    assert!(pieces.insert(10, bytes(8)));
    for (start, len) in [(10, 8), (11, 4), (9, 8), (8, 40), (20, 0), (20, 5)] {
        assert!(!pieces.insert(start, bytes(len)), "{len} bytes at float {start}");
    }
    assert!(pieces.insert(12, bytes(4)) && pieces.insert(8, bytes(8)));
    assert_eq!(pieces.floats(), 5);
}

/// What a slice's owner makes of everybody's nodes, segment by segment, each piece cut in two `seed` floats in.
fn by_segments(
    layout: &GradientLayout,
    tree: LaneTree,
    nodes: &[(Node, Gradient)],
    (slice, seed): (&Slice, usize),
) -> (Gradient, SquareSums) {
    let touched = |g: &Gradient| layout.rows_of(&g.rows, &g.floats[DENSE..], slice);
    let rows = layout.reduce_rows(tree, nodes.iter().map(|(node, g)| (*node, touched(g))).collect());
    let summation = Summation::new(tree, nodes.iter().map(|(node, _)| *node).collect());
    let (mut floats, mut dense) = (vec![0.0; slice.dense.len()], Vec::new());
    for segment in segments(&slice.dense) {
        let pieces = |(_, gradient): &(Node, Gradient)| {
            let mut pieces = Pieces::default();
            let middle = segment.start + seed % segment.len();
            for run in [middle..segment.end, segment.start..middle] {
                let data = bytemuck::cast_slice(&gradient.floats[run.clone()]).to_vec();
                assert_eq!(pieces.insert(run.start, data.into()), !run.is_empty());
            }
            pieces
        };
        let sources: Vec<Pieces> = nodes.iter().map(pieces).collect();
        let out = &mut floats[segment.start - slice.dense.start..segment.end - slice.dense.start];
        dense.extend(summation.run(segment.start, &sources, out, |first, block| {
            layout.fold_rows(&rows, first, block);
        }));
    }
    let rows = if layout.rows_fold_into.is_some() { TouchedRows::default() } else { rows };
    let sums = SquareSums { dense, rows: layout.row_squares(&rows.values) };
    floats.extend(rows.values);
    (Gradient { rows: rows.tokens, floats }, sums)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn neither_holders_nor_owners_nor_segments_change_a_bit(
        lanes in 1u32..12, cuts in proptest::collection::vec(0u32..12, 0..4), owners in 1usize..7,
        fold in prop::option::of(0usize..9000), seed in 0usize..10_000,
    ) {
        let layout = layout(fold);
        let tree = LaneTree::new(lanes);
        let nodes_of = |nodes: &[Node]| -> Vec<(Node, Gradient)> {
            nodes.iter().map(|n| (*n, partial(tree.lanes_under(*n).unwrap()))).collect()
        };
        let singles: Vec<Node> = (0..lanes).map(|index| Node { level: 0, index }).collect();
        let star = layout.reduce(tree, nodes_of(&singles).into_iter().collect(), &whole(&layout));
        let mut bounds: Vec<u32> = cuts.into_iter().map(|c| c.min(lanes)).chain([0, lanes]).collect();
        bounds.sort_unstable();
        let held: Vec<Node> = bounds.windows(2).flat_map(|w| tree.maximal_nodes(w[0]..w[1])).collect();
        let held = nodes_of(&held);
        let slices = layout.slices(owners);
        let mesh: Vec<_> = slices.iter().map(|slice| by_segments(&layout, tree, &held, (slice, seed))).collect();
        let mut joined = Gradient::default();
        for ((gradient, _), slice) in mesh.iter().zip(&slices) {
            joined.floats.extend(&gradient.floats[..slice.dense.len()]);
            joined.rows.extend(&gradient.rows);
        }
        for ((gradient, _), slice) in mesh.iter().zip(&slices) {
            joined.floats.extend(&gradient.floats[slice.dense.len()..]);
        }
        prop_assert_eq!(bits(&joined), bits(&star));
        let sums: Vec<SquareSums> = mesh.into_iter().map(|(_, sums)| sums).collect();
        let alone = layout.square_sums(&star, &whole(&layout));
        prop_assert_eq!(norm(&sums).to_bits(), norm(&[alone]).to_bits());
    }
}
