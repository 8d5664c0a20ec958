//! What goes through sockets, on kernels without a hook for that: seen at the end of every system call of the host, by
//! the registers that it began with. All but those of selected processes are left alone at once.

use core::ffi::c_void;

use aya_ebpf::{
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use monitor_ebpf::{
    config::Selected,
    record::{FLAG_NO_BUFFER, FLAG_SPLICED, KIND_RECEIVED, KIND_SENT, PROCESS_IS_32_BIT, PROCESS_USES_RINGS},
};

use crate::{
    kernel::{Untyped, current, current_thread, known_as, load, on_host, open_file, record_field, socket_of},
    output::Wake,
    processes::{self, Detail, report},
    transfer::{self, ECONNRESET, EPIPE, Operation},
    user::{Call, Caller, MESSAGE_VECTOR, Shape, abi, forget, registers_of, words},
};

/// The length of a `struct mmsghdr` (include/linux/socket.h), and where it has how many bytes were moved: the same on
/// all 64-bit architectures.
const MESSAGES_STEP: u64 = 64;
/// See [`MESSAGES_STEP`].
const MESSAGES_MOVED: u64 = 56;
/// `UIO_MAXIOV` (include/uapi/linux/uio.h): the most messages of one call.
const MAX_MESSAGES: u64 = 1024;

// kernel/entry: TRACE_EVENT_SYSCALL(sys_exit, TP_PROTO(struct pt_regs *regs, long ret))
#[btf_tracepoint(function = "sys_exit")]
pub fn httpmon_sysexit(context: BtfTracePointContext) -> i32 {
    if let Some(process) = selected() {
        ended(context.arg(0), context.arg(1), &process);
    }
    0
}

// events/raw_syscalls/sys_exit/format: ret at 16. The registers are the running task's, for which there is a helper
// from Linux 5.15.
#[tracepoint]
pub fn httpmon_sysexit_c(context: TracePointContext) -> u32 {
    if let Some(process) = selected() {
        ended(registers_of(current()), record_field!(context, 16, i64), &process);
    }
    0
}

/// The running process, which is selected.
struct Process {
    pid: u32,
    /// As of when.
    epoch: u32,
    selected: *mut Selected,
}

/// The running process, if it is selected.
#[inline(always)]
fn selected() -> Option<Process> {
    let (epoch, number) = (processes::epoch(), on_host(current_thread()));
    if processes::is_unselected(number, epoch) {
        return None;
    }
    let pid = known_as(number);
    processes::selected(pid, number, epoch).map(|selected| Process { pid, epoch, selected })
}

/// A selected process's system call ended.
#[inline(always)]
fn ended(registers: *const c_void, result: i64, process: &Process) {
    // SAFETY: registers of this architecture, by its layout.
    let register = |at: u64| unsafe { load::<u64>(registers, at) };
    if register(abi!(width)) & abi!(width_mask) != abi!(width_64) {
        tell_once(PROCESS_IS_32_BIT, process);
        return;
    }
    let number = register(abi!(number));
    if number == abi!(rings[0]) || number == abi!(rings[1]) {
        tell_once(PROCESS_USES_RINGS, process);
        return;
    }
    let (second, third) = (register(abi!(arguments[1])), register(abi!(arguments[2])));
    let Some((direction, bytes)) = bytes_of(number) else { return };
    // Where nothing was moved, it matters why: the peer's end shows in it.
    let is_end = if direction == KIND_RECEIVED { result == 0 } else { false };
    if result <= 0 && !is_end && result != -i64::from(EPIPE) && result != -i64::from(ECONNRESET) {
        return;
    }
    let (mut fd, mut direction) = (register(abi!(arguments[0])) as u32, direction);
    let mut socket = socket_of(open_file(fd));
    if socket.is_null() && number == abi!(spliced[1]) {
        (fd, direction) = (third as u32, KIND_SENT);
        socket = socket_of(open_file(fd));
    }
    if socket.is_null() {
        return;
    }
    let plain = Call { fd: fd as i32, ..Call::flat(second, 0) };
    let no_buffer = |reason| Call { fd: fd as i32, ..Call::without_buffer(reason) };
    let (call, flags, moved) = match bytes {
        Bytes::Flat => (plain, 0, result),
        Bytes::FlatWithFlags => (plain, register(abi!(arguments[3])), result),
        Bytes::Vector => (Call { shape: Shape::Vector, parts: third, ..plain }, 0, result),
        Bytes::Message => (message(plain), third, result),
        Bytes::Messages => {
            let call = if result == 1 { message(plain) } else { no_buffer(FLAG_NO_BUFFER) };
            (call, register(abi!(arguments[3])), moved_by_messages(second, result))
        }
        Bytes::Spliced => (no_buffer(FLAG_SPLICED), 0, result),
    };
    let Process { pid, epoch, selected } = *process;
    // SAFETY: entries live while the program runs.
    let service = unsafe { (*selected).service };
    let (moved, flags) = (moved as i32, flags as i32);
    let operation = Operation { pid, service, epoch, moved, flags, direction, loops: false };
    let caller = #[inline(always)]
    || {
        // SAFETY: registers of this architecture, by its layout.
        unsafe { Caller::of(registers) }
    };
    transfer::done::<Untyped>(socket, &operation, None, |_| call, caller);
}

/// Where a system call has its bytes.
#[derive(Clone, Copy)]
enum Bytes {
    /// The second argument is the buffer.
    Flat,
    /// The same, and the fourth the flags.
    FlatWithFlags,
    /// The second argument is a vector, the third its length.
    Vector,
    /// The second argument is a message header, the third the flags.
    Message,
    /// The second argument is an array of message headers, the fourth the flags.
    Messages,
    /// Nowhere in user memory.
    Spliced,
}

/// Which way a system call moves bytes, and where it has them; none for all other calls.
#[inline(always)]
fn bytes_of(number: u64) -> Option<(u8, Bytes)> {
    // The tables have the calls that receive, each followed by its like that sends.
    Some(if number == abi!(flat[0]) {
        (KIND_RECEIVED, Bytes::Flat)
    } else if number == abi!(flat[1]) {
        (KIND_SENT, Bytes::Flat)
    } else if number == abi!(flat[2]) {
        (KIND_RECEIVED, Bytes::FlatWithFlags)
    } else if number == abi!(flat[3]) {
        (KIND_SENT, Bytes::FlatWithFlags)
    } else if number == abi!(vectored[0]) || number == abi!(vectored[2]) {
        (KIND_RECEIVED, Bytes::Vector)
    } else if number == abi!(vectored[1]) || number == abi!(vectored[3]) {
        (KIND_SENT, Bytes::Vector)
    } else if number == abi!(message[0]) {
        (KIND_RECEIVED, Bytes::Message)
    } else if number == abi!(message[1]) {
        (KIND_SENT, Bytes::Message)
    } else if number == abi!(messages[0]) {
        (KIND_RECEIVED, Bytes::Messages)
    } else if number == abi!(messages[1]) {
        (KIND_SENT, Bytes::Messages)
    } else if number == abi!(spliced[0]) {
        (KIND_SENT, Bytes::Spliced)
    } else if number == abi!(spliced[1]) {
        // From its first argument; or to its third, where the first is a pipe.
        (KIND_RECEIVED, Bytes::Spliced)
    } else {
        return None;
    })
}

/// The vector of a message header.
#[inline(always)]
fn message(plain: Call) -> Call {
    let [address, parts] = words(plain.address.wrapping_add(MESSAGE_VECTOR));
    Call { shape: Shape::Vector, address, parts, ..plain }
}

/// How many bytes were moved by a call that returns how many messages were.
#[inline(always)]
fn moved_by_messages(first: u64, count: i64) -> i64 {
    if count <= 0 {
        return count;
    }
    let mut moved = 0;
    for index in 0..MAX_MESSAGES {
        if index >= count as u64 {
            break;
        }
        let [len] = words(first.wrapping_add(index * MESSAGES_STEP + MESSAGES_MOVED));
        moved = forget(moved + (len & 0xffff_ffff), first);
    }
    moved as i64
}

/// Tells the agent something of a process that it needs to hear once.
#[inline(always)]
fn tell_once(detail: u8, process: &Process) {
    // SAFETY: entries live while the program runs.
    let selected = unsafe { &mut *process.selected };
    let bit = 1 << detail;
    if selected.told & bit == 0 {
        selected.told |= bit;
        report(detail, process.pid, selected.service, Detail::default(), Wake::Later);
    }
}
