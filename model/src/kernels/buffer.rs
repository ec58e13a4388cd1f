//! Zeroed floats on a boundary that vectors and the page table like. Nothing about their meaning.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

const CACHE_LINE: usize = 64;
const HUGE_PAGE: usize = 2 << 20;
/// Allocations from this size on take whole huge pages: a tile walks over dozens of panels, each on pages of its own.
const HUGE_FROM: usize = 128 << 10;

/// A fixed number of floats on a 64-byte boundary; from 2 MiB on, on huge pages where the kernel has them.
pub(crate) struct Buffer {
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: the buffer owns its memory alone, as a Box<[f32]> does.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    pub(crate) fn zeroed(len: usize) -> Self {
        let layout = Self::layout(len);
        // SAFETY: the layout's size is never zero.
        let start = unsafe { alloc_zeroed(layout) }.cast::<f32>();
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        advise_huge(start.as_ptr(), layout.size());
        Self { start, len }
    }

    fn layout(len: usize) -> Layout {
        let bytes = len.checked_mul(size_of::<f32>()).expect("sizes were checked against the address space");
        let unit = if bytes >= HUGE_FROM { HUGE_PAGE } else { CACHE_LINE };
        let size = bytes
            .max(1)
            .checked_next_multiple_of(unit)
            .expect("sizes were checked against the address space");
        Layout::from_size_align(size, unit).expect("alignments are powers of two")
    }

    /// Makes room for at least `len` floats. Contents are lost and zero when it grows.
    pub(crate) fn grow(&mut self, len: usize) {
        if self.len < len {
            *self = Self::zeroed(len);
        }
    }
}

/// Asks for huge pages inside a large allocation. Advice only: it cannot fail in a way that matters.
fn advise_huge(start: *mut f32, bytes: usize) {
    let first = (start as usize).next_multiple_of(HUGE_PAGE);
    let end = (start as usize + bytes) & !(HUGE_PAGE - 1);
    if cfg!(target_os = "linux") && first < end {
        // SAFETY: the range lies inside an allocation that the caller owns; the advice does not change its contents.
        unsafe { libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_HUGEPAGE) };
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `zeroed` with the same layout.
        unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised floats live as long as self.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `&mut self` is the only access.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.copy_from_slice(self);
        copy
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::zeroed(0)
    }
}

/// A zeroed `Vec` on huge pages where the kernel has them: for large results that leave this crate.
pub(crate) fn large_vec(len: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(len);
    advise_huge(values.as_mut_ptr(), len * size_of::<f32>());
    values.resize(len, 0.0);
    values
}
