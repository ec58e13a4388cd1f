//! DropConnect on recurrent weights: the weights of a window with some of them zero, and their gradient.
//!
//! Wan, Zeiler, Zhang, LeCun, Fergus, "Regularization of neural networks using DropConnect", 2013; on `weight_hh` of an LSTM: Merity,
//! Keskar, Socher, 2017, section 2. With s = 1 / (1 - p) and a mask M of ones and zeros the layer computes with W' = s M * W, so that
//! dW = s M * dW'. A product with s rounds, and a rounded sum is not the sum of rounded terms: s therefore goes into the recurrent
//! inputs of the weight gradient, below the lane tree, and only the zeros, which commute with every sum, are put in at its end.

use crate::{
    kernels::{LANES, Panels, Team, View},
    masks::Keep,
    philox::philox4x32,
};

/// Weights that a thread takes at a time; a multiple of the four of a counter.
const PIECE: usize = 1 << 14;

/// The mask of one layer's recurrent weights.
pub(crate) struct WeightDrop<'a> {
    kept: Kept<'a>,
    keep: Keep,
}

enum Kept<'a> {
    /// Weight i, row-major, has word i mod 4 of counter i / 4.
    Drawn {
        key: [u32; 2],
        place: [u32; 2],
    },
    Given(&'a [bool]),
}

impl<'a> WeightDrop<'a> {
    pub(crate) fn drawn(key: [u32; 2], keep: Keep, place: [u32; 2]) -> Self {
        Self { kept: Kept::Drawn { key, place }, keep }
    }

    pub(crate) fn given(kept: &'a [bool], keep: Keep) -> Self {
        Self { kept: Kept::Given(kept), keep }
    }

    /// Calls `change` for each of the numbers of the weights from `first` on, with whether that weight is kept.
    fn each(&self, first: usize, values: &mut [f32], mut change: impl FnMut(&mut f32, bool)) {
        for (quad, values) in values.chunks_mut(4).enumerate() {
            let at = first + 4 * quad;
            let kept = match &self.kept {
                Kept::Given(kept) => std::array::from_fn(|i| kept.get(at + i).is_none_or(|&kept| kept)),
                Kept::Drawn { key, place: [layer, place] } => {
                    let index = at as u64 / 4;
                    let counter = [index as u32, *layer, (index >> 32) as u32, *place];
                    philox4x32(counter, *key).map(|word| self.keep.keeps(word))
                }
            };
            values.iter_mut().zip(kept).for_each(|(value, kept)| change(value, kept));
        }
    }

    /// W' of the window.
    pub(crate) fn weights(&self, team: &Team, weights: &[f32], out: &mut Vec<f32>) {
        out.resize(weights.len(), 0.0);
        team.run_pieces(out, PIECE, |_, piece, out| {
            out.copy_from_slice(&weights[piece * PIECE..piece * PIECE + out.len()]);
            let scale = self.keep.scale;
            self.each(piece * PIECE, out, |w, kept| *w = if kept { *w * scale } else { 0.0 });
        });
    }

    /// s times the recurrent inputs (T·B, H) of the window, the first `rows` rows of `h`.
    pub(crate) fn inputs<'o>(&self, team: &Team, h: &Panels, rows: usize, out: &'o mut Panels) -> View<'o> {
        out.shape(rows, h.columns());
        let (data, panel_len) = out.data_mut();
        team.run_pieces(data, panel_len, |_, panel, out| {
            let h = &h.panel_rows(panel, 0)[..rows * LANES];
            out.iter_mut().zip(h).for_each(|(out, h)| *out = h * self.keep.scale);
        });
        out.view()
    }

    /// Gradients of dropped weights are zero.
    pub(crate) fn clear_dropped(&self, team: &Team, gradient: &mut [f32]) {
        team.run_pieces(gradient, PIECE, |_, piece, gradient| {
            self.each(piece * PIECE, gradient, |g, kept| {
                if !kept {
                    *g = 0.0;
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::with_team;

    /// The mask of `count` weights.
    fn mask(key: [u32; 2], layer: u32, count: usize) -> Vec<f32> {
        let keep = Keep::dropping(0.5).unwrap();
        let mut out = Vec::new();
        with_team(|team| {
            WeightDrop::drawn(key, keep, [layer, 9]).weights(team, &vec![1.0; count], &mut out);
        });
        out
    }

    #[test]
    fn keeps_its_share_of_weights_and_scales_them() {
        let count = 3 * PIECE + 5;
        let base = mask([1, 2], 0, count);
        let kept = base.iter().filter(|&&w| w == 2.0).count();
        assert_eq!(kept + base.iter().filter(|&&w| w == 0.0).count(), count);
        assert!((kept as f64 / count as f64 - 0.5).abs() < 0.01, "{kept}");
        let rows = base.chunks_exact(PIECE).collect::<Vec<_>>();
        assert!(rows[0] != rows[1] && rows[1] != rows[2], "pieces have masks of their own");
        assert_eq!(mask([1, 2], 0, 7), base[..7], "a function of the index");
        assert_ne!(mask([1, 2], 1, count), base, "each layer has its own");
        assert_ne!(mask([3, 2], 0, count), base, "each step has its own");
    }

    #[test]
    fn gradients_are_cleared_where_weights_were_dropped() {
        let keep = Keep::dropping(0.5).unwrap();
        let drop = WeightDrop::drawn([1, 2], keep, [0, 9]);
        let (mut weights, mut gradient) = (Vec::new(), vec![3.0; PIECE + 9]);
        with_team(|team| {
            drop.weights(team, &vec![1.0; PIECE + 9], &mut weights);
            drop.clear_dropped(team, &mut gradient);
        });
        let expected: Vec<f32> = weights.iter().map(|&w| if w == 0.0 { 0.0 } else { 3.0 }).collect();
        assert_eq!(gradient, expected);
    }
}
