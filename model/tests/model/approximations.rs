//! exp, tanh and sigmoid against f64, in units in the last place of the f32 result.

use carousel_model::{
    Isa,
    approximations::{Function, apply},
};

/// Bit patterns this far apart are tested: about four million over the whole range; the exhaustive test takes every one.
const STRIDE: usize = 1021;

fn exact(function: Function, x: f32) -> f64 {
    let x = f64::from(x);
    match function {
        Function::Exp => x.exp(),
        Function::Tanh => x.tanh(),
        // For x far below zero e^-x overflows, and the sum with 1 is e^-x anyway.
        Function::Sigmoid if x < -700.0 => x.exp(),
        Function::Sigmoid => 1.0 / (1.0 + (-x).exp()),
    }
}

/// Distance in units in the last place of an f32 of the exact value's size; subnormal results count in their own unit.
fn ulps(found: f32, exact: f64) -> f64 {
    let exponent = (exact.abs().max(f64::from(f32::MIN_POSITIVE))).log2().floor() as i32;
    (f64::from(found) - exact).abs() / 2f64.powi(exponent - 23)
}

/// Largest error and where, over every `stride`-th finite f32 whose exact result is one.
fn worst(function: Function, isa: Isa, stride: usize) -> (f64, f32) {
    let mut worst = (0.0, 0.0);
    let mut inputs = Vec::new();
    let mut check = |inputs: &mut Vec<f32>| {
        let mut values = inputs.clone();
        apply(function, isa, &mut values);
        for (&x, &found) in inputs.iter().zip(&values) {
            let exact = exact(function, x);
            if exact > f64::from(f32::MAX) {
                assert!(found == f32::INFINITY || ulps(found, exact) < 2.0, "{function:?}({x}) = {found}");
                continue;
            }
            let off = ulps(found, exact);
            if off > worst.0 {
                worst = (off, x);
            }
        }
        inputs.clear();
    };
    for bits in (0..=u32::MAX).step_by(stride) {
        let x = f32::from_bits(bits);
        if x.is_finite() {
            inputs.push(x);
        }
        if inputs.len() == 1 << 16 {
            check(&mut inputs);
        }
    }
    check(&mut inputs);
    worst
}

fn bound(function: Function) -> f64 {
    match function {
        Function::Exp => 1.1,
        Function::Tanh => 1.6,
        Function::Sigmoid => 2.5,
    }
}

const FUNCTIONS: [Function; 3] = [Function::Exp, Function::Tanh, Function::Sigmoid];

#[test]
fn errors_stay_within_what_the_documentation_says() {
    for function in FUNCTIONS {
        let (off, x) = worst(function, Isa::available()[0], STRIDE);
        println!("{function:?}: {off:.3} units in the last place at {x:e}");
        assert!(off <= bound(function), "{function:?}: {off} at {x:e}");
        assert!(off > 0.4, "{function:?}: {off} is better than rounding allows");
    }
}

#[test]
#[ignore = "all four billion numbers: minutes"]
fn errors_over_every_float() {
    for function in FUNCTIONS {
        let (off, x) = worst(function, Isa::available()[0], 1);
        println!("{function:?}: {off:.3} units in the last place at {x:e}");
        assert!(off <= bound(function), "{function:?}: {off} at {x:e}");
    }
}

#[test]
fn instruction_sets_agree_on_every_kind_of_number() {
    let inputs: Vec<f32> = (0..=u32::MAX).step_by(7_919).map(f32::from_bits).collect();
    for function in FUNCTIONS {
        let results: Vec<Vec<u32>> = Isa::available()
            .into_iter()
            .map(|isa| {
                let mut values = inputs.clone();
                apply(function, isa, &mut values);
                values.iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }).collect()
            })
            .collect();
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "{function:?}");
    }
}

#[test]
fn special_values() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    for isa in Isa::available() {
        let all = |function, inputs: [f32; 6]| {
            let mut values = inputs;
            apply(function, isa, &mut values);
            values
        };
        let inputs = [nan, -inf, inf, 0.0, -0.0, 200.0];
        let exp = all(Function::Exp, inputs);
        assert!(exp[0].is_nan() && exp[1..] == [0.0, inf, 1.0, 1.0, inf]);
        let tanh = all(Function::Tanh, inputs);
        assert!(tanh[0].is_nan() && tanh[1..] == [-1.0, 1.0, 0.0, 0.0, 1.0]);
        assert!(tanh[4].is_sign_negative() && tanh[3].is_sign_positive());
        let sigmoid = all(Function::Sigmoid, inputs);
        assert!(sigmoid[0].is_nan() && sigmoid[1..] == [0.0, 1.0, 0.5, 0.5, 1.0]);
    }
}
