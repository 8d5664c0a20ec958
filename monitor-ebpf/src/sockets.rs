//! Sockets' lives: listening, connected, closed; and when bytes arrive in them.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::generated::bpf_probe_read_kernel,
    macros::{btf_tracepoint, tracepoint},
    programs::{BtfTracePointContext, TracePointContext},
};
use monitor_ebpf::{
    config::{CARRIES_TLS, Choices, Connection, SOCKET_CONNECTED, SOCKET_IGNORED, SOCKET_LISTENS, TOLD_BORN},
    record::{
        CLOSED_BY_PEER, CLOSED_FULLY, CLOSED_LOCALLY, Closed, FAMILY_INET6, FAMILY_UNIX, FLAG_BORN,
        FLAG_EXITING, FLAG_RESET, Header, KIND_CLOSED, KIND_LISTENING, KIND_OPENED, Socket,
    },
};

use crate::{
    kernel::{
        Flavour, Typed, Untyped, connection_id, current_process, exiting, inode, now, numbered, read,
        record_field,
    },
    maps::{PROCESSES, UNIX_ADDRESSES, offset, setting},
    output::{self, Wake},
    tls,
};

// include/net/tcp_states.h
const TCP_ESTABLISHED: i32 = 1;
const TCP_SYN_SENT: i32 = 2;
const TCP_SYN_RECV: i32 = 3;
const TCP_FIN_WAIT1: i32 = 4;
pub(crate) const TCP_CLOSE: i32 = 7;
const TCP_CLOSE_WAIT: i32 = 8;
const TCP_LAST_ACK: i32 = 9;
const TCP_LISTEN: i32 = 10;

/// The part of `struct sockaddr_un` before the path.
const UNIX_FAMILY_LEN: u32 = 2;

// net/ipv4/af_inet.c: TRACE_EVENT(inet_sock_set_state, TP_PROTO(const struct sock *sk, const int oldstate, const int newstate))
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn httpmon_state(context: BtfTracePointContext) -> i32 {
    state_changed::<Typed>(context.arg(0), context.arg(1), context.arg(2))
}

#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn httpmon_state_n(context: BtfTracePointContext) -> i32 {
    state_changed::<Untyped>(context.arg(0), context.arg(1), context.arg(2))
}

// events/sock/inet_sock_set_state/format: skaddr at 8, oldstate at 16, newstate at 20
#[tracepoint]
pub fn httpmon_state_c(context: TracePointContext) -> u32 {
    let (socket, old, new) = (
        record_field!(context, 8, *const c_void),
        record_field!(context, 16, i32),
        record_field!(context, 20, i32),
    );
    state_changed::<Untyped>(socket, old, new) as u32
}

// net/core/sock.c: TRACE_EVENT(sk_data_ready, TP_PROTO(const struct sock *sk))
#[btf_tracepoint(function = "sk_data_ready")]
pub fn httpmon_data(context: BtfTracePointContext) -> i32 {
    data_arrived::<Typed>(context.arg(0))
}

#[btf_tracepoint(function = "sk_data_ready")]
pub fn httpmon_data_n(context: BtfTracePointContext) -> i32 {
    data_arrived::<Untyped>(context.arg(0))
}

// events/sock/sk_data_ready/format: skaddr at 8
#[tracepoint]
pub fn httpmon_data_c(context: TracePointContext) -> u32 {
    data_arrived::<Untyped>(record_field!(context, 8, *const c_void)) as u32
}

#[inline(always)]
fn state_changed<F: Flavour>(socket: *const c_void, old: i32, new: i32) -> i32 {
    if new == TCP_LISTEN {
        listening::<F>(socket);
        return 0;
    }
    if new == TCP_SYN_SENT {
        connecting::<F>(socket);
        return 0;
    }
    if new == TCP_ESTABLISHED && old == TCP_SYN_RECV {
        if let Some(connection) = F::newborn(socket) {
            let at = now();
            connection.id = connection_id(at);
            connection.kind = SOCKET_CONNECTED;
            // The copy has the listener's own: when the last connection came.
            connection.arrived = 0;
            connection.announced =
                if announce::<F>(socket, connection, at, FLAG_BORN) { TOLD_BORN } else { 0 };
            connection.carries = 0;
        }
        return 0;
    }
    // A child, too, is a listener before it is itself.
    if old == TCP_LISTEN && new == TCP_CLOSE {
        F::listens(socket, None);
    }
    let Some(connection) = F::known(socket) else { return 0 };
    if connection.kind == SOCKET_CONNECTED {
        let how = match new {
            TCP_CLOSE_WAIT => CLOSED_BY_PEER,
            TCP_FIN_WAIT1 | TCP_LAST_ACK => CLOSED_LOCALLY,
            TCP_CLOSE => CLOSED_FULLY,
            _ => return 0,
        };
        closed::<F>(socket, connection, how);
    }
    if new == TCP_CLOSE {
        // What is still said of it, as by a call that its end interrupted, is nobody's any more.
        connection.kind = 0;
        if connection.carries == CARRIES_TLS {
            tls::forget(connection.id);
        }
        F::forget(socket);
    }
    0
}

/// The running process opens a connection (net/ipv4/tcp_ipv4.c, `tcp_v4_connect`).
#[inline(always)]
fn connecting<F: Flavour>(socket: *const c_void) {
    // SAFETY: the value is never read.
    if setting!(CHOICES: Choices, ignore_outgoing) == 0
        || unsafe { PROCESSES.get(current_process()) }.is_none()
    {
        return;
    }
    let mut ignored = Connection { kind: SOCKET_IGNORED, ..Connection::default() };
    if let Some(known) = F::known_or(socket, &mut ignored) {
        *known = ignored;
    }
}

/// A process began to listen: what its socket takes will begin as a copy of its state. The agent hears of every
/// one, since a port may select.
#[inline(always)]
fn listening<F: Flavour>(socket: *const c_void) {
    let (at, pid) = (now(), current_process());
    if pid == 0 {
        return;
    }
    // SAFETY: entries are only ever replaced whole.
    let service = unsafe { PROCESSES.get(pid) }.map_or(0, |selected| selected.service);
    let new = Connection { pid, service, kind: SOCKET_LISTENS, ..Connection::default() };
    if service != 0 {
        F::listens(socket, Some(&new));
    }
    describe::<F>(socket, &new, at, KIND_LISTENING.into());
}

#[inline(always)]
fn closed<F: Flavour>(socket: *const c_void, connection: &Connection, how: u8) {
    // SAFETY: the hook's socket.
    let error = unsafe { F::field::<i32>(socket, offset!(sock_err)) };
    let exit = if current_process() == connection.pid { exiting() } else { None };
    let flags = if exit.is_some() { FLAG_EXITING } else { 0 } | if error != 0 { FLAG_RESET } else { 0 };
    let header = Header {
        kind: KIND_CLOSED,
        detail: how,
        flags,
        service: connection.service,
        at: now(),
        connection: connection.id,
        pid: connection.pid,
        fd: -1,
    };
    let clear = if connection.carries == CARRIES_TLS { tls::carried(connection.id) } else { None };
    let (received, sent) = clear.unwrap_or((connection.received, connection.sent));
    let record = Closed { header, received, sent, exit_code: exit.unwrap_or(0), reserved: 0 };
    output::send(&record, Wake::Later);
}

#[inline(always)]
fn data_arrived<F: Flavour>(socket: *const c_void) -> i32 {
    let before = match F::known(socket) {
        Some(connection) if !F::is_stale(socket, connection) => {
            if connection.arrived == 0 {
                connection.arrived = now();
            }
            return 0;
        }
        before => before,
    };
    // SAFETY: the hook's socket.
    if unsafe { F::field::<u16>(socket, offset!(sock_family)) } != FAMILY_UNIX {
        return 0;
    }
    let address = read::<u64>(socket, offset!(unix_addr));
    // SAFETY: the value is never read.
    if address == 0 || (unsafe { UNIX_ADDRESSES.get(address) }.is_none() && !connected_to_selected(socket)) {
        return 0;
    }
    // The first bytes for a socket that nobody has used yet. Who does may be faster, on another CPU.
    if let Some(before) = before {
        before.next_arrives(now());
    } else {
        let mut new = Connection { arrived: now(), kind: SOCKET_LISTENS, ..Connection::default() };
        F::known_or(socket, &mut new);
    }
    0
}

/// Whether a unix socket that nobody has accepted yet was connected to a selected process: its other end knows who
/// called `listen` (net/unix/af_unix.c, `copy_peercred`).
#[inline(always)]
fn connected_to_selected(socket: *const c_void) -> bool {
    let client = read::<*const c_void>(socket, offset!(unix_peer));
    if client.is_null() {
        return false;
    }
    let listener = read::<*const c_void>(client, offset!(sock_peer_pid));
    if listener.is_null() {
        return false;
    }
    // SAFETY: the value is never read.
    unsafe { PROCESSES.get(numbered(listener)) }.is_some()
}

/// Tells the agent of a connection; true when the record went out.
#[inline(always)]
pub(crate) fn announce<F: Flavour>(
    socket: *const c_void,
    connection: &Connection,
    at: u64,
    flags: u16,
) -> bool {
    describe::<F>(socket, connection, at, (u32::from(flags) << 8) | u32::from(KIND_OPENED))
}

/// Sends a socket's addresses. `what` is the record's kind, and above it its flags. A function of its own, for the stack's sake.
#[inline(never)]
fn describe<F: Flavour>(socket: *const c_void, connection: &Connection, at: u64, what: u32) -> bool {
    let (kind, flags) = (what as u8, (what >> 8) as u16);
    let wake = if kind == KIND_LISTENING { Wake::Now } else { Wake::Later };
    let Some(mut entry) = output::reserve::<Socket>() else { return false };
    let record = entry.as_mut_ptr();
    // SAFETY: the record's own memory, which zeroes make valid; fields of the hook's socket.
    unsafe {
        record.write_bytes(0, 1);
        (*record).header = Header {
            kind,
            detail: 0,
            flags,
            service: connection.service,
            at,
            connection: connection.id,
            pid: connection.pid,
            fd: -1,
        };
        (*record).inode = inode::<F>(socket);
        let family = F::field::<u16>(socket, offset!(sock_family));
        (*record).family = family;
        if family == FAMILY_UNIX {
            name(socket, record);
        } else {
            (*record).local_port = F::field(socket, offset!(sock_num));
            (*record).remote_port = u16::from_be(F::field(socket, offset!(sock_dport)));
            let (local, remote, len) = if family == FAMILY_INET6 {
                (offset!(sock_v6_rcv_saddr), offset!(sock_v6_daddr), 16)
            } else {
                (offset!(sock_rcv_saddr), offset!(sock_daddr), 4)
            };
            copy((&raw mut (*record).local).cast(), len, socket, local);
            copy((&raw mut (*record).remote).cast(), len, socket, remote);
        }
    }
    output::submit(entry, wake);
    true
}

/// Copies kernel memory.
///
/// # Safety
/// `to` has room for `len` bytes.
#[inline(always)]
unsafe fn copy(to: *mut c_void, len: u32, base: *const c_void, offset: u64) {
    // SAFETY: the caller's promise; the helper checks the address.
    unsafe { bpf_probe_read_kernel(to, len, base.cast::<u8>().wrapping_add(offset as usize).cast()) };
}

/// A unix socket's bound name: its own, or where it has none, that of the one it is connected to.
///
/// # Safety
/// `record` is valid.
#[inline(always)]
unsafe fn name(socket: *const c_void, record: *mut Socket) {
    let mut address = read::<*const c_void>(socket, offset!(unix_addr));
    if address.is_null() {
        let peer = read::<*const c_void>(socket, offset!(unix_peer));
        if peer.is_null() {
            return;
        }
        address = read(peer, offset!(unix_addr));
    } else {
        let _ = UNIX_ADDRESSES.insert(address as u64, 1, 0);
    }
    if address.is_null() {
        return;
    }
    let len = read::<u32>(address, offset!(unix_address_len)).saturating_sub(UNIX_FAMILY_LEN);
    let len = if len > 108 { 108 } else { len };
    // SAFETY: the path has room for 108 bytes.
    unsafe {
        (*record).path_len = len as u16;
        copy(
            (&raw mut (*record).path).cast(),
            108,
            address,
            offset!(unix_address_name) + u64::from(UNIX_FAMILY_LEN),
        );
    }
}
