//! A plan as a table with advice, and as JSON. It computes nothing that is not said.

use serde_json::{Value, json};

use super::Plan;
use super::advice::{self, PAYS, efficiency};
use super::cost::Prediction;

pub(super) fn print(plan: &Plan) {
    let (place, how) = (plan.place, if plan.is_measured { "measured here" } else { "given" });
    println!("parameters  {}", plan.parameters);
    println!("a step      {:.2} GFLOP, {} lanes", plan.step_flops / 1e9, plan.lanes);
    println!("a worker    {:.1} GFLOP/s, {how}", place.flops.0 / 1e9);
    println!(
        "network     {:.0} Mbit/s, {:.2} ms one way",
        place.bandwidth.0 * 8.0 / 1e6,
        place.latency.0 * 1e3
    );
    for (name, line) in [("mesh", &plan.mesh), ("star", &plan.star)] {
        table(name, line, &plan.alone);
    }
    println!();
    advise(plan);
}

fn table(name: &str, line: &[Prediction], alone: &Prediction) {
    println!("\n{name:<8}   ms a step                                    MB a step and host     memory MB");
    println!(
        "workers    step  compute exchange   commit   tokens/s  eff.   out    in  coord. out/in   worker coord."
    );
    for p in line {
        let (ms, mb) = (1e3, 1e6);
        println!(
            "{:>7} {:>7.1} {:>8.1} {:>8.1} {:>8.1} {:>10.0} {:>4.0}% {:>5.1} {:>5.1} {:>7.1}/{:<7.1} {:>7.0} {:>6.0}",
            p.workers,
            p.step.0 * ms,
            p.compute.0 * ms,
            p.exchange.0 * ms,
            p.commit.0 * ms,
            p.tokens_per_second,
            100.0 * efficiency(alone, p),
            p.worker.sent / mb,
            p.worker.received / mb,
            p.coordinator.sent / mb,
            p.coordinator.received / mb,
            p.worker_memory / mb,
            p.coordinator_memory / mb,
        );
    }
}

/// The exchange and the worker count that pay, and where that ends.
fn recommended(plan: &Plan) -> (&'static str, Prediction) {
    let best = |line: &[Prediction]| advice::up_to(&plan.alone, line).0;
    let (mesh, star) = (best(&plan.mesh), best(&plan.star));
    if star.tokens_per_second > mesh.tokens_per_second { ("star", star) } else { ("mesh", mesh) }
}

fn advise(plan: &Plan) {
    for (name, line) in [("mesh", &plan.mesh), ("star", &plan.star)] {
        if let (last, Some(next)) = advice::up_to(&plan.alone, line) {
            let (percent, share) = (PAYS * 100.0, 100.0 * advice::marginal(&plan.alone, &last, &next));
            println!(
                "{name}: from {} to {} workers each further one adds {share:.0} % of one alone, under {percent:.0} %",
                last.workers, next.workers
            );
        }
    }
    let most = plan.mesh.iter().map(|p| p.workers).max().unwrap_or_default();
    if most > plan.lanes {
        println!("train.lanes = {} bounds the workers: the others are idle", plan.lanes);
    }
    let (exchange, p) = recommended(plan);
    let workers = if p.workers == 1 { "1 worker".into() } else { format!("{} workers", p.workers) };
    println!("recommended: {workers}, cluster.exchange = \"{exchange}\"");
}

pub(super) fn as_json(plan: &Plan) -> Value {
    let line = |line: &[Prediction]| line.iter().map(|p| prediction(p, &plan.alone)).collect::<Vec<_>>();
    let (exchange, best) = recommended(plan);
    json!({
        "parameters": plan.parameters, "step_flops": plan.step_flops, "lanes": plan.lanes,
        "flops": plan.place.flops.0, "flops_measured": plan.is_measured,
        "bytes_per_second": plan.place.bandwidth.0, "latency_seconds": plan.place.latency.0,
        "mesh": line(&plan.mesh), "star": line(&plan.star),
        "pays_from": PAYS,
        "recommended": { "exchange": exchange, "workers": best.workers },
    })
}

fn prediction(p: &Prediction, alone: &Prediction) -> Value {
    json!({
        "workers": p.workers, "idle": p.idle, "step_seconds": p.step.0, "compute_seconds": p.compute.0,
        "exchange_seconds": p.exchange.0, "commit_seconds": p.commit.0,
        "tokens_per_second": p.tokens_per_second, "efficiency": efficiency(alone, p),
        "worker_sent_bytes": p.worker.sent, "worker_received_bytes": p.worker.received,
        "coordinator_sent_bytes": p.coordinator.sent, "coordinator_received_bytes": p.coordinator.received,
        "worker_memory_bytes": p.worker_memory, "coordinator_memory_bytes": p.coordinator_memory,
    })
}
