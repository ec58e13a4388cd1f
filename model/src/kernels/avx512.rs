//! Sixteen floats in one 512-bit register. Needs AVX-512F.

use std::arch::x86_64::*;

use super::vector::{LANES, Vector};

#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

/// Every intrinsic here needs AVX-512F and nothing else.
macro_rules! with_avx512f {
    ($e:expr) => {
        // SAFETY: this type is instantiated only by `Isa::dispatch`, after the processor was found to have AVX-512F.
        unsafe { $e }
    };
}

impl Vector for Avx512 {
    const TILE_ROWS: usize = 12;
    const TILE_VECTORS: usize = 2;
    const GRADIENT_VECTORS: usize = 3;
    const GRADIENT_ROWS: usize = 8;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        with_avx512f!(Self(_mm512_set1_ps(x)))
    }
    #[inline(always)]
    fn from_array(x: [f32; LANES]) -> Self {
        with_avx512f!(Self(_mm512_loadu_ps(x.as_ptr())))
    }
    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut x = [0.0; LANES];
        with_avx512f!(_mm512_storeu_ps(x.as_mut_ptr(), self.0));
        x
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        with_avx512f!(Self(_mm512_loadu_ps(at)))
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        with_avx512f!(_mm512_storeu_ps(at, self.0))
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        with_avx512f!(Self(_mm512_fmadd_ps(self.0, b.0, c.0)))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        with_avx512f!(Self(_mm512_add_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        with_avx512f!(Self(_mm512_sub_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        with_avx512f!(Self(_mm512_mul_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        with_avx512f!(Self(_mm512_div_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        with_avx512f!(Self(_mm512_sqrt_ps(self.0)))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        with_avx512f!(Self(_mm512_max_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        with_avx512f!(Self(_mm512_min_ps(self.0, b.0)))
    }
    #[inline(always)]
    fn select_greater(self, b: Self, yes: Self, no: Self) -> Self {
        with_avx512f!({
            let greater = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, b.0);
            Self(_mm512_mask_blend_ps(greater, no.0, yes.0))
        })
    }
    #[inline(always)]
    fn bit_and(self, bits: u32) -> Self {
        with_avx512f!({
            let bits = _mm512_set1_epi32(bits as i32);
            Self(_mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(self.0), bits)))
        })
    }
    #[inline(always)]
    fn bit_or(self, b: Self) -> Self {
        with_avx512f!({
            let or = _mm512_or_si512(_mm512_castps_si512(self.0), _mm512_castps_si512(b.0));
            Self(_mm512_castsi512_ps(or))
        })
    }
    #[inline(always)]
    fn to_exponent(self) -> Self {
        with_avx512f!(Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(_mm512_castps_si512(self.0)))))
    }
    /// Pairs of rows, then quads, then the four 128-bit parts change places.
    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let mut columns = rows;
        with_avx512f!({
            // No closures: they would not inherit the instruction set, and every instruction would become a call.
            let mut quads = [_mm512_setzero_ps(); LANES];
            for i in (0..LANES).step_by(4) {
                let low = (
                    _mm512_unpacklo_ps(rows[i].0, rows[i + 1].0),
                    _mm512_unpacklo_ps(rows[i + 2].0, rows[i + 3].0),
                );
                let high = (
                    _mm512_unpackhi_ps(rows[i].0, rows[i + 1].0),
                    _mm512_unpackhi_ps(rows[i + 2].0, rows[i + 3].0),
                );
                quads[i] = _mm512_shuffle_ps::<0x44>(low.0, low.1);
                quads[i + 1] = _mm512_shuffle_ps::<0xee>(low.0, low.1);
                quads[i + 2] = _mm512_shuffle_ps::<0x44>(high.0, high.1);
                quads[i + 3] = _mm512_shuffle_ps::<0xee>(high.0, high.1);
            }
            for j in 0..4 {
                let even = (
                    _mm512_shuffle_f32x4::<0x88>(quads[j], quads[4 + j]),
                    _mm512_shuffle_f32x4::<0x88>(quads[8 + j], quads[12 + j]),
                );
                let odd = (
                    _mm512_shuffle_f32x4::<0xdd>(quads[j], quads[4 + j]),
                    _mm512_shuffle_f32x4::<0xdd>(quads[8 + j], quads[12 + j]),
                );
                columns[j] = Self(_mm512_shuffle_f32x4::<0x88>(even.0, even.1));
                columns[4 + j] = Self(_mm512_shuffle_f32x4::<0x88>(odd.0, odd.1));
                columns[8 + j] = Self(_mm512_shuffle_f32x4::<0xdd>(even.0, even.1));
                columns[12 + j] = Self(_mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1));
            }
        });
        columns
    }
}
