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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::with_team;

    const STREAMS: [u32; 3] = [4, 9, 2];

    /// The masks of two steps of three streams, 40 units.
    fn masks(step: u64, seed: u64, place: u32, streams: &[u32]) -> Vec<Vec<f32>> {
        let dropout = Dropout::new(0.3, seed, step, streams).unwrap();
        let mut values = Panels::default();
        let rows = 2 * streams.len();
        values.shape(rows, 40);
        (0..rows).for_each(|row| values.set_row(row, &[1.0; 40]));
        with_team(|team| dropout.mask(team, &mut values, place));
        let row = |row| {
            let mut out = vec![0.0; 40];
            values.get_row(row, &mut out);
            out
        };
        (0..rows).map(row).collect()
    }

    #[test]
    fn every_coordinate_gives_another_mask() {
        let base = masks(5, 1, 0, &STREAMS);
        for (at, row) in base.iter().enumerate() {
            assert!(base[at + 1..].iter().all(|other| other != row), "time step and stream: row {at}");
        }
        for other in [masks(6, 1, 0, &STREAMS), masks(5, 2, 0, &STREAMS), masks(5, 1, 1, &STREAMS)] {
            assert!(base.iter().zip(&other).all(|(a, b)| a != b), "step, seed, place");
        }
        assert_ne!(masks(5, 1, 0, &STREAMS), masks(5 + (1 << 32), 1, 0, &STREAMS), "upper half of the step");
        let reordered = masks(5, 1, 0, &[2, 4]);
        assert_eq!((&reordered[0], &reordered[1]), (&base[2], &base[0]), "a stream keeps its mask");
    }

    #[test]
    fn keeps_its_share_and_scales_it() {
        let streams: Vec<u32> = (0..400).collect();
        let values: Vec<f32> = masks(0, 3, 0, &streams).concat();
        let kept = values.iter().filter(|&&x| x != 0.0).count() as f64 / values.len() as f64;
        assert!((kept - 0.7).abs() < 0.01, "{kept}");
        assert!(values.iter().all(|&x| x == 0.0 || (x - 1.0 / 0.7).abs() < 1e-6));
        assert!(Dropout::new(0.0, 1, 1, &streams).is_none());
    }
}
