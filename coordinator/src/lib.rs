//! temp
#![allow(missing_docs, dead_code)]
pub mod checkpoint;
pub mod journal;
pub mod metrics;
pub mod plan;
pub mod protocol;
pub mod reduce;
pub mod replica;
pub mod schedule;
mod tensorboard;
