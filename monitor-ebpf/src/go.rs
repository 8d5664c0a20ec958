//! Go's crypto/tls. A goroutine goes from thread to thread, and its stack from place to place: what a function was given is
//! kept by goroutine, and told where the function has done its work, or is about to return.

use aya_ebpf::{EbpfContext as _, macros::uprobe, programs::ProbeContext};
use monitor_ebpf::{
    config::{
        FUNCTION_GO_READS, FUNCTION_GO_SHAKES_HANDS, FUNCTION_GO_WRITES, Thread, Waiting, is_goroutine,
    },
    record::{FLAG_NO_BUFFER, KIND_RECEIVED, KIND_SENT},
};

use crate::{
    kernel::{current_thread, now, process_of},
    tls::{self, keep_to_the_tasks_stack, register},
    user::{Caller, abi, words},
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

// func memmove(to, from unsafe.Pointer, n uintptr)
#[uprobe]
pub fn httpmon_go_give(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    gives(&context, false);
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

// func (c *Conn) writeRecordLocked(typ recordType, data []byte) (int, error)
#[uprobe]
pub fn httpmon_go_wrote(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    wrote(&context, false);
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

/// The key of a goroutine among threads, of which one runs it: keys have the process's number in the upper half, and there are
/// fewer than 2^31. Goroutines lie at multiples of 32 (Go's src/runtime/sizeclasses.go), within 128 GiB.
#[inline(always)]
pub(crate) fn key(thread: u64, goroutine: u64) -> u64 {
    const IS_GOROUTINE: u64 = 1 << 63;
    const PROCESS: u64 = !0 << 32;
    IS_GOROUTINE | thread & PROCESS | (goroutine >> 5 & !PROCESS)
}

/// Whether a goroutine makes a system call. A function of its own, for the stack's sake.
#[inline(never)]
pub(crate) fn makes(caller: Caller) -> bool {
    is_goroutine(words(caller.goroutine), caller.stack)
}

#[inline(always)]
fn running(context: &ProbeContext, thread: u64) -> u64 {
    key(thread, register(context.as_ptr(), abi!(goroutine)))
}

/// A function begins, and knows by now whether its stack is large enough.
#[inline(always)]
pub(crate) fn entered(context: &ProbeContext, function: u64, loops: bool) {
    if register(context.as_ptr(), abi!(flags)) & abi!(fits_mask) != abi!(fits) {
        return;
    }
    let running_thread = current_thread();
    let pid = process_of(running_thread);
    if tls::service(pid).is_none() {
        return;
    }
    let Some(thread) = tls::thread_or_new(running(context, running_thread)) else { return };
    let session = register(context.as_ptr(), abi!(go_parameters[0]));
    // Reading and writing shake hands first, where that wasn't done. Or one of them failed, with a session that was here.
    if thread.session == session && function == FUNCTION_GO_SHAKES_HANDS {
        thread.stack = thread.stack << Thread::WITHIN | function;
        thread.inside = 0;
        thread.inside_read = 0;
        return;
    }
    let len = register(context.as_ptr(), abi!(go_parameters[2]));
    let flags = if function == FUNCTION_GO_SHAKES_HANDS { FLAG_NO_BUFFER } else { 0 };
    let direction = if function == FUNCTION_GO_WRITES { KIND_SENT } else { KIND_RECEIVED };
    *thread = Thread {
        session,
        buffer: register(context.as_ptr(), abi!(go_parameters[1])),
        count: len,
        stack: function,
        entered: now(),
        // Goroutines are used again: what this one received from is another one's matter.
        received_on: 0,
        inside: 0,
        inside_read: 0,
        inside_arrived: 0,
        direction: direction.into(),
        flags: flags.into(),
        waiting: Waiting::default(),
    };
    // The peer may have closed the connection when the goroutine gets to run again: so all is told before it is sent.
    if function == FUNCTION_GO_WRITES {
        tls::owes(pid, thread, len, loops);
    }
}

/// A function is about to return.
#[inline(always)]
pub(crate) fn returns(context: &ProbeContext, function: u64, loops: bool) {
    const INNER: u64 = (1 << Thread::WITHIN) - 1;
    let running_thread = current_thread();
    let pid = process_of(running_thread);
    let Some(thread) = tls::thread(running(context, running_thread)) else { return };
    let (session, within) = (thread.session, thread.stack >> Thread::WITHIN);
    if session == 0 || thread.stack & INNER != function {
        return;
    }
    let moved = match function {
        FUNCTION_GO_SHAKES_HANDS => 0,
        _ => register(context.as_ptr(), abi!(result)),
    };
    tls::ended(pid, thread, moved as i64, loops);
    if within != 0 {
        thread.session = session;
        thread.stack = within;
        thread.inside = 0;
        thread.inside_read = 0;
    }
}

/// The function that writes has written: all, or the connection is broken.
#[inline(always)]
pub(crate) fn wrote(context: &ProbeContext, loops: bool) {
    let running_thread = current_thread();
    let pid = process_of(running_thread);
    let Some(thread) = tls::thread(running(context, running_thread)) else { return };
    if thread.session != 0 && thread.stack == FUNCTION_GO_WRITES {
        tls::ended(pid, thread, thread.count as i64, loops);
    }
}

/// The function that reads copies clear text.
#[inline(always)]
pub(crate) fn gives(context: &ProbeContext, loops: bool) {
    let running_thread = current_thread();
    let pid = process_of(running_thread);
    let from = register(context.as_ptr(), abi!(go_parameters[1]));
    let moved = register(context.as_ptr(), abi!(go_parameters[2])) as i64;
    let Some(thread) = tls::thread(running(context, running_thread)) else { return };
    let cipher = if thread.session == 0 {
        // It was reading already when the probes came.
        tls::unseen(thread)
    } else if thread.stack == FUNCTION_GO_READS {
        tls::over(pid, thread)
    } else {
        None
    };
    if let Some(cipher) = cipher {
        thread.buffer = from;
        tls::tell(pid, cipher, thread, moved, loops);
    }
}

/// A session ends.
#[inline(always)]
pub(crate) fn freed(context: &ProbeContext) {
    tls::freed(register(context.as_ptr(), abi!(go_parameters[0])));
}
