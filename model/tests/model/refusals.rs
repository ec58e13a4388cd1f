//! What a caller can get wrong is an error that says what was expected, and changes nothing.

use std::process::Command;

use carousel_model::{Cell, Isa, LaneStreams, LanguageModel, ModelConfig, ModelError, Parameters, Window};

fn config() -> ModelConfig {
    ModelConfig {
        cell: Cell::Lstm,
        vocabulary: 6,
        embedding: 3,
        hidden: 4,
        layers: 1,
        tied: false,
        init: 0.1,
        ..ModelConfig::default()
    }
}

const LANES: [LaneStreams; 1] = [LaneStreams { lane: 0, first_stream: 0, streams: 2 }];

const WINDOW: Window<'static> = Window {
    seed: 0,
    step: 0,
    steps: 2,
    lanes: &LANES,
    inputs: &[0, 1, 2, 3],
    targets: &[1, 2, 3, 4],
    step_tokens: 4,
};

#[test]
fn windows_that_do_not_fit() {
    let mut model = LanguageModel::new(config()).unwrap();
    let parameters = Parameters::initial(&config(), 1);
    let empty = [LaneStreams { streams: 0, ..LANES[0] }];
    let huge = [LaneStreams { streams: usize::MAX, ..LANES[0] }];
    let cases = [
        (Window { steps: 0, ..WINDOW }, ModelError::EmptyWindow("steps")),
        (Window { lanes: &[], ..WINDOW }, ModelError::EmptyWindow("lanes")),
        (Window { lanes: &empty, ..WINDOW }, ModelError::EmptyWindow("streams in a lane")),
        (Window { lanes: &huge, ..WINDOW }, ModelError::TooLarge("the window".into())),
        (
            Window { inputs: &[0, 1, 2], ..WINDOW },
            ModelError::Length { what: "inputs", expected: 4, found: 3 },
        ),
        (
            Window { targets: &[0; 5], ..WINDOW },
            ModelError::Length { what: "targets", expected: 4, found: 5 },
        ),
        (
            Window { inputs: &[0, 1, 6, 2], ..WINDOW },
            ModelError::Token { what: "inputs", index: 2, token: 6, vocabulary: 6 },
        ),
        (
            Window { inputs: &[0, u32::MAX, 1, 2], ..WINDOW },
            ModelError::Token { what: "inputs", index: 1, token: u32::MAX, vocabulary: 6 },
        ),
        (
            Window { targets: &[0, 1, 2, 9], ..WINDOW },
            ModelError::Token { what: "targets", index: 3, token: 9, vocabulary: 6 },
        ),
        (Window { step_tokens: 0, ..WINDOW }, ModelError::EmptyWindow("step_tokens")),
    ];
    let mut carries = vec![0.25; 16];
    for (window, expected) in cases {
        assert_eq!(model.gradients(&parameters, &window, &mut carries, &[0..1]), Err(expected));
    }
    for group in [0..0, 0..2, 1..2] {
        let (start, end) = (group.start, group.end);
        let expected = Err(ModelError::Group { start, end, lanes: 1 });
        assert_eq!(model.gradients(&parameters, &WINDOW, &mut carries, &[group]), expected);
    }
    assert_eq!(carries, vec![0.25; 16], "a refused window moves no carry");
    let short = model.gradients(&parameters, &WINDOW, &mut carries[1..], &[0..1]);
    assert_eq!(short, Err(ModelError::Length { what: "carries", expected: 16, found: 15 }));
    assert!(model.gradients(&parameters, &WINDOW, &mut carries, &[0..1]).is_ok());
}

#[test]
fn parameters_of_another_model() {
    let mut model = LanguageModel::new(config()).unwrap();
    let other = Parameters::initial(&ModelConfig { hidden: 5, ..config() }, 1);
    let refused = model.evaluate(&other, &WINDOW, &mut [0.0; 16]);
    assert!(matches!(refused, Err(ModelError::ForeignParameters(text)) if text.contains("weight_ih_l0")));
}

#[test]
fn generation_checks_its_arguments() {
    let mut model = LanguageModel::new(config()).unwrap();
    let parameters = Parameters::initial(&config(), 1);
    let mut next = |tokens: &[u32], carries: usize, logits: usize| {
        model.next_logits(&parameters, tokens, &mut vec![0.0; carries], &mut vec![0.0; logits])
    };
    assert_eq!(next(&[1, 2], 16, 12), Ok(()));
    assert!(matches!(next(&[1, 6], 16, 12), Err(ModelError::Token { index: 1, .. })));
    assert!(matches!(next(&[1, 2], 15, 12), Err(ModelError::Length { what: "carries", .. })));
    assert!(matches!(next(&[1, 2], 16, 11), Err(ModelError::Length { what: "logits", .. })));
    assert_eq!(next(&[], 0, 0), Err(ModelError::EmptyWindow("streams in a lane")));
}

/// Run by `the_environment_chooses_the_instruction_set` in a process of its own.
#[test]
#[ignore = "a part of another test"]
fn print_the_chosen_instruction_set() {
    match LanguageModel::new(config()) {
        Ok(_) => println!("chosen: {}", Isa::chosen().unwrap().name()),
        Err(error) => println!("refused: {error}"),
    }
}

#[test]
fn the_environment_chooses_the_instruction_set() {
    let ask = |value: &str| {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "refusals::print_the_chosen_instruction_set", "--ignored", "--nocapture"])
            .env("CAROUSEL_ISA", value)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for isa in Isa::available() {
        assert!(ask(isa.name()).contains(&format!("chosen: {}", isa.name())));
    }
    assert!(ask("").contains(&format!("chosen: {}", Isa::available()[0].name())));
    assert!(ask("sse9").contains("refused: CAROUSEL_ISA=\"sse9\""));
}
