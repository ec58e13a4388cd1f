//! Inverted dropout on non-recurrent connections, in the manner of Zaremba, Sutskever, Vinyals, "Recurrent neural network
//! regularization", 2014: on the embedding, between layers, on the last layer's output. A mask is a function, nothing is stored.

use crate::{
    kernels::{LANES, Panels, Team},
    philox::{self, Purpose, philox4x32},
};

/// The masks of one step.
pub(crate) struct Dropout<'a> {
    key: [u32; 2],
    /// A word below this keeps its unit.
    threshold: u64,
    scale: f32,
    /// Global index of each column's stream.
    streams: &'a [u32],
}

impl<'a> Dropout<'a> {
    /// None when nothing is dropped.
    pub(crate) fn new(probability: f32, seed: u64, step: u64, streams: &'a [u32]) -> Option<Self> {
        if probability == 0.0 {
            return None;
        }
        let counter = [step as u32, (step >> 32) as u32, 0, Purpose::DropoutKey as u32];
        let [k0, k1, _, _] = philox4x32(counter, philox::key(seed));
        let keep = 1.0 - f64::from(probability);
        let threshold = (keep * 4_294_967_296.0) as u64;
        Some(Self { key: [k0, k1], threshold, scale: (1.0 / keep) as f32, streams })
    }

    /// Multiplies four units of a row, from `4 * quad` on, by their masks. `place` 0 is the embedding, l the output of layer l - 1.
    fn apply(&self, values: &mut [f32], quad: u32, place: u32, row: usize) {
        let (step, stream) = (row / self.streams.len(), self.streams[row % self.streams.len()]);
        let words = philox4x32([quad, stream, step as u32, place], self.key);
        for (value, word) in values.iter_mut().zip(words) {
            *value *= if u64::from(word) < self.threshold { self.scale } else { 0.0 };
        }
    }

    /// Masks a matrix of (T·B) rows in place.
    pub(crate) fn mask(&self, team: &Team, values: &mut Panels, place: u32) {
        let rows = values.row_count();
        let (data, panel_len) = values.data_mut();
        team.run_pieces(data, panel_len, |_, panel, data| self.mask_panel(data, rows, panel, place));
    }

    /// Copies `source` from row `first` on into `target`, masked.
    pub(crate) fn mask_into(
        &self,
        team: &Team,
        source: &Panels,
        first: usize,
        target: &mut Panels,
        place: u32,
    ) {
        let rows = target.row_count();
        let (data, panel_len) = target.data_mut();
        team.run_pieces(data, panel_len, |_, panel, data| {
            data[..rows * LANES].copy_from_slice(&source.panel_rows(panel, first)[..rows * LANES]);
            self.mask_panel(data, rows, panel, place);
        });
    }

    fn mask_panel(&self, data: &mut [f32], rows: usize, panel: usize, place: u32) {
        for (row, values) in data.chunks_exact_mut(LANES).enumerate().take(rows) {
            for (quad, values) in values.chunks_exact_mut(4).enumerate() {
                self.apply(values, (panel * LANES / 4 + quad) as u32, place, row);
            }
        }
    }
}
