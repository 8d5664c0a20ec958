//! What goes through sockets: one record an operation, after it, with the bytes that can matter.

use core::ffi::c_void;

use aya_ebpf::{
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use monitor_ebpf::{
    config::{
        CARRIES_FRAMES, CARRIES_TLS, Choices, Connection, Limits, SOCKET_CONNECTED, SOCKET_IGNORED,
        TOLD_MIDWAY, loss,
    },
    record::{
        CLOSED_BY_PEER, Closed, Data, FAMILY_INET, FAMILY_INET6, FAMILY_UNIX, FLAG_RESET, FLAG_TURNED,
        Header, KIND_CLOSED, KIND_RECEIVED, KIND_SENT,
    },
};

use crate::{
    frames,
    kernel::{Flavour, Typed, Untyped, connection_id, current, group_of, known_as, now, record_field},
    maps::{SCRATCH, lost, offset, setting},
    output::{self, Wake},
    processes::{epoch, is_unselected, selected},
    sockets::{self, TCP_CLOSE},
    tls::{self, Moved},
    user::{self, Call, Caller, Shape},
};

const MSG_OOB: i32 = 0x1;
const MSG_PEEK: i32 = 0x2;
const MSG_ERRQUEUE: i32 = 0x2000;
pub(crate) const EPIPE: i32 = 32;
pub(crate) const ECONNRESET: i32 = 104;
const SOCK_STREAM: u16 = 1;

// net/socket.c: TRACE_EVENT(sock_recv_length, TP_PROTO(struct sock *sk, int ret, int flags))
#[btf_tracepoint(function = "sock_recv_length")]
pub fn httpmon_recv(context: BtfTracePointContext) -> i32 {
    transfer::<Typed>(context.arg(0), context.arg(1), context.arg(2), KIND_RECEIVED)
}

// net/socket.c: TRACE_EVENT(sock_send_length, TP_PROTO(struct sock *sk, int ret, int flags))
#[btf_tracepoint(function = "sock_send_length")]
pub fn httpmon_send(context: BtfTracePointContext) -> i32 {
    transfer::<Typed>(context.arg(0), context.arg(1), context.arg(2), KIND_SENT)
}

// events/sock/sock_recv_length/format: sk at 8, ret at 20, flags at 24. Peeked bytes are already 0 there.
#[tracepoint]
pub fn httpmon_recv_c(context: TracePointContext) -> u32 {
    let (socket, moved, flags) = (
        record_field!(context, 8, *const c_void),
        record_field!(context, 20, i32),
        record_field!(context, 24, i32),
    );
    transfer::<Untyped>(socket, moved, flags, KIND_RECEIVED) as u32
}

// events/sock/sock_send_length/format: as above.
#[tracepoint]
pub fn httpmon_send_c(context: TracePointContext) -> u32 {
    let (socket, moved, flags) = (
        record_field!(context, 8, *const c_void),
        record_field!(context, 20, i32),
        record_field!(context, 24, i32),
    );
    transfer::<Untyped>(socket, moved, flags, KIND_SENT) as u32
}

#[inline(always)]
fn transfer<F: Flavour>(socket: *const c_void, moved: i32, flags: i32, direction: u8) -> i32 {
    // Most often that nothing has come yet.
    if moved < 0 && moved != -EPIPE && moved != -ECONNRESET {
        return 0;
    }
    let task = current();
    // SAFETY: `task` is typed.
    let on_host = unsafe { group_of(task) };
    let epoch = epoch();
    if is_unselected(on_host, epoch) {
        return 0;
    }
    let pid = known_as(on_host);
    let remembered = F::remembered(socket, pid, epoch);
    let service = match &remembered {
        Some(connection) => connection.service,
        None => match selected(pid, on_host, epoch) {
            // SAFETY: entries live while the program runs.
            Some(selected) => unsafe { (*selected).service },
            None => return 0,
        },
    };
    let operation = Operation { pid, service, epoch, moved, flags, direction, loops: true };
    done::<F>(
        socket,
        &operation,
        remembered,
        #[inline(always)]
        |connection| user::call::<F>(task, socket, connection, direction),
        #[inline(always)]
        || Caller::running(task),
    );
    0
}

/// What a selected process received or sent, or tried to.
pub(crate) struct Operation {
    pub(crate) pid: u32,
    pub(crate) service: u32,
    /// [`Limits::epoch`] when the process was looked up.
    pub(crate) epoch: u32,
    /// How many bytes, or the error.
    pub(crate) moved: i32,
    /// `MSG_` flags.
    pub(crate) flags: i32,
    /// The record's kind.
    pub(crate) direction: u8,
    /// Whether all kernels that have the hook have `bpf_loop`, from Linux 5.17.
    pub(crate) loops: bool,
}

/// An operation on a socket was done. `call` tells what the system call was given, `caller` by whom.
#[inline(always)]
pub(crate) fn done<F: Flavour>(
    socket: *const c_void,
    &Operation { pid, service, epoch, moved, flags, direction, loops }: &Operation,
    remembered: Option<&'static mut Connection>,
    call: impl FnOnce(&mut Connection) -> Call,
    caller: impl FnOnce() -> Caller,
) {
    if flags & (MSG_PEEK | MSG_OOB | MSG_ERRQUEUE) != 0 {
        return;
    }
    if moved <= 0 {
        ended::<F>(socket, moved, direction);
        return;
    }
    let at = now();
    let connection = match remembered {
        Some(connection) => connection,
        None => {
            let Some(connection) = connection::<F>(socket, at, pid, service) else { return };
            if connection.pid != pid {
                connection.descriptor = 0;
            }
            connection.used_by(pid, service);
            connection.epoch = epoch;
            connection
        }
    };
    if connection.announced == 0 {
        connection.announced =
            if sockets::announce::<F>(socket, connection, at, 0) { TOLD_MIDWAY } else { 0 };
    }
    let bytes = Bytes { at, moved: moved as u32, direction, loops };
    carry(connection, &bytes, call, caller);
}

/// The socket's state, begun here for one whose birth was not seen.
#[inline(always)]
fn connection<F: Flavour>(
    socket: *const c_void,
    at: u64,
    pid: u32,
    service: u32,
) -> Option<&'static mut Connection> {
    // SAFETY: the hook's socket.
    let family = unsafe { F::field::<u16>(socket, offset!(sock_family)) };
    let inode = F::generation(socket, family);
    if let Some(known) = F::known(socket) {
        if known.kind == SOCKET_CONNECTED && known.inode == inode {
            return Some(known);
        }
        if known.kind == SOCKET_IGNORED {
            return None;
        }
    }
    if !matches!(family, FAMILY_UNIX | FAMILY_INET | FAMILY_INET6) {
        return None;
    }
    // SAFETY: the hook's socket.
    let (kind, state) =
        unsafe { (F::field::<u16>(socket, offset!(sock_type)), F::field::<u8>(socket, offset!(sock_state))) };
    if kind != SOCK_STREAM || i32::from(state) == TCP_CLOSE && family != FAMILY_UNIX {
        return None;
    }
    let mut new = Connection {
        id: connection_id(at),
        inode,
        pid,
        service,
        kind: SOCKET_CONNECTED,
        ..Connection::default()
    };
    let Some(known) = F::known_or(socket, &mut new) else {
        lost(loss::MAP_FULL);
        return None;
    };
    if known.kind != SOCKET_CONNECTED || known.inode != inode {
        *known = Connection { arrived: known.arrived_for_next(), ..new };
    }
    Some(known)
}

/// What an operation moves, beside what the connection had carried before.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    /// The other direction moved before, or none.
    pub(crate) turned: bool,
    /// How many bytes this direction had carried.
    pub(crate) offset: u64,
    /// How many bytes the other one had.
    pub(crate) other: u64,
    /// When the first byte had arrived.
    pub(crate) arrived: u64,
    /// How many bytes this direction had carried since it turned.
    before: u32,
    /// How many of those are copied.
    limit: u32,
}

impl Step {
    /// Of what was sent last, so much, and counts already; that it turned is told elsewhere.
    #[inline(always)]
    pub(crate) fn of_sent(connection: &Connection, moved: u64) -> Self {
        let offset = connection.sent.wrapping_sub(moved);
        Self { turned: false, offset, other: connection.received, arrived: 0, before: 0, limit: 0 }
    }
}

/// Counts what an operation moves.
#[inline(always)]
pub(crate) fn step(connection: &mut Connection, moved: u32, direction: u8) -> Step {
    let turned = user::forget((connection.last != direction).into(), connection.sent) != 0;
    let before = if turned { 0 } else { connection.burst };
    connection.last = direction;
    if connection.carries != CARRIES_FRAMES {
        connection.burst = before.saturating_add(moved);
    }
    let moved = u64::from(moved);
    let (offset, other, arrived, limit) = if direction == KIND_RECEIVED {
        let (offset, arrived) = (connection.received, connection.arrived);
        connection.received += moved;
        connection.arrived = 0;
        (offset, connection.sent, arrived, setting!(LIMITS: Limits, received))
    } else {
        let offset = connection.sent;
        connection.sent += moved;
        (offset, connection.received, 0, setting!(LIMITS: Limits, sent))
    };
    Step { turned, offset, other, arrived, before, limit }
}

/// How many of an operation's first bytes are to be copied.
#[inline(always)]
pub(crate) fn wanted(connection: &Connection, step: &Step, call: &Call, moved: u32) -> u32 {
    if call.shape == Shape::None {
        0
    } else if connection.carries == CARRIES_FRAMES {
        moved.min(Limits::MOST - 1)
    } else {
        let most = if step.before < step.limit || starts_message(call) { step.limit } else { Limits::BEYOND };
        moved.min(most).min(Limits::MOST - 1)
    }
}

/// What went through a socket.
struct Bytes {
    at: u64,
    moved: u32,
    direction: u8,
    /// [`Operation::loops`]
    loops: bool,
}

/// Sends what an operation moved.
#[inline(always)]
fn carry(
    connection: &mut Connection,
    &Bytes { at, moved, direction, loops }: &Bytes,
    call: impl FnOnce(&mut Connection) -> Call,
    caller: impl FnOnce() -> Caller,
) {
    let step = step(connection, moved, direction);
    if connection.carries == CARRIES_TLS {
        let moved = Moved { at, len: moved, direction, told: false };
        tls::moved(connection, &{ step }, &moved, caller());
        return;
    }
    let call = call(connection);
    let wanted = wanted(connection, &step, &call, moved);
    let which = u32::from(direction == KIND_SENT);
    let Some(scratch) = SCRATCH.get_ptr_mut(which) else { return };
    let header = Header {
        kind: direction,
        detail: 0,
        flags: if step.turned { FLAG_TURNED } else { 0 } | call.reason,
        service: connection.service,
        at,
        connection: connection.id,
        pid: connection.pid,
        fd: call.fd,
    };
    let (offset, other, arrived) = (step.offset, step.other, step.arrived);
    let data = Data { header, offset, other, arrived, len: moved, prefix: 0, tail: 0 };
    // SAFETY: the slot is this CPU's and this program's own while it runs.
    unsafe { (&raw mut (*scratch).data).write(data) };
    if loops && connection.carries == CARRIES_FRAMES && frames::carry(connection, direction, &call, moved, at)
    {
        return;
    }
    // SAFETY: as above.
    let sent = unsafe {
        let bytes = (&raw mut (*scratch).bytes).cast::<u8>();
        let wanted = wanted.into();
        let framed = connection.carries == CARRIES_FRAMES;
        let (prefix, tail) = if loops && framed && call.shape == Shape::Vector {
            (user::gather(&call, which, wanted, at), 0)
        } else {
            user::copy(&call, scratch, which, wanted, at)
        };
        // What the verifier learnt here it would carry on with.
        let copied = user::forget(prefix, at);
        if connection.carries == 0 && copied >= 8 {
            let first = bytes.cast::<u64>().read();
            if starts_frames(connection, &step, first) {
                frames::begin(connection, direction, step.offset, first == PREFACE);
                if loops && frames::carry(connection, direction, &call, moved, at) {
                    return;
                }
            }
        }
        if copied >= 3 && connection.carries == 0 && setting!(CHOICES: Choices, tls) != 0 {
            recognise_tls(connection, &step, bytes);
        }
        (*scratch).data.prefix = prefix as u16;
        (*scratch).data.tail = tail as u16;
        output::copy(scratch.cast(), size_of::<Data>() as u64 + prefix + tail, at)
    };
    if connection.carries == CARRIES_TLS {
        tls::began(connection);
        let moved = Moved { at, len: moved, direction, told: true };
        tls::moved(connection, &{ step }, &moved, caller());
    }
    if !sent && direction == KIND_RECEIVED && step.turned && starts_message(&call) {
        lost(loss::REQUESTS);
    }
}

/// What HTTP/2's preface begins with (RFC 9113, section 3.4).
const PREFACE: u64 = u64::from_ne_bytes(*b"PRI * HT");

/// Whether an operation's first 8 bytes begin HTTP/2: its preface, or on a connection that was joined midway what may be a
/// frame's header (section 4.1). To err costs no more than copying.
#[inline(always)]
pub(crate) fn starts_frames(connection: &Connection, step: &Step, first: u64) -> bool {
    const LAST_KNOWN_TYPE: u8 = 9;
    let midway = connection.announced == TOLD_MIDWAY && step.offset == 0;
    let bytes = first.to_ne_bytes();
    first == PREFACE || (midway && bytes[0] == 0 && bytes[3] <= LAST_KNOWN_TYPE && bytes[5] < 0x80)
}

/// Whether a connection's first bytes begin TLS: a handshake record (RFC 8446, section 5.1). Where it was joined midway, it
/// may be one of any type, after the direction turned.
///
/// # Safety
/// There are 3 bytes.
#[inline(always)]
unsafe fn recognise_tls(connection: &mut Connection, step: &Step, bytes: *const u8) {
    const CHANGE_CIPHER_SPEC: u8 = 20;
    const HANDSHAKE: u8 = 22;
    const APPLICATION_DATA: u8 = 23;
    const MAJOR_VERSION: u8 = 3;
    const LAST_MINOR_VERSION: u8 = 4;
    // SAFETY: the caller's promise.
    let [kind, major, minor] = unsafe { bytes.cast::<[u8; 3]>().read() };
    if major != MAJOR_VERSION || minor > LAST_MINOR_VERSION {
        return;
    }
    let joined = connection.announced == TOLD_MIDWAY && step.turned;
    let midway = joined && (CHANGE_CIPHER_SPEC..=APPLICATION_DATA).contains(&kind);
    if midway || (kind == HANDSHAKE && step.offset == 0) {
        connection.carries = CARRIES_TLS;
    }
}

/// Whether bytes deep in a burst look like the start of another message: pipelined requests and their responses.
#[inline(always)]
pub(crate) fn starts_message(call: &Call) -> bool {
    let address = if call.shape == Shape::Vector { user::user(call.address) } else { call.address };
    let bytes = user::user(address).to_ne_bytes();
    bytes[..3].iter().all(u8::is_ascii_uppercase)
}

/// An operation that moved nothing: on a unix socket it is how the peer's end shows, since no hook tells.
#[inline(always)]
fn ended<F: Flavour>(socket: *const c_void, result: i32, direction: u8) {
    let end_of_stream = result == 0 && direction == KIND_RECEIVED;
    let broken = result == -EPIPE || result == -ECONNRESET;
    if !end_of_stream && !broken {
        return;
    }
    let Some(connection) = F::known(socket) else { return };
    // SAFETY: the hook's socket.
    if unsafe { F::field::<u16>(socket, offset!(sock_family)) } != FAMILY_UNIX {
        return;
    }
    let header = Header {
        kind: KIND_CLOSED,
        detail: CLOSED_BY_PEER,
        flags: if broken { FLAG_RESET } else { 0 },
        service: connection.service,
        at: now(),
        connection: connection.id,
        pid: connection.pid,
        fd: -1,
    };
    let closed = Closed { header, received: connection.received, sent: connection.sent, ..Closed::default() };
    output::send(&closed, Wake::Later);
}
