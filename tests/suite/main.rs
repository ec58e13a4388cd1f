//! End to end: the program as its users run it. Real processes, real text, equal bits.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod architecture;
#[cfg(feature = "cloud")]
mod bucket;
mod cluster;
mod command_line;
mod crew;
mod data;
mod durability;
mod evaluation;
mod export;
mod faults;
mod formats;
mod generation;
mod hostile;
mod learning;
mod locks;
mod mistakes;
mod netlab;
mod operate;
mod prepare;
mod program;
mod recipes;
mod sources;
mod token_files;
mod wan;
mod weights;
