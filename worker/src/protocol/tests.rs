//! The worker's protocol, one rule after the other.

use super::reconnect::PATIENCE;
use super::*;

const NOW: Duration = Duration::from_secs(5);

/// A worker with the replica of step 4, assigned lanes 0..2 of step 5 in term 3.
fn assigned() -> Machine {
    let mut machine = Machine::default();
    machine.handle(NOW, Event::Load { step: Step(4), source: LoadSource::Seed });
    machine.handle(NOW, Event::Loaded { step: Step(4) });
    let actions = machine.handle(NOW, assignment(3, 5, CarrySource::Given));
    let compute = Action::Compute { term: Term(3), step: Step(5), lanes: 0..2, carry: CarrySource::Given };
    assert_eq!(actions, [compute]);
    machine
}

fn assignment(term: u64, step: u64, carry: CarrySource) -> Event {
    Event::Assigned { term: Term(term), step: Step(step), lanes: 0..2, carry }
}

fn at(term: u64, step: u64) -> (Term, Step) {
    (Term(term), Step(step))
}

fn gradient((term, step): (Term, Step)) -> Event {
    Event::Gradient { term, step }
}

/// As [`assigned`], computed and acknowledged.
fn acknowledged() -> Machine {
    let mut machine = assigned();
    let (term, step) = at(3, 5);
    assert_eq!(machine.handle(NOW, Event::Computed { term, step }), [Action::HandIn { term, step }]);
    let acknowledge = Action::Acknowledge { term, step, lanes: 0..2 };
    assert_eq!(machine.handle(NOW, gradient(at(3, 5))), [acknowledge]);
    machine
}

#[test]
fn weights_move_only_on_a_commit_with_the_whole_gradient() {
    assert!(assigned().handle(NOW, Event::Committed { step: Step(5) }).is_empty(), "no gradient yet");
    let mut machine = acknowledged();
    assert_eq!(machine.step(), Some(Step(4)), "an acknowledgement is no commit");
    assert!(machine.handle(NOW, Event::Committed { step: Step(6) }).is_empty(), "a commit of another step");
    assert_eq!(machine.handle(NOW, Event::Committed { step: Step(5) }), [Action::Apply { step: Step(5) }]);
    assert_eq!(machine.step(), Some(Step(5)));
    assert!(machine.handle(NOW, Event::Committed { step: Step(5) }).is_empty(), "once");
}

#[test]
fn what_is_of_another_term_or_step_changes_nothing() {
    let mut machine = assigned();
    for (term, step) in [at(2, 5), at(4, 5), at(3, 4), at(3, 6)] {
        assert!(machine.handle(NOW, gradient((term, step))).is_empty(), "{term} {step}");
        assert!(machine.handle(NOW, Event::Computed { term, step }).is_empty(), "{term} {step}");
    }
    assert!(
        machine.handle(NOW, assignment(2, 5, CarrySource::Given)).is_empty(),
        "an older term's assignment"
    );
    assert_eq!(machine.handle(NOW, assignment(4, 5, CarrySource::Given)).len(), 1, "the step is run again");
    assert!(machine.handle(NOW, gradient(at(3, 5))).is_empty(), "the term before is void");
}

#[test]
fn an_assignment_follows_the_replica() {
    let mut machine = assigned();
    let fault = Fault::Step { assigned: Step(6), replica: Step(4) };
    assert_eq!(machine.handle(NOW, assignment(3, 6, CarrySource::Zero)), [Action::GiveUp(fault)]);
    let mut new = Machine::default();
    for event in [assignment(1, 1, CarrySource::Zero), Event::Evaluate, Event::AskDigest] {
        assert_eq!(new.handle(NOW, event), [Action::GiveUp(Fault::NoReplica)]);
    }
}

#[test]
fn carries_are_kept_only_of_the_same_lanes() {
    let mut machine = acknowledged();
    machine.handle(NOW, Event::Committed { step: Step(5) });
    let other = Event::Assigned { term: Term(3), step: Step(6), lanes: 1..3, carry: CarrySource::Keep };
    assert_eq!(machine.clone().handle(NOW, other), [Action::GiveUp(Fault::Carries)]);
    assert!(matches!(machine.handle(NOW, assignment(3, 6, CarrySource::Keep))[..], [Action::Compute { .. }]));
}

#[test]
fn a_lost_session_leaves_the_replica_and_a_whole_gradient() {
    let mut machine = acknowledged();
    assert!(matches!(machine.handle(NOW, Event::SessionLost)[..], [Action::Connect { .. }]));
    assert_eq!(machine.held(), Some(Held { step: Step(4), gradient: Some(Step(5)) }));
    assert!(machine.handle(NOW, Event::Welcomed { same_run: true }).is_empty());
    let held = Event::Load { step: Step(5), source: LoadSource::Held };
    let failed = Action::TellLoadFailed { step: Step(5) };
    assert_eq!(machine.clone().handle(NOW, held.clone()), [failed], "the commit is missing");
    assert_eq!(machine.handle(NOW, Event::Committed { step: Step(5) }), [Action::Apply { step: Step(5) }]);
    assert_eq!(machine.handle(NOW, held), [Action::TellReady { step: Step(5) }]);
    let kept = machine.handle(NOW, assignment(1, 6, CarrySource::Keep));
    assert_eq!(kept, [Action::GiveUp(Fault::Carries)], "the carries are the coordinator's to give again");
}

#[test]
fn a_replica_that_was_asked_for_in_a_lost_session_is_nobody_s() {
    let mut machine = Machine::default();
    let load = Event::Load { step: Step(4), source: LoadSource::Peers };
    assert!(matches!(machine.handle(NOW, load)[..], [Action::Discard, Action::Load { .. }]));
    machine.handle(NOW, Event::SessionLost);
    assert!(machine.handle(NOW, Event::Loaded { step: Step(4) }).is_empty());
    assert!(machine.handle(NOW, Event::LoadFailed { step: Step(4) }).is_empty());
    assert_eq!(machine.held(), None);
}

#[test]
fn another_run_s_replica_is_forgotten() {
    let mut machine = acknowledged();
    machine.handle(NOW, Event::SessionLost);
    assert_eq!(machine.handle(NOW, Event::Welcomed { same_run: false }), [Action::Discard]);
    assert_eq!(machine.held(), None);
    let mut differing = acknowledged();
    let actions = differing.handle(NOW, Event::Dismissed { rejoin: true, discard: true });
    assert!(matches!(actions[..], [Action::Discard, Action::Connect { .. }]), "{actions:?}");
    assert_eq!(differing.held(), None);
    assert_eq!(differing.handle(NOW, Event::Dismissed { rejoin: false, discard: false }), [Action::Stop]);
}

#[test]
fn pauses_grow_until_there_is_work_and_end_after_five_minutes() {
    let mut machine = acknowledged();
    let pause = |machine: &mut Machine, now| match machine.handle(now, Event::SessionLost)[..] {
        [Action::Connect { after }] => Some(after.as_millis()),
        _ => None,
    };
    let pauses: Vec<_> = (0..7).map(|_| pause(&mut machine, NOW).unwrap()).collect();
    assert_eq!(pauses, [50, 100, 200, 400, 700, 700, 700]);
    machine.handle(NOW, Event::Welcomed { same_run: true });
    assert_eq!(pause(&mut machine, NOW), Some(700), "who is sent away again and again waits");
    machine.handle(NOW, assignment(1, 5, CarrySource::Given));
    assert_eq!(pause(&mut machine, NOW), Some(50));
    assert_eq!(pause(&mut machine, NOW + PATIENCE), None);
}
