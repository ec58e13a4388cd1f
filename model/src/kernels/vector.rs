//! A vector of 16 floats, the unit in which every kernel is written once. Three implementations, equal bits.
//!
//! All operations are IEEE 754 single precision, rounded to nearest even, each lane on its own; `fma` rounds once.

/// Lanes of a vector, and columns of a panel.
pub(crate) const LANES: usize = 16;

/// Sixteen floats. Implementations may need processor features: only [`super::Isa::dispatch`] instantiates kernels with them.
pub(crate) trait Vector: Copy {
    /// Rows of a product's register tile.
    const TILE_ROWS: usize;
    /// Vectors side by side in a product's register tile: 1 or 2.
    const TILE_VECTORS: usize;
    /// Vectors side by side in a weight gradient's register tile: 1 or 3.
    const GRADIENT_VECTORS: usize;
    /// Rows of a weight gradient's register tile.
    const GRADIENT_ROWS: usize;

    fn splat(x: f32) -> Self;
    fn from_array(x: [f32; LANES]) -> Self;
    fn to_array(self) -> [f32; LANES];
    /// # Safety
    /// 16 floats can be read at `at` (any alignment).
    unsafe fn load(at: *const f32) -> Self;
    /// # Safety
    /// 16 floats can be written at `at` (any alignment).
    unsafe fn store(self, at: *mut f32);
    /// `self * b + c`, rounded once.
    fn fma(self, b: Self, c: Self) -> Self;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    fn div(self, b: Self) -> Self;
    fn sqrt(self) -> Self;
    /// `if self > b { self } else { b }`: `b` when either is NaN.
    fn max(self, b: Self) -> Self;
    /// `if self < b { self } else { b }`: `b` when either is NaN.
    fn min(self, b: Self) -> Self;
    /// `if self > b { yes } else { no }`.
    fn select_greater(self, b: Self, yes: Self, no: Self) -> Self;
    fn bit_and(self, bits: u32) -> Self;
    fn bit_or(self, b: Self) -> Self;
    /// The bits as an integer, shifted left by 23: an integer in the low mantissa becomes an exponent.
    fn to_exponent(self) -> Self;

    /// Sixteen rows become sixteen columns.
    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        super::pack::transpose_arrays(rows.map(Self::to_array)).map(Self::from_array)
    }

    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }
}

/// Asks for the cache line at `at`; any address will do. Changes nothing but time.
#[inline(always)]
pub(super) fn prefetch(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless, and SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// As [`prefetch`], for a line that will be written: it is taken from the other caches at once.
#[inline(always)]
pub(super) fn prefetch_for_writing(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless; a processor that does not know this kind passes over it.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_ET0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// As [`prefetch`], to the second-level cache alone.
#[inline(always)]
pub(super) fn prefetch_to_second_level(at: *const f32) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: as in `prefetch`.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
