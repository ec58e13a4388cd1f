//! The whole reduced gradient as it comes together: every slice's segments go straight to their places.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use carousel_proto::bulk::copy_floats;
use carousel_proto::gradient::{Gradient, GradientLayout, SEGMENT, Slice, TouchedRows, segments};

#[derive(Debug, Default)]
pub(super) struct Whole {
    /// The dense part.
    floats: Vec<f32>,
    /// Of each slice, which segments are here.
    here: Vec<Vec<bool>>,
    missing: usize,
    /// By slice. With tied weights none are sent: they are in the dense part.
    rows: BTreeMap<usize, Arc<TouchedRows>>,
    expected_rows: usize,
}

impl Whole {
    /// Begins anew, in `spare`'s memory.
    pub(super) fn new(layout: &GradientLayout, slices: &[Slice], mut spare: Vec<f32>) -> Self {
        if spare.len() < layout.dense {
            spare = vec![0.0; layout.dense];
        }
        spare.truncate(layout.dense);
        let here: Vec<Vec<bool>> = slices.iter().map(|s| vec![false; segments(&s.dense).count()]).collect();
        let expected_rows = if layout.rows_fold_into.is_some() { 0 } else { slices.len() };
        let missing = here.iter().map(Vec::len).sum();
        Self { floats: spare, here, missing, rows: BTreeMap::new(), expected_rows }
    }

    /// The dense part, to be filled; [`Whole::mark`] says what has been.
    pub(super) fn dense_mut(&mut self) -> &mut [f32] {
        &mut self.floats
    }

    pub(super) fn dense(&self) -> &[f32] {
        &self.floats
    }

    /// Notes that one segment of the slice in this place is here; `false` when it is none, or was here before.
    pub(super) fn mark(&mut self, place: usize, slice: &Slice, segment: &Range<usize>) -> bool {
        let index = segment.start.checked_sub(slice.dense.start).filter(|at| at.is_multiple_of(SEGMENT));
        let Some(here) = index.and_then(|at| self.here.get_mut(place)?.get_mut(at / SEGMENT)) else {
            return false;
        };
        let whole = segment.end == (segment.start + SEGMENT).min(slice.dense.end);
        let new = whole && !std::mem::replace(here, true);
        self.missing -= usize::from(new);
        new
    }

    /// Takes a reduced segment of the slice in this place; `false` when it does not fit or came before.
    pub(super) fn take(&mut self, place: usize, slice: &Slice, (start, data): (usize, &[u8])) -> bool {
        let Some(end) = start.checked_add(data.len() / 4) else { return false };
        if !data.len().is_multiple_of(4) || !self.mark(place, slice, &(start..end)) {
            return false;
        }
        copy_floats(data, &mut self.floats[start..end]);
        true
    }

    /// Takes the reduced rows of the slice in this place; `false` when they came before.
    pub(super) fn take_rows(&mut self, place: usize, rows: Arc<TouchedRows>) -> bool {
        self.rows.insert(place, rows).is_none()
    }

    /// The whole gradient, once it is here.
    pub(super) fn finish(&mut self) -> Option<Gradient> {
        if self.missing > 0 || self.rows.len() < self.expected_rows || self.here.is_empty() {
            return None;
        }
        let mut gradient = Gradient { rows: Vec::new(), floats: std::mem::take(&mut self.floats) };
        for rows in std::mem::take(&mut self.rows).into_values() {
            gradient.rows.extend(&rows.tokens);
            gradient.floats.extend(&rows.values);
        }
        self.here.clear();
        Some(gradient)
    }
}
