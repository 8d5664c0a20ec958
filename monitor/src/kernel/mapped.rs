//! Tables that are read where they are, without a system call for each look.
//!
//! That is not for speed alone: bpf(2) on a table has the kernel skip the programs of classic hooks on that CPU until it
//! returns (`bpf_disable_instrumentation`, include/linux/bpf.h; `trace_call_bpf`, `kernel/trace/bpf_trace.c`, Linux 6.18),
//! and an agent that is preempted meanwhile returns late.
#![expect(unsafe_code, reason = "mapping memory that the kernel writes")]

use std::{
    ffi::c_void,
    num::NonZeroUsize,
    ops::Range,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicU64},
};

use nix::{
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
    unistd::{SysconfVar, sysconf},
};

/// The size of a page of memory.
pub(super) fn page_size() -> NonZeroUsize {
    const USUAL: NonZeroUsize = NonZeroUsize::new(4096).expect("it is not 0");
    let told = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    told.and_then(|size| NonZeroUsize::new(usize::try_from(size).ok()?)).unwrap_or(USUAL)
}

/// A part of a file that is memory, shared with whoever else has it.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<c_void>,
    length: NonZeroUsize,
}

// SAFETY: the memory is nobody's but this value's, whichever thread has it; the kernel's side goes through atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// `length` bytes of it from `offset` on.
    pub(super) fn new(
        file: impl AsFd,
        offset: usize,
        length: NonZeroUsize,
        access: ProtFlags,
    ) -> nix::Result<Self> {
        let offset = offset.try_into().map_err(|_| nix::Error::EOVERFLOW)?;
        // SAFETY: the kernel chooses the place, so that nothing else is there.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, file, offset) }?;
        Ok(Self { start, length })
    }

    /// The number at `offset`.
    pub(super) fn u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: it is within the memory, which lives as long as the result, aligned, and any bits are a number.
        unsafe { self.at::<AtomicU32>(offset).as_ref() }
    }

    /// The number at `offset`.
    pub(super) fn u64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as above.
        unsafe { self.at::<AtomicU64>(offset).as_ref() }
    }

    /// These bytes.
    ///
    /// # Safety
    /// Nobody writes them while the result lives.
    pub(super) unsafe fn bytes(&self, range: Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.length.get(), "{range:?} of {}", self.length);
        // SAFETY: they are within the memory; the caller has seen to the rest.
        unsafe { NonNull::slice_from_raw_parts(self.start.cast().add(range.start), range.len()).as_ref() }
    }

    fn at<T>(&self, offset: usize) -> NonNull<T> {
        let end = offset.checked_add(size_of::<T>());
        assert!(end.is_some_and(|end| end <= self.length.get()), "{offset} of {}", self.length);
        assert!(offset.is_multiple_of(align_of::<T>()), "{offset} is not aligned");
        // SAFETY: it is within the memory, which begins at a page.
        unsafe { self.start.byte_add(offset).cast() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and no reference outlives this value.
        if let Err(error) = unsafe { munmap(self.start, self.length.get()) } {
            tracing::debug!("memory can't be unmapped: {error}");
        }
    }
}
