//! The crate from outside: reference vectors, equal bits, derivatives, refusals.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]
#![allow(clippy::single_range_in_vec_init, reason = "groups are runs of lanes, often one")]

mod approximations;
mod cache;
mod derivatives;
mod dynamic;
mod equal_bits;
mod golden;
mod naive;
mod optimizers;
mod refusals;
mod softmaxes;
mod support;
