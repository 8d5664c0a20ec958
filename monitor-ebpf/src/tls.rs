//! TLS: what the functions of a selected process's TLS library are given and give, in clear text, and which connection it
//! is of. Of what goes through the socket only times and lengths matter then.
//!
//! No library tells the connection. It is the one that moves bytes while a function runs; or, where the process moves them
//! itself and hands them to the library in memory, the one that the thread had received from before the function that
//! reads.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::bpf_get_attach_cookie,
    macros::{uprobe, uretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use monitor_ebpf::{
    config::{
        Choices, Cipher, Connection, FUNCTION_FREES, FUNCTION_GO_DID, FUNCTION_GO_DID_READ,
        FUNCTION_GO_DID_SHAKE_HANDS, FUNCTION_GO_FREES, FUNCTION_GO_GIVES, FUNCTION_GO_READS,
        FUNCTION_GO_SHAKES_HANDS, FUNCTION_GO_WROTE, FUNCTION_MAPPED, FUNCTION_READS,
        FUNCTION_RUST_DECRYPTED, FUNCTION_RUST_DECRYPTS, FUNCTION_RUST_ENCRYPTS, FUNCTION_SHAKES_HANDS,
        FUNCTION_TELLS_SUCCESS, FUNCTION_WILL_TELL_COUNT, FUNCTION_WRITES, FUNCTION_WRITES_FILE,
        SOCKET_CONNECTED, Session, Thread, loss,
    },
    record::{
        Data, FLAG_NO_BUFFER, FLAG_SPLICED, FLAG_TURNED, Header, KIND_RECEIVED, KIND_SENT, PROCESS_MAPPED,
    },
};

use crate::{
    clear, go,
    kernel::{current_process, current_thread, now, process_of, read},
    maps::{CIPHERS, PROCESSES, SESSIONS, THREADS, lost, setting},
    output::{self, Wake},
    processes::{Detail, report},
    rust,
    transfer::Step,
    user::{self, Caller, abi},
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

/// Has a program at a function run on the running task's stack. From Linux 6.13 the kernel gives those with large frames a
/// stack for each CPU (`bpf_enable_priv_stack`, kernel/bpf/verifier.c), since it runs no program where the same one is under
/// way; but at functions it does (`uprobe_prog_run`, kernel/trace/bpf_trace.c), where it preempts one for another task, and
/// both would use that stack. A program that may go over into another one (`bpf_tail_call`) gets none. The verifier doesn't
/// come to the call that says so, and it is taken out: these programs are loaded only where TLS is read.
#[inline(always)]
pub(crate) fn keep_to_the_tasks_stack() {
    if setting!(CHOICES: Choices, tls) == 0 {
        // SAFETY: never reached.
        unsafe {
            asm!("call 12", out("r0") _, out("r1") _, out("r2") _, out("r3") _, out("r4") _, out("r5") _)
        };
    }
}

#[inline(always)]
fn cookie(context: *mut c_void) -> u64 {
    // SAFETY: the program's own context.
    unsafe { bpf_get_attach_cookie(context) }
}

/// Another session may be at the same address soon.
#[inline(always)]
pub(crate) fn freed(address: u64) {
    let session = session(current_process(), address);
    if let Some(cipher) = tied(&session) {
        cipher.session = ENDED;
    }
    let _ = SESSIONS.remove(session);
}

#[inline(always)]
fn mapped() {
    let pid = current_process();
    if let Some(service) = service(pid) {
        report(PROCESS_MAPPED, pid, service, Detail::default(), Wake::Now);
    }
}

/// The service of a process, if it is selected.
#[inline(always)]
pub(crate) fn service(pid: u32) -> Option<u32> {
    // SAFETY: entries are only ever replaced whole.
    unsafe { PROCESSES.get(pid) }.map(|selected| selected.service)
}

/// A library's name for a connection.
#[inline(always)]
pub(crate) fn session(pid: u32, address: u64) -> Session {
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
    new.plain.used_by(connection.pid, connection.service);
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
    let key = current_thread();
    if service(process_of(key)).is_none() {
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
    let key = current_thread();
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
    ended(process_of(key), thread, moved, loops);
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
    shown(&session, thread)
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
    let Some(service) = service(pid) else { return };
    let moves = thread.flags & u32::from(FLAG_NO_BUFFER) == 0;
    if moves && moved > 0 && moved <= i64::from(i32::MAX) {
        cipher.plain.used_by(pid, service);
        clear::deliver(cipher, thread, moved as u32, loops);
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
    clear::deliver(cipher, thread, len as u32, loops);
}

/// The connection of the session whose function has returned.
#[inline(always)]
fn shown(session: &Session, thread: &mut Thread) -> Option<&'static mut Cipher> {
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
    tie(session, cipher);
    Some(cipher)
}

/// From now on it is known which connection a session is of.
#[inline(always)]
pub(crate) fn tie(session: &Session, cipher: &mut Cipher) {
    cipher.session = session.address;
    if SESSIONS.insert(session, cipher.plain.id, 0).is_err() {
        lost(loss::MAP_FULL);
    }
}

/// TLS records that went through a socket.
pub(crate) struct Moved {
    pub(crate) at: u64,
    pub(crate) len: u32,
    pub(crate) direction: u8,
    /// Whether the agent was told.
    pub(crate) told: bool,
}

/// The thread that moves bytes, or the goroutine. `shows`: one whose function began unseen shows by what it receives whose it
/// is, on whichever thread it goes on. A function of its own, for the stack's sake.
#[inline(never)]
fn mover(caller: Caller, shows: bool) -> Option<&'static mut Thread> {
    let key = current_thread();
    let goroutine = go::key(key, caller.goroutine);
    if let Some(known) = thread(goroutine) {
        return Some(known);
    }
    thread_or_new(if shows && go::makes(caller) { goroutine } else { key })
}

/// Keeps the times of TLS records that went through a socket. The agent hears of them while their connection has no
/// session, and of those that carry clear text which it was told of before.
#[inline(never)]
pub(crate) fn moved(connection: &Connection, step: &Step, moved: &Moved, caller: Caller) {
    // None where the connection's end on another CPU came first.
    let Some(cipher) = cipher(connection.id) else { return };
    let mut tell = cipher.session == 0;
    let Some(thread) = mover(caller, tell && moved.direction == KIND_RECEIVED) else {
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
    if waits && rust::httpmon_settle(connection.id, moved.len.into()) != 0 {
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
