//! Sixteen floats in two 256-bit registers. Needs AVX2 and FMA.

use std::arch::x86_64::*;

use super::vector::{LANES, Vector};

#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

/// Every intrinsic here needs AVX2 or FMA and nothing else.
macro_rules! with_avx2 {
    ($e:expr) => {
        // SAFETY: this type is instantiated only by `Isa::dispatch`, after the processor was found to have AVX2 and FMA.
        unsafe { $e }
    };
}

/// The same operation on both halves.
macro_rules! halves {
    ($op:ident, $a:expr, $b:expr) => {
        with_avx2!(Self($op($a.0, $b.0), $op($a.1, $b.1)))
    };
}

impl Vector for Avx2 {
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 1;
    const GRADIENT_VECTORS: usize = 1;
    const GRADIENT_ROWS: usize = 6;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        with_avx2!(Self(_mm256_set1_ps(x), _mm256_set1_ps(x)))
    }
    #[inline(always)]
    fn from_array(x: [f32; LANES]) -> Self {
        with_avx2!(Self(_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))))
    }
    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut x = [0.0; LANES];
        with_avx2!({
            _mm256_storeu_ps(x.as_mut_ptr(), self.0);
            _mm256_storeu_ps(x.as_mut_ptr().add(8), self.1);
        });
        x
    }
    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        with_avx2!(Self(_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))))
    }
    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        with_avx2!({
            _mm256_storeu_ps(at, self.0);
            _mm256_storeu_ps(at.add(8), self.1);
        })
    }
    #[inline(always)]
    fn fma(self, b: Self, c: Self) -> Self {
        with_avx2!(Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        halves!(_mm256_add_ps, self, b)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        halves!(_mm256_sub_ps, self, b)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        halves!(_mm256_mul_ps, self, b)
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        halves!(_mm256_div_ps, self, b)
    }
    #[inline(always)]
    fn sqrt(self) -> Self {
        with_avx2!(Self(_mm256_sqrt_ps(self.0), _mm256_sqrt_ps(self.1)))
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        halves!(_mm256_max_ps, self, b)
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        halves!(_mm256_min_ps, self, b)
    }
    #[inline(always)]
    fn select_greater(self, b: Self, yes: Self, no: Self) -> Self {
        with_avx2!(Self(
            _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, b.0)),
            _mm256_blendv_ps(no.1, yes.1, _mm256_cmp_ps::<_CMP_GT_OQ>(self.1, b.1)),
        ))
    }
    #[inline(always)]
    fn bit_and(self, bits: u32) -> Self {
        let bits = Self::splat(f32::from_bits(bits));
        halves!(_mm256_and_ps, self, bits)
    }
    #[inline(always)]
    fn bit_or(self, b: Self) -> Self {
        halves!(_mm256_or_ps, self, b)
    }
    #[inline(always)]
    fn to_exponent(self) -> Self {
        with_avx2!(Self(
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(self.0))),
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_castps_si256(self.1))),
        ))
    }
}
