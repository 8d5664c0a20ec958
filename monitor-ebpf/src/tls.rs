//! TLS: what the functions of a selected process's TLS library are given and give, in clear text, and which connection it
//! is of. Of what goes through the socket only times and lengths matter then.
//!
//! No library tells the connection. It is the one that moves bytes while a function runs; or, where the process moves them
//! itself and hands them to the library in memory, the one that the thread had received from before the function that
//! reads.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_pid_tgid, generated::bpf_get_attach_cookie},
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use monitor_ebpf::{
    config::{
        CARRIES_FRAMES, Cipher, Connection, FUNCTION_FREES, FUNCTION_GO_DID, FUNCTION_GO_DID_READ,
        FUNCTION_GO_DID_SHAKE_HANDS, FUNCTION_GO_FREES, FUNCTION_GO_GIVES, FUNCTION_GO_READS,
        FUNCTION_GO_SHAKES_HANDS, FUNCTION_GO_WROTE, FUNCTION_MAPPED, FUNCTION_READS,
        FUNCTION_RUST_DECRYPTED, FUNCTION_RUST_DECRYPTS, FUNCTION_RUST_ENCRYPTS, FUNCTION_SHAKES_HANDS,
        FUNCTION_TELLS_SUCCESS, FUNCTION_WILL_TELL_COUNT, FUNCTION_WRITES, FUNCTION_WRITES_FILE, Limits,
        SOCKET_CONNECTED, Session, Thread, loss,
    },
    record::{
        Data, FLAG_NO_BUFFER, FLAG_OWED, FLAG_PLAIN, FLAG_SPLICED, FLAG_TURNED, Header, KIND_RECEIVED,
        KIND_SENT, PROCESS_MAPPED, enciphered,
    },
};

use crate::{
    frames, go,
    kernel::{keep_to_the_tasks_stack, now, read},
    maps::{CIPHERS, LIMITS, PROCESSES, SESSIONS, THREADS, lost},
    output::{self, Room, Wake},
    processes::{Detail, report},
    rust,
    transfer::{self, Step},
    user::{self, Call, Caller, Shape, Slices, abi},
};

/// What the functions return that move bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Returns {
    /// How many they moved, or an error.
    Count,
    /// Whether they succeeded: how many is where they were told to put it.
    Success,
}

// SSL_read(ssl, buffer, length), SSL_read_ex(ssl, buffer, length, &count), gnutls_record_recv(session, buffer, length)
#[uprobe]
pub fn httpmon_tls_read(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    entered(&context, KIND_RECEIVED, 0);
    0
}

// SSL_do_handshake(ssl), SSL_accept(ssl), SSL_connect(ssl), gnutls_handshake(session)
#[uprobe]
pub fn httpmon_tls_shake(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    entered(&context, KIND_RECEIVED, FLAG_NO_BUFFER);
    0
}

// SSL_write(ssl, buffer, length), SSL_write_ex(ssl, buffer, length, &count), gnutls_record_send(session, buffer, length)
#[uprobe]
pub fn httpmon_tls_write(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    entered(&context, KIND_SENT, 0);
    0
}

// SSL_sendfile(ssl, fd, offset, length, flags)
#[uprobe]
pub fn httpmon_tls_file(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    entered(&context, KIND_SENT, FLAG_SPLICED);
    0
}

#[uretprobe]
pub fn httpmon_tls_done(context: RetProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    returned(context.as_ptr(), Returns::Count, false);
    0
}

/// Where it is about to return.
#[uprobe]
pub fn httpmon_tls_will(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    returned(context.as_ptr(), Returns::Count, false);
    0
}

#[uretprobe]
pub fn httpmon_tls_done_ex(context: RetProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    returned(context.as_ptr(), Returns::Success, false);
    0
}

// SSL_free(ssl), gnutls_deinit(session)
#[uprobe]
pub fn httpmon_tls_free(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    freed(register(context.as_ptr(), abi!(parameters[0])));
    0
}

// _dl_debug_state(): the loader calls it for debuggers, when the list of what is mapped has changed.
#[uprobe]
pub fn httpmon_tls_mapped(_context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    mapped();
    0
}

/// All of the above at which a function begins, where the kernel tells which it is (`bpf_get_attach_cookie`, Linux 5.15).
#[uprobe]
pub fn httpmon_tls_enter(context: ProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    match cookie(context.as_ptr()) {
        FUNCTION_READS => entered(&context, KIND_RECEIVED, 0),
        FUNCTION_WRITES => entered(&context, KIND_SENT, 0),
        FUNCTION_WRITES_FILE => entered(&context, KIND_SENT, FLAG_SPLICED),
        FUNCTION_SHAKES_HANDS => entered(&context, KIND_RECEIVED, FLAG_NO_BUFFER),
        FUNCTION_FREES => freed(register(context.as_ptr(), abi!(parameters[0]))),
        FUNCTION_MAPPED => mapped(),
        FUNCTION_WILL_TELL_COUNT => returned(context.as_ptr(), Returns::Count, true),
        FUNCTION_GO_FREES => go::freed(&context),
        FUNCTION_GO_WROTE => go::wrote(&context, true),
        FUNCTION_RUST_DECRYPTS => rust::decrypts(&context),
        FUNCTION_RUST_ENCRYPTS => rust::encrypts(&context, true),
        FUNCTION_GO_GIVES => go::gives(&context, true),
        function @ FUNCTION_GO_READS..=FUNCTION_GO_SHAKES_HANDS => go::entered(&context, function, true),
        function @ FUNCTION_GO_DID_READ..=FUNCTION_GO_DID_SHAKE_HANDS => {
            go::returns(&context, function - FUNCTION_GO_DID, true);
        }
        _ => {}
    }
    0
}

/// And those at which it has returned.
#[uretprobe]
pub fn httpmon_tls_leave(context: RetProbeContext) -> u32 {
    keep_to_the_tasks_stack();
    match cookie(context.as_ptr()) {
        FUNCTION_RUST_DECRYPTED => rust::decrypted(&context, true),
        FUNCTION_TELLS_SUCCESS => returned(context.as_ptr(), Returns::Success, true),
        _ => returned(context.as_ptr(), Returns::Count, true),
    }
    0
}

#[inline(always)]
fn cookie(context: *mut c_void) -> u64 {
    // SAFETY: the program's own context.
    unsafe { bpf_get_attach_cookie(context) }
}

/// Another session may be at the same address soon.
#[inline(always)]
pub(crate) fn freed(address: u64) {
    let session = session(process(), address);
    if let Some(cipher) = tied(&session) {
        cipher.session = ENDED;
    }
    let _ = SESSIONS.remove(session);
}

#[inline(always)]
fn mapped() {
    let pid = process();
    // SAFETY: entries are only ever replaced whole.
    if let Some(service) = unsafe { PROCESSES.get(pid) }.map(|selected| selected.service) {
        report(PROCESS_MAPPED, pid, service, Detail::default(), Wake::Now);
    }
}

#[inline(always)]
pub(crate) fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
fn session(pid: u32, address: u64) -> Session {
    Session { pid, reserved: 0, address }
}

/// A register of the function that a probe stands at.
#[inline(always)]
pub(crate) fn register(registers: *const c_void, offset: u64) -> u64 {
    read(registers, offset)
}

/// The state of a session's connection, where that is known.
#[inline(always)]
pub(crate) fn tied(session: &Session) -> Option<&'static mut Cipher> {
    // SAFETY: entries are only ever replaced whole.
    let id = unsafe { SESSIONS.get(session) }?;
    cipher(*id)
}

#[inline(always)]
pub(crate) fn cipher(id: u64) -> Option<&'static mut Cipher> {
    // SAFETY: the table's values live while the program runs.
    CIPHERS.get_ptr_mut(id).map(|cipher| unsafe { &mut *cipher })
}

#[inline(always)]
pub(crate) fn thread(key: u64) -> Option<&'static mut Thread> {
    // SAFETY: the table's values live while the program runs.
    THREADS.get_ptr_mut(key).map(|thread| unsafe { &mut *thread })
}

/// What is known of the running thread, begun where nothing is.
#[inline(always)]
pub(crate) fn thread_or_new(key: u64) -> Option<&'static mut Thread> {
    if let Some(known) = thread(key) {
        return Some(known);
    }
    let _ = THREADS.insert(key, &NO_THREAD, 0);
    thread(key)
}

/// The address of no session: that of a connection's is free again, and only bytes that move under our eyes show another.
const ENDED: u64 = u64::MAX;

/// Nothing is known yet. Not on the stack, which is small.
static NO_THREAD: Thread = unsafe { core::mem::zeroed() };
/// The same.
static NO_CIPHER: Cipher = unsafe { core::mem::zeroed() };

/// Begins what is known of a connection that turns out to carry TLS.
pub(crate) fn began(connection: &Connection) {
    let _ = CIPHERS.insert(connection.id, &NO_CIPHER, 0);
    let Some(new) = cipher(connection.id) else {
        lost(loss::MAP_FULL);
        return;
    };
    new.plain.id = connection.id;
    new.plain.pid = connection.pid;
    new.plain.service = connection.service;
    new.plain.kind = SOCKET_CONNECTED;
    new.plain.announced = connection.announced;
    // Its end on another CPU may have come between.
    if kind(connection) != SOCKET_CONNECTED {
        forget(connection.id);
    }
}

/// What a connection is by now.
#[inline(always)]
fn kind(connection: &Connection) -> u8 {
    // SAFETY: the reference is valid.
    unsafe { (&raw const connection.kind).read_volatile() }
}

/// A function begins that moves bytes.
#[inline(always)]
fn entered(context: &ProbeContext, direction: u8, flags: u16) {
    let key = bpf_get_current_pid_tgid();
    // SAFETY: the value is never read.
    if unsafe { PROCESSES.get((key >> 32) as u32) }.is_none() {
        return;
    }
    let Some(thread) = thread_or_new(key) else { return };
    let registers = context.as_ptr();
    let stack = register(registers, abi!(stack));
    let session = register(registers, abi!(parameters[0]));
    // One of the library's functions may call another: the outer one tells what was moved.
    if thread.session == session && stack < thread.stack {
        return;
    }
    *thread = Thread {
        session,
        buffer: register(registers, abi!(parameters[1])),
        count: register(registers, abi!(parameters[3])),
        stack,
        entered: now(),
        received_on: thread.received_on,
        inside: 0,
        inside_read: 0,
        inside_arrived: 0,
        direction: direction.into(),
        flags: flags.into(),
        waiting: thread.waiting,
    };
}

/// Whether it is the thread's function that has returned, or is about to.
#[inline(always)]
pub(crate) fn is_over(thread: &Thread, registers: *const c_void) -> bool {
    const RETURN_ADDRESS: u64 = 8;
    let stack = register(registers, abi!(stack));
    thread.session != 0 && (stack == thread.stack || stack == thread.stack + RETURN_ADDRESS)
}

/// The function has returned, or is about to.
#[inline(always)]
fn returned(registers: *const c_void, returns: Returns, loops: bool) {
    let key = bpf_get_current_pid_tgid();
    let Some(thread) = thread(key) else { return };
    if !is_over(thread, registers) {
        return;
    }
    let result = register(registers, abi!(result));
    let moved = match returns {
        Returns::Count => i64::from(result as i32),
        Returns::Success if result as i32 == 1 => user::user(thread.count) as i64,
        Returns::Success => 0,
    };
    ended((key >> 32) as u32, thread, moved, loops);
}

/// The function that moved so many bytes, or none, has ended.
#[inline(always)]
pub(crate) fn ended(pid: u32, thread: &mut Thread, moved: i64, loops: bool) {
    if let Some(cipher) = over(pid, thread) {
        tell(pid, cipher, thread, moved, loops);
    }
}

/// The connection whose function has ended.
#[inline(always)]
pub(crate) fn over(pid: u32, thread: &mut Thread) -> Option<&'static mut Cipher> {
    let session = session(pid, thread.session);
    thread.session = 0;
    tie(&session, thread)
}

/// The connection of a function whose begin was not seen, and that received from it.
#[inline(always)]
pub(crate) fn unseen(thread: &mut Thread) -> Option<&'static mut Cipher> {
    let cipher = cipher(thread.received_on)?;
    thread.received_on = 0;
    thread.inside_read = 0;
    thread.direction = KIND_RECEIVED.into();
    thread.flags = 0;
    Some(cipher)
}

/// Tells of the bytes that a function moved. What moves none, as a handshake, has shown no less which connection it is.
#[inline(always)]
pub(crate) fn tell(pid: u32, cipher: &mut Cipher, thread: &Thread, moved: i64, loops: bool) {
    // SAFETY: entries are only ever replaced whole.
    let Some(service) = (unsafe { PROCESSES.get(pid) }).map(|selected| selected.service) else {
        return;
    };
    let moves = thread.flags & u32::from(FLAG_NO_BUFFER) == 0;
    if moves && moved > 0 && moved <= i64::from(i32::MAX) {
        cipher.plain.pid = pid;
        cipher.plain.service = service;
        deliver(cipher, thread, moved as u32, loops);
    }
}

/// A function begins that will send so many bytes, unless the connection breaks: they are told now, where it is known whose
/// they are.
#[inline(always)]
pub(crate) fn owes(pid: u32, thread: &mut Thread, len: u64, loops: bool) {
    if len == 0 || len > i32::MAX as u64 {
        return;
    }
    let Some(cipher) = tied(&session(pid, thread.session)) else { return };
    thread.session = 0;
    deliver(cipher, thread, len as u32, loops);
}

/// The connection of the session whose function has returned.
#[inline(always)]
fn tie(session: &Session, thread: &mut Thread) -> Option<&'static mut Cipher> {
    let cipher = connection_of(session, thread)?;
    // What it received shows of no other session whose it is.
    if thread.received_on == cipher.plain.id {
        thread.received_on = 0;
    }
    Some(cipher)
}

/// The same: that which is known, or which the thread shows.
#[inline(always)]
fn connection_of(session: &Session, thread: &Thread) -> Option<&'static mut Cipher> {
    let known = tied(session);
    if thread.inside == 0 && known.is_some() {
        return known;
    }
    let id = if thread.inside != 0 {
        thread.inside
    } else if thread.direction == u32::from(KIND_RECEIVED) {
        thread.received_on
    } else {
        return None;
    };
    let cipher = cipher(id)?;
    if cipher.session == session.address && known.is_some() {
        return Some(cipher);
    }
    // What another session is of is not this one's, unless it moved bytes under our eyes.
    if cipher.session != 0 && cipher.session != session.address && thread.inside == 0 {
        return None;
    }
    if let Some(before) = known {
        before.session = 0;
    }
    cipher.session = session.address;
    if SESSIONS.insert(session, id, 0).is_err() {
        lost(loss::MAP_FULL);
    }
    Some(cipher)
}

/// Sends clear text. `loops`: all kernels that have the hook have `bpf_loop`, from Linux 5.17.
#[inline(always)]
fn deliver(cipher: &mut Cipher, thread: &Thread, moved: u32, loops: bool) {
    let Some(limits) = LIMITS.get(0) else { return };
    let direction = thread.direction as u8;
    let mut flags = FLAG_PLAIN | thread.flags as u16;
    let (at, arrived) = if direction == KIND_RECEIVED {
        // Until the first clear text came, what was read was the handshake.
        let first = cipher.plain.received == 0;
        let times = if first && thread.inside_read != 0 {
            (thread.inside_read, thread.inside_arrived)
        } else if first || cipher.read == 0 {
            (cipher.read_last, cipher.arrived_last)
        } else {
            (cipher.read, cipher.arrived)
        };
        cipher.read = 0;
        times
    } else if cipher.sent >= thread.entered {
        (cipher.sent, 0)
    } else {
        flags |= FLAG_OWED;
        cipher.owed += enciphered(moved.into());
        (now(), 0)
    };
    cipher.plain.arrived = arrived;
    let step = transfer::step(&mut cipher.plain, moved, direction, limits);
    let shape = if flags & FLAG_SPLICED == 0 { Shape::Flat } else { Shape::None };
    let call = Call { fd: -1, shape, address: thread.buffer, parts: 0, reason: flags };
    let piece = Piece { at, moved, direction };
    let wanted = transfer::wanted(&cipher.plain, &step, &call, moved);
    let large = direction == KIND_SENT && moved > Limits::MOST && call.shape == Shape::Flat;
    if loops && large && cipher.plain.carries == CARRIES_FRAMES {
        let flags = flags | if step.turned { FLAG_TURNED } else { 0 };
        if httpmon_whole(cipher.plain.id, thread.buffer, moved.into(), at, flags.into()) != 0 {
            return;
        }
    }
    if !put_flat(&mut cipher.plain, &call, &step, &piece, wanted)
        && direction == KIND_RECEIVED
        && step.turned
        && transfer::starts_message(&call)
    {
        lost(loss::REQUESTS);
    }
}

/// Sends a record with the `wanted` bytes of one piece; whether there was room for it.
#[inline(always)]
fn put_flat(plain: &mut Connection, call: &Call, step: &Step, piece: &Piece, wanted: u32) -> bool {
    let copy = |most: u64| {
        move |to| match call.shape {
            Shape::Flat => {
                user::flat(call.address, piece.moved.into(), wanted.into(), to, most - 1, piece.at)
            }
            _ => (0, 0),
        }
    };
    if wanted < 256 {
        put::<256>(plain, call, step, piece, copy(256))
    } else if wanted < 2048 {
        put::<2048>(plain, call, step, piece, copy(2048))
    } else {
        put::<16384>(plain, call, step, piece, copy(16384))
    }
}

/// Sends clear text that a connection sent, of which so much is in one piece, and the rest out of reach. Not static, so that
/// the verifier looks at it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_piece(id: u64, address: u64, lengths: u64, at: u64, flags: u64) -> u64 {
    let (known, moved) = (lengths & 0xffff_ffff, (lengths >> 32) as u32);
    let (Some(cipher), Some(limits)) = (cipher(id), LIMITS.get(0)) else { return 0 };
    let plain = &mut cipher.plain;
    let call = Call { fd: -1, shape: Shape::Flat, address, parts: 0, reason: flags as u16 };
    let piece = Piece { at, moved, direction: KIND_SENT };
    let step = transfer::step(plain, moved, KIND_SENT, limits);
    let wanted = transfer::wanted(plain, &step, &call, moved);
    let sent = if known >= u64::from(moved) {
        put_flat(plain, &call, &step, &piece, wanted)
    } else {
        let wanted = if known < u64::from(wanted) { known } else { wanted.into() };
        put::<2048>(plain, &call, &step, &piece, |to| user::first(address, wanted, to, 2047, at))
    };
    sent.into()
}

/// The same of what is in slices, and will be sent.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_slices(id: u64, list: u64, parts: u64, skip: u64, moved: u64) -> u64 {
    send_slices(id, &Slices { list, parts, skip, moved }, false).into()
}

/// The same where the kernel has `bpf_loop`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_many_slices(id: u64, list: u64, parts: u64, skip: u64, moved: u64) -> u64 {
    send_slices(id, &Slices { list, parts, skip, moved }, true).into()
}

#[inline(always)]
fn send_slices(id: u64, slices: &Slices, loops: bool) -> bool {
    let (Some(cipher), Some(limits)) = (cipher(id), LIMITS.get(0)) else { return false };
    let plain = &mut cipher.plain;
    let (moved, at) = (slices.moved as u32, now());
    let reason = FLAG_PLAIN | FLAG_OWED;
    let call = Call { fd: -1, shape: Shape::Flat, address: 0, parts: 0, reason };
    let piece = Piece { at, moved, direction: KIND_SENT };
    let step = transfer::step(plain, moved, KIND_SENT, limits);
    let wanted = transfer::wanted(plain, &step, &call, moved);
    if wanted < 1024 {
        let copy = |to| user::slices::<1024>(slices, wanted.into(), to, at);
        put::<2048>(plain, &call, &step, &piece, copy)
    } else if loops {
        put::<ROOM_FOR_GATHERING>(plain, &call, &step, &piece, |to| user::gather_slices(slices, to, at))
    } else {
        let copy = |to| user::slices::<{ user::PIECE }>(slices, wanted.into(), to, at);
        put::<16384>(plain, &call, &step, &piece, copy)
    }
}

/// The most bytes, and a piece.
const ROOM_FOR_GATHERING: usize = 16384 + user::PIECE as usize;

/// Sends what matters of clear text that a connection sent, and that counts already, if it is whole frames of HTTP/2: then 1.
/// Not static, so that the verifier looks at it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_whole(id: u64, address: u64, moved: u64, at: u64, flags: u64) -> u64 {
    let Some(cipher) = cipher(id) else { return 0 };
    let plain = &cipher.plain;
    let call = Call { fd: -1, shape: Shape::Flat, address, parts: 0, reason: flags as u16 };
    let step = Step::of_sent(plain, moved);
    let piece = Piece { at, moved: moved as u32, direction: KIND_SENT };
    frames::carry_whole(&record(plain, &call, &step, &piece), address).into()
}

/// Some of a session's clear text.
struct Piece {
    at: u64,
    moved: u32,
    direction: u8,
}

/// Sends a record with room for `N` bytes, which `copy` puts there, and tells how many of the first and of the last; whether
/// there was room for it.
#[inline(always)]
fn put<const N: usize>(
    plain: &mut Connection,
    call: &Call,
    step: &Step,
    piece: &Piece,
    copy: impl FnOnce(*mut u8) -> (u64, u64),
) -> bool {
    let Some(mut entry) = output::reserve::<Room<N>>() else { return false };
    let room = entry.as_mut_ptr();
    // SAFETY: the record's own memory.
    unsafe {
        let bytes = (&raw mut (*room).bytes).cast::<u8>();
        let (prefix, tail) = copy(bytes);
        if user::forget(prefix, piece.at) >= 8
            && transfer::starts_frames(plain, step, bytes.cast::<[u8; 8]>().read())
        {
            plain.carries = CARRIES_FRAMES;
        }
        let data = record(plain, call, step, piece);
        (&raw mut (*room).data).write(Data { prefix: prefix as u16, tail: tail as u16, ..data });
    }
    output::submit(entry, Wake::Later);
    true
}

/// The record of some clear text, none of which is copied yet.
#[inline(always)]
fn record(plain: &Connection, call: &Call, step: &Step, piece: &Piece) -> Data {
    Data {
        header: Header {
            kind: piece.direction,
            detail: 0,
            flags: call.reason | if step.turned { FLAG_TURNED } else { 0 },
            service: plain.service,
            at: piece.at,
            connection: plain.id,
            pid: plain.pid,
            fd: -1,
        },
        offset: step.offset,
        other: step.other,
        arrived: step.arrived,
        len: piece.moved,
        prefix: 0,
        tail: 0,
    }
}

/// TLS records that went through a socket.
pub(crate) struct Moved {
    pub(crate) at: u64,
    pub(crate) len: u32,
    pub(crate) caller: Caller,
    pub(crate) direction: u8,
    /// Whether the agent was told.
    pub(crate) told: bool,
}

/// Keeps the times of TLS records that went through a socket. The agent hears of them while their connection has no
/// session, and of those that carry clear text which it was told of before.
#[inline(never)]
pub(crate) fn moved(connection: &Connection, step: &Step, moved: &Moved) {
    // None where the connection's end on another CPU came first.
    let Some(cipher) = cipher(connection.id) else { return };
    let mut tell = cipher.session == 0;
    let key = bpf_get_current_pid_tgid();
    let goroutine = go::key((key >> 32) as u32, moved.caller.goroutine);
    let mut known = thread(goroutine);
    if known.is_none() {
        // A goroutine whose function began unseen shows by what it receives whose it is, on whichever thread it goes on.
        let shows = tell && moved.direction == KIND_RECEIVED && go::makes(&moved.caller);
        known = thread_or_new(if shows { goroutine } else { key });
    }
    let Some(thread) = known else {
        lost(loss::MAP_FULL);
        return;
    };
    if moved.direction == KIND_RECEIVED {
        if step.arrived != 0 {
            cipher.arrived_last = step.arrived;
        }
        cipher.read_last = moved.at;
        if cipher.read == 0 {
            cipher.read = moved.at;
            cipher.arrived = cipher.arrived_last;
        }
        thread.received_on = connection.id;
        if thread.session != 0 && thread.inside_read == 0 {
            thread.inside_read = moved.at;
            thread.inside_arrived = cipher.arrived_last;
        }
    } else {
        cipher.sent = moved.at;
        // What was received before, within a function that reads, was the handshake.
        thread.inside_read = 0;
        tell |= cipher.owed > 0;
        let len = u64::from(moved.len);
        cipher.owed -= if len < cipher.owed { len } else { cipher.owed };
    }
    if thread.session != 0 {
        thread.inside = connection.id;
    }
    let waits = thread.waiting.session != 0 && moved.direction == KIND_SENT;
    if waits && rust::httpmon_settle(key, connection.id, moved.len.into()) != 0 {
        tell = false;
    }
    if tell && !moved.told {
        let Some(mut entry) = output::reserve::<Data>() else { return };
        // SAFETY: the record's own memory.
        unsafe {
            entry.as_mut_ptr().write(Data {
                header: Header {
                    kind: moved.direction,
                    detail: 0,
                    flags: if step.turned { FLAG_TURNED } else { 0 },
                    service: connection.service,
                    at: moved.at,
                    connection: connection.id,
                    pid: connection.pid,
                    fd: -1,
                },
                offset: step.offset,
                other: step.other,
                arrived: step.arrived,
                len: moved.len,
                prefix: 0,
                tail: 0,
            });
        }
        output::submit(entry, Wake::Later);
    }
}

/// How many bytes of clear text a connection carried each way, where that is what the agent was told of.
#[inline(always)]
pub(crate) fn carried(id: u64) -> Option<(u64, u64)> {
    let plain = &cipher(id)?.plain;
    (plain.last != 0).then_some((plain.received, plain.sent))
}

/// The connection is gone.
#[inline(always)]
pub(crate) fn forget(id: u64) {
    let Some(cipher) = cipher(id) else { return };
    let _ = SESSIONS.remove(session(cipher.plain.pid, cipher.session));
    let _ = CIPHERS.remove(id);
}
