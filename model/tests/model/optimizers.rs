//! Optimizers against PyTorch's trajectories, their state, and what they refuse.

use carousel_model::{
    Cell, GradientView, ModelConfig, ModelError, Optimizer, OptimizerConfig, Parameters, Update,
};

use crate::support::{Golden, golden_folder};

/// A model of forty parameters, twelve of them embedding rows.
fn forty() -> ModelConfig {
    ModelConfig {
        cell: Cell::RnnTanh,
        vocabulary: 12,
        embedding: 1,
        hidden: 1,
        layers: 1,
        tied: false,
        init: 0.1,
        ..ModelConfig::default()
    }
}

const ADAM: OptimizerConfig =
    OptimizerConfig::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 };
const SGD: OptimizerConfig = OptimizerConfig::Sgd { weight_decay: 0.0 };
const RMSPROP: OptimizerConfig =
    OptimizerConfig::RmsProp { alpha: 0.99, epsilon: 1e-8, momentum: 0.9, centered: true, weight_decay: 0.0 };

/// One of each kind, with everything on that it has.
fn every_kind() -> Vec<OptimizerConfig> {
    let (beta1, beta2, epsilon, momentum) = (0.9, 0.999, 1e-8, 0.9);
    let (lr_decay, initial_accumulator_value) = (0.01, 0.1);
    vec![
        SGD,
        OptimizerConfig::Momentum { momentum, nesterov: false, weight_decay: 0.0 },
        OptimizerConfig::Momentum { momentum, nesterov: true, weight_decay: 0.01 },
        ADAM,
        OptimizerConfig::AdamW { beta1, beta2, epsilon, weight_decay: 0.01 },
        RMSPROP,
        OptimizerConfig::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay: 0.0 },
        OptimizerConfig::Asgd { lambd: 1e-4, alpha: 0.75, t0: 1, weight_decay: 0.0 },
        OptimizerConfig::NtAsgd { weight_decay: 0.0 },
        OptimizerConfig::Lion { beta1, beta2, weight_decay: 0.01 },
    ]
}

/// A trajectory: weights and, where there is one, the average at the end.
struct Followed {
    /// (steps, parameters)
    weights: Vec<Vec<f32>>,
    average: Option<Vec<f32>>,
}

/// Feeds the gradients (steps, N) to an optimizer, each handed over at four times its size with the clip scale that takes it back. The
/// model has at least N parameters, a third of them embedding rows; the rest is zero.
fn follow(kind: OptimizerConfig, init: &[f64], gradients: &[Vec<f64>], rate: f32) -> Followed {
    let count = init.len();
    let config = ModelConfig { vocabulary: count.div_ceil(3), ..forty() };
    let (layout, rows) = (config.gradient_layout(), (0..config.vocabulary as u32).collect::<Vec<_>>());
    let padded = |values: &[f64], factor: f64| {
        let mut values: Vec<f32> = values.iter().map(|&x| (factor * x) as f32).collect();
        values.resize(config.parameter_layout().len(), 0.0);
        values
    };
    let mut parameters = Parameters::from_flat(&config, padded(init, 1.0)).unwrap();
    let mut optimizer = Optimizer::new(kind, &config.parameter_layout()).unwrap();
    let mut weights = Vec::new();
    for (step, gradient) in (1..).zip(gradients) {
        let gradient = padded(gradient, 4.0);
        let (row_values, dense) = gradient.split_at(layout.dense_offset);
        let view = GradientView { dense, rows: &rows, row_values };
        let update = Update { step, learning_rate: rate, scale: 0.25, ..Update::default() };
        optimizer.apply(&mut parameters, &layout, view, update).unwrap();
        weights.push(parameters.as_slice()[..count].to_vec());
    }
    Followed { weights, average: optimizer.average().map(|average| average[..count].to_vec()) }
}

/// Within 1e-6 of the tensor's largest absolute value.
fn close(what: &str, found: &[f32], wanted: &[f64]) {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    for (at, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        let off = (f64::from(*found) - wanted).abs();
        assert!(off <= 1e-6 * largest, "{what}, parameter {at}: {found}, expected {wanted}");
    }
}

/// Follows a file's trajectory.
fn follow_golden(name: &str, kind: impl Fn(&Golden) -> OptimizerConfig) {
    let Some(folder) = golden_folder() else { return };
    let golden = Golden::open(&folder.join(format!("optim_{name}.safetensors")));
    let init = golden.floats("init");
    let gradients: Vec<Vec<f64>> =
        golden.floats("grads").chunks_exact(init.len()).map(<[f64]>::to_vec).collect();
    let found = follow(kind(&golden), &init, &gradients, number(&golden, "lr"));
    let wanted = golden.floats("params");
    assert_eq!(found.weights.len(), 12);
    for (step, (found, wanted)) in found.weights.iter().zip(wanted.chunks_exact(init.len())).enumerate() {
        close(&format!("{name}, step {step}"), found, wanted);
    }
    if let Some(average) = found.average {
        close(&format!("{name}, average"), &average, &golden.floats("average"));
        assert_ne!(average, found.weights[11], "an average that is none shows nothing");
    }
}

fn number(golden: &Golden, key: &str) -> f32 {
    golden.case[key].as_f64().unwrap() as f32
}

#[test]
fn sgd_follows_pytorch() {
    follow_golden("sgd", |g| OptimizerConfig::Sgd { weight_decay: number(g, "weight_decay") });
}

#[test]
fn momentum_and_nesterov_follow_pytorch() {
    for (name, nesterov) in [("sgd_momentum", false), ("nesterov", true)] {
        follow_golden(name, |g| OptimizerConfig::Momentum {
            momentum: number(g, "momentum"),
            nesterov,
            weight_decay: number(g, "weight_decay"),
        });
    }
}

#[test]
fn adam_follows_pytorch() {
    follow_golden("adam", |g| OptimizerConfig::Adam {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: number(g, "eps"),
        weight_decay: number(g, "weight_decay"),
    });
}

#[test]
fn adamw_follows_pytorch() {
    follow_golden("adamw", |g| OptimizerConfig::AdamW {
        beta1: 0.9,
        beta2: 0.999,
        epsilon: number(g, "eps"),
        weight_decay: number(g, "weight_decay"),
    });
}

#[test]
fn asgd_and_its_average_follow_pytorch() {
    follow_golden("asgd", |g| OptimizerConfig::Asgd {
        lambd: number(g, "lambd"),
        alpha: number(g, "alpha"),
        t0: g.case["t0"].as_u64().unwrap(),
        weight_decay: number(g, "weight_decay"),
    });
}

/// Gradients of no pattern: (12, 40).
fn gradients() -> (Vec<f64>, Vec<Vec<f64>>) {
    let value = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as f64 / f64::from(1 << 23) - 1.0;
    let init = (0..40).map(value).collect();
    (init, (1..=12).map(|step| (0..40).map(|at| value(step * 1000 + at)).collect()).collect())
}

/// Holds an optimizer against its definition in f64: `step(t, state, w, g)` gives the new weight of one element.
fn follow_definition(
    name: &str,
    kind: OptimizerConfig,
    start: f64,
    step: impl Fn(u64, &mut [f64; 3], f64, f64) -> f64,
) {
    let (mut weights, gradients) = gradients();
    let found = follow(kind, &weights, &gradients, 0.1);
    let mut states = vec![[start, 0.0, 0.0]; weights.len()];
    for (t, (gradient, found)) in (1..).zip(gradients.iter().zip(&found.weights)) {
        for ((w, g), state) in weights.iter_mut().zip(gradient).zip(&mut states) {
            *w = step(t, state, *w, *g);
        }
        close(&format!("{name}, step {t}"), found, &weights);
    }
}

/// `torch.optim.RMSprop`: square_avg, momentum_buffer, grad_avg.
#[test]
fn rmsprop_follows_its_definition() {
    for (momentum, centered, weight_decay) in
        [(0.0, false, 0.0), (0.0, false, 0.1), (0.9, false, 0.0), (0.0, true, 0.0), (0.9, true, 0.1)]
    {
        let decimal = |x: f32| x.to_string().parse::<f64>().unwrap();
        let (m, decay) = (decimal(momentum), decimal(weight_decay));
        // Centered, the first steps divide by a variance near zero: an epsilon that rounding does not swamp.
        let (alpha, epsilon, eps) = (0.9, 1e-2, 1e-2);
        let kind = OptimizerConfig::RmsProp { alpha, epsilon, momentum, centered, weight_decay };
        let name = format!("rmsprop, momentum {momentum}, centered {centered}, decay {weight_decay}");
        follow_definition(&name, kind, 0.0, |_, state, w, g| {
            let g = g + decay * w;
            state[0] = 0.9 * state[0] + 0.1 * g * g;
            let mut spread = state[0];
            if centered {
                state[2] += 0.1 * (g - state[2]);
                spread -= state[2] * state[2];
            }
            let direction = g / (spread.sqrt() + eps);
            state[1] = m * state[1] + direction;
            w - 0.1 * state[1]
        });
    }
}

/// `torch.optim.Adagrad`.
#[test]
fn adagrad_follows_its_definition() {
    let (lr_decay, initial_accumulator_value, epsilon, weight_decay) = (0.25, 0.5, 1e-10, 0.1);
    let kind = OptimizerConfig::AdaGrad { lr_decay, initial_accumulator_value, epsilon, weight_decay };
    follow_definition("adagrad", kind, 0.5, |t, state, w, g| {
        let g = g + 0.1 * w;
        state[0] += g * g;
        w - 0.1 / (1.0 + (t - 1) as f64 * 0.25) * g / (state[0].sqrt() + 1e-10)
    });
}

/// A direction of 0 is in its own file.
#[test]
fn lion_follows_its_definition() {
    let kind = OptimizerConfig::Lion { beta1: 0.75, beta2: 0.95, weight_decay: 0.5 };
    follow_definition("lion", kind, 0.0, |_, state, w, g| {
        let sign = f64::signum(0.75 * state[0] + 0.25 * g);
        state[0] = 0.95 * state[0] + 0.05 * g;
        w - 0.1 * (sign + 0.5 * w)
    });
}

/// `torch.optim.ASGD` with a decay term, which the reference vectors have not.
#[test]
fn asgd_decays_weights_and_rate() {
    let kind = OptimizerConfig::Asgd { lambd: 0.5, alpha: 0.75, t0: 3, weight_decay: 0.0 };
    follow_definition("asgd", kind, 0.0, |t, _, w, g| {
        let eta = 0.1 / (1.0 + 0.5 * 0.1 * (t - 1) as f64).powf(0.75);
        w * (1.0 - 0.5 * eta) - eta * g
    });
}

/// Merity 2017, algorithm 1, by hand: one weight per row of gradient 1 at rate 1/4 walks 0, -1/4, -1/2, ...; told at step 2, the
/// average is that of the weights after steps 2, 3, ...
#[test]
fn the_average_of_nt_asgd_begins_with_the_step_it_is_told() {
    let config = ModelConfig { init: 0.0, ..forty() };
    let layout = config.gradient_layout();
    let kind = OptimizerConfig::NtAsgd { weight_decay: 0.0 };
    let mut parameters = Parameters::initial(&config, 1);
    let mut optimizer = Optimizer::new(kind, &config.parameter_layout()).unwrap();
    let averages: Vec<f32> = (1..=5)
        .map(|step| {
            // Row 3 is touched at every step, row 7 at the first alone.
            let rows: &[u32] = if step == 1 { &[3, 7] } else { &[3] };
            let view = GradientView { dense: &[1.0; 28], rows, row_values: &vec![1.0; rows.len()] };
            let averaged_from = (step > 2).then_some(2);
            let update = Update { step, learning_rate: 0.25, averaged_from, ..Update::default() };
            optimizer.apply(&mut parameters, &layout, view, update).unwrap();
            let average = optimizer.average().unwrap();
            assert_eq!((average[3], average[7], average[0]), (average[20], -0.25, 0.0), "step {step}");
            average[3]
        })
        .collect();
    assert_eq!(parameters.as_slice()[3], -1.25);
    // w: -1/4, -1/2, -3/4, -1, -5/4. From step 2: -1/2; (-1/2 - 3/4) / 2; ... / 3; ... / 4.
    let by_hand = [-0.25, -0.5, -0.625, -0.75, -0.875];
    for (found, wanted) in averages.iter().zip(by_hand) {
        assert!((found - wanted).abs() < 1e-6, "{averages:?}, expected {by_hand:?}");
    }
}

/// `clip_grad_value_` after the clip by norm; the weight decay comes after both.
#[test]
fn elements_are_clipped_by_value_after_the_scale() {
    let config = ModelConfig { init: 0.0, ..forty() };
    let layout = config.gradient_layout();
    let mut parameters = Parameters::initial(&config, 1);
    parameters.as_mut_slice()[13] = 4.0;
    let kind = OptimizerConfig::Sgd { weight_decay: 0.25 };
    let mut optimizer = Optimizer::new(kind, &config.parameter_layout()).unwrap();
    let mut dense = [0.5; 28];
    (dense[0], dense[1], dense[2]) = (-8.0, 8.0, 2.0);
    let view = GradientView { dense: &dense, rows: &[2, 5], row_values: &[-3.0, 0.25] };
    let update = Update { learning_rate: 1.0, scale: 0.5, clip_value: Some(1.25), ..Update::default() };
    optimizer.apply(&mut parameters, &layout, view, update).unwrap();
    let found = parameters.as_slice();
    assert_eq!((found[2], found[5], found[0]), (1.25, -0.125, 0.0));
    assert_eq!(found[12..16], [1.25, 4.0 - 1.25 - 1.0, -1.0, -0.25]);
}

fn apply(optimizer: &mut Optimizer, parameters: &mut Parameters, step: u64, rows: &[u32]) {
    let config = forty();
    let dense: Vec<f32> = (0..28).map(|i| (i as f32 - 13.5) / 7.0 * step as f32).collect();
    let row_values: Vec<f32> = rows.iter().map(|&row| row as f32 - 3.5).collect();
    let gradient = GradientView { dense: &dense, rows, row_values: &row_values };
    let averaged_from = (step > 2).then_some(2);
    let update = Update { step, learning_rate: 0.1, averaged_from, ..Update::default() };
    optimizer.apply(parameters, &config.gradient_layout(), gradient, update).unwrap();
}

/// What an untouched row's definition says: nothing, for plain SGD and AdaGrad; for the others what they remember, or the decay.
#[test]
fn untouched_rows_get_what_the_definition_says() {
    let config = forty();
    let decayed = OptimizerConfig::Sgd { weight_decay: 0.1 };
    for kind in every_kind().into_iter().chain([decayed]) {
        let stays = matches!(kind, SGD | OptimizerConfig::AdaGrad { .. } | OptimizerConfig::NtAsgd { .. });
        let mut parameters = Parameters::initial(&config, 1);
        let mut optimizer = Optimizer::new(kind, &config.parameter_layout()).unwrap();
        apply(&mut optimizer, &mut parameters, 1, &[2, 7]);
        let before = parameters.clone();
        apply(&mut optimizer, &mut parameters, 2, &[7]);
        let moved = |at: usize| parameters.as_slice()[at] != before.as_slice()[at];
        assert!(moved(7) && moved(20), "{kind:?}");
        assert_eq!(moved(2), !stays, "{kind:?}");
    }
}

#[test]
fn a_loaded_state_goes_on_with_the_same_bits() {
    let config = forty();
    let layout = config.parameter_layout();
    for kind in every_kind() {
        let mut whole = (Optimizer::new(kind, &layout).unwrap(), Parameters::initial(&config, 1));
        for step in 1..=3 {
            apply(&mut whole.0, &mut whole.1, step, &[1, 5]);
        }
        let state: Vec<(String, Vec<f32>)> =
            whole.0.state().iter().map(|(name, values)| ((*name).to_owned(), values.to_vec())).collect();
        let mut resumed = (Optimizer::new(kind, &layout).unwrap(), whole.1.clone());
        resumed.0.load_state(&state).unwrap();
        for run in [&mut whole, &mut resumed] {
            apply(&mut run.0, &mut run.1, 4, &[0, 5]);
        }
        let bits = |p: &Parameters| p.as_slice().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&whole.1), bits(&resumed.1), "{kind:?}");
        assert_eq!(whole.0.state(), resumed.0.state(), "{kind:?}");
    }
}

#[test]
fn wrong_states_and_gradients_are_refused() {
    let config = forty();
    let mut optimizer = Optimizer::new(ADAM, &config.parameter_layout()).unwrap();
    let full = |name: &str| (name.to_owned(), vec![0.0; 40]);
    for state in [
        vec![full("exp_avg")],
        vec![full("exp_avg"), full("exp_avg")],
        vec![full("exp_avg"), full("exp_avg_sq"), full("momentum_buffer")],
        vec![full("exp_avg"), ("exp_avg_sq".to_owned(), vec![0.0; 39])],
    ] {
        assert!(matches!(optimizer.load_state(&state), Err(ModelError::OptimizerState(_))), "{state:?}");
    }
    let mut parameters = Parameters::initial(&config, 1);
    let dense = [0.0; 28];
    let update = Update { learning_rate: 0.1, ..Update::default() };
    for (dense, rows, values) in [
        (&dense[1..], vec![], vec![]),
        (&dense[..], vec![1, 1], vec![0.0; 2]),
        (&dense[..], vec![3, 12], vec![0.0; 2]),
        (&dense[..], vec![3], vec![0.0; 2]),
    ] {
        let gradient = GradientView { dense, rows: &rows, row_values: &values };
        assert!(
            optimizer.apply(&mut parameters, &config.gradient_layout(), gradient, update).is_err(),
            "{rows:?}"
        );
    }
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let layout = forty().parameter_layout();
    let (beta1, beta2, epsilon, weight_decay) = (0.9, 0.999, 1e-8, 0.0);
    let (momentum, centered, lr_decay, initial_accumulator_value) = (0.0, false, 0.0, 0.0);
    for (name, kind) in [
        ("weight_decay", OptimizerConfig::Sgd { weight_decay: -0.1 }),
        ("weight_decay", OptimizerConfig::NtAsgd { weight_decay: f32::NAN }),
        ("momentum", OptimizerConfig::Momentum { momentum: 1.0, nesterov: false, weight_decay }),
        ("beta1", OptimizerConfig::Adam { beta1: 1.0, beta2, epsilon, weight_decay }),
        ("beta2", OptimizerConfig::AdamW { beta1, beta2: -0.1, epsilon, weight_decay }),
        ("epsilon", OptimizerConfig::Adam { beta1, beta2, epsilon: 0.0, weight_decay }),
        ("alpha", OptimizerConfig::RmsProp { alpha: 1.0, epsilon, momentum, centered, weight_decay }),
        (
            "lr_decay",
            OptimizerConfig::AdaGrad { lr_decay: -1.0, initial_accumulator_value, epsilon, weight_decay },
        ),
        (
            "initial_accumulator_value",
            OptimizerConfig::AdaGrad { lr_decay, initial_accumulator_value: -1.0, epsilon, weight_decay },
        ),
        ("beta2", OptimizerConfig::Lion { beta1, beta2: 1.0, weight_decay }),
        ("lambd", OptimizerConfig::Asgd { lambd: f32::INFINITY, alpha: 0.75, t0: 0, weight_decay }),
    ] {
        let refused = Optimizer::new(kind, &layout).err();
        let Some(ModelError::OptimizerOption(text)) = refused else { panic!("{kind:?}: {refused:?}") };
        assert!(text.starts_with(name), "{text}");
    }
}
