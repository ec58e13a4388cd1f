//! The walk of one layer through time: each step is one phase of the team, the recurrent product with the cell's equations at its end.
//!
//! Knows the order of time and where things lie; the equations are in `cells`. Step t reads what step t - 1 (backward: t + 1) wrote, and
//! writes its own rows only.

use std::marker::PhantomData;

use super::{
    Context, Isa, Kernel, LANES, Packed, Panels, View,
    product::{Product, Start},
    vector::Vector,
};
use crate::cells::{Cotangent, Equations, Moment, Wiring, with_equations};
use crate::config::Cell;

/// Rows a task takes: one register tile.
const ROWS_AT_A_TIME: usize = 12;

/// One layer over one window: T steps of B streams, H units.
#[derive(Clone, Copy)]
pub(crate) struct Recurrence<'a> {
    pub(crate) cell: Cell,
    pub(crate) steps: usize,
    pub(crate) streams: usize,
    pub(crate) hidden: usize,
    /// Recurrent weights, packed for this direction.
    pub(crate) weights: &'a Packed,
    /// Bias vectors of each slot and panel, for slots that the input does not start.
    pub(crate) bias: &'a [[f32; LANES]],
    /// Peephole weights of each panel (ci, cf, co); empty for cells without.
    pub(crate) peepholes: &'a [[[f32; LANES]; 3]],
}

/// What a layer keeps of a window. Rows of `h` and `c` are the carry, then one block of B rows for each step.
pub(crate) struct Tape<'a> {
    /// (T·B, slots·H) pre-activations in, activations out; backward: gradients of the pre-activations.
    pub(crate) gates: &'a mut Panels,
    /// ((T+1)·B, H).
    pub(crate) h: &'a mut Panels,
    /// ((T+1)·B, H), unused by cells without it.
    pub(crate) c: &'a mut Panels,
}

/// The tape's addresses.
#[derive(Clone, Copy)]
struct Tracks<'a> {
    gates: View<'a>,
    h: View<'a>,
    c: View<'a>,
}

impl Recurrence<'_> {
    fn panels(&self) -> usize {
        self.hidden.div_ceil(LANES)
    }

    /// Panels a forward task takes: two when one would end on half a pair of blocks.
    pub(crate) fn panels_of_a_task(wiring: &Wiring) -> usize {
        1 + wiring.hidden.len() % 2
    }

    /// Cuts the rows of a step for tasks: count of parts.
    fn parts(&self) -> usize {
        self.streams.div_ceil(ROWS_AT_A_TIME)
    }

    fn part(&self, step: usize, part: usize) -> (usize, usize) {
        let (from, to) = (self.streams * part / self.parts(), self.streams * (part + 1) / self.parts());
        (step * self.streams + from, to - from)
    }
}

/// Forward through all steps: fills gates, h and c from the carry in their first rows. Steps go through the weights in turns, up and
/// down.
pub(crate) fn recur_forward(ctx: Context<'_>, r: &Recurrence<'_>, tape: Tape<'_>) {
    let tracks = Tracks { gates: tape.gates.view_mut(), h: tape.h.view_mut(), c: tape.c.view_mut() };
    let wiring = r.cell.wiring();
    let groups = r.panels().div_ceil(Recurrence::panels_of_a_task(wiring));
    for step in 0..r.steps {
        ctx.team.run_in_turn(step, groups * r.parts(), |_, task| {
            let group = task / r.parts();
            let rows = r.part(step, task % r.parts());
            // SAFETY: the task writes its own panels' rows of this step; all read rows of h are of the step before.
            unsafe { forward_task(ctx.isa, r, wiring, tracks, (group, rows)) };
        });
    }
}

unsafe fn forward_task(
    isa: Isa,
    r: &Recurrence<'_>,
    wiring: &Wiring,
    tracks: Tracks,
    (group, (row, rows)): (usize, (usize, usize)),
) {
    let per_task = Recurrence::panels_of_a_task(wiring);
    let first = group * per_task;
    let panels = first..r.panels().min(first + per_task);
    let blocks = panels.len() * wiring.hidden.len();
    let before = [tracks.h.rows(row, rows)];
    for pair in 0..blocks.div_ceil(2) {
        let place = |block: usize| {
            let (_, slot) = wiring.hidden[block % wiring.hidden.len()];
            (slot, slot * r.panels() + first + block / wiring.hidden.len())
        };
        let width = (blocks - 2 * pair).min(2);
        let ends = [place(2 * pair), place(2 * pair + width - 1)];
        let out = ends.map(|(_, panel)| tracks.gates.panels(panel, LANES).rows(row, rows));
        let start = ends.map(|(slot, panel)| match wiring.starts_from_input(slot) {
            true => Start::Accumulate,
            false => Start::Bias(&r.bias[panel]),
        });
        let right = r.weights.pair(first * wiring.hidden.len() / 2 + pair);
        // SAFETY: as the caller's: these rows of these panels are this task's.
        unsafe { Product { left: &before, right, out, width, start }.compute(isa) };
    }
    for panel in panels {
        with_equations!(r.cell, E => isa.dispatch(Forward::<E> { r, tracks, panel, rows: (row, rows), cell: PhantomData }));
    }
}

/// The cell's equations for some rows of one panel.
struct Forward<'a, E> {
    r: &'a Recurrence<'a>,
    tracks: Tracks<'a>,
    panel: usize,
    rows: (usize, usize),
    cell: PhantomData<E>,
}

impl<E: Equations> Kernel for Forward<'_, E> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (streams, panels) = (self.r.streams, self.r.panels());
        let peepholes = self.r.peepholes.get(self.panel).map_or([V::zero(); 3], |p| p.map(V::from_array));
        for row in self.rows.0..self.rows.0 + self.rows.1 {
            let gate = |slot: usize| self.tracks.gates.at(slot * panels + self.panel, row);
            // SAFETY: the gates, h and c of this panel and row are this task's; `row + streams` is the same stream one step on.
            unsafe {
                let mut z = [V::zero(); 4];
                for (slot, z) in z.iter_mut().enumerate().take(E::SLOTS) {
                    *z = V::load(gate(slot));
                }
                let h = V::load(self.tracks.h.at(self.panel, row));
                let c = if E::CELL_STATE { V::load(self.tracks.c.at(self.panel, row)) } else { h };
                let (h, c) = E::forward(&mut z, h, c, &peepholes);
                for (slot, z) in z.iter().enumerate().take(E::SLOTS) {
                    z.store(gate(slot));
                }
                h.store(self.tracks.h.at(self.panel, row + streams));
                if E::CELL_STATE {
                    c.store(self.tracks.c.at(self.panel, row + streams));
                }
            }
        }
    }
}

/// Gradients that walk back through time.
pub(crate) struct Cotangents<'a> {
    /// (T·B, H): in, the gradient of each output from above; out, the whole gradient of each h.
    pub(crate) h: &'a mut Panels,
    /// (B, H): gradient of c, zero at the end of the window.
    pub(crate) c: &'a mut Panels,
}

/// Backward through all steps: turns the tape's activations into gradients of the pre-activations.
pub(crate) fn recur_backward(ctx: Context<'_>, r: &Recurrence<'_>, tape: Tape<'_>, gradient: Cotangents<'_>) {
    let tracks = Tracks { gates: tape.gates.view_mut(), h: tape.h.view_mut(), c: tape.c.view_mut() };
    let (dh, dc) = (gradient.h.view_mut(), gradient.c.view_mut());
    let wiring = r.cell.wiring();
    let pairs = r.weights.pair_count();
    for step in (0..r.steps).rev() {
        ctx.team.run_in_turn(step, pairs * r.parts(), |_, task| {
            let pair = task / r.parts();
            let rows = r.part(step, task % r.parts());
            let last = step + 1 == r.steps;
            // SAFETY: the task writes its own panels' rows of this step (and dh of the step before, which no other task of this phase
            // touches); all read gates are of the step after.
            unsafe { backward_task(ctx.isa, r, wiring, (tracks, dh, dc), (pair, rows), last) };
        });
    }
}

unsafe fn backward_task(
    isa: Isa,
    r: &Recurrence<'_>,
    wiring: &Wiring,
    (tracks, dh, dc): (Tracks, View, View),
    (pair, (row, rows)): (usize, (usize, usize)),
    last: bool,
) {
    let width = r.weights.width(pair);
    if !last {
        let slot = |&(_, slot): &(usize, usize)| {
            tracks.gates.panels(slot * r.panels(), r.hidden).rows(row + r.streams, rows)
        };
        let mut left = [dh; 4];
        for (left, wire) in left.iter_mut().zip(wiring.hidden) {
            *left = slot(wire);
        }
        let left = &left[..wiring.hidden.len()];
        let out = [2 * pair, 2 * pair + width - 1].map(|panel| dh.panels(panel, LANES).rows(row, rows));
        let product =
            Product { left, right: r.weights.pair(pair), out, width, start: [Start::Accumulate; 2] };
        // SAFETY: as the caller's.
        unsafe { product.compute(isa) };
    }
    for panel in 2 * pair..2 * pair + width {
        let rows = (row, rows);
        with_equations!(r.cell, E => {
            isa.dispatch(Backward::<E> { r, tracks, dh, dc, panel, rows, cell: PhantomData })
        });
    }
}

/// The cell's derivatives for some rows of one panel.
struct Backward<'a, E> {
    r: &'a Recurrence<'a>,
    tracks: Tracks<'a>,
    dh: View<'a>,
    dc: View<'a>,
    panel: usize,
    rows: (usize, usize),
    cell: PhantomData<E>,
}

impl<E: Equations> Kernel for Backward<'_, E> {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let (streams, panels, panel) = (self.r.streams, self.r.panels(), self.panel);
        let peepholes = self.r.peepholes.get(panel).map_or([V::zero(); 3], |p| p.map(V::from_array));
        for row in self.rows.0..self.rows.0 + self.rows.1 {
            let gate = |slot: usize| self.tracks.gates.at(slot * panels + panel, row);
            // SAFETY: this panel and row of the gates, dh and dc are this task's; h and c are only read.
            unsafe {
                let mut z = [V::zero(); 4];
                for (slot, z) in z.iter_mut().enumerate().take(E::SLOTS) {
                    *z = V::load(gate(slot));
                }
                let at = |track: View, row: usize| V::load(track.at(panel, row));
                let pair = |track: View| (at(track, row), at(track, row + streams));
                let (h_before, h) = pair(self.tracks.h);
                let (c_before, c) = if E::CELL_STATE { pair(self.tracks.c) } else { (h_before, h) };
                let stream = row % streams;
                let dc = if E::CELL_STATE { at(self.dc, stream) } else { V::zero() };
                let moment = Moment { h_before, c_before, h, c, dh: at(self.dh, row), dc };
                let Cotangent { h, c } = E::backward(&mut z, &moment, &peepholes);
                for (slot, z) in z.iter().enumerate().take(E::SLOTS) {
                    z.store(gate(slot));
                }
                if E::CELL_STATE {
                    c.store(self.dc.at(panel, stream));
                }
                if E::DIRECT && row >= streams {
                    let before = self.dh.at(panel, row - streams);
                    V::load(before).add(h).store(before);
                }
            }
        }
    }
}
