//! The additions by hand, and that neither the holders of lanes nor the owners of slices change a bit.

use super::*;
use proptest::prelude::*;

/// 3 blocks less a bit of dense floats, 7 rows of 3.
const DENSE: usize = 3 * BLOCK - 5;

fn layout(rows_fold_into: Option<usize>) -> GradientLayout {
    GradientLayout { dense: DENSE, dense_offset: 21, rows: 7, width: 3, rows_fold_into }
}

fn small(rows_fold_into: Option<usize>) -> GradientLayout {
    GradientLayout { dense: 6, dense_offset: 8, rows: 5, width: 2, rows_fold_into }
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn neither_holders_nor_owners_change_a_bit(
        lanes in 1u32..12, cuts in proptest::collection::vec(0u32..12, 0..4), owners in 1usize..7, fold in prop::option::of(0usize..9000),
    ) {
        let layout = layout(fold);
        let tree = LaneTree::new(lanes);
        let reduced = |nodes: &[Node], slice: &Slice| {
            let cut = |n: &Node| {
                let whole = partial(tree.lanes_under(*n).unwrap());
                (*n, layout.cut(layout.parts(&whole), slice))
            };
            layout.reduce(tree, nodes.iter().map(cut).collect(), slice)
        };
        let singles: Vec<Node> = (0..lanes).map(|index| Node { level: 0, index }).collect();
        let star = reduced(&singles, &whole(&layout));
        let mut bounds: Vec<u32> = cuts.into_iter().map(|c| c.min(lanes)).chain([0, lanes]).collect();
        bounds.sort_unstable();
        let nodes: Vec<Node> = bounds.windows(2).flat_map(|w| tree.maximal_nodes(w[0]..w[1])).collect();
        let slices = layout.slices(owners);
        let mesh: Vec<Gradient> = slices.iter().map(|slice| reduced(&nodes, slice)).collect();
        let joined = layout.join(mesh.iter().cloned().map(Arc::new).collect());
        prop_assert_eq!(bits(&joined), bits(&star));
        let sums: Vec<SquareSums> = slices.iter().zip(&mesh).map(|(s, g)| layout.square_sums(g, s)).collect();
        let alone = layout.square_sums(&star, &whole(&layout));
        prop_assert_eq!(norm(&sums).to_bits(), norm(&[alone]).to_bits());
    }
}
