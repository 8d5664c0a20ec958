//! Go's crypto/tls. A goroutine goes from thread to thread, and its stack from place to place: what a function was given is
//! kept by goroutine, and told when it is about to return, at its own return instructions.

use aya_ebpf::{EbpfContext as _, macros::uprobe, programs::ProbeContext};
use monitor_ebpf::{
    config::{FUNCTION_GO_READS, FUNCTION_GO_SHAKES_HANDS, FUNCTION_GO_WRITES, Thread},
    record::{FLAG_NO_BUFFER, KIND_RECEIVED, KIND_SENT},
};

use crate::{
    kernel::{keep_to_the_tasks_stack, now},
    maps::PROCESSES,
    tls::{self, process, register},
    user::abi,
};

// func (c *Conn) Read(b []byte) (int, error)
#[uprobe]
pub fn httpmon_go_read(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    entered(&context, FUNCTION_GO_READS, false);
    0
}

#[uprobe]
pub fn httpmon_go_did_read(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    returns(&context, FUNCTION_GO_READS, false);
    0
}

// func (c *Conn) Write(b []byte) (int, error)
#[uprobe]
pub fn httpmon_go_write(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    entered(&context, FUNCTION_GO_WRITES, false);
    0
}

#[uprobe]
pub fn httpmon_go_did_write(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    returns(&context, FUNCTION_GO_WRITES, false);
    0
}

// func (c *Conn) serverHandshake(ctx context.Context) error, and clientHandshake
#[uprobe]
pub fn httpmon_go_shake(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    entered(&context, FUNCTION_GO_SHAKES_HANDS, false);
    0
}

#[uprobe]
pub fn httpmon_go_did_shake(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    returns(&context, FUNCTION_GO_SHAKES_HANDS, false);
    0
}

// func (c *Conn) Close() error
#[uprobe]
pub fn httpmon_go_free(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    freed(&context);
    0
}

/// The key of a goroutine among threads, whose keys have the process's number in the upper half as well: there are fewer
/// than 2^31. Goroutines lie at multiples of 32 (Go's src/runtime/sizeclasses.go), within 128 GiB.
#[inline(always)]
pub(crate) fn key(pid: u32, goroutine: u64) -> u64 {
    const IS_GOROUTINE: u64 = 1 << 63;
    IS_GOROUTINE | u64::from(pid) << 32 | (goroutine >> 5 & 0xffff_ffff)
}

#[inline(always)]
fn running(context: &ProbeContext, pid: u32) -> u64 {
    key(pid, register(context.as_ptr(), abi!(goroutine)))
}

/// A function begins, and knows by now whether its stack is large enough.
#[inline(always)]
pub(crate) fn entered(context: &ProbeContext, function: u64, loops: bool) {
    if register(context.as_ptr(), abi!(flags)) & abi!(fits_mask) != abi!(fits) {
        return;
    }
    let pid = process();
    // SAFETY: the value is never read.
    if unsafe { PROCESSES.get(pid) }.is_none() {
        return;
    }
    let Some(thread) = tls::thread_or_new(running(context, pid)) else { return };
    let session = register(context.as_ptr(), abi!(go_parameters[0]));
    // Reading and writing shake hands first, where that wasn't done.
    if thread.session == session && function == FUNCTION_GO_SHAKES_HANDS {
        return;
    }
    let flags = if function == FUNCTION_GO_SHAKES_HANDS { FLAG_NO_BUFFER } else { 0 };
    let direction = if function == FUNCTION_GO_WRITES { KIND_SENT } else { KIND_RECEIVED };
    *thread = Thread {
        session,
        buffer: register(context.as_ptr(), abi!(go_parameters[1])),
        count: 0,
        stack: function,
        entered: now(),
        // Goroutines are used again: what this one received from is another one's matter.
        received_on: 0,
        inside: 0,
        inside_read: 0,
        inside_arrived: 0,
        direction: direction.into(),
        flags: flags.into(),
    };
    // The peer may have closed the connection when the goroutine gets to run again: so all is told before it is sent.
    if function == FUNCTION_GO_WRITES {
        tls::owes(pid, thread, register(context.as_ptr(), abi!(go_parameters[2])), loops);
    }
}

/// A function is about to return.
#[inline(always)]
pub(crate) fn returns(context: &ProbeContext, function: u64, loops: bool) {
    let pid = process();
    let Some(thread) = tls::thread(running(context, pid)) else { return };
    if thread.session == 0 || thread.stack != function {
        return;
    }
    let moved = register(context.as_ptr(), abi!(result));
    tls::ended(pid, thread, moved as i64, loops);
}

/// A session ends.
#[inline(always)]
pub(crate) fn freed(context: &ProbeContext) {
    tls::freed(register(context.as_ptr(), abi!(go_parameters[0])));
}
