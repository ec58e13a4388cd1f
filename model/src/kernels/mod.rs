//! The loops where the time goes, and the only place with `unsafe`. Knows matrices and threads, no layers and no losses.
#![allow(unsafe_code, reason = "vector registers, and matrices that threads write side by side")]

use crate::ModelError;

pub mod approximations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod buffer;
mod dense;
pub(crate) mod math;
mod pack;
mod panels;
mod peak;
mod portable;
mod product;
mod recurrence;
mod rows;
mod softmax;
mod sums;
mod tail;
mod team;
#[cfg(test)]
mod tests;
mod vector;
mod weight_gradient;

pub(crate) use buffer::{Buffer, large_vec};
pub(crate) use dense::{Decoder, dense, pack_for_input, pack_for_output};
pub(crate) use pack::{Packed, Source};
pub(crate) use panels::{Panels, View};
pub(crate) use peak::fma_peak;
pub(crate) use recurrence::{Cotangents, Recurrence, Tape, recur_backward, recur_forward};
pub(crate) use rows::{TargetRow, add_rows, add_target_weights, gather, multiply_rows, target_products};
pub(crate) use softmax::{RowLoss, SoftmaxGradient, row_losses, row_losses_with_own};
pub(crate) use sums::lane_sums;
pub(crate) use tail::{Tail, TailGradient};
pub(crate) use team::{Scratch, Team, with_team};
pub(crate) use vector::{LANES, Vector};
pub(crate) use weight_gradient::{Lane, Lanes, LeftPanel, Outputs, PackedRight, pack_right, weight_gradient};

/// What every phase needs: who works, with which vectors, on which scratch memory.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) team: &'a Team,
    pub(crate) isa: Isa,
    pub(crate) scratch: &'a Scratch,
}

/// An instruction set that this processor has; no value of another can be made. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isa(Kind);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// 512-bit vectors (AVX-512F).
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// 256-bit vectors (AVX2 and FMA).
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Plain Rust with `f32::mul_add`.
    Portable,
}

/// Work written once for any vector.
pub(crate) trait Kernel {
    fn run<V: Vector>(self);
}

impl Isa {
    /// The instruction sets this processor has, fastest first.
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f") {
                found.push(Isa(Kind::Avx512));
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                found.push(Isa(Kind::Avx2));
            }
        }
        found.push(Isa(Kind::Portable));
        found
    }

    /// The name that `CAROUSEL_ISA` takes.
    pub fn name(self) -> &'static str {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => "avx2",
            Kind::Portable => "portable",
        }
    }

    /// The one named by `CAROUSEL_ISA`, else the fastest.
    ///
    /// # Errors
    /// A name that does not exist, or that this processor cannot run.
    pub fn chosen() -> Result<Isa, ModelError> {
        let found = Self::available();
        match std::env::var_os("CAROUSEL_ISA") {
            None => Ok(found[0]),
            Some(name) if name.is_empty() => Ok(found[0]),
            Some(name) => {
                let wanted = found.into_iter().find(|isa| name == isa.name());
                wanted.ok_or_else(|| ModelError::Isa(name.to_string_lossy().into_owned()))
            }
        }
    }

    /// Runs a kernel with this instruction set's vectors.
    #[inline]
    pub(crate) fn dispatch(self, kernel: impl Kernel) {
        match self.0 {
            // SAFETY: a value of this kind exists only on a processor with AVX-512F.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 => unsafe { run_avx512(kernel) },
            // SAFETY: a value of this kind exists only on a processor with AVX2 and FMA.
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => unsafe { run_avx2(kernel) },
            Kind::Portable => kernel.run::<portable::Portable>(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn run_avx512(kernel: impl Kernel) {
    kernel.run::<avx512::Avx512>();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn run_avx2(kernel: impl Kernel) {
    kernel.run::<avx2::Avx2>();
}
