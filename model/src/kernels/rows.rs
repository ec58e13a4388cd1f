//! Rows of activations one by one: picked out of a window, added back, and each against its own target's weights. Not products: every
//! row meets a different row of the weights.

use super::{
    Context, Kernel, LANES, Panels, Source, View,
    softmax::tree,
    team::{Pieces, Team},
    vector::Vector,
};

/// Rows of one task.
const ROWS_AT_A_TIME: usize = 16;

/// Row k of `to` becomes row `rows[k]` of `from`.
pub(crate) fn gather(team: &Team, from: View<'_>, rows: &[usize], to: &mut Panels) {
    assert_eq!(rows.len(), to.row_count(), "a row for each");
    let (data, panel_len) = to.data_mut();
    team.run_pieces(data, panel_len, |_, panel, data| {
        for (to, &row) in data.as_chunks_mut::<LANES>().0.iter_mut().zip(rows) {
            let from = from.rows(row, 1).at(panel, 0).cast::<[f32; LANES]>();
            // SAFETY: `rows` checked that the row exists; nobody writes `from` during this phase.
            *to = unsafe { *from };
        }
    });
}

/// Row k of `from` is added to row `rows[k]` of `to`; no row is named twice.
pub(crate) fn add_rows(team: &Team, from: &Panels, rows: &[usize], to: &mut Panels) {
    let (data, panel_len) = to.data_mut();
    team.run_pieces(data, panel_len, |_, panel, data| {
        let from = from.panel_rows(panel, 0).as_chunks::<LANES>().0;
        let data = data.as_chunks_mut::<LANES>().0;
        for (from, &row) in from.iter().zip(rows) {
            data[row].iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    });
}

/// Each row times its factor.
pub(crate) fn multiply_rows(team: &Team, factors: &[f32], rows: &mut Panels) {
    let (data, panel_len) = rows.data_mut();
    team.run_pieces(data, panel_len, |_, _, data| {
        for (row, factor) in data.as_chunks_mut::<LANES>().0.iter_mut().zip(factors) {
            row.iter_mut().for_each(|value| *value *= factor);
        }
    });
}

/// A row of the window and the row of a weight matrix that is its target's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TargetRow {
    pub(crate) row: usize,
    pub(crate) target: usize,
}

/// The product of each row with its target's weights: 16 partial chains by column mod 16, then the fixed tree. One result a pair.
pub(crate) fn target_products(
    ctx: Context<'_>,
    hidden: View<'_>,
    weight: Source<'_>,
    pairs: &[TargetRow],
    products: &mut [f32],
) {
    assert_eq!(pairs.len(), products.len(), "a product for each");
    let pieces = Pieces::new(products, ROWS_AT_A_TIME);
    ctx.team.run(pieces.count(), |_, piece| {
        let pairs = &pairs[piece * ROWS_AT_A_TIME..];
        // SAFETY: every piece is taken once.
        let products = unsafe { pieces.take(piece) };
        ctx.isa.dispatch(Products { hidden, weight, pairs, products });
    });
}

struct Products<'a> {
    hidden: View<'a>,
    weight: Source<'a>,
    pairs: &'a [TargetRow],
    products: &'a mut [f32],
}

impl Kernel for Products<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        for (pair, product) in self.pairs.iter().zip(self.products) {
            let hidden = self.hidden.rows(pair.row, 1);
            let mut acc = V::zero();
            for (panel, weights) in row_of(self.weight, pair.target).chunks(LANES).enumerate() {
                // SAFETY: `rows` checked that the row exists; nobody writes it during this phase.
                let hidden = unsafe { V::load(hidden.at(panel, 0)) };
                acc = hidden.fma(padded::<V>(weights), acc);
            }
            *product = tree(acc.to_array(), |a, b| a + b);
        }
    }
}

/// to[row] = fma(factors[row], weights of the row's target, to[row]) for the rows of the pairs, none of which is named twice.
pub(crate) fn add_target_weights(
    ctx: Context<'_>,
    (pairs, factors): (&[TargetRow], &[f32]),
    weight: Source<'_>,
    to: &mut Panels,
) {
    let (data, panel_len) = to.data_mut();
    ctx.team.run_pieces(data, panel_len, |_, panel, data| {
        ctx.isa.dispatch(AddWeights { pairs, factors, weight, panel, data });
    });
}

struct AddWeights<'a> {
    pairs: &'a [TargetRow],
    factors: &'a [f32],
    weight: Source<'a>,
    panel: usize,
    data: &'a mut [f32],
}

impl Kernel for AddWeights<'_> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (data, first) = (self.data.as_chunks_mut::<LANES>().0, self.panel * LANES);
        for pair in self.pairs {
            let factor = self.factors[pair.row];
            let weights = row_of(self.weight, pair.target);
            let weights = padded::<V>(&weights[first..weights.len().min(first + LANES)]);
            let place = &mut data[pair.row];
            *place = V::splat(factor).fma(weights, V::from_array(*place)).to_array();
        }
    }
}

fn row_of(weight: Source<'_>, row: usize) -> &[f32] {
    &weight.values[row * weight.row..(row + 1) * weight.row]
}

/// Up to 16 floats, then zeros.
#[inline(always)]
fn padded<V: Vector>(floats: &[f32]) -> V {
    if let Ok(whole) = <[f32; LANES]>::try_from(floats) {
        return V::from_array(whole);
    }
    let mut whole = [0.0; LANES];
    whole[..floats.len()].copy_from_slice(floats);
    V::from_array(whole)
}
