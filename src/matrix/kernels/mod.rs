//! Kernels in one instruction set's own words, where pulp's safe wrappers do not reach.
//!
//! Each has a portable twin with the same results, which is what a machine without the instructions
//! runs, what [`keep_portable`] forces, and what the tests compare with. Every `unsafe` block is either
//! the call of a function for instructions that were found on this machine, or a load or store inside a
//! slice whose length was checked.

mod dot;
mod int8;
mod layers;
mod linear;
mod rows;

use std::sync::atomic::{AtomicBool, Ordering};

use pulp::{Arch, Simd, WithSimd};

pub use dot::{Dot, dot};
pub use int8::{Dots, Floors, Hits, Panel, QUERIES, ROWS};
pub use layers::{add_norm, attend};
pub use linear::{Precision, Then, Weights};
pub use rows::{CHAINS, Chains};

/// Has values brought into the cache that will be read soon; where there is no such instruction, nothing.
#[inline(always)]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    for line in values.chunks(64 / size_of::<T>()) {
        // SAFETY: the address is that of a value; the instruction reads nothing that a program can see.
        #[allow(unsafe_code)]
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(line.as_ptr().cast());
        }
    }
}

/// Does some work whose loops are compiled for this machine's vectors: those of the work and of what is inlined into
/// it, which has to be marked so, as the work itself.
///
/// Not as the library has it for any closure: called as an `FnOnce`, one that can be called more than once is wrapped
/// in a function that nothing inlines, and its loops are compiled for every machine.
#[inline(always)]
pub fn vectorized<R>(work: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Work(work))
}

struct Work<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Work<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

static PORTABLE: AtomicBool = AtomicBool::new(false);

/// From now on every kernel is the portable one: set once, before any work, where support wants to know
/// whether a machine's instructions are at fault.
pub fn keep_portable() {
    PORTABLE.store(true, Ordering::Relaxed);
}

/// Whether [`keep_portable`] was called.
pub fn are_portable() -> bool {
    PORTABLE.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests;
