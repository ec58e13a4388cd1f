//! Weight gradients: dW[j][e] = sum over rows r of left[r][j] * right[r][e], one chain a lane, lanes added by the lane tree.
//!
//! The tree is folded on register tiles: finished subtrees wait on a small stack in the first-level cache, so summing by lanes costs no
//! pass over memory. Nothing here knows which weights these are.

use std::ops::Range;

use super::{
    Context, Kernel, View,
    team::Pieces,
    vector::{LANES, Vector},
};
use crate::tree::completed;

/// Columns of one lane inside each time step's rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lane {
    pub(crate) first: usize,
    pub(crate) streams: usize,
}

/// How rows belong to lanes, and lanes to partial sums.
#[derive(Clone, Copy)]
pub(crate) struct Lanes<'a> {
    /// Time steps (T).
    pub(crate) steps: usize,
    /// Rows of a time step (B).
    pub(crate) streams: usize,
    pub(crate) lanes: &'a [Lane],
    /// Runs of lanes; each gives one sum.
    pub(crate) groups: &'a [Range<usize>],
}

/// Where the sums of each group go: one row-major (rows, columns) matrix a group.
pub(crate) struct Outputs<'a> {
    groups: Vec<Pieces<'a>>,
    columns: usize,
}

impl<'a> Outputs<'a> {
    /// The part `range` of each group's flat gradient as a matrix of `columns` columns.
    pub(crate) fn new(groups: impl Iterator<Item = &'a mut [f32]>, columns: usize) -> Self {
        Self { groups: groups.map(|flat| Pieces::new(flat, columns)).collect(), columns }
    }

    /// Writes part of a group's first row.
    ///
    /// # Safety
    /// No other thread touches these columns.
    pub(super) unsafe fn write(&self, group: usize, first: usize, values: &[f32]) {
        assert!(first + values.len() <= self.columns, "columns {first}+{}", values.len());
        // SAFETY: the columns lie inside row 0, and are this thread's alone.
        unsafe {
            let row = self.groups[group].address(0);
            std::ptr::copy_nonoverlapping(values.as_ptr(), row.add(first), values.len());
        }
    }
}

/// Panels of the left operand a task takes: with one group of right panels they fit the second-level cache.
const PANELS_AT_A_TIME: usize = 8;
/// The tallest register tile times the widest.
const TILE: usize = 8 * 3;

/// The whole gradient of one matrix. `left` lists panels of 16 columns with the first output row and the count of rows they give.
pub(crate) fn weight_gradient(
    ctx: Context<'_>,
    lanes: Lanes<'_>,
    left: &[(View, usize, usize)],
    right: View,
    out: &Outputs<'_>,
) {
    let tasks = gradient_tasks(left.len(), right);
    ctx.team.run(tasks, |member, task| {
        // SAFETY: every task runs once and the outputs are borrowed mutably.
        unsafe { gradient_task(ctx, (member, task), lanes, (left, right), out) };
    });
}

/// Tasks of [`gradient_task`].
pub(crate) fn gradient_tasks(left_panels: usize, right: View) -> usize {
    left_panels.div_ceil(PANELS_AT_A_TIME) * right.panel_count().div_ceil(3)
}

/// One task: some left panels against three right panels.
///
/// # Safety
/// Each task runs once; nobody else touches `out`; nobody writes the operands.
pub(crate) unsafe fn gradient_task(
    ctx: Context<'_>,
    (member, task): (usize, usize),
    lanes: Lanes<'_>,
    (left, right): (&[(View, usize, usize)], View),
    out: &Outputs<'_>,
) {
    let thirds = right.panel_count().div_ceil(3);
    let (chunk, third) = (task / thirds, task % thirds);
    let depth = usize::BITS as usize - lanes.lanes.len().leading_zeros() as usize + 1;
    let mut stack = ctx.scratch.of(member, depth * TILE * LANES);
    let panels = 3 * third..right.panel_count().min(3 * third + 3);
    let from = chunk * PANELS_AT_A_TIME;
    for &(view, row, count) in &left[from..left.len().min(from + PANELS_AT_A_TIME)] {
        let place = Place { row, count, panels: panels.clone() };
        ctx.isa.dispatch(Strip { lanes, left: view, right, place, out, stack: &mut stack });
    }
}

/// Output rows of one left panel, and right panels.
struct Place {
    row: usize,
    count: usize,
    panels: Range<usize>,
}

/// One left panel against up to three right panels.
struct Strip<'a, 'b> {
    lanes: Lanes<'a>,
    left: View<'a>,
    right: View<'a>,
    place: Place,
    out: &'a Outputs<'b>,
    stack: &'a mut [f32],
}

impl Kernel for Strip<'_, '_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        let mut column = 0;
        while column < self.place.count {
            let rows = V::GRADIENT_ROWS.min(LANES - column);
            let mut panel = self.place.panels.start;
            while panel < self.place.panels.end {
                let width = V::GRADIENT_VECTORS.min(self.place.panels.end - panel);
                // SAFETY: the caller of `gradient_task` gives exclusive outputs and quiet operands; the tile lies inside both.
                unsafe { self.tile::<V>(column, rows, panel, width) };
                panel += width;
            }
            column += rows;
        }
    }
}

impl Strip<'_, '_> {
    #[inline(always)]
    unsafe fn tile<V: Vector>(&mut self, column: usize, rows: usize, panel: usize, width: usize) {
        // SAFETY: as the caller's.
        unsafe {
            match (rows, width) {
                (8, 3) => self.groups::<V, 8, 3>(column, panel),
                (8, 2) => self.groups::<V, 8, 2>(column, panel),
                (8, _) => self.groups::<V, 8, 1>(column, panel),
                (6, _) => self.groups::<V, 6, 1>(column, panel),
                (_, _) => self.groups::<V, 4, 1>(column, panel),
            }
        }
    }

    #[inline(always)]
    unsafe fn groups<V: Vector, const R: usize, const N: usize>(&mut self, column: usize, panel: usize) {
        if R > V::GRADIENT_ROWS || N > V::GRADIENT_VECTORS {
            return;
        }
        for group in 0..self.lanes.groups.len() {
            let mut depth = 0;
            let mut acc = [[V::zero(); N]; R];
            for (index, lane) in self.lanes.lanes[self.lanes.groups[group].clone()].iter().enumerate() {
                if index > 0 {
                    // SAFETY: the stack has room for the tree's depth of tiles.
                    unsafe { push(self.stack, &mut depth, &acc) };
                }
                // SAFETY: as the caller's.
                acc = unsafe { self.lane_chain::<V, R, N>(*lane, column, panel) };
                for _ in 0..completed(index) {
                    // SAFETY: a trailing one of the index is a finished subtree on the stack.
                    unsafe { pop_and_add(self.stack, &mut depth, &mut acc) };
                }
            }
            while depth > 0 {
                // SAFETY: depth tiles are on the stack.
                unsafe { pop_and_add(self.stack, &mut depth, &mut acc) };
            }
            // SAFETY: as the caller's.
            unsafe { self.store(group, &acc, column, panel) };
        }
    }

    /// The chain of one lane for one tile: time steps outside, streams inside, from zero.
    #[inline(always)]
    unsafe fn lane_chain<V: Vector, const R: usize, const N: usize>(
        &self,
        lane: Lane,
        column: usize,
        panel: usize,
    ) -> [[V; N]; R] {
        let mut acc = [[V::zero(); N]; R];
        let left = self.left.at(0, lane.first).wrapping_add(column).cast_const();
        let right: [*const f32; N] =
            std::array::from_fn(|v| self.right.at(panel + v, lane.first).cast_const());
        let mut step = 0;
        for _ in 0..self.lanes.steps {
            for row in step..step + lane.streams {
                let at = row * LANES;
                // SAFETY: row `lane.first + row` exists in both operands; column + R <= 16.
                unsafe {
                    let right: [V; N] = std::array::from_fn(|v| V::load(right[v].add(at)));
                    for (i, acc) in acc.iter_mut().enumerate() {
                        let left = V::splat(*left.add(at + i));
                        for (acc, right) in acc.iter_mut().zip(right) {
                            *acc = left.fma(right, *acc);
                        }
                    }
                }
            }
            step += self.lanes.streams;
        }
        acc
    }

    #[inline(always)]
    unsafe fn store<V: Vector, const R: usize, const N: usize>(
        &self,
        group: usize,
        acc: &[[V; N]; R],
        column: usize,
        panel: usize,
    ) {
        for (i, acc) in acc.iter().enumerate().take(self.place.count.saturating_sub(column)) {
            // SAFETY: this output row's columns of these panels belong to this task alone, so no two threads write one float; the
            // row is not read.
            let row = unsafe { self.out.groups[group].address(self.place.row + column + i) };
            for (v, acc) in acc.iter().enumerate() {
                let at = (panel + v) * LANES;
                let columns = (self.out.columns - at).min(LANES);
                // SAFETY: `columns` floats of the row begin at `at`.
                unsafe {
                    if columns == LANES {
                        acc.store(row.add(at));
                    } else {
                        std::ptr::copy_nonoverlapping(acc.to_array().as_ptr(), row.add(at), columns);
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn push<V: Vector, const R: usize, const N: usize>(
    stack: &mut [f32],
    depth: &mut usize,
    acc: &[[V; N]; R],
) {
    let base = &mut stack[*depth * TILE * LANES..(*depth + 1) * TILE * LANES];
    for (at, vector) in acc.iter().flatten().enumerate() {
        // SAFETY: R * N is at most TILE.
        unsafe { vector.store(base.as_mut_ptr().add(at * LANES)) };
    }
    *depth += 1;
}

/// The left subtree comes from the stack: left + right, in this order.
#[inline(always)]
unsafe fn pop_and_add<V: Vector, const R: usize, const N: usize>(
    stack: &[f32],
    depth: &mut usize,
    acc: &mut [[V; N]; R],
) {
    *depth -= 1;
    let base = &stack[*depth * TILE * LANES..(*depth + 1) * TILE * LANES];
    for (at, vector) in acc.iter_mut().flatten().enumerate() {
        // SAFETY: R * N is at most TILE.
        *vector = unsafe { V::load(base.as_ptr().add(at * LANES)) }.add(*vector);
    }
}
