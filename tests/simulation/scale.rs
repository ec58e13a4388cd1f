//! A thousand workers against the real coordinator's state machine: what a step costs the coordinator itself.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use carousel_coordinator::protocol::{
    Action, Epochs, Event, Exchange, Length, Machine, Origin, RunPlan, Start,
};
use carousel_proto::digest::Digest;
use carousel_proto::{Step, Term, WorkerId};

const LANES_OF_A_WORKER: u32 = 2;

/// The coordinator's own time of a step, and what it said in it.
struct Cost {
    time: Duration,
    actions: usize,
}

fn answer(action: &Action, events: &mut VecDeque<Event>) {
    match *action {
        Action::Load { worker, step, .. } => {
            events.push_back(Event::Ready { worker, step, digest: Digest::of_bytes(b"replica") });
        }
        Action::Assign { worker, term, step, .. } => {
            events.push_back(Event::Reported { worker, term, step, took: Duration::from_millis(100) });
            events.push_back(Event::Sliced { worker, term, step });
            events.push_back(Event::Acknowledged { worker, term, step });
        }
        Action::Reduce { term, step } => events.push_back(Event::Reduced { term, step }),
        _ => {}
    }
}

fn cost(workers: u64, steps: u64) -> Cost {
    let plan = RunPlan {
        lanes: workers as u32 * LANES_OF_A_WORKER,
        epochs: Epochs::Even { updates: 1000 },
        length: Length::Steps(1000),
        evaluate_every: None,
        checkpoint_every: None,
        digest_every: None,
        has_valid: false,
        has_test: false,
    };
    let start = Start {
        exchange: Exchange::Mesh,
        workers_to_start: workers as usize,
        term: Term(1),
        step: Step(0),
        origin: Origin::Seed,
        recent_steps: Vec::new(),
    };
    let mut machine = Machine::new(plan, start);
    let mut events: VecDeque<Event> =
        (1..=workers).map(|worker| Event::Joined { worker: WorkerId(worker), held: None }).collect();
    let (mut began, mut actions) = (None, 0);
    // From the first commit to the one `steps` later.
    while machine.step().0 <= steps {
        let event = events.pop_front().unwrap();
        for action in machine.handle(Duration::from_millis(machine.step().0 * 100), event) {
            if machine.step() == Step(1) {
                began.get_or_insert_with(Instant::now);
            }
            actions += usize::from(began.is_some());
            answer(&action, &mut events);
        }
    }
    Cost { time: began.unwrap().elapsed() / steps as u32, actions: actions / steps as usize }
}

#[test]
fn what_a_step_says_grows_with_the_workers_and_no_faster() {
    for workers in [10, 100, 1000] {
        let Cost { time, actions } = cost(workers, 20);
        println!(
            "{workers} workers: {:.3} ms of the coordinator a step, {actions} actions",
            time.as_secs_f64() * 1e3
        );
        assert!(
            actions as u64 <= workers + workers / 10 + 4,
            "one assignment a worker, and a few words for all"
        );
    }
}
