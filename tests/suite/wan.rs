//! A run over a long and narrow network: 20 ms from host to host, 100 Mbit a second.

use crate::crew::Crew;
use crate::netlab::Lab;
use crate::program::Workshop;

/// One way from host to host, in ms, and the rate of each host's wire, in Mbit/s; the same as a plan is told.
const WIRE: (u32, u32) = (20, 100);
const PLANNED: [&str; 4] = ["--latency", "20ms", "--bandwidth", "100Mbit"];

const SETS: &[&str] = &["train.steps=150", "train.evaluate_every=1000", "cluster.workers=2"];

/// The same run on one machine, undisturbed.
fn quiet() -> String {
    let sets: Vec<&str> = SETS.iter().flat_map(|set| ["--set", set]).collect();
    Workshop::new().trained("quiet", &sets)
}

#[test]
fn a_run_over_a_slow_network_survives_a_cut_of_each_host() {
    let Some(lab) = Lab::open_wide(3, WIRE) else { return };
    let shop = Workshop::new();
    let mut crew = Crew::start(&shop, Some(&lab), ("run.toml", "wide"), SETS);
    (0..2).for_each(|_| crew.add_worker(None));
    for (host, step) in [(1, 10), (2, 40), (0, 70)] {
        crew.wait_for_step(step);
        lab.silence(host);
        let before = lab.received(host);
        std::thread::sleep(std::time::Duration::from_secs(2));
        let committed = crew.commits().last().copied();
        std::thread::sleep(std::time::Duration::from_secs(1));
        // Frames still reach the interface and are dropped behind it: what shows the cut of the coordinator is that it stands still.
        assert!(host != 0 || crew.commits().last().copied() == committed, "{before}\n{}", crew.story());
        lab.unsilence(host);
    }
    assert_eq!(crew.digest(), quiet(), "{}", crew.story());
}

/// Where the network is slow and nothing else is wrong, nobody may be taken for dead.
#[test]
fn a_slow_network_alone_makes_nobody_leave() {
    let Some(lab) = Lab::open_wide(3, WIRE) else { return };
    let shop = Workshop::new();
    let mut crew = Crew::start(&shop, Some(&lab), ("run.toml", "slow"), SETS);
    (0..2).for_each(|_| crew.add_worker(None));
    assert_eq!(crew.digest(), quiet(), "{}", crew.story());
    assert!(!crew.coordinator.printed().contains("left        worker"), "{}", crew.story());
}

/// Predicted step times beside those of real runs, for docs/plan.md. A step's time here is its wires', hardly its processors'.
#[test]
#[ignore = "measures; run it alone"]
fn what_a_plan_is_worth() {
    let Some(lab) = Lab::open_wide(4, WIRE) else { return };
    for (name, exchange, workers) in
        [("mesh2", "mesh", 2), ("star2", "star", 2), ("mesh3", "mesh", 3), ("star3", "star", 3)]
    {
        let shop = Workshop::new();
        let sets = [
            "train.steps=60".into(),
            "train.evaluate_every=1000".into(),
            "train.streams=32".into(),
            "train.lanes=6".into(),
            "model.hidden=256".into(),
            "model.embedding=128".into(),
            format!("cluster.workers={workers}"),
            format!("cluster.exchange={exchange:?}"),
        ];
        let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
        let planned = planned(&shop, &sets, (exchange, workers));
        let bytes = |host| lab.bytes(host);
        let before: Vec<_> = (0..=workers).map(bytes).collect();
        let mut crew = Crew::start(&shop, Some(&lab), ("run.toml", name), &sets);
        (0..workers).for_each(|_| crew.add_worker(None));
        crew.digest();
        let sent = |host: usize| (lab.bytes(host).0 - before[host].0) as f64 / 60.0;
        let mut seconds: Vec<f64> =
            shop.metrics(name).iter().filter_map(|line| line["seconds"].as_f64()).skip(10).collect();
        seconds.sort_by(f64::total_cmp);
        let (measured, step) = (seconds[seconds.len() / 2], &planned["step_seconds"].as_f64().unwrap());
        eprintln!(
            "{name}: predicted {:.1} ms, measured {:.1} ms (median of {}), predicted over measured {:.3}; \
             MB a step out: coordinator {:.3} predicted, {:.3} measured; worker {:.3} and {:.3}",
            step * 1e3,
            measured * 1e3,
            seconds.len(),
            step / measured,
            planned["coordinator_sent_bytes"].as_f64().unwrap() / 1e6,
            sent(0) / 1e6,
            planned["worker_sent_bytes"].as_f64().unwrap() / 1e6,
            (1..=workers).map(sent).fold(0.0, f64::max) / 1e6,
        );
    }
}

/// What the program predicts for so many workers of one thread on this machine.
fn planned(shop: &Workshop, sets: &[&str], (exchange, workers): (&str, usize)) -> serde_json::Value {
    let count = workers.to_string();
    let mut arguments = vec!["plan", "run.toml", "--json", "--threads", "1", "--workers", &count];
    arguments.extend(PLANNED);
    sets.iter().for_each(|set| arguments.extend(["--set", set]));
    let plan: serde_json::Value = serde_json::from_str(&shop.succeed(&arguments)).unwrap();
    plan[exchange][0].clone()
}
