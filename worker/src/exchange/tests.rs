//! Meshes of several workers in one thread, their messages delivered in any order.

use super::*;
use carousel_proto::gradient::norm;

const AT: (Term, Step) = (Term(3), Step(8));

fn layout() -> GradientLayout {
    GradientLayout { dense: 9000, dense_offset: 14, rows: 7, width: 2, rows_fold_into: None }
}

fn gradient(lane: u32) -> Gradient {
    let rows: Vec<u32> = (0..7).filter(|row| (row + lane).is_multiple_of(3)).collect();
    let floats =
        (0..9000 + 2 * rows.len() as u32).map(|i| ((i * 7 + lane * 13) % 29) as f32 * 0.31 - 4.0).collect();
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

/// What the holder of lanes contributes: each of its nodes, summed by the tree.
fn contribution(tree: LaneTree, lanes: &Range<u32>) -> Vec<(Node, Gradient)> {
    let layout = layout();
    let whole = layout.slices(1).remove(0);
    let sum = |node: Node| {
        let under = tree.lanes_under(node).unwrap();
        let inner = LaneTree::new(under.len() as u32);
        let singles =
            (0..inner.lanes()).map(|i| (Node { level: 0, index: i }, gradient(under.start + i))).collect();
        (node, layout.reduce(inner, singles, &whole))
    };
    tree.maximal_nodes(lanes.clone()).into_iter().map(sum).collect()
}

fn contribute(exchange: &mut Exchange, partials: &[(Node, Gradient)]) -> Vec<Outgoing> {
    let layout = layout();
    let parts: Vec<_> = partials.iter().map(|(node, gradient)| (*node, layout.parts(gradient))).collect();
    exchange.contribute(&parts)
}

/// Runs a whole mesh; messages are delivered in an order that `seed` decides. Everybody's gradient and the norm.
fn run(cut: &[Range<u32>], seed: u64) -> (Vec<Gradient>, f64) {
    let lanes = cut.last().unwrap().end;
    let tree = LaneTree::new(lanes);
    let peers = peers(cut);
    let mut workers: Vec<Exchange> = peers.iter().map(|_| Exchange::new(layout(), lanes)).collect();
    let mut wire: Vec<(usize, usize, PeerContent)> = Vec::new();
    let mut wholes: Vec<Option<Gradient>> = vec![None; peers.len()];
    let mut squares = vec![SquareSums::default(); peers.len()];
    let mut state = seed;
    let mut started = 0;
    while started < workers.len() || !wire.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let pick = (state >> 33) as usize;
        let (who, outgoing) = if started < workers.len() && (wire.is_empty() || pick.is_multiple_of(3)) {
            let who = started;
            started += 1;
            let mut out = workers[who].begin(AT, peers.clone(), peers[who].worker).unwrap();
            out.extend(contribute(&mut workers[who], &contribution(tree, &peers[who].lanes)));
            (who, out)
        } else {
            let (from, to, content) = wire.swap_remove(pick % wire.len());
            (to, workers[to].receive(AT, peers[from].worker, content).unwrap())
        };
        let place = |peer: &Peer| peers.iter().position(|p| p == peer).unwrap();
        for out in outgoing {
            match out {
                Outgoing::Partial { to, node, gradient } => {
                    wire.push((who, place(&to), PeerContent::Partial { node, gradient }))
                }
                Outgoing::Reduced { to, gradient, squares: sums, not_finite } => {
                    assert_eq!(not_finite, None);
                    squares[who] = sums;
                    wire.extend(
                        to.iter()
                            .map(|p| (who, place(p), PeerContent::Reduced { gradient: (*gradient).clone() })),
                    );
                }
                Outgoing::Whole(gradient) => {
                    assert_eq!(wholes[who].replace(gradient), None, "whole only once")
                }
            }
        }
    }
    (wholes.into_iter().map(|w| w.expect("everybody ends with the whole gradient")).collect(), norm(&squares))
}

fn bits(gradient: &Gradient) -> Vec<u32> {
    gradient.rows.iter().copied().chain(gradient.floats.iter().map(|f| f.to_bits())).collect()
}

#[test]
fn any_mesh_in_any_order_ends_with_the_same_bits() {
    let everything = 0..5;
    let (alone, alone_norm) = run(std::slice::from_ref(&everything), 0);
    for cut in [&[0..2, 2..5][..], &[0..1, 1..3, 3..5], &[0..0, 0..4, 4..4, 4..5]] {
        for seed in 0..20 {
            let (all, norm) = run(cut, seed);
            assert_eq!(norm.to_bits(), alone_norm.to_bits());
            assert!(all.iter().all(|g| bits(g) == bits(&alone[0])), "{cut:?}, seed {seed}");
        }
    }
}

#[test]
fn what_is_late_is_dropped_and_what_is_early_is_kept() {
    let peers = peers(&[0..1, 1..2]);
    let mut exchange = Exchange::new(layout(), 2);
    let tree = LaneTree::new(2);
    let slice = layout().slices(2).remove(0);
    let (node, whole) = contribution(tree, &(1..2)).remove(0);
    let content = PeerContent::Partial { node, gradient: layout().cut(layout().parts(&whole), &slice) };
    let (b, before) = (WorkerId(2), (Term(3), Step(7)));
    assert_eq!(exchange.receive(AT, b, content.clone()), Ok(vec![]), "kept for its step");
    exchange.begin(before, peers.clone(), WorkerId(1)).unwrap();
    assert_eq!(exchange.receive((Term(2), Step(7)), b, content.clone()), Ok(vec![]), "an older term");
    assert!(exchange.partials.is_empty());
    exchange.begin(AT, peers, WorkerId(1)).unwrap();
    let outgoing = contribute(&mut exchange, &contribution(tree, &(0..1)));
    assert!(outgoing.iter().any(|o| matches!(o, Outgoing::Reduced { .. })), "the early partial counted");
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut exchange = Exchange::new(layout(), 2);
    exchange.begin(AT, peers(&[0..1, 1..2]), WorkerId(1)).unwrap();
    let empty = Gradient::default();
    let partial = |node| PeerContent::Partial { node, gradient: empty.clone() };
    let (zero, one) = (Node { level: 0, index: 0 }, Node { level: 0, index: 1 });
    let error = |exchange: &mut Exchange, worker, content| exchange.receive(AT, worker, content).unwrap_err();
    assert!(matches!(error(&mut exchange, WorkerId(9), partial(one)), ExchangeError::Stranger { .. }));
    assert!(matches!(error(&mut exchange, WorkerId(2), partial(zero)), ExchangeError::Node { .. }));
    assert!(matches!(error(&mut exchange, WorkerId(2), partial(one)), ExchangeError::Size { floats: 0, .. }));
    let foreign_row = Gradient { rows: vec![0], floats: vec![0.0; layout().slices(2)[1].dense.len() + 2] };
    assert!(matches!(
        error(&mut exchange, WorkerId(2), PeerContent::Reduced { gradient: foreign_row }),
        ExchangeError::Size { .. }
    ));
    let both = 0..2;
    let strangers = peers(std::slice::from_ref(&both));
    assert!(matches!(exchange.begin(AT, strangers, WorkerId(5)), Err(ExchangeError::Missing { .. })));
}
