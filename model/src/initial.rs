//! The weights that training starts from: by what rule each tensor is filled. Knows nothing of how weights change.
//!
//! Element i of tensor n is a function of (seed, n, i) and the rule; an orthogonal block one of (seed, n, block).

use std::{fmt, str::FromStr};

use rayon::prelude::*;

use crate::{
    ModelConfig, ModelError, TensorSpec,
    orthogonal::orthogonal,
    philox::{self, Purpose, philox4x32},
};

/// How weights start. In all but `Uniform`, matrices outside the layers (the embedding, the decoder) are uniform in [-init, init) with
/// [`ModelConfig::init`], and biases that are not said to be otherwise are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Initialisation {
    /// Every tensor uniform in [-init, init).
    #[default]
    Uniform,
    /// The layers' matrices uniform in [-a, a), a = sqrt(6 / (columns + rows)) of each gate's block: Glorot, Bengio, "Understanding the
    /// difficulty of training deep feedforward neural networks", 2010, equation 16.
    Glorot,
    /// Each gate's block of recurrent weights a random orthogonal matrix (Saxe, McClelland, Ganguli, "Exact solutions to the nonlinear
    /// dynamics of learning in deep linear neural networks", 2014, section 3), the input's as `Glorot`.
    Orthogonal,
    /// The layers' tensors, biases too, uniform in [-a, a), a = 1 / sqrt(H): `torch.nn.LSTM`, and with init = 0.1 the weights of PyTorch's
    /// word language model and of AWD-LSTM.
    Pytorch,
}

impl Initialisation {
    /// All of them, in the order of the documentation.
    pub const ALL: [Initialisation; 4] = [Self::Uniform, Self::Glorot, Self::Orthogonal, Self::Pytorch];

    /// The name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Glorot => "glorot",
            Self::Orthogonal => "orthogonal",
            Self::Pytorch => "pytorch",
        }
    }
}

impl fmt::Display for Initialisation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Initialisation {
    type Err = ModelError;

    fn from_str(name: &str) -> Result<Self, ModelError> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| ModelError::UnknownInitialisation(name.to_owned()))
    }
}

/// How one tensor is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// Uniform in [-a, a).
    Uniform(f32),
    Zero,
    /// Square blocks, each orthogonal.
    Orthogonal,
}

/// Fills tensor `index` of a model.
pub(crate) fn fill(
    config: &ModelConfig,
    (index, tensor): (usize, &TensorSpec),
    seed: u64,
    place: &mut [f32],
) {
    match rule(config, tensor) {
        Rule::Uniform(half) => fill_uniform(place, half, seed, index as u32),
        Rule::Zero => place.fill(0.0),
        Rule::Orthogonal => {
            let size = tensor.shape[1];
            let blocks = place.par_chunks_mut(size * size).enumerate();
            blocks.for_each(|(block, place)| {
                let matrix = orthogonal(size, |quad| normals(seed, (index as u32, block as u32), quad));
                place.iter_mut().zip(matrix).for_each(|(weight, x)| *weight = x as f32);
            });
        }
    }
    if config.forget_bias != 0.0 && tensor.name.starts_with("rnn.bias_ih_") {
        let units = place.len() / config.cell.row_blocks();
        let block = config.cell.forget_block().expect("checked with the configuration");
        place[block * units..(block + 1) * units].iter_mut().for_each(|bias| *bias += config.forget_bias);
    }
}

fn rule(config: &ModelConfig, tensor: &TensorSpec) -> Rule {
    let matrix = tensor.shape.len() == 2;
    let units =
        tensor.shape[0] / if matrix || tensor.name.contains("bias") { config.cell.row_blocks() } else { 1 };
    match (config.initialisation, tensor.name.starts_with("rnn.")) {
        (Initialisation::Uniform, _) => Rule::Uniform(config.init),
        (_, false) if matrix => Rule::Uniform(config.init),
        (_, false) => Rule::Zero,
        (Initialisation::Pytorch, true) => Rule::Uniform((1.0 / (units as f64).sqrt()) as f32),
        (Initialisation::Orthogonal, true) if tensor.name.starts_with("rnn.weight_hh_") => Rule::Orthogonal,
        (_, true) if matrix => Rule::Uniform((6.0 / (units + tensor.shape[1]) as f64).sqrt() as f32),
        (_, true) => Rule::Zero,
    }
}

/// Four numbers a counter; the upper 24 bits of a word make a float in [-1, 1) exactly.
fn fill_uniform(place: &mut [f32], init: f32, seed: u64, tensor: u32) {
    for (quad, four) in place.chunks_mut(4).enumerate() {
        let counter = [quad as u32, (quad as u64 >> 32) as u32, tensor, Purpose::Initial as u32];
        let words = philox4x32(counter, philox::key(seed));
        for (value, word) in four.iter_mut().zip(words) {
            let unit = (word >> 8) as f32 / (1 << 23) as f32 - 1.0;
            *value = unit * init;
        }
    }
}

/// Four normal numbers by Box and Muller, "A note on the generation of random normal deviates", 1958.
fn normals(seed: u64, (tensor, block): (u32, u32), quad: u64) -> [f64; 4] {
    let counter = [quad as u32, (quad >> 32) as u32, 4 * tensor + block, Purpose::Normal as u32];
    let words = philox4x32(counter, philox::key(seed));
    let unit = words.map(|word| (f64::from(word) + 0.5) / 4_294_967_296.0);
    let pair = |radius: f64, turn: f64| {
        let (radius, angle) = (libm::sqrt(-2.0 * libm::log(radius)), std::f64::consts::TAU * turn);
        [radius * libm::cos(angle), radius * libm::sin(angle)]
    };
    let ([a, b], [c, d]) = (pair(unit[0], unit[1]), pair(unit[2], unit[3]));
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cell;
    use crate::Parameters;

    fn config(initialisation: Initialisation) -> ModelConfig {
        ModelConfig {
            cell: Cell::LstmPeephole,
            vocabulary: 30,
            embedding: 10,
            hidden: 20,
            hidden_below: vec![14],
            layers: 2,
            init: 0.1,
            initialisation,
            forget_bias: 1.0,
            ..ModelConfig::default()
        }
    }

    /// Largest absolute value.
    fn largest(values: &[f32]) -> f32 {
        values.iter().fold(0.0, |largest, x| x.abs().max(largest))
    }

    #[test]
    fn names_read_back() {
        for kind in Initialisation::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let unknown = ModelError::UnknownInitialisation("he".into());
        assert_eq!("he".parse::<Initialisation>(), Err(unknown));
    }

    #[test]
    fn each_rule_has_its_width_and_the_forget_gates_their_bias() {
        let glorot = |columns: f32, units: f32| (6.0 / (columns + units)).sqrt();
        for (kind, matrices, vectors) in [
            (Initialisation::Uniform, [0.1; 4], 0.1),
            (
                Initialisation::Glorot,
                [glorot(10.0, 14.0), glorot(14.0, 14.0), glorot(14.0, 20.0), glorot(20.0, 20.0)],
                0.0,
            ),
            (
                Initialisation::Pytorch,
                [14f32.powf(-0.5), 14f32.powf(-0.5), 20f32.powf(-0.5), 20f32.powf(-0.5)],
                20f32.powf(-0.5),
            ),
        ] {
            let parameters = Parameters::initial(&config(kind), 3);
            let tensor = |name: &str| parameters.tensor(name).unwrap();
            let names = ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "rnn.weight_ih_l1", "rnn.weight_hh_l1"];
            for (name, half) in names.into_iter().zip(matrices) {
                let found = largest(tensor(name));
                assert!(found <= half && found > 0.97 * half, "{kind}: {name}: {found}, half width {half}");
            }
            for name in ["rnn.bias_hh_l1", "rnn.w_ci_l1"] {
                let found = largest(tensor(name));
                assert!(
                    found <= vectors && found >= 0.8 * vectors,
                    "{kind}: {name}: {found}, half width {vectors}"
                );
            }
            let bias = tensor("rnn.bias_ih_l1");
            let (before, forget, after) = (&bias[..20], &bias[20..40], &bias[40..]);
            assert!(largest(before) <= vectors && largest(after) <= vectors, "{kind}");
            assert!(forget.iter().all(|b| (b - 1.0).abs() <= vectors * 1.0001), "{kind}: {forget:?}");
            assert!((0.09..0.1).contains(&largest(tensor("encoder.weight"))), "{kind}");
            assert!((0.09..0.1).contains(&largest(tensor("decoder.weight"))), "{kind}");
            let decoder = largest(tensor("decoder.bias"));
            assert_eq!(decoder == 0.0, kind != Initialisation::Uniform, "{kind}: {decoder}");
        }
    }

    #[test]
    fn recurrent_blocks_are_orthogonal_each_its_own_and_depend_on_the_seed() {
        let initial = |seed| Parameters::initial(&config(Initialisation::Orthogonal), seed);
        let parameters = initial(3);
        let weights = parameters.tensor("rnn.weight_hh_l1").unwrap();
        for block in weights.chunks_exact(400) {
            for (i, a) in block.chunks_exact(20).enumerate() {
                for (j, b) in block.chunks_exact(20).enumerate() {
                    let product: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
                    let expected = f64::from(u8::from(i == j));
                    assert!((product - expected).abs() < 1e-6, "rows {i} and {j}: {product}");
                }
            }
        }
        assert_ne!(weights[..400], weights[400..800]);
        assert_ne!(initial(4).tensor("rnn.weight_hh_l1").unwrap(), weights);
        let glorot = Parameters::initial(&config(Initialisation::Glorot), 3);
        assert_eq!(parameters.tensor("rnn.weight_ih_l1"), glorot.tensor("rnn.weight_ih_l1"));
    }

    #[test]
    fn normal_numbers_have_their_mean_and_variance() {
        let values: Vec<f64> = (0..25_000).flat_map(|quad| normals(1, (2, 3), quad)).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let moment = |power: i32| values.iter().map(|x| x.powi(power)).sum::<f64>() / count;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!(
            (moment(2) - 1.0).abs() < 0.02 && (moment(4) - 3.0).abs() < 0.15,
            "{} {}",
            moment(2),
            moment(4)
        );
    }

    #[test]
    fn initial_values_are_those_of_every_machine() {
        let digest = |kind: Initialisation| {
            let parameters = Parameters::initial(&config(kind), 3);
            let bits = parameters.as_slice().iter().map(|x| u64::from(x.to_bits()));
            bits.fold(0u64, |sum, bits| sum.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(bits))
        };
        let found = Initialisation::ALL.map(digest);
        let expected =
            [0x2a53_c2ea_161c_6b8b, 0x03eb_bdcc_ba05_f12e, 0xa684_d42e_e566_6188, 0x57b5_a17d_cdb4_5b73];
        assert_eq!(found, expected, "{found:#x?}");
    }
}
