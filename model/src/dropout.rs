//! Inverted dropout on non-recurrent connections, in the manner of Zaremba, Sutskever, Vinyals, "Recurrent neural network
//! regularization", 2014: on the embedding, between layers, on the last layer's output; with fresh masks at each time step, or
//! ("locked", Gal and Ghahramani, 2016) one for the window. A mask is a function, nothing is stored.

use crate::{
    kernels::{LANES, Panels, Team},
    masks::Keep,
    philox::philox4x32,
};

/// The masks of one place in one step.
pub(crate) struct Dropout<'a> {
    units: Units<'a>,
    /// Global index of each column's stream.
    streams: &'a [u32],
}

enum Units<'a> {
    Drawn {
        key: [u32; 2],
        keep: Keep,
        /// 0 is the embedding, l the output of layer l - 1.
        place: u32,
        /// What stands for the time step where all have one mask.
        time: Option<u32>,
    },
    /// (B, units), one mask for all time steps.
    Given(&'a [f32]),
}

impl<'a> Dropout<'a> {
    /// Drawn masks: fresh ones at each time step, or the same at all of them when `time` stands for all.
    pub(crate) fn drawn(
        key: [u32; 2],
        keep: Keep,
        (place, time): (u32, Option<u32>),
        streams: &'a [u32],
    ) -> Self {
        Self { units: Units::Drawn { key, keep, place, time }, streams }
    }

    /// (B, units) factors of columns in their order.
    pub(crate) fn given(mask: &'a [f32], streams: &'a [u32]) -> Self {
        Self { units: Units::Given(mask), streams }
    }

    /// Masks a matrix of (T·B) rows in place.
    pub(crate) fn mask(&self, team: &Team, values: &mut Panels) {
        let rows = values.row_count();
        let (data, panel_len) = values.data_mut();
        team.run_pieces(data, panel_len, |_, panel, data| self.mask_panel(&mut data[..rows * LANES], panel));
    }

    /// Copies `source` from row `first` on into `target`, masked.
    pub(crate) fn mask_into(&self, team: &Team, source: &Panels, first: usize, target: &mut Panels) {
        let rows = target.row_count();
        let (data, panel_len) = target.data_mut();
        team.run_pieces(data, panel_len, |_, panel, data| {
            let data = &mut data[..rows * LANES];
            data.copy_from_slice(&source.panel_rows(panel, first)[..rows * LANES]);
            self.mask_panel(data, panel);
        });
    }

    fn mask_panel(&self, data: &mut [f32], panel: usize) {
        let streams = self.streams.len();
        match &self.units {
            Units::Drawn { key, keep, place, time: None } => {
                for (row, values) in data.chunks_exact_mut(LANES).enumerate() {
                    let (step, stream) = (row / streams, self.streams[row % streams]);
                    let at = |quad| philox4x32([quad, stream, step as u32, *place], *key);
                    multiply(values, &factors(keep, panel, at));
                }
            }
            Units::Drawn { key, keep, place, time: Some(time) } => {
                let of = |&stream: &u32| {
                    factors(keep, panel, |quad| philox4x32([quad, stream, *time, *place], *key))
                };
                repeat(data, &self.streams.iter().map(of).collect::<Vec<_>>());
            }
            Units::Given(mask) => {
                let of = |row: &[f32]| std::array::from_fn(|i| *row.get(panel * LANES + i).unwrap_or(&0.0));
                let width = (mask.len() / streams).max(1);
                repeat(data, &mask.chunks_exact(width).map(of).collect::<Vec<_>>());
            }
        }
    }
}

/// The factors of a panel's sixteen units: a counter gives those of four.
fn factors(keep: &Keep, panel: usize, words: impl Fn(u32) -> [u32; 4]) -> [f32; LANES] {
    let mut factors = [0.0; LANES];
    for (quad, four) in factors.chunks_exact_mut(4).enumerate() {
        let words = words((panel * LANES / 4 + quad) as u32);
        four.iter_mut().zip(words).for_each(|(factor, word)| *factor = keep.factor(word));
    }
    factors
}

/// Multiplies each time step's rows by the same (B, 16) factors.
fn repeat(data: &mut [f32], factors: &[[f32; LANES]]) {
    for step in data.chunks_exact_mut(factors.len() * LANES) {
        step.chunks_exact_mut(LANES).zip(factors).for_each(|(values, factors)| multiply(values, factors));
    }
}

fn multiply(values: &mut [f32], factors: &[f32; LANES]) {
    values.iter_mut().zip(factors).for_each(|(value, factor)| *value *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ModelConfig, Regularisation, kernels::with_team, masks::Masks};

    const STREAMS: [u32; 3] = [4, 9, 2];

    /// The masks of two steps of three streams, 40 units.
    fn masks(step: u64, seed: u64, place: usize, streams: &[u32]) -> Vec<Vec<f32>> {
        masks_of(false, (seed, step), place, streams)
    }

    fn masks_of(
        locked_dropout: bool,
        seed_and_step: (u64, u64),
        place: usize,
        streams: &[u32],
    ) -> Vec<Vec<f32>> {
        let regularisation = Regularisation { locked_dropout, ..Regularisation::default() };
        let config = ModelConfig { dropout: 0.3, regularisation, ..ModelConfig::default() };
        let dropout = Masks::new(&config, seed_and_step, streams, None).units(place).unwrap();
        let mut values = Panels::default();
        let rows = 2 * streams.len();
        values.shape(rows, 40);
        (0..rows).for_each(|row| values.set_row(row, &[1.0; 40]));
        with_team(|team| dropout.mask(team, &mut values));
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
        let off = ModelConfig::default();
        assert!(Masks::new(&off, (1, 1), &streams, None).units(0).is_none());
    }

    #[test]
    fn a_locked_mask_is_the_same_at_all_times_and_another_for_each_stream_and_place() {
        let base = masks_of(true, (1, 5), 0, &STREAMS);
        assert_eq!(base[..3], base[3..], "two time steps");
        assert!(base[0] != base[1] && base[1] != base[2]);
        for other in [
            masks_of(true, (1, 6), 0, &STREAMS),
            masks_of(true, (2, 5), 0, &STREAMS),
            masks_of(true, (1, 5), 1, &STREAMS),
        ] {
            assert!(base.iter().zip(&other).all(|(a, b)| a != b), "step, seed, place");
        }
        assert_eq!(masks_of(true, (1, 5), 0, &[2])[0], base[2], "a stream keeps its mask");
    }
}
