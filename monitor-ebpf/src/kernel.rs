//! Reading the running kernel's structures, in the two ways that hooks allow.

use core::{ffi::c_void, ptr};

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_probe_read_kernel,
    generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_sk_storage_get},
};
use monitor_ebpf::{
    config::{Choices, Connection, Port, SOCKET_CONNECTED, SOCKET_LISTENS},
    record::FAMILY_UNIX,
};

use crate::maps::{PORTS, SOCKETS, STORAGE, offset, setting};

/// `PF_EXITING` in `task_struct.flags` (include/linux/sched.h).
const PF_EXITING: u32 = 0x4;

/// include/uapi/linux/stat.h
const S_IFMT: u16 = 0o170_000;
/// include/uapi/linux/stat.h
const S_IFSOCK: u16 = 0o140_000;

/// How a hook gives its socket.
pub(crate) trait Flavour {
    /// Reads a field of the socket or of what it points to.
    ///
    /// # Safety
    /// `base` is the hook's socket, or came from this function.
    unsafe fn field<T: Copy>(base: *const c_void, offset: u64) -> T;

    /// What is known of a connection whose last user was this process, selected as it is now; none where finding that
    /// is no cheaper than looking the process up.
    fn remembered(socket: *const c_void, pid: u32, epoch: u32) -> Option<&'static mut Connection>;

    /// What is known of a socket.
    fn known(socket: *const c_void) -> Option<&'static mut Connection>;

    /// A new connection's state as its listening socket left it, where a selected process listens.
    fn newborn(socket: *const c_void) -> Option<&'static mut Connection>;

    /// A selected process began to listen, or ceased.
    fn listens(socket: *const c_void, listener: Option<&Connection>);

    /// The same, begun as `new` where nothing is known yet, neither of it nor of another that had its address before.
    fn known_or(socket: *const c_void, new: &mut Connection) -> Option<&'static mut Connection>;

    /// What tells a unix socket from the one that had its address before, where the flavour needs that; else 0.
    fn generation(socket: *const c_void, family: u16) -> u32;

    /// Whether what is known is of another socket that had the same address before.
    fn is_stale(socket: *const c_void, known: &Connection) -> bool;

    /// The socket is gone.
    fn forget(socket: *const c_void);
}

/// `tp_btf`: the verifier knows the pointers' types, so that fields are plain loads.
pub(crate) enum Typed {}

impl Flavour for Typed {
    #[inline(always)]
    unsafe fn field<T: Copy>(base: *const c_void, offset: u64) -> T {
        // SAFETY: the verifier checked type and offset; a fault reads as 0.
        unsafe { load(base, offset) }
    }

    #[inline(always)]
    fn remembered(socket: *const c_void, pid: u32, epoch: u32) -> Option<&'static mut Connection> {
        Self::known(socket)
            .filter(|known| known.pid == pid && known.epoch == epoch && known.kind == SOCKET_CONNECTED)
    }

    #[inline(always)]
    fn known(socket: *const c_void) -> Option<&'static mut Connection> {
        // Most of the host's sockets have no storage at all.
        // SAFETY: a field of the hook's socket.
        if unsafe { load::<*const c_void>(socket, offset!(sock_storage)) }.is_null() {
            return None;
        }
        // SAFETY: the helper returns the socket's own storage, or null.
        unsafe {
            bpf_sk_storage_get(STORAGE.as_ptr(), socket.cast_mut(), ptr::null_mut(), 0)
                .cast::<Connection>()
                .as_mut()
        }
    }

    #[inline(always)]
    fn known_or(socket: *const c_void, new: &mut Connection) -> Option<&'static mut Connection> {
        const CREATE: u64 = 1;
        // SAFETY: as above; `new` is on the stack and as large as the map's values.
        let created = unsafe {
            bpf_sk_storage_get(STORAGE.as_ptr(), socket.cast_mut(), ptr::from_mut(new).cast(), CREATE)
                .cast::<Connection>()
                .as_mut()
        };
        // Another CPU may have been faster: bytes arrive while they are read.
        created.or_else(|| Self::known(socket))
    }

    #[inline(always)]
    fn newborn(socket: *const c_void) -> Option<&'static mut Connection> {
        // The kernel copies the storage with the socket.
        Self::known(socket).filter(|known| known.kind == SOCKET_LISTENS)
    }

    #[inline(always)]
    fn listens(socket: *const c_void, listener: Option<&Connection>) {
        if let Some(listener) = listener {
            Self::known_or(socket, &mut { *listener });
        }
    }

    #[inline(always)]
    fn generation(_socket: *const c_void, _family: u16) -> u32 {
        0
    }

    #[inline(always)]
    fn is_stale(_socket: *const c_void, _known: &Connection) -> bool {
        false
    }

    #[inline(always)]
    fn forget(_socket: *const c_void) {}
}

/// The socket is a number to the verifier, as in classic tracepoints, which kernels from 7.1 run without losing any; or
/// other programs know it only as a number, so that its state can't be in the socket.
pub(crate) enum Untyped {}

impl Flavour for Untyped {
    #[inline(always)]
    unsafe fn field<T: Copy>(base: *const c_void, offset: u64) -> T {
        read(base, offset)
    }

    #[inline(always)]
    fn remembered(_socket: *const c_void, _pid: u32, _epoch: u32) -> Option<&'static mut Connection> {
        None
    }

    #[inline(always)]
    fn known(socket: *const c_void) -> Option<&'static mut Connection> {
        // SAFETY: the table's values live while the program runs.
        SOCKETS.get_ptr_mut(socket as u64).map(|known| unsafe { &mut *known })
    }

    #[inline(always)]
    fn known_or(socket: *const c_void, new: &mut Connection) -> Option<&'static mut Connection> {
        const NOEXIST: u64 = 1;
        // What another CPU knows already stays: bytes arrive while the socket is accepted, and they are read.
        if let Some(known) = Self::known(socket) {
            return Some(known);
        }
        let _ = SOCKETS.insert(socket as u64, &*new, NOEXIST);
        Self::known(socket)
    }

    #[inline(always)]
    fn newborn(socket: *const c_void) -> Option<&'static mut Connection> {
        // SAFETY: entries are only ever replaced whole.
        let listener = unsafe { PORTS.get(place(socket)) }?;
        // An old socket may have been at this address.
        SOCKETS.insert(socket as u64, listener, 0).ok()?;
        Self::known(socket)
    }

    #[inline(always)]
    fn listens(socket: *const c_void, listener: Option<&Connection>) {
        let place = place(socket);
        let _ = match listener {
            Some(listener) => PORTS.insert(place, listener, 0),
            None => PORTS.remove(place),
        };
    }

    #[inline(always)]
    fn generation(socket: *const c_void, family: u16) -> u32 {
        if family == FAMILY_UNIX { inode::<Self>(socket) as u32 } else { 0 }
    }

    #[inline(always)]
    fn is_stale(socket: *const c_void, known: &Connection) -> bool {
        // Only unix sockets', whose end fires no hook, have one.
        known.inode != 0 && known.inode != inode::<Self>(socket) as u32
    }

    #[inline(always)]
    fn forget(socket: *const c_void) {
        let _ = SOCKETS.remove(socket as u64);
    }
}

/// Where a TCP socket is bound.
#[inline(always)]
fn place(socket: *const c_void) -> Port {
    let namespace = read::<*const c_void>(socket, offset!(sock_net));
    Port {
        namespace: if setting!(CHOICES: Choices, namespaces_by_inode) == 0 {
            read(namespace, offset!(net_cookie))
        } else {
            read::<u32>(namespace, offset!(net_inode)).into()
        },
        port: read::<u16>(socket, offset!(sock_num)).into(),
    }
}

/// A plain load from a typed pointer.
///
/// # Safety
/// The verifier knows the type of `base`.
#[inline(always)]
pub(crate) unsafe fn load<T: Copy>(base: *const c_void, offset: u64) -> T {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(base.cast::<u8>().wrapping_add(offset as usize).cast::<T>()) }
}

/// A checked read of kernel memory; zeroes where it can't be read.
#[inline(always)]
pub(crate) fn read<T: Copy>(base: *const c_void, offset: u64) -> T {
    // SAFETY: the helper checks the address; all types read here are plain numbers and pointers.
    unsafe {
        bpf_probe_read_kernel(base.cast::<u8>().wrapping_add(offset as usize).cast::<T>())
            .unwrap_or_else(|_| core::mem::zeroed())
    }
}

/// The running task, as a typed pointer: from Linux 5.11.
#[inline(always)]
pub(crate) fn current() -> *const c_void {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_task_btf().cast() }
}

/// A task's process (thread group), by its number on the host.
///
/// # Safety
/// `task` is typed.
#[inline(always)]
pub(crate) unsafe fn group_of(task: *const c_void) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { load(task, offset!(task_tgid)) }
}

/// The running task, as a number.
#[inline(always)]
pub(crate) fn current_untyped() -> *const c_void {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_task() as *const c_void }
}

/// The running thread: its process (thread group) in the upper half. Both by their numbers on the host, which the agent may
/// know by others.
#[inline(always)]
pub(crate) fn current_thread() -> u64 {
    bpf_get_current_pid_tgid()
}

/// The running thread's process, by its number on the host.
#[inline(always)]
pub(crate) fn on_host(thread: u64) -> u32 {
    (thread >> 32) as u32
}

/// The running thread's process, by the number that it has for the agent; 0 where it has none.
#[inline(always)]
pub(crate) fn process_of(thread: u64) -> u32 {
    known_as(on_host(thread))
}

/// The same, of which the number on the host is known.
#[inline(always)]
pub(crate) fn known_as(on_host: u32) -> u32 {
    if setting!(CHOICES: Choices, pid_namespace) == 0 { on_host } else { httpmon_process() as u32 }
}

/// The running process, by the number that it has for the agent; 0 where it has none.
#[inline(always)]
pub(crate) fn current_process() -> u32 {
    process_of(current_thread())
}

/// The same, where the agent doesn't know processes by their numbers on the host.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_process() -> u64 {
    let leader = read::<*const c_void>(current_untyped(), offset!(task_group_leader));
    number(read(leader, offset!(task_thread_pid)))
}

/// The number that a process has for the agent, by its `struct pid`; 0 where it has none.
#[inline(always)]
pub(crate) fn numbered(pid: *const c_void) -> u32 {
    if setting!(CHOICES: Choices, pid_namespace) == 0 {
        read(pid, offset!(pid_numbers) + offset!(upid_number))
    } else {
        httpmon_number(pid as u64) as u32
    }
}

/// The same, where that isn't the number on the host.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_number(pid: u64) -> u64 {
    number(pid as *const c_void)
}

/// A process has a number in its PID namespace and in each of those around it.
#[inline(always)]
fn number(pid: *const c_void) -> u64 {
    /// `MAX_PID_NS_LEVEL` (include/linux/pid_namespace.h).
    const MOST_LEVELS: u64 = 32;
    /// The size of a `struct upid` (include/linux/pid.h): the same on all 64-bit architectures.
    const STEP: u64 = 16;
    let level = u64::from(read::<u32>(pid, offset!(pid_level)));
    for outwards in 0..=MOST_LEVELS {
        if outwards > level {
            break;
        }
        let at = offset!(pid_numbers) + (level - outwards) * STEP;
        let namespace = read::<*const c_void>(pid, at + offset!(upid_namespace));
        if read::<u32>(namespace, offset!(pid_namespace_inode)) == setting!(CHOICES: Choices, pid_namespace) {
            return read::<u32>(pid, at + offset!(upid_number)).into();
        }
    }
    0
}

/// A process that the running one just forked, by the number that it has for the agent, of which the one on the host is
/// known; 0 where it has none.
#[inline(always)]
pub(crate) fn child_known_as(on_host: u32) -> u32 {
    if setting!(CHOICES: Choices, pid_namespace) == 0 {
        on_host
    } else {
        httpmon_child(on_host.into()) as u32
    }
}

/// The same, where the agent doesn't know processes by their numbers on the host. A child comes last in its parent's list
/// (kernel/fork.c, `copy_process`), unless a thread that ended left its own to the parent; and the parent may be that of the
/// running process (`CLONE_PARENT`).
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_child(on_host: u64) -> u64 {
    const MOST: u64 = 16;
    let running = current_untyped();
    for parents in [false, true] {
        let parent = if parents { read(running, offset!(task_real_parent)) } else { running };
        let list = parent.wrapping_byte_add(offset!(task_children) as usize);
        let mut link = list;
        for _ in 0..MOST {
            link = read(link, offset!(list_prev));
            if link == list {
                break;
            }
            let child = link.wrapping_byte_sub(offset!(task_sibling) as usize);
            if u64::from(read::<u32>(child, offset!(task_pid))) == on_host {
                return number(read(child, offset!(task_thread_pid)));
            }
        }
    }
    0
}

/// The running task's exit code, when it is exiting.
#[inline(always)]
pub(crate) fn exiting() -> Option<u32> {
    let task = current_untyped();
    let flags = read::<u32>(task, offset!(task_flags));
    (flags & PF_EXITING != 0).then(|| read::<u32>(task, offset!(task_exit_code)))
}

/// A name for a connection: two are never first seen within 1024 ns on one CPU.
#[inline(always)]
pub(crate) fn connection_id(at: u64) -> u64 {
    // SAFETY: no arguments.
    (at & !1023) | u64::from(unsafe { bpf_get_smp_processor_id() } & 1023)
}

/// The file that the running process has open under a descriptor; null where there is none.
#[inline(always)]
pub(crate) fn open_file(descriptor: u32) -> *const c_void {
    let files = read::<*const c_void>(current_untyped(), offset!(task_files));
    let table = read::<*const c_void>(files, offset!(files_fdt));
    let open = read::<*const c_void>(table, offset!(fdtable_fd));
    read(open, u64::from(descriptor) * 8)
}

/// The socket (`struct sock`) behind an open file; null where the file is something else.
#[inline(always)]
pub(crate) fn socket_of(file: *const c_void) -> *const c_void {
    let inode = read::<*const c_void>(file, offset!(file_inode));
    if read::<u16>(inode, offset!(inode_mode)) & S_IFMT != S_IFSOCK {
        return ptr::null();
    }
    let socket = read::<*const c_void>(file, offset!(file_private_data));
    read(socket, offset!(socket_sk))
}

/// The open file behind a socket; null before `accept`.
#[inline(always)]
pub(crate) fn file<F: Flavour>(socket: *const c_void) -> *const c_void {
    // SAFETY: a field of the hook's socket, and of what it points to.
    unsafe {
        let held = F::field::<*const c_void>(socket, offset!(sock_socket));
        if held.is_null() { held } else { F::field(held, offset!(socket_file)) }
    }
}

/// The socket's inode number; 0 before `accept`.
#[inline(always)]
pub(crate) fn inode<F: Flavour>(socket: *const c_void) -> u64 {
    let file = file::<F>(socket);
    if file.is_null() {
        return 0;
    }
    let inode = read::<*const c_void>(file, offset!(file_inode));
    read(inode, offset!(inode_ino))
}

/// The monotonic clock.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_ns() }
}

/// A field of a classic tracepoint's record.
macro_rules! record_field {
    ($context:ident, $offset:literal, $type:ty) => {
        // SAFETY: the offset is one of the record's fields, by its format file.
        unsafe {
            core::ptr::read_volatile(
                aya_ebpf::EbpfContext::as_ptr(&$context).cast::<u8>().add($offset).cast::<$type>(),
            )
        }
    };
}
pub(crate) use record_field;
