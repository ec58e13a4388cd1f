//! Prints one bench report: `cargo run --release -p carousel-model --example bench -- MODEL THREADS [LANES] [CELL]`.

use carousel_model::{BenchOptions, Cell, ModelConfig, bench};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text = |at: usize, default: &str| args.get(at).cloned().unwrap_or_else(|| default.to_owned());
    let sizes = match text(0, "medium").as_str() {
        "small" => [10_000, 200, 200, 2, 20, 20],
        "medium" => [10_000, 650, 650, 2, 20, 35],
        "large" => [10_000, 1500, 1500, 2, 20, 35],
        "char1" => [96, 96, 512, 1, 32, 50],
        custom => {
            let sizes: Vec<usize> = custom.split(',').map(str::parse).collect::<Result<_, _>>()?;
            sizes.try_into().map_err(|_| "expected vocabulary,embedding,hidden,layers,streams,window")?
        }
    };
    let [vocabulary, embedding, hidden, layers, streams, window] = sizes;
    let cell: Cell = text(3, "lstm").parse()?;
    let config = ModelConfig {
        cell,
        vocabulary,
        embedding,
        hidden,
        layers,
        tied: false,
        init: 0.05,
        ..ModelConfig::default()
    };
    let lanes = text(2, "4").parse()?;
    let seconds = text(4, "5").parse()?;
    let options = BenchOptions { config, streams, window, lanes, warmup: 2, seconds };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(text(1, "2").parse()?).build()?;
    let report = pool.install(|| bench(&options))?;
    for phase in &report.phases {
        println!("{:>22} {:8.2} ms", phase.name, phase.seconds * 1e3);
    }
    println!(
        "{} {} threads={} lanes={lanes} step={:.1}ms tok/s={:.0} GFLOP/s={:.1} peak={:.1} fraction={:.3} steps={} loss={:.3}",
        text(0, "medium"),
        report.isa,
        report.threads,
        report.step_seconds * 1e3,
        report.tokens_per_second,
        report.gflops,
        report.peak_gflops,
        report.peak_fraction,
        report.steps,
        report.loss
    );
    Ok(())
}
