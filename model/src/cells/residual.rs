//! The additive-state network: a simple recurrent network whose output is added to its state instead of taking its place.
//!
//! The constant error carousel of Hochreiter and Schmidhuber, "Long short-term memory", Neural Computation 9(8), 1997, section 3.2,
//! without gates; over time it is what He, Zhang, Ren, Sun, "Deep residual learning", CVPR 2016, eq. 1, is over layers. With x the
//! input and h' the state before:
//!
//! ```text
//! h = h' + tanh(W x + b_ih + U h' + b_hh)
//! ```
//!
//! Parameters as the simple network's: `weight_ih` (H, in), `weight_hh` (H, H), `bias_ih`, `bias_hh` (H). The state is not bounded: it
//! moves by less than 1 a step.

use super::{Cotangent, Equations, Moment, Wiring, lstm::one_minus_square};
use crate::kernels::{Vector, math::tanh};

pub(crate) struct Residual;

const ONE: &[(usize, usize)] = &[(0, 0)];

impl Equations for Residual {
    const WIRING: Wiring = Wiring { slots: 1, input: ONE, hidden: ONE };
    const DIRECT: bool = true;

    #[inline(always)]
    fn forward<V: Vector>(z: &mut [V; 4], h: V, _c: V, _: &[V; 3]) -> (V, V) {
        z[0] = tanh(z[0]);
        let h = h.add(z[0]);
        (h, h)
    }

    #[inline(always)]
    fn backward<V: Vector>(z: &mut [V; 4], m: &Moment<V>, _: &[V; 3]) -> Cotangent<V> {
        z[0] = m.dh.mul(one_minus_square(z[0]));
        Cotangent { h: m.dh, c: V::zero() }
    }
}

#[cfg(test)]
mod tests {
    //! Against the same network in f64, from its equations: forward, and backward through time by hand.

    use crate::{Cell, LaneStreams, LanguageModel, ModelConfig, Parameters, Window};

    const STEPS: usize = 6;
    /// One lane's, and one of another.
    const STREAMS: usize = 3;
    const LANES: [LaneStreams; 2] = [
        LaneStreams { lane: 0, first_stream: 0, streams: 2 },
        LaneStreams { lane: 1, first_stream: 2, streams: 1 },
    ];
    const NAMES: [&str; 4] = ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.bias_ih_l0", "rnn.bias_hh_l0"];

    /// More units than a vector has.
    fn config() -> ModelConfig {
        let sizes = ModelConfig { vocabulary: 11, embedding: 5, hidden: 19, ..ModelConfig::default() };
        ModelConfig { cell: Cell::Residual, init: 0.5, ..sizes }
    }

    fn token(at: usize) -> u32 {
        (at * at * 7 + at * 3 + 1) as u32 % 11
    }

    /// (rows, columns) of a matrix times a vector.
    fn times(matrix: &[f64], x: &[f64]) -> Vec<f64> {
        matrix.chunks(x.len()).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
    }

    /// The transposed matrix times a vector.
    fn times_transposed(matrix: &[f64], y: &[f64]) -> Vec<f64> {
        let columns = matrix.len() / y.len();
        (0..columns).map(|j| y.iter().enumerate().map(|(i, y)| matrix[i * columns + j] * y).sum()).collect()
    }

    /// The weights in f64, and what one stream after another adds to the layer's gradient, in the order of `NAMES`.
    struct Reference {
        weights: Vec<Vec<f64>>,
        encoder: Vec<f64>,
        decoder: Vec<f64>,
        bias: Vec<f64>,
        loss: f64,
        gradients: Vec<Vec<f64>>,
    }

    impl Reference {
        fn new(parameters: &Parameters) -> Self {
            let tensor = |name: &str| -> Vec<f64> {
                parameters.tensor(name).unwrap().iter().map(|&w| f64::from(w)).collect()
            };
            let weights: Vec<Vec<f64>> = NAMES.iter().map(|name| tensor(name)).collect();
            let gradients = weights.iter().map(|weights| vec![0.0; weights.len()]).collect();
            let [encoder, decoder, bias] = ["encoder.weight", "decoder.weight", "decoder.bias"].map(tensor);
            Self { weights, encoder, decoder, bias, loss: 0.0, gradients }
        }

        fn embedded(&self, token: u32) -> Vec<f64> {
            self.encoder[token as usize * 5..][..5].to_vec()
        }

        /// Reads a stream from the state `h`, adds its loss and gradient, and returns the state after it.
        fn read(&mut self, h: Vec<f64>, inputs: &[u32], targets: &[u32]) -> Vec<f64> {
            let (mut states, mut changes) = (vec![h], Vec::new());
            for &input in inputs {
                let h = states.last().unwrap();
                let (of_input, of_state) =
                    (times(&self.weights[0], &self.embedded(input)), times(&self.weights[1], h));
                let sum = |i: usize| of_input[i] + of_state[i] + self.weights[2][i] + self.weights[3][i];
                let change: Vec<f64> = (0..h.len()).map(|i| sum(i).tanh()).collect();
                states.push(h.iter().zip(&change).map(|(h, change)| h + change).collect());
                changes.push(change);
            }
            let mut dh = [0.0; 19];
            for t in (0..inputs.len()).rev() {
                let from_loss = self.loss_of(&states[t + 1], targets[t]);
                dh.iter_mut().zip(from_loss).for_each(|(dh, more)| *dh += more);
                let dz: Vec<f64> = dh.iter().zip(&changes[t]).map(|(dh, y)| dh * (1.0 - y * y)).collect();
                self.add(&dz, &self.embedded(inputs[t]), &states[t]);
                let through_weights = times_transposed(&self.weights[1], &dz);
                dh.iter_mut().zip(through_weights).for_each(|(dh, more)| *dh += more);
            }
            states.pop().unwrap()
        }

        /// Adds the loss of one position, and returns its gradient by the state.
        fn loss_of(&mut self, h: &[f64], target: u32) -> Vec<f64> {
            let logits: Vec<f64> =
                times(&self.decoder, h).iter().zip(&self.bias).map(|(a, b)| a + b).collect();
            let total: f64 = logits.iter().map(|logit| logit.exp()).sum();
            self.loss -= (logits[target as usize].exp() / total).ln();
            let mut slopes: Vec<f64> = logits.iter().map(|logit| logit.exp() / total).collect();
            slopes[target as usize] -= 1.0;
            slopes.iter_mut().for_each(|slope| *slope /= (STEPS * STREAMS) as f64);
            times_transposed(&self.decoder, &slopes)
        }

        fn add(&mut self, dz: &[f64], x: &[f64], h: &[f64]) {
            for (tensor, right) in [(0, x), (1, h), (2, &[1.0][..]), (3, &[1.0])] {
                let products = dz.iter().flat_map(|dz| right.iter().map(move |right| dz * right));
                self.gradients[tensor].iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
            }
        }
    }

    fn assert_close(what: &str, found: &[f32], expected: &[f64]) {
        let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
        let apart = found.iter().zip(expected).map(|(f, e)| (f64::from(*f) - e).abs()).fold(0.0, f64::max);
        assert_eq!(found.len(), expected.len(), "{what}");
        assert!(apart <= 3e-6 * largest && largest > 0.0, "{what}: {apart:e} apart of {largest:e}");
    }

    #[test]
    fn states_losses_and_gradients_are_those_of_the_equations() {
        let (config, parameters) = (config(), Parameters::initial(&config(), 3));
        let inputs: Vec<u32> = (0..STEPS * STREAMS).map(token).collect();
        let targets: Vec<u32> = (0..STEPS * STREAMS).map(|at| token(at + 5)).collect();
        let before: Vec<f32> = (0..STREAMS * 19).map(|at| (at % 7) as f32 / 8.0 - 0.375).collect();

        let mut reference = Reference::new(&parameters);
        let mut after = Vec::new();
        for stream in 0..STREAMS {
            let of_stream = |tokens: &[u32]| -> Vec<u32> {
                tokens.iter().copied().skip(stream).step_by(STREAMS).collect()
            };
            let h = before[stream * 19..][..19].iter().map(|&h| f64::from(h)).collect();
            after.extend(reference.read(h, &of_stream(&inputs), &of_stream(&targets)));
        }

        let mut model = LanguageModel::new(config.clone()).unwrap();
        let (inputs, targets, step_tokens) = (&inputs, &targets, (STEPS * STREAMS) as u64);
        let window = Window { seed: 1, step: 1, steps: STEPS, lanes: &LANES, inputs, targets, step_tokens };
        let mut carries = before;
        let found =
            model.gradients(&parameters, &window, &mut carries, std::slice::from_ref(&(0..2))).unwrap();
        let loss: f64 = found.losses.iter().map(|lane| lane.sum).sum();
        assert!((loss - reference.loss).abs() < 1e-5 * loss, "{loss}, expected {}", reference.loss);
        assert_close("carries", &carries, &after);
        for (name, expected) in NAMES.iter().zip(&reference.gradients) {
            let tensor = parameters.layout().get(name).unwrap();
            let start = tensor.offset - config.gradient_layout().dense_offset;
            assert_close(name, &found.partials[0].dense[start..][..tensor.len()], expected);
        }
    }
}
