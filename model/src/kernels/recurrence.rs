//! The walk of one layer through time: each step is one phase of the team, the recurrent product with the cell's equations at its end.
//!
//! Knows the order of time and where things lie; the equations are in `cells`. Step t reads what step t - 1 (backward: t + 1) wrote, and
//! writes its own rows only.

use std::marker::PhantomData;

use super::{
    Context, Isa, Kernel, LANES, Packed, Panels, View,
    product::{Product, Run, Start},
    vector::Vector,
};
use crate::cells::{Cell, Cotangent, Equations, Moment, Wiring, with_equations};

/// Most rows of a task: three register tiles.
const ROWS_AT_A_TIME: usize = 36;

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

    /// The tasks of a time step over `groups` of panels: (group, first row, rows). All rows of a group belong together, so that its
    /// weights come from beyond the cache once; only where two members' shares meet, a group is cut.
    fn tasks(&self, ctx: Context<'_>, groups: usize) -> Vec<(usize, usize, usize)> {
        let members = ctx.team.members();
        let mut tasks = Vec::new();
        for group in 0..groups {
            let start = group * self.streams;
            let shares = (1..members).map(|member| groups * self.streams * member / members);
            let mut cuts: Vec<usize> =
                shares.filter(|cut| (start + 1..start + self.streams).contains(cut)).collect();
            cuts.push(start + self.streams);
            let mut from = start;
            for to in cuts {
                let parts = (to - from).div_ceil(ROWS_AT_A_TIME);
                let bound = |part: usize| from - start + (to - from) * part / parts;
                tasks.extend((0..parts).map(|part| (group, bound(part), bound(part + 1) - bound(part))));
                from = to;
            }
        }
        tasks
    }

    /// The pair of weights that a thread reads after this one. Tasks of `pairs` go up and down in turns, pairs inside a task go up.
    fn next(&self, turn: usize, pair: usize, pairs: usize) -> &[f32] {
        let ends = (pair + 1).is_multiple_of(pairs);
        let next = match ends && !turn.is_multiple_of(2) {
            true => (pair + 1).checked_sub(2 * pairs),
            false => Some(pair + 1),
        };
        next.filter(|&next| next < self.weights.pair_count()).map_or(&[], |next| self.weights.pair(next))
    }
}

/// Most runs of memory that a backward task meets beside its product: ten for each of two panels, and two of the next task.
const MOST_RUNS: usize = 22;

impl Recurrence<'_> {
    /// What a forward task meets soon: the places of the next pair's products; then h after the step, c before and after it.
    fn forward_runs(
        &self,
        tracks: Tracks,
        ahead: [usize; 2],
        (panel, (row, rows)): (usize, (usize, usize)),
    ) -> [Run; 5] {
        let state = |track: View, step: usize| track.run(panel, row + step * self.streams, rows);
        let [a, b] = ahead.map(|panel| tracks.gates.run(panel, row, rows));
        [a, b, state(tracks.h, 1), state(tracks.c, 0), state(tracks.c, 1)]
    }

    /// Lists what a backward task reads and writes after its product, and where the next task's product begins; returns how many.
    fn backward_runs(
        &self,
        runs: &mut [Run; MOST_RUNS],
        (tracks, dh, dc): (Tracks, View, View),
        (pair, (row, rows)): (usize, (usize, usize)),
        turn: usize,
    ) -> usize {
        let mut count = 0;
        let mut push = |run: Run| {
            runs[count] = run;
            count += 1;
        };
        for panel in 2 * pair..2 * pair + self.weights.width(pair) {
            for slot in 0..self.cell.wiring().slots {
                push(tracks.gates.run(slot * self.panels() + panel, row, rows));
            }
            if self.cell.has_cell_state() {
                push(tracks.c.run(panel, row, rows));
                push(dc.run(panel, row % self.streams, rows));
            } else {
                push(tracks.h.run(panel, row, rows));
            }
            let after = if turn.is_multiple_of(2) { panel + 2 } else { panel.wrapping_sub(2) };
            push(dh.run(after, row, rows));
        }
        count
    }
}

/// Forward through all steps: fills gates, h and c from the carry in their first rows. Steps go through the weights in turns, up and
/// down.
pub(crate) fn recur_forward(ctx: Context<'_>, r: &Recurrence<'_>, tape: Tape<'_>) {
    let tracks = Tracks { gates: tape.gates.view_mut(), h: tape.h.view_mut(), c: tape.c.view_mut() };
    let wiring = r.cell.wiring();
    let groups = r.panels().div_ceil(Recurrence::panels_of_a_task(wiring));
    let tasks = r.tasks(ctx, groups);
    for step in 0..r.steps {
        ctx.team.run_in_turn(step, tasks.len(), |_, task| {
            let (group, row, rows) = tasks[task];
            let rows = (step * r.streams + row, rows);
            // SAFETY: the task writes its own panels' rows of this step; all read rows of h are of the step before.
            unsafe { forward_task(ctx.isa, r, (wiring, step), tracks, (group, rows)) };
        });
    }
}

unsafe fn forward_task(
    isa: Isa,
    r: &Recurrence<'_>,
    (wiring, turn): (&Wiring, usize),
    tracks: Tracks,
    (group, (row, rows)): (usize, (usize, usize)),
) {
    let per_task = Recurrence::panels_of_a_task(wiring);
    let first = group * per_task;
    let panels = first..r.panels().min(first + per_task);
    let blocks = panels.len() * wiring.hidden.len();
    let before = [tracks.h.rows(row, rows)];
    let pairs = blocks.div_ceil(2);
    // Block `b` after this task's first: its slot and panel. Those of the next task follow this task's.
    let place = |block: usize| {
        let (_, slot) = wiring.hidden[block % wiring.hidden.len()];
        (slot, slot * r.panels() + first + block / wiring.hidden.len())
    };
    for pair in 0..pairs {
        let width = (blocks - 2 * pair).min(2);
        let ends = [place(2 * pair), place(2 * pair + width - 1)];
        let out = ends.map(|(_, panel)| tracks.gates.panels(panel, LANES).rows(row, rows));
        let start = ends.map(|(slot, panel)| match wiring.starts_from_input(slot) {
            true => Start::Accumulate,
            false => Start::Bias(&r.bias[panel]),
        });
        let ahead = match pair + 1 < pairs || turn.is_multiple_of(2) {
            true => [place(2 * pair + 2).1, place(2 * pair + 3).1],
            false => [0, 1].map(|block| place(block).1.wrapping_sub(per_task)),
        };
        let runs = r.forward_runs(tracks, ahead, (first, (row, rows)));
        let soon = match pair {
            0 => &runs[..if r.cell.has_cell_state() { 5 } else { 3 }],
            _ => &runs[..2],
        };
        let pair = first * wiring.hidden.len() / 2 + pair;
        let next = r.next(turn, pair, pairs);
        // SAFETY: as the caller's: these rows of these panels are this task's.
        unsafe {
            Product { left: &before, right: r.weights.pair(pair), out, width, start, next, soon }.compute(isa)
        };
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
    let tasks = r.tasks(ctx, r.weights.pair_count());
    for step in (0..r.steps).rev() {
        ctx.team.run_in_turn(step, tasks.len(), |_, task| {
            let (pair, row, rows) = tasks[task];
            let rows = (step * r.streams + row, rows);
            // SAFETY: the task writes its own panels' rows of this step (and dh of the step before, which no other task of this phase
            // touches); all read gates are of the step after.
            unsafe { backward_task(ctx.isa, r, (wiring, step), (tracks, dh, dc), (pair, rows)) };
        });
    }
}

unsafe fn backward_task(
    isa: Isa,
    r: &Recurrence<'_>,
    (wiring, step): (&Wiring, usize),
    (tracks, dh, dc): (Tracks, View, View),
    (pair, (row, rows)): (usize, (usize, usize)),
) {
    let width = r.weights.width(pair);
    if step + 1 < r.steps {
        let slot = |&(_, slot): &(usize, usize)| {
            tracks.gates.panels(slot * r.panels(), r.hidden).rows(row + r.streams, rows)
        };
        let mut left = [dh; 4];
        for (left, wire) in left.iter_mut().zip(wiring.hidden) {
            *left = slot(wire);
        }
        let left = &left[..wiring.hidden.len()];
        let out = [2 * pair, 2 * pair + width - 1].map(|panel| dh.panels(panel, LANES).rows(row, rows));
        let mut soon = [(std::ptr::null(), 0); MOST_RUNS];
        let count = r.backward_runs(&mut soon, (tracks, dh, dc), (pair, (row, rows)), step);
        let (right, next) = (r.weights.pair(pair), r.next(step, pair, 1));
        let (start, soon) = ([Start::Accumulate; 2], &soon[..count]);
        let product = Product { left, right, out, width, start, next, soon };
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
