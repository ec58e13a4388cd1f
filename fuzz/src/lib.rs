//! A function for each decoder of bytes from outside. None of them may panic, hang or take memory beyond
//! [`MOST_MEMORY`], whatever the bytes; what they decode is dropped. The same functions run under libFuzzer
//! (`fuzz_targets`) and, over the kept corpus, in the tests of this package.

mod configuration;
mod files;
mod frames;
mod limits;
mod text;

pub use configuration::configuration;
pub use files::{checkpoint, committed, journal, prepared, token_file, tokenizer};
pub use limits::{MOST_MEMORY, within_limits};
pub use text::text_source;

use frames::frames;

// The program has no library: the sources of its configuration are built in here, and what they name of the program.
#[allow(dead_code, unused_imports, reason = "the program uses the rest")]
#[path = "../../src/generation/choice.rs"]
mod choice;
#[allow(dead_code, unused_imports, reason = "the program uses the rest")]
#[path = "../../src/config/mod.rs"]
mod config;
mod generation {
    pub(crate) use crate::choice::Choice;
}
mod token_files {
    pub(crate) const COORDINATOR: &str = "coordinator";
}

/// What a worker sends to a coordinator: the first byte says on which of its calls, then come gRPC messages.
pub fn wire(data: &[u8]) {
    let Some((call, rest)) = data.split_first() else { return };
    let messages = frames(rest);
    within_limits(|| match call % 3 {
        0 => carousel_coordinator::hostile::session(&messages),
        1 => carousel_coordinator::hostile::deposit(&messages),
        _ => carousel_coordinator::hostile::windows(&messages),
    });
}

/// What one worker pushes to another: the first byte is the size of the frames in which the rest comes.
pub fn peer(data: &[u8]) {
    let Some((frame, rest)) = data.split_first() else { return };
    within_limits(|| carousel_worker::hostile::push(rest, usize::from(*frame).max(1)));
}

/// What a coordinator says to a worker, as gRPC messages.
pub fn coordinator_says(data: &[u8]) {
    within_limits(|| carousel_worker::hostile::session(&frames(data)));
}
