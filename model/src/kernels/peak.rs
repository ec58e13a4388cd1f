//! The machine's fused-multiply-add peak, measured: what the products are compared with.

use std::time::Instant;

use super::{Context, Kernel, vector::Vector};

const CHAINS: usize = 12;
const ROUNDS: u32 = 2_000_000;

/// Floating-point operations a second (an FMA is two) that all threads of the team reach together on registers alone. Best of three.
pub(crate) fn fma_peak(ctx: Context<'_>) -> f64 {
    let members = ctx.team.members();
    let once = || {
        let start = Instant::now();
        ctx.team.run(members, |_, _| ctx.isa.dispatch(Chains));
        let operations = 2.0 * super::LANES as f64 * CHAINS as f64 * f64::from(ROUNDS) * members as f64;
        operations / start.elapsed().as_secs_f64()
    };
    (0..3).map(|_| once()).fold(0.0, f64::max)
}

struct Chains;

impl Kernel for Chains {
    #[inline(always)]
    fn run<V: Vector>(self) {
        let factor = V::splat(std::hint::black_box(0.999));
        let mut acc = [V::splat(1.0); CHAINS];
        for _ in 0..ROUNDS {
            for acc in &mut acc {
                *acc = acc.fma(factor, factor);
            }
        }
        for acc in acc {
            std::hint::black_box(acc.to_array());
        }
    }
}
