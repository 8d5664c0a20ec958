//! Writing records to the ring buffer, and waking the agent when that is worth it.

use core::ptr;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    maps::ring_buf::RingBufEntry,
};
use monitor_ebpf::{
    config::loss,
    record::{Data, TAIL},
};

use crate::maps::{EVENTS, lost};

/// How much of the buffer fills before the agent is woken ahead of its own clock.
const WAKE_AT: u64 = 1 << 20;
/// While it fills further, the wake-up is not repeated: more than sixteen of the longest records later.
const WAKE_UNTIL: u64 = WAKE_AT + (512 << 10);

/// Whether the agent hears of a record at once, or when it next looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    Now,
    Later,
}

/// A record of bytes that is put together in the buffer itself: longer than what it holds, as the verifier wants it.
#[repr(C)]
pub(crate) struct Room<const N: usize> {
    pub(crate) data: Data,
    pub(crate) bytes: [u8; N],
    pub(crate) tail: [u8; TAIL],
}

/// Room for a record, to be filled and submitted.
#[inline(always)]
pub(crate) fn reserve<T: 'static>() -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        lost(loss::RING_FULL);
    }
    entry
}

/// Sends a filled record.
#[inline(always)]
pub(crate) fn submit<T: 'static>(entry: RingBufEntry<T>, wake: Wake) {
    entry.submit(flags(wake));
}

/// Sends one record of fixed size.
#[inline(always)]
pub(crate) fn send<T: 'static>(record: &T, wake: Wake) {
    let Some(mut entry) = reserve::<T>() else { return };
    // SAFETY: the entry has room for one `T`.
    unsafe { ptr::copy_nonoverlapping(record, entry.as_mut_ptr(), 1) };
    submit(entry, wake);
}

/// Sends `size` bytes of a record of the time `at` that was put together elsewhere; whether there was room.
///
/// # Safety
/// They are readable.
#[inline(always)]
pub(crate) unsafe fn copy(record: *const u8, size: u64, at: u64) -> bool {
    // SAFETY: the caller's promise.
    let bytes = unsafe { core::slice::from_raw_parts(record, size as usize) };
    // One in sixteen, as the time has it, looks how full the buffer is.
    let flags = if (at >> 6) & 15 == 0 { flags(Wake::Later) } else { BPF_RB_NO_WAKEUP.into() };
    let sent = EVENTS.output::<[u8]>(bytes, flags).is_ok();
    if !sent {
        lost(loss::RING_FULL);
    }
    sent
}

#[inline(always)]
fn flags(wake: Wake) -> u64 {
    let now = match wake {
        Wake::Now => true,
        Wake::Later => (WAKE_AT..WAKE_UNTIL).contains(&EVENTS.query(BPF_RB_AVAIL_DATA.into())),
    };
    u64::from(if now { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}
