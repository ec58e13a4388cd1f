//! Weight gradients: dW[j][e] = sum over rows r of left[r][j] * right[r][e], one chain a lane, lanes added by the lane tree.
//!
//! The tree is folded on register tiles: finished subtrees wait on a small stack in the cache, so summing by lanes costs no pass over
//! memory. Nothing here knows which weights these are.

use std::ops::Range;

use super::{
    Buffer, Context, Kernel, View,
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

/// Panels side by side in the packed right operand.
const GROUP: usize = 3;
/// Floats of the largest register tile's sum.
const TILE: usize = 8 * GROUP * LANES;
/// Most register tiles that a left panel is cut to against one group: four high, one vector wide.
const TILES_OF_A_PANEL: usize = 4 * GROUP;
/// Most left panels of a task, and tiles of them.
const MOST_PANELS: usize = 4;
const MOST_TILES: usize = MOST_PANELS * TILES_OF_A_PANEL;
/// Rows of a block: with three panels of the right operand, half of a small first-level cache.
const ROWS_AT_A_TIME: usize = 88;

/// The right operand, lane after lane, three panels side by side: a tile reads one run of memory. Group g of a matrix of R rows begins at
/// g * 48 * R; a last group of fewer panels has shorter rows.
#[derive(Default)]
pub(crate) struct PackedRight {
    data: Buffer,
    rows: usize,
    columns: usize,
}

impl PackedRight {
    fn groups(&self) -> usize {
        self.columns.div_ceil(GROUP * LANES)
    }

    /// Panels of this group.
    fn width(&self, group: usize) -> usize {
        (self.columns.div_ceil(LANES) - group * GROUP).min(GROUP)
    }
}

/// Packs the right operand (T·B rows) of weight gradients.
pub(crate) fn pack_right(ctx: Context<'_>, lanes: Lanes<'_>, right: View<'_>, packed: &mut PackedRight) {
    let rows = right.row_count();
    assert_eq!(rows, lanes.steps * lanes.streams, "rows of the window");
    let floats = right.panel_count() * LANES * rows;
    packed.data.grow(floats);
    (packed.rows, packed.columns) = (rows, right.columns());
    let total = right.panel_count();
    ctx.team.run_pieces(&mut packed.data[..floats], GROUP * LANES * rows, |_, group, piece| {
        let width = (total - group * GROUP).min(GROUP);
        for panel in 0..width {
            let mut to = piece[panel * LANES..].chunks_mut(width * LANES);
            lanes.in_order(|row| {
                let to = to.next().expect("one place a row");
                // SAFETY: the row exists; nobody writes the operand during this phase.
                let from = unsafe { &*right.at(group * GROUP + panel, row).cast::<[f32; LANES]>() };
                to[..LANES].copy_from_slice(from);
            });
        }
    });
}

impl Lanes<'_> {
    /// Calls with every row: lanes, in each time steps, in each streams.
    #[inline(always)]
    fn in_order(&self, mut visit: impl FnMut(usize)) {
        for lane in self.lanes {
            for step in 0..self.steps {
                let from = step * self.streams + lane.first;
                (from..from + lane.streams).for_each(&mut visit);
            }
        }
    }
}

/// A panel of the left operand with the first output row and the count of rows that it gives.
pub(crate) type LeftPanel<'a> = (View<'a>, usize, usize);

/// The whole gradient of one matrix.
pub(crate) fn weight_gradient(
    ctx: Context<'_>,
    lanes: Lanes<'_>,
    left: &[LeftPanel<'_>],
    right: &PackedRight,
    out: &Outputs<'_>,
) {
    let chunk = chunk_for(left.len(), ctx.team.members());
    ctx.team.run(left.len().div_ceil(chunk), |member, task| {
        let left = &left[task * chunk..left.len().min((task + 1) * chunk)];
        // SAFETY: every task runs once and the outputs are borrowed mutably.
        unsafe { gradient_task(ctx, member, lanes, (left, right), out) };
    });
}

/// Left panels a task takes: as many as leave every member several tasks, at most four, which fit the second-level cache.
pub(crate) fn chunk_for(panels: usize, members: usize) -> usize {
    (panels / (8 * members)).clamp(1, MOST_PANELS)
}

/// One task: these left panels against the whole right operand.
///
/// # Safety
/// Nobody else touches the output rows of these panels; nobody writes the operands.
pub(crate) unsafe fn gradient_task(
    ctx: Context<'_>,
    member: usize,
    lanes: Lanes<'_>,
    (left, right): (&[LeftPanel<'_>], &PackedRight),
    out: &Outputs<'_>,
) {
    let packed = left.len() * LANES * right.rows;
    let depth = lanes.lanes.len().ilog2() as usize + 2;
    let mut scratch = ctx.scratch.of(member, packed + depth * left.len() * TILES_OF_A_PANEL * TILE);
    let (packed, sums) = scratch.split_at_mut(packed);
    ctx.isa.dispatch(Strips { lanes, left, right, out, packed, sums });
}

/// Left panels against the whole right operand, one group of right panels after another.
struct Strips<'a, 'b> {
    lanes: Lanes<'a>,
    left: &'a [LeftPanel<'a>],
    right: &'a PackedRight,
    out: &'a Outputs<'b>,
    /// The left panels, lane after lane, cut to the height of a register tile.
    packed: &'a mut [f32],
    /// A stack of levels, each with one sum for every tile: the lane being summed on top of finished subtrees.
    sums: &'a mut [f32],
}

/// Where a register tile lies: left panel, first column in it, first right panel in the group, and how high and wide it is.
#[derive(Clone, Copy)]
struct Tile {
    left: usize,
    column: usize,
    panel: usize,
    rows: usize,
    vectors: usize,
}

/// Rows of both operands, counted lane after lane.
#[derive(Clone, Copy)]
struct Block {
    group: usize,
    first: usize,
    rows: usize,
    /// Whether the lane begins here, with sums of zero.
    begins: bool,
}

impl Kernel for Strips<'_, '_> {
    #[inline(always)]
    fn run<V: Vector>(mut self) {
        for left in 0..self.left.len() {
            self.pack_left::<V>(left);
        }
        let mut tiles = [Tile { left: 0, column: 0, panel: 0, rows: 0, vectors: 0 }; MOST_TILES];
        for group in 0..self.right.groups() {
            let count = self.tiles::<V>(group, &mut tiles);
            for sum in 0..self.lanes.groups.len() {
                self.sum::<V>((group, sum), &tiles[..count]);
            }
        }
    }
}

impl Strips<'_, '_> {
    /// Columns of the tile that begins at `column` of a panel.
    #[inline(always)]
    fn height<V: Vector>(column: usize) -> usize {
        V::GRADIENT_ROWS.min(LANES - column)
    }

    #[inline(always)]
    fn pack_left<V: Vector>(&mut self, left: usize) {
        let rows = self.right.rows;
        let view = self.left[left].0;
        for column in (0..LANES).step_by(V::GRADIENT_ROWS) {
            let height = Self::height::<V>(column);
            let start = (left * LANES + column) * rows;
            let mut to = self.packed[start..start + height * rows].chunks_exact_mut(height);
            self.lanes.in_order(|row| {
                let to = to.next().expect("one place a row");
                // SAFETY: the row exists; nobody writes the operand during this phase.
                let from = unsafe { &*view.at(0, row).cast::<[f32; LANES]>() };
                to.copy_from_slice(&from[column..column + height]);
            });
        }
    }

    /// The tiles of this right group; returns how many.
    #[inline(always)]
    fn tiles<V: Vector>(&self, group: usize, tiles: &mut [Tile]) -> usize {
        let mut count = 0;
        for left in 0..self.left.len() {
            for column in (0..self.left[left].2).step_by(V::GRADIENT_ROWS) {
                for panel in (0..self.right.width(group)).step_by(V::GRADIENT_VECTORS) {
                    let vectors = V::GRADIENT_VECTORS.min(self.right.width(group) - panel);
                    tiles[count] = Tile { left, column, panel, rows: Self::height::<V>(column), vectors };
                    count += 1;
                }
            }
        }
        count
    }

    /// The sums of one group of lanes over one group of right panels. A block of the right operand stays in the first-level cache
    /// while all tiles pass over it.
    #[inline(always)]
    fn sum<V: Vector>(&mut self, (group, sum): (usize, usize), tiles: &[Tile]) {
        let mut depth = 0;
        for (index, lane) in self.lanes.lanes[self.lanes.groups[sum].clone()].iter().enumerate() {
            let start = lane.first * self.lanes.steps;
            let end = start + lane.streams * self.lanes.steps;
            for first in (start..end).step_by(ROWS_AT_A_TIME) {
                let rows = ROWS_AT_A_TIME.min(end - first);
                let block = Block { group, first, rows, begins: first == start };
                for (at, tile) in tiles.iter().enumerate() {
                    self.pass::<V>(block, *tile, (depth, at));
                }
            }
            depth += 1;
            for _ in 0..completed(index) {
                depth -= 1;
                self.merge::<V>(depth, tiles.len());
            }
        }
        while depth > 1 {
            depth -= 1;
            self.merge::<V>(depth, tiles.len());
        }
        for (at, tile) in tiles.iter().enumerate() {
            self.store::<V>((group, sum), *tile, at);
        }
    }

    /// Where a tile's sum lies on a level.
    #[inline(always)]
    fn place(&self, level: usize, at: usize) -> std::ops::Range<usize> {
        let start = (level * self.left.len() * TILES_OF_A_PANEL + at) * TILE;
        start..start + TILE
    }

    #[inline(always)]
    fn pass<V: Vector>(&mut self, block: Block, tile: Tile, (level, at): (usize, usize)) {
        match (tile.rows, tile.vectors) {
            (8, 3) => self.chain::<V, 8, 3>(block, tile, (level, at)),
            (8, 2) => self.chain::<V, 8, 2>(block, tile, (level, at)),
            (8, _) => self.chain::<V, 8, 1>(block, tile, (level, at)),
            (6, _) => self.chain::<V, 6, 1>(block, tile, (level, at)),
            (_, _) => self.chain::<V, 4, 1>(block, tile, (level, at)),
        }
    }

    /// One tile's chains over one block of rows.
    #[inline(always)]
    fn chain<V: Vector, const R: usize, const N: usize>(
        &mut self,
        block: Block,
        tile: Tile,
        (level, at): (usize, usize),
    ) {
        if R > V::GRADIENT_ROWS || N > V::GRADIENT_VECTORS {
            return;
        }
        let place = self.place(level, at);
        let (rows, step) = (self.right.rows, self.right.width(block.group) * LANES);
        let left = &self.packed[(tile.left * LANES + tile.column) * rows + block.first * R..];
        let right = &self.right.data[block.group * GROUP * LANES * rows + block.first * step..];
        let right = &right[tile.panel * LANES..];
        let sums = &mut self.sums[place];
        assert!(left.len() >= block.rows * R && right.len() >= (block.rows - 1) * step + N * LANES, "rows");
        let (left, right, sums) = (left.as_ptr(), right.as_ptr(), sums.as_mut_ptr());
        let mut acc = [[V::zero(); N]; R];
        // SAFETY: both operands were checked above, and a tile's sum has room for R * N vectors.
        unsafe {
            for (i, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    let sum = V::load(sums.add((i * N + v) * LANES));
                    *acc = if block.begins { V::zero() } else { sum };
                }
            }
            for row in 0..block.rows {
                let right: [V; N] = std::array::from_fn(|v| V::load(right.add(row * step + v * LANES)));
                for (i, acc) in acc.iter_mut().enumerate() {
                    let left = V::splat(*left.add(row * R + i));
                    for (acc, right) in acc.iter_mut().zip(right) {
                        *acc = left.fma(right, *acc);
                    }
                }
            }
            for (i, acc) in acc.iter().enumerate() {
                for (v, acc) in acc.iter().enumerate() {
                    acc.store(sums.add((i * N + v) * LANES));
                }
            }
        }
    }

    /// Adds the level at `depth` to the one below it: left subtree + right subtree, in this order.
    #[inline(always)]
    fn merge<V: Vector>(&mut self, depth: usize, tiles: usize) {
        let level = self.place(depth, 0).start;
        let (below, top) = self.sums.split_at_mut(level);
        let below = &mut below[self.left.len() * TILES_OF_A_PANEL * TILE * (depth - 1)..];
        let pairs = below.as_chunks_mut::<LANES>().0.iter_mut().zip(top.as_chunks::<LANES>().0);
        for (left, right) in pairs.take(tiles * TILE / LANES) {
            *left = V::from_array(*left).add(V::from_array(*right)).to_array();
        }
    }

    #[inline(always)]
    fn store<V: Vector>(&self, (group, sum): (usize, usize), tile: Tile, at: usize) {
        let (_, row, count) = self.left[tile.left];
        let sums = &self.sums[self.place(0, at)];
        for i in 0..tile.rows.min(count - tile.column) {
            for v in 0..tile.vectors {
                let column = (group * GROUP + tile.panel + v) * LANES;
                let columns = (self.out.columns - column).min(LANES);
                let from = (i * tile.vectors + v) * LANES;
                // SAFETY: this output row belongs to this task alone, and `columns` floats of it begin at `column`.
                unsafe {
                    let row = self.out.groups[sum].address(row + tile.column + i).add(column);
                    if columns == LANES {
                        V::load(sums[from..from + LANES].as_ptr()).store(row);
                    } else {
                        std::ptr::copy_nonoverlapping(sums[from..from + columns].as_ptr(), row, columns);
                    }
                }
            }
        }
    }
}
