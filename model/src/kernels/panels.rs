//! A matrix in panels of 16 columns: the layout of every activation. Row r of panel p is one vector at (p * stride + r) * 16.
//!
//! It serves all three products without another copy: as the left operand its rows lie 64 bytes apart, as an operand of a weight
//! gradient its vectors follow each other row by row. Columns past the last are zero and stay zero.

use std::marker::PhantomData;

use super::{Buffer, vector::LANES};

/// An owned matrix in panels.
#[derive(Default)]
pub(crate) struct Panels {
    data: Buffer,
    rows: usize,
    columns: usize,
    stride: usize,
}

/// A borrowed place inside a matrix in panels, starting at some row. Plain pointers: who may write where is said by each kernel.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    /// Row 0 of panel 0.
    pub(super) start: *mut f32,
    /// Floats from one panel to the next.
    pub(super) panel: usize,
    /// Rows that may be touched.
    pub(super) rows: usize,
    /// Columns that carry numbers.
    pub(super) columns: usize,
    data: PhantomData<&'a f32>,
}

// SAFETY: a view is an address; dereferencing it is unsafe, and each kernel argues that its threads write disjoint places.
unsafe impl Send for View<'_> {}
// SAFETY: as above.
unsafe impl Sync for View<'_> {}

impl Panels {
    /// Makes this matrix (rows, columns). Contents are zero when the shape changes, else as before.
    pub(crate) fn shape(&mut self, rows: usize, columns: usize) {
        if (self.rows, self.columns) == (rows, columns) {
            return;
        }
        let stride = spread(rows);
        let floats = columns.div_ceil(LANES) * stride * LANES;
        *self = Self { data: Buffer::zeroed(floats), rows, columns, stride };
    }

    /// As [`Self::shape`] for a number of rows that changes from window to window, at most `most`: the memory stays, and so do its
    /// contents.
    pub(crate) fn shape_within(&mut self, rows: usize, most: usize, columns: usize) {
        assert!(rows <= most, "{rows} rows of at most {most}");
        if self.columns != columns || self.stride != spread(most) {
            self.shape(most, columns);
        }
        self.rows = rows;
    }

    /// A view for reading; nothing may write through it.
    pub(crate) fn view(&self) -> View<'_> {
        let start = self.data.as_ptr().cast_mut();
        let panel = self.stride * LANES;
        View { start, panel, rows: self.rows, columns: self.columns, data: PhantomData }
    }

    /// A view for reading and writing.
    pub(crate) fn view_mut(&mut self) -> View<'_> {
        let start = self.data.as_mut_ptr();
        View { start, ..self.view() }
    }

    /// Copies one row-major row in.
    pub(crate) fn set_row(&mut self, row: usize, values: &[f32]) {
        for (panel, part) in values.chunks(LANES).enumerate() {
            let at = (panel * self.stride + row) * LANES;
            self.data[at..at + part.len()].copy_from_slice(part);
        }
    }

    /// Copies one row out, row-major.
    pub(crate) fn get_row(&self, row: usize, values: &mut [f32]) {
        for (panel, part) in values.chunks_mut(LANES).enumerate() {
            let at = (panel * self.stride + row) * LANES;
            let len = part.len();
            part.copy_from_slice(&self.data[at..at + len]);
        }
    }

    /// Rows of one panel from `row` on, 16 floats each.
    pub(crate) fn panel_rows(&self, panel: usize, row: usize) -> &[f32] {
        &self.data[(panel * self.stride + row) * LANES..(panel * self.stride + self.rows) * LANES]
    }

    /// All floats, and the floats of a panel to cut them by.
    pub(crate) fn data_mut(&mut self) -> (&mut [f32], usize) {
        (&mut self.data, self.stride * LANES)
    }

    pub(crate) fn row_count(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn clear(&mut self) {
        self.data.fill(0.0);
    }
}

/// Rows of storage for a panel: a multiple of 64 rows would put all panels into the same few sets of the first-level cache.
fn spread(rows: usize) -> usize {
    match rows % 64 {
        0..16 if rows >= 64 => rows + 20 - rows % 64,
        56.. => rows + 84 - rows % 64,
        _ => rows,
    }
}

impl<'a> View<'a> {
    /// A matrix in panels inside `floats`, with whatever they hold.
    pub(super) fn over(floats: &'a mut [f32], rows: usize, columns: usize) -> Self {
        assert!(floats.len() >= Self::floats(rows, columns), "room for ({rows}, {columns})");
        Self { start: floats.as_mut_ptr(), panel: spread(rows) * LANES, rows, columns, data: PhantomData }
    }

    /// Floats that [`Self::over`] needs.
    pub(super) fn floats(rows: usize, columns: usize) -> usize {
        columns.div_ceil(LANES) * spread(rows) * LANES
    }
}

impl View<'_> {
    /// The same columns from `row` on, `rows` of them.
    pub(crate) fn rows(self, row: usize, rows: usize) -> Self {
        assert!(row + rows <= self.rows, "rows {row}+{rows} of {}", self.rows);
        Self { start: self.start.wrapping_add(row * LANES), rows, ..self }
    }

    /// The columns of these panels alone.
    pub(crate) fn panels(self, first: usize, columns: usize) -> Self {
        assert!(first * LANES + columns <= self.columns.next_multiple_of(LANES), "panel {first}");
        Self { start: self.start.wrapping_add(first * self.panel), columns, ..self }
    }

    pub(crate) fn row_count(self) -> usize {
        self.rows
    }

    pub(crate) fn columns(self) -> usize {
        self.columns
    }

    pub(crate) fn panel_count(self) -> usize {
        self.columns.div_ceil(LANES)
    }

    /// Where these rows of a panel lie: one run of floats. Any place will do, also one past the matrix.
    pub(super) fn run(self, panel: usize, row: usize, rows: usize) -> (*const f32, usize) {
        (
            self.start.wrapping_add(panel.wrapping_mul(self.panel).wrapping_add(row * LANES)).cast_const(),
            rows * LANES,
        )
    }

    /// Address of row `row` in panel `panel`.
    pub(super) fn at(self, panel: usize, row: usize) -> *mut f32 {
        debug_assert!(panel < self.panel_count() && row < self.rows);
        self.start.wrapping_add(panel * self.panel + row * LANES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_in_and_come_out() {
        let mut m = Panels::default();
        m.shape(3, 21);
        let row: Vec<f32> = (0..21).map(|i| i as f32).collect();
        m.set_row(1, &row);
        let mut out = vec![9.0; 21];
        m.get_row(1, &mut out);
        assert_eq!(out, row);
        m.get_row(2, &mut out);
        assert_eq!(out, vec![0.0; 21]);
    }

    #[test]
    fn panels_do_not_alias_in_the_first_level_cache() {
        for rows in 1..3000 {
            let stride = spread(rows);
            assert!(stride >= rows && stride < rows + 40);
            assert!(rows < 56 || (12..56).contains(&(stride % 64)), "{rows} -> {stride}");
        }
    }
}
