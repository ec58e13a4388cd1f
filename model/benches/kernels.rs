//! Each kernel at the shapes of the reference models and at odd ones, on every instruction set, beside its naive loop.
//!
//! `cargo bench -p carousel-model` measures all; a name such as `forward/medium` picks some. Throughput is in floating-point
//! operations ("elements").

use carousel_model::{
    Isa,
    approximations::{Function, apply},
    trials::{Kind, Trial},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// (name, rows, inner, columns).
const SHAPES: [(&str, usize, usize, usize); 6] = [
    ("small", 400, 200, 800),
    ("medium", 700, 650, 2600),
    ("medium, one step", 20, 650, 2600),
    ("char1", 1600, 96, 2048),
    ("odd", 61, 67, 53),
    ("one row", 1, 650, 2600),
];

/// Larger shapes take seconds a run without vectors; the rate at smaller ones says the same.
const MOST_WITHOUT_VECTORS: u64 = 200_000_000;

fn kernels(criterion: &mut Criterion) {
    for (kind, name) in [
        (Kind::Forward, "forward"),
        (Kind::Backward, "backward"),
        (Kind::WeightGradient, "weight gradient"),
        (Kind::Softmax, "softmax"),
    ] {
        for (shape, rows, inner, columns) in SHAPES {
            let mut group = criterion.benchmark_group(format!("{name}/{shape}"));
            group.sample_size(10);
            for isa in Isa::available() {
                let mut trial = Trial::new(kind, (rows, inner, columns), isa);
                if isa.name() == "portable" && trial.flops() > MOST_WITHOUT_VECTORS {
                    continue;
                }
                group.throughput(Throughput::Elements(trial.flops()));
                group.bench_function(BenchmarkId::from_parameter(isa.name()), |b| b.iter(|| trial.fast()));
            }
            let mut trial = Trial::new(kind, (rows, inner, columns), Isa::available()[0]);
            if trial.flops() <= MOST_WITHOUT_VECTORS {
                // One product, of the softmax's three.
                group.throughput(Throughput::Elements(2 * (rows * inner * columns) as u64));
                group.bench_function("naive", |b| b.iter(|| trial.naive()));
            }
            group.finish();
        }
    }
}

fn functions(criterion: &mut Criterion) {
    let inputs: Vec<f32> = (0..4096).map(|i| (i as f32 - 2048.0) / 200.0).collect();
    for function in [Function::Exp, Function::Tanh, Function::Sigmoid] {
        let mut group = criterion.benchmark_group(format!("{function:?}"));
        group.throughput(Throughput::Elements(inputs.len() as u64));
        for isa in Isa::available() {
            group.bench_function(BenchmarkId::from_parameter(isa.name()), |b| {
                b.iter_batched_ref(
                    || inputs.clone(),
                    |values| apply(function, isa, values),
                    criterion::BatchSize::SmallInput,
                )
            });
        }
        group.finish();
    }
}

criterion_group!(benches, kernels, functions);
criterion_main!(benches);
