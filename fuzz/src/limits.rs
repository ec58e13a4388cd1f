//! The memory and the time that one input may take. Beyond the memory an allocation fails, which ends the process: under
//! libFuzzer a crash, in a test a failure.

use std::alloc::System;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cap::Cap;

#[global_allocator]
static MEMORY: Cap<System> = Cap::new(System, usize::MAX);

/// No decoder may take more for an input of at most a few MiB: twice the longest JSON line.
pub const MOST_MEMORY: usize = 128 << 20;
/// No input may take longer; on a slow, busy machine most take a thousandth of it.
const MOST_TIME: Duration = Duration::from_secs(10);

/// Runs a decoder alone, within the limits.
///
/// # Panics
/// When it took too long.
pub fn within_limits(decode: impl FnOnce()) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    MEMORY.set_limit(MEMORY.allocated() + MOST_MEMORY).expect("there is more than is allocated");
    let began = Instant::now();
    decode();
    let took = began.elapsed();
    MEMORY.set_limit(usize::MAX).expect("everything is allowed");
    assert!(took < MOST_TIME, "took {took:?}, expected at most {MOST_TIME:?}");
}
