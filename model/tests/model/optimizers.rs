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

const ADAM: OptimizerConfig = OptimizerConfig::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };

/// Follows a file's trajectory with a model of at least its parameters, the rest zero; its weight decay is added to the gradients here.
fn follow(name: &str, kind: OptimizerConfig) {
    let Some(folder) = golden_folder() else { return };
    let golden = Golden::open(&folder.join(format!("optim_{name}.safetensors")));
    let count = golden.floats("init").len();
    let config = ModelConfig { vocabulary: count.div_ceil(3), ..forty() };
    let (layout, rows) = (config.gradient_layout(), (0..config.vocabulary as u32).collect::<Vec<_>>());
    let padded = |values: &[f64]| {
        let mut values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
        values.resize(config.parameter_layout().len(), 0.0);
        values
    };
    let mut parameters = Parameters::from_flat(&config, padded(&golden.floats("init"))).unwrap();
    let mut optimizer = Optimizer::new(kind, &config.parameter_layout()).unwrap();
    let decay = golden.case["weight_decay"].as_f64().unwrap() as f32;
    let rate = golden.case["lr"].as_f64().unwrap() as f32;
    let wanted = golden.floats("params");
    for (step, gradient) in golden.floats("grads").chunks_exact(count).enumerate() {
        let gradient = padded(gradient);
        let decayed = gradient.iter().zip(parameters.as_slice()).map(|(g, w)| g + decay * w);
        // Handed over at four times its size, with the clip scale that takes it back.
        let gradient: Vec<f32> = decayed.map(|g| 4.0 * g).collect();
        let (row_values, dense) = gradient.split_at(layout.dense_offset);
        let view = GradientView { dense, rows: &rows, row_values };
        let update = Update { step: step as u64 + 1, learning_rate: rate, scale: 0.25 };
        optimizer.apply(&mut parameters, &layout, view, update).unwrap();
        for (at, (&found, wanted)) in
            parameters.as_slice().iter().zip(&wanted[count * step..][..count]).enumerate()
        {
            let off = (f64::from(found) - wanted).abs();
            assert!(off <= 3e-6, "{name}, step {step}, parameter {at}: {found}, expected {wanted}");
        }
    }
}

#[test]
fn sgd_follows_pytorch() {
    follow("sgd", OptimizerConfig::Sgd);
}

#[test]
fn adam_follows_pytorch() {
    follow("adam", ADAM);
}

fn apply(optimizer: &mut Optimizer, parameters: &mut Parameters, step: u64, rows: &[u32]) {
    let config = forty();
    let dense: Vec<f32> = (0..28).map(|i| (i as f32 - 13.5) / 7.0 * step as f32).collect();
    let row_values: Vec<f32> = rows.iter().map(|&row| row as f32 - 3.5).collect();
    let gradient = GradientView { dense: &dense, rows, row_values: &row_values };
    let update = Update { step, learning_rate: 0.1, scale: 1.0 };
    optimizer.apply(parameters, &config.gradient_layout(), gradient, update).unwrap();
}

#[test]
fn untouched_rows_stay_under_sgd_and_decay_under_adam() {
    let config = forty();
    for (kind, moves) in [(OptimizerConfig::Sgd, false), (ADAM, true)] {
        let mut parameters = Parameters::initial(&config, 1);
        let mut optimizer = Optimizer::new(kind, &config.parameter_layout()).unwrap();
        apply(&mut optimizer, &mut parameters, 1, &[2, 7]);
        let before = parameters.clone();
        apply(&mut optimizer, &mut parameters, 2, &[7]);
        let moved = |at: usize| parameters.as_slice()[at] != before.as_slice()[at];
        assert!(moved(7) && !moved(3) && moved(20));
        assert_eq!(moved(2), moves, "{kind:?}");
    }
}

#[test]
fn a_loaded_state_goes_on_with_the_same_bits() {
    let config = forty();
    let layout = config.parameter_layout();
    let mut whole = (Optimizer::new(ADAM, &layout).unwrap(), Parameters::initial(&config, 1));
    for step in 1..=3 {
        apply(&mut whole.0, &mut whole.1, step, &[1, 5]);
    }
    let state: Vec<(String, Vec<f32>)> =
        whole.0.state().iter().map(|(name, values)| ((*name).to_owned(), values.to_vec())).collect();
    let mut resumed = (Optimizer::new(ADAM, &layout).unwrap(), whole.1.clone());
    resumed.0.load_state(&state).unwrap();
    for run in [&mut whole, &mut resumed] {
        apply(&mut run.0, &mut run.1, 4, &[0, 5]);
    }
    let bits = |p: &Parameters| p.as_slice().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&whole.1), bits(&resumed.1));
    assert_eq!(whole.0.state(), resumed.0.state());
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
    let update = Update { step: 1, learning_rate: 0.1, scale: 1.0 };
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
    let beta = OptimizerConfig::Adam { beta1: 1.0, beta2: 0.999, epsilon: 1e-8 };
    assert!(matches!(Optimizer::new(beta, &config.parameter_layout()), Err(ModelError::OptimizerOption(_))));
}
