//! Meshes of several workers in one thread: contributions in any order and cut anywhere, messages delivered in any order.

use super::*;
use carousel_proto::bulk::bytes_of;
use carousel_proto::gradient::norm;

const AT: (Term, Step) = (Term(3), Step(8));
/// Two segments and a bit for one owner.
const DENSE: usize = 2 * SEGMENT + 5000;
const ROWS: usize = 7;
const WIDTH: usize = 2;

fn layout(rows_fold_into: Option<usize>) -> GradientLayout {
    GradientLayout {
        dense: DENSE,
        dense_offset: 14,
        rows: ROWS,
        width: WIDTH,
        most_rows: ROWS,
        rows_fold_into,
    }
}

fn lane(index: u32) -> Gradient {
    let rows: Vec<u32> = (0..ROWS as u32).filter(|row| (row + index).is_multiple_of(3)).collect();
    let count = (DENSE + WIDTH * rows.len()) as u32;
    let floats = (0..count).map(|i| ((i * 7 + index * 13) % 29) as f32 * 0.31 - 4.0).collect();
    Gradient { rows, floats }
}

fn peers(cut: &[Range<u32>]) -> Vec<Peer> {
    let peer = |(i, lanes): (usize, &Range<u32>)| Peer {
        worker: WorkerId(i as u64 + 1),
        address: String::new(),
        lanes: lanes.clone(),
    };
    cut.iter().enumerate().map(peer).collect()
}

/// The sum over some lanes as the star makes it.
fn summed(lanes: Range<u32>, rows_fold_into: Option<usize>) -> Gradient {
    let layout = layout(rows_fold_into);
    let tree = LaneTree::new(lanes.len() as u32);
    let single = |index| (Node { level: 0, index }, lane(lanes.start + index));
    layout.reduce(tree, (0..tree.lanes()).map(single).collect(), &layout.slices(1).remove(0))
}

/// Numbers that `seed` decides.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// What the holder of lanes gives to the exchange: each node's gradient in two runs, the later one first, then its rows.
enum Gift {
    Run(Node, usize, Arc<Vec<f32>>),
    Rows(Node, Gradient),
}

fn gifts(tree: LaneTree, lanes: &Range<u32>, dice: &mut Dice) -> Vec<Gift> {
    let of = |node: Node| {
        let gradient = summed(tree.lanes_under(node).unwrap(), None);
        let middle = 1 + dice.below(DENSE - 1);
        let run =
            |range: Range<usize>| Gift::Run(node, range.start, Arc::new(gradient.floats[range].to_vec()));
        [run(middle..DENSE), run(0..middle), Gift::Rows(node, gradient.clone())]
    };
    tree.maximal_nodes(lanes.clone()).into_iter().flat_map(of).collect()
}

fn give(exchange: &mut Exchange, gift: Gift) -> Vec<Outgoing> {
    match gift {
        Gift::Run(node, start, floats) => exchange.contribute(node, start, floats),
        Gift::Rows(node, gradient) => {
            exchange.contribute_rows(node, &gradient.rows, &gradient.floats[DENSE..])
        }
    }
}

/// A mesh of workers, and what is under way between them.
struct Mesh {
    peers: Vec<Peer>,
    workers: Vec<Exchange>,
    /// (from, to, content).
    wire: Vec<(usize, usize, PeerContent)>,
    wholes: Vec<Option<Gradient>>,
    squares: Vec<Option<SquareSums>>,
}

impl Mesh {
    fn new(cut: &[Range<u32>], fold: Option<usize>) -> Self {
        let (peers, lanes) = (peers(cut), cut.last().unwrap().end);
        Self {
            workers: peers.iter().map(|_| Exchange::new(layout(fold), lanes)).collect(),
            wire: Vec::new(),
            wholes: vec![None; peers.len()],
            squares: vec![None; peers.len()],
            peers,
        }
    }

    fn take(&mut self, who: usize, outgoing: Vec<Outgoing>) {
        for out in outgoing {
            match out {
                Outgoing::Send { to, content } => {
                    let to = self.peers.iter().position(|p| *p == *to).unwrap();
                    assert_ne!(to, who, "nobody sends to itself");
                    self.wire.push((who, to, content));
                }
                Outgoing::Report { squares, not_finite } => {
                    assert_eq!(not_finite, None);
                    assert_eq!(self.squares[who].replace(squares), None, "reported only once");
                }
                Outgoing::Whole(gradient) => {
                    assert_eq!(self.wholes[who].replace(gradient), None, "whole only once");
                }
            }
        }
    }
}

/// Runs a whole mesh; `seed` decides who begins, gives or receives next. Everybody's gradient and the norm.
fn run(cut: &[Range<u32>], fold: Option<usize>, seed: u64) -> (Vec<Gradient>, f64) {
    let mut mesh = Mesh::new(cut, fold);
    let (tree, mut dice) = (LaneTree::new(cut.last().unwrap().end), Dice(seed));
    let mut to_give: Vec<Vec<Gift>> = cut.iter().map(|lanes| gifts(tree, lanes, &mut dice)).collect();
    to_give.iter_mut().for_each(|gifts| gifts.reverse());
    let mut begun = vec![false; cut.len()];
    while !mesh.wire.is_empty() || begun.contains(&false) || to_give.iter().any(|gifts| !gifts.is_empty()) {
        let who = dice.below(cut.len());
        if !begun[who] && dice.below(4) == 0 {
            begun[who] = true;
            let out = mesh.workers[who].begin(AT, mesh.peers.clone(), mesh.peers[who].worker).unwrap();
            mesh.take(who, out);
        } else if begun[who] && dice.below(4) == 0 {
            let out = to_give[who].pop().map(|gift| give(&mut mesh.workers[who], gift));
            mesh.take(who, out.unwrap_or_default());
        } else if !mesh.wire.is_empty() {
            let (from, to, content) = mesh.wire.swap_remove(dice.below(mesh.wire.len()));
            let out = mesh.workers[to].receive(AT, mesh.peers[from].worker, content).unwrap();
            mesh.take(to, out);
        }
    }
    let wholes = mesh.wholes.into_iter().map(|w| w.expect("everybody ends with the whole gradient"));
    let squares: Vec<SquareSums> = mesh.squares.into_iter().map(|s| s.expect("everybody reports")).collect();
    (wholes.collect(), norm(&squares))
}

fn bits(gradient: &Gradient) -> Vec<u32> {
    gradient.rows.iter().copied().chain(gradient.floats.iter().map(|f| f.to_bits())).collect()
}

#[test]
fn any_mesh_in_any_order_ends_with_the_bits_of_the_star() {
    let everything = 0..5;
    for fold in [None, Some(0), Some(SEGMENT - 5)] {
        let star = summed(0..5, fold);
        let star_norm = norm(&[layout(fold).square_sums(&star, &layout(fold).slices(1)[0])]);
        let alone = std::slice::from_ref(&everything);
        for cut in [alone, &[0..2, 2..5], &[0..1, 1..3, 3..5], &[0..0, 0..4, 4..4, 4..5]] {
            for seed in 0..6 {
                let (all, norm) = run(cut, fold, seed);
                assert_eq!(norm.to_bits(), star_norm.to_bits(), "{cut:?}, {fold:?}, seed {seed}");
                assert!(all.iter().all(|g| bits(g) == bits(&star)), "{cut:?}, {fold:?}, seed {seed}");
            }
        }
    }
}

/// Worker 1's exchange of two workers with a lane each, begun; and what worker 2 would send it.
fn pair() -> (Exchange, Vec<PeerContent>) {
    let two = peers(&[0..1, 1..2]);
    let mut exchange = Exchange::new(layout(None), 2);
    exchange.begin(AT, two.clone(), WorkerId(1)).unwrap();
    let mut other = Exchange::new(layout(None), 2);
    other.begin(AT, two, WorkerId(2)).unwrap();
    let given = gifts(LaneTree::new(2), &(1..2), &mut Dice(1));
    let sent = given.into_iter().flat_map(|gift| give(&mut other, gift));
    let content = |out| match out {
        Outgoing::Send { content, .. } => content,
        other => panic!("{other:?} before worker 1 has given anything"),
    };
    (exchange, sent.map(content).collect())
}

#[test]
fn what_is_late_is_dropped_and_what_is_early_is_kept() {
    let (_, contents) = pair();
    let (b, before) = (WorkerId(2), (Term(3), Step(7)));
    let mut exchange = Exchange::new(layout(None), 2);
    for content in &contents {
        assert_eq!(exchange.receive(AT, b, content.clone()), Ok(vec![]), "kept for its step");
    }
    exchange.begin(before, peers(&[0..1, 1..2]), WorkerId(1)).unwrap();
    for content in &contents {
        assert_eq!(exchange.receive((Term(2), Step(7)), b, content.clone()), Ok(vec![]), "an older term");
    }
    let own = |exchange: &mut Exchange| -> Vec<Outgoing> {
        let gifts = gifts(LaneTree::new(2), &(0..1), &mut Dice(2));
        gifts.into_iter().flat_map(|gift| give(exchange, gift)).collect()
    };
    let reported = |out: &[Outgoing]| out.iter().any(|o| matches!(o, Outgoing::Report { .. }));
    assert!(!reported(&own(&mut exchange)), "what is late does not count");
    exchange.begin(AT, peers(&[0..1, 1..2]), WorkerId(1)).unwrap();
    assert!(reported(&own(&mut exchange)), "what came early counts");
}

#[test]
fn what_comes_early_is_kept_within_bounds() {
    let mut exchange = Exchange::new(layout(None), 2);
    let part = Part::Dense { start: 0, data: Bytes::from(vec![0; 1 << 18]) };
    let content = PeerContent { sum: Sum::Reduced, part };
    for _ in 0..100 {
        exchange.receive((Term(9), Step(1)), WorkerId(7), content.clone()).unwrap();
    }
    assert!(exchange.early.bytes <= 2 * 4 * (DENSE + ROWS * (WIDTH + 1)) && exchange.early.bytes > 4 * DENSE);
    exchange.begin((Term(9), Step(2)), peers(&[0..1, 1..2]), WorkerId(1)).unwrap();
    assert_eq!(exchange.early.bytes, 0, "what was kept for an earlier step is dropped");
}

fn floats(n: usize) -> Bytes {
    bytes_of(Arc::new(vec![0f32; n]))
}

fn dense(sum: Sum, start: usize, data: Bytes) -> PeerContent {
    PeerContent { sum, part: Part::Dense { start, data } }
}

#[test]
fn segments_that_do_not_fit_are_refused() {
    let (mut exchange, _) = pair();
    let own_end = layout(None).slices(2)[0].dense.end;
    let partial = Sum::Partial(Node { level: 0, index: 1 });
    let mut refused = |sum, start, data: Bytes, what: &str| {
        let error = exchange.receive(AT, WorkerId(2), dense(sum, start, data)).expect_err(what);
        assert!(matches!(error, ExchangeError::Segment { .. }), "{what}: {error}");
    };
    refused(partial, own_end, floats(1), "a partial sum of another's slice");
    refused(partial, SEGMENT - 1, floats(2), "over a segment's bound");
    refused(partial, own_end - 1, floats(2), "over the slice's end");
    refused(partial, usize::MAX, floats(2), "past all floats");
    refused(partial, 0, Bytes::from(vec![0; 5]), "half a float");
    refused(partial, 0, floats(0), "nothing");
    refused(Sum::Reduced, 0, floats(SEGMENT), "a reduced segment of the receiver's slice");
    refused(Sum::Reduced, own_end + 1, floats(SEGMENT), "off the sender's segments");
    refused(Sum::Reduced, own_end, floats(SEGMENT - 1), "less than a segment");
    refused(Sum::Reduced, usize::MAX, floats(SEGMENT), "past all floats");
    exchange.receive(AT, WorkerId(2), dense(partial, 4, floats(4))).unwrap();
    exchange.receive(AT, WorkerId(2), dense(Sum::Reduced, own_end, floats(SEGMENT))).unwrap();
    let mut refused = |sum, start, data: Bytes, what: &str| {
        let error = exchange.receive(AT, WorkerId(2), dense(sum, start, data)).expect_err(what);
        assert!(matches!(error, ExchangeError::Segment { .. }), "{what}: {error}");
    };
    refused(partial, 7, floats(2), "over what is here");
    refused(Sum::Reduced, own_end, floats(SEGMENT), "a second time");
}

#[test]
fn strangers_foreign_nodes_and_foreign_rows_are_refused() {
    let (mut exchange, _) = pair();
    let (zero, one) = (Node { level: 0, index: 0 }, Node { level: 0, index: 1 });
    let rows = |sum, tokens: &[u32], floats: usize| {
        let rows = TouchedRows { tokens: tokens.to_vec(), values: vec![0.0; floats] };
        PeerContent { sum, part: Part::Rows(Arc::new(rows)) }
    };
    let error = |exchange: &mut Exchange, worker, content| exchange.receive(AT, worker, content).unwrap_err();
    let partial = dense(Sum::Partial(one), 0, floats(1));
    assert!(matches!(error(&mut exchange, WorkerId(9), partial), ExchangeError::Stranger { .. }));
    let foreign = dense(Sum::Partial(zero), 0, floats(1));
    assert!(matches!(error(&mut exchange, WorkerId(2), foreign), ExchangeError::Node { .. }));
    // The slices have rows 0 to 2 and 3 to 6.
    for (sum, tokens, floats) in [
        (Sum::Partial(one), &[3][..], 2),
        (Sum::Partial(one), &[1, 1], 4),
        (Sum::Partial(one), &[1], 3),
        (Sum::Reduced, &[2], 2),
        (Sum::Reduced, &[4], 1),
    ] {
        let error = error(&mut exchange, WorkerId(2), rows(sum, tokens, floats));
        assert!(matches!(error, ExchangeError::Rows { .. }), "{sum:?} {tokens:?}: {error}");
    }
    for sum in [Sum::Partial(one), Sum::Reduced] {
        exchange.receive(AT, WorkerId(2), rows(sum, &[], 0)).unwrap();
        assert!(matches!(error(&mut exchange, WorkerId(2), rows(sum, &[], 0)), ExchangeError::Rows { .. }));
    }
}

#[test]
fn messages_after_the_whole_gradient_are_refused_and_do_no_harm() {
    let (mut exchange, contents) = pair();
    let (a, b) = (peers(&[0..1, 1..2]), WorkerId(2));
    let mut mesh = Mesh::new(&[0..1, 1..2], None);
    for who in 0..2 {
        mesh.workers[who].begin(AT, a.clone(), a[who].worker).unwrap();
        for gift in gifts(LaneTree::new(2), &(who as u32..who as u32 + 1), &mut Dice(3)) {
            let out = give(&mut mesh.workers[who], gift);
            mesh.take(who, out);
        }
    }
    while let Some((from, to, content)) = mesh.wire.pop() {
        let out = mesh.workers[to].receive(AT, a[from].worker, content).unwrap();
        mesh.take(to, out);
    }
    assert!(mesh.wholes[0].is_some());
    for content in contents {
        assert!(mesh.workers[0].receive(AT, b, content.clone()).is_err(), "{:?}", content.sum);
        assert_eq!(exchange.receive(AT, b, content.clone()).err(), None, "it is good before");
    }
}

#[test]
fn a_gradient_that_is_not_finite_is_placed_among_the_parameters() {
    let mut exchange = Exchange::new(layout(None), 1);
    let everything = 0..1;
    exchange.begin(AT, peers(std::slice::from_ref(&everything)), WorkerId(1)).unwrap();
    let node = Node { level: 0, index: 0 };
    let mut floats = vec![1.0; DENSE];
    (floats[SEGMENT + 3], floats[DENSE - 1]) = (f32::NAN, f32::INFINITY);
    exchange.contribute(node, 0, Arc::new(floats));
    let out = exchange.contribute_rows(node, &[3], &[1.0, 2.0]);
    let place = |o: &Outgoing| match o {
        Outgoing::Report { not_finite, .. } => Some(*not_finite),
        _ => None,
    };
    assert_eq!(out.iter().find_map(place), Some(Some(14 + SEGMENT + 3)));
}

#[test]
fn peers_that_leave_a_lane_out_are_refused() {
    let mut exchange = Exchange::new(layout(None), 3);
    let mut refused = |cut: &[Range<u32>]| {
        let error = exchange.begin(AT, peers(cut), WorkerId(1)).unwrap_err();
        assert!(matches!(error, ExchangeError::Lanes { .. }), "{cut:?}: {error}");
    };
    refused(&[0..1, 2..3]);
    refused(&[0..2, 1..3]);
    refused(&[0..1, 1..2]);
    refused(&[0..1, 1..4]);
    let three = 0..3;
    let strangers = exchange.begin(AT, peers(std::slice::from_ref(&three)), WorkerId(5));
    assert!(matches!(strangers, Err(ExchangeError::Missing { .. })));
}
