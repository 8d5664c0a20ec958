//! Finding and copying the buffer of the system call that is running: after the operation its bytes are still
//! in user memory, and resident.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user, bpf_task_pt_regs};
use monitor_ebpf::{
    config::{Connection, Limits},
    record::{FLAG_NO_BUFFER, FLAG_SPLICED, KIND_SENT, TAIL},
};

use crate::{
    kernel::{Flavour, current, file, load, read},
    maps::{SCRATCH, Scratch, offset},
};

/// How many parts of a vector are looked at.
const MAX_PARTS: u64 = 8;

/// How many parts of a vector the kernel takes (`UIO_MAXIOV`, include/uapi/linux/uio.h).
const MOST_PARTS: u64 = 1024;

/// A part's bytes are copied in pieces of less than this, as the verifier wants it.
pub(crate) const PIECE: u64 = 8192;

/// One less than the most bytes that are copied.
const MASK: u64 = Limits::MOST as u64 - 1;

/// How many pieces more than parts there can be.
const MOST_PIECES: u64 = Limits::MOST as u64 / (PIECE - 1) + 1;

/// Where `struct user_msghdr` (include/linux/socket.h) has its vector, and after it the vector's length: the same on all
/// 64-bit architectures.
pub(crate) const MESSAGE_VECTOR: u64 = 16;

/// include/uapi/linux/sched.h
const CLONE_THREAD: u64 = 0x10000;

/// How an operation's bytes lie in user memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Out of reach.
    None,
    /// In one piece.
    Flat,
    /// In the parts of a vector.
    Vector,
}

/// What the running system call was given. Every field has a value in every case, as the verifier wants it.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// The file descriptor that it names, -1 where it is not known to be this socket's.
    pub(crate) fd: i32,
    /// How the bytes lie.
    pub(crate) shape: Shape,
    /// The piece, or the vector.
    pub(crate) address: u64,
    /// The vector's length.
    pub(crate) parts: u64,
    /// The record flag that says why they are out of reach.
    pub(crate) reason: u16,
}

impl Call {
    /// Bytes in one piece that no system call names, with these record flags.
    pub(crate) const fn flat(address: u64, flags: u16) -> Self {
        Self { fd: -1, shape: Shape::Flat, address, parts: 0, reason: flags }
    }

    pub(crate) const fn without_buffer(reason: u16) -> Self {
        Self { fd: -1, shape: Shape::None, address: 0, parts: 0, reason }
    }
}

macro_rules! abi {
    ($($field:tt)+) => {
        crate::maps::setting!(ABI: monitor_ebpf::config::Abi, $($field)+)
    };
}
pub(crate) use abi;

/// A task's registers in user mode, by this architecture's layout; as a typed pointer.
#[inline(always)]
pub(crate) fn registers_of(task: *const c_void) -> *const c_void {
    // SAFETY: the verifier takes none but a typed task.
    unsafe { bpf_task_pt_regs(task.cast_mut().cast()) as *const c_void }
}

/// Whether the running system call makes a thread rather than a process.
#[inline(always)]
pub(crate) fn makes_thread() -> bool {
    let registers = registers_of(current());
    // SAFETY: registers of this architecture, by its layout.
    let (number, first) =
        unsafe { (load::<u64>(registers, abi!(number)), load::<u64>(registers, abi!(arguments[0]))) };
    let flags = if number == abi!(clone) {
        first
    } else if number == abi!(clone3) {
        user(first)
    } else {
        0
    };
    flags & CLONE_THREAD != 0
}

/// Who made a system call, if one of Go's goroutines did.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    /// The register in which Go has the running goroutine.
    pub(crate) goroutine: u64,
    /// The stack pointer.
    pub(crate) stack: u64,
}

impl Caller {
    /// By the registers of the system call.
    ///
    /// # Safety
    /// They are of this architecture, by its layout.
    #[inline(always)]
    pub(crate) unsafe fn of(registers: *const c_void) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { goroutine: load(registers, abi!(goroutine)), stack: load(registers, abi!(stack)) } }
    }

    /// By the task that makes it.
    #[inline(always)]
    pub(crate) fn running(task: *const c_void) -> Self {
        // SAFETY: they are a task's.
        unsafe { Self::of(registers_of(task)) }
    }
}

/// Reads the running system call's arguments, if it is one on this socket: in `io_uring`'s worker threads and
/// deferred work the registers belong to something else.
#[inline(always)]
pub(crate) fn call<F: Flavour>(
    task: *const c_void,
    socket: *const c_void,
    connection: &mut Connection,
    direction: u8,
) -> Call {
    let registers = registers_of(task);
    // SAFETY: registers of this architecture, by its layout.
    let register = |at: u64| unsafe { load::<u64>(registers, at) };
    let unreadable = Call::without_buffer(FLAG_NO_BUFFER);
    if register(abi!(width)) & abi!(width_mask) != abi!(width_64) {
        return unreadable;
    }
    let number = register(abi!(number));
    let second = register(abi!(arguments[1]));
    let third = || register(abi!(arguments[2]));
    // The tables have the calls that receive, each followed by its like that sends.
    let which = usize::from(direction == KIND_SENT);
    let (shape, address, parts) = if number == abi!(flat[which]) || number == abi!(flat[2 + which]) {
        (Shape::Flat, second, 0)
    } else if number == abi!(vectored[which]) || number == abi!(vectored[2 + which]) {
        (Shape::Vector, second, third())
    } else if number == abi!(message[which]) || (number == abi!(messages[which]) && third() == 1) {
        let [vector, len] = words(second.wrapping_add(MESSAGE_VECTOR));
        (Shape::Vector, vector, len)
    } else if number == abi!(spliced[0]) || number == abi!(spliced[1]) {
        return Call::without_buffer(FLAG_SPLICED);
    } else {
        return unreadable;
    };
    let fd = register(abi!(arguments[0])) as u32;
    if connection.descriptor != fd.wrapping_add(1) {
        if !names::<F>(task, fd, socket) {
            return unreadable;
        }
        connection.descriptor = fd.wrapping_add(1);
    }
    Call { fd: fd as i32, shape, address, parts, reason: 0 }
}

/// Whether a file descriptor of the running task is this socket's.
#[inline(always)]
fn names<F: Flavour>(task: *const c_void, fd: u32, socket: *const c_void) -> bool {
    // SAFETY: `task` is typed.
    let table = unsafe {
        let files = load::<*const c_void>(task, offset!(task_files));
        if files.is_null() {
            return false;
        }
        load::<*const c_void>(files, offset!(files_fdt))
    };
    if table.is_null() {
        return false;
    }
    // SAFETY: `table` was loaded from a typed pointer.
    let open = unsafe { load::<*const c_void>(table, offset!(fdtable_fd)) };
    let named = read::<*const c_void>(open, u64::from(fd) * 8);
    !named.is_null() && named == file::<F>(socket)
}

/// Words of user memory, such as a vector's part: where it is, and how long; 0 where they can't be read.
#[inline(always)]
pub(crate) fn words<const N: usize>(address: u64) -> [u64; N] {
    let mut words = MaybeUninit::<[u64; N]>::uninit();
    // SAFETY: the helper checks the address, and fills the words in every case.
    unsafe {
        bpf_probe_read_user(words.as_mut_ptr().cast(), 8 * N as u32, address as *const c_void);
        words.assume_init()
    }
}

/// One word of user memory; 0 where it can't be read.
#[inline(always)]
pub(crate) fn user(address: u64) -> u64 {
    let [word] = words(address);
    word
}

/// Makes the verifier forget what it knows of a value, so that paths which differ only in that become one.
#[inline(always)]
pub(crate) fn forget(value: u64, unknown: u64) -> u64 {
    let mut value = value;
    // SAFETY: the value comes out as it went in.
    unsafe {
        core::arch::asm!("{0} ^= {1}", "{0} ^= {1}", inout(reg) value, in(reg) unknown, options(nomem, nostack));
    }
    value
}

/// At most `mask` (one less than a power of two), in a way that the verifier sees with no path of its own.
#[inline(always)]
pub(crate) fn bounded(value: u64, mask: u64, unknown: u64) -> u64 {
    let value = if value > mask { mask } else { value };
    let mut value = forget(value, unknown);
    // SAFETY: the bits that this clears are clear already.
    unsafe { core::arch::asm!("{0} &= {1}", inout(reg) value, in(reg) mask, options(nomem, nostack)) };
    value
}

/// Copies an operation's first bytes, and behind them its last ones, to the scratch that `which` says, whose record is the
/// operation's.
///
/// `wanted` bytes (less than [`Limits::MOST`]) are to be copied of those that went through the socket. Returns how many of
/// the first and of the last were copied. `unknown` is any number that the verifier does not know.
#[inline(always)]
pub(crate) fn copy(call: &Call, scratch: *mut Scratch, which: u32, wanted: u64, unknown: u64) -> (u64, u64) {
    let (prefix, tail) = match call.shape {
        Shape::None => (0, 0),
        Shape::Flat => {
            // SAFETY: the caller's own slot.
            let (moved, to) = unsafe { ((*scratch).data.len.into(), (&raw mut (*scratch).bytes).cast()) };
            flat(call.address, moved, wanted, to, MASK, unknown)
        }
        Shape::Vector => {
            let copied = httpmon_vector(which.into(), call.address, call.parts, wanted, unknown);
            (copied & 0xffff_ffff, copied >> 32)
        }
    };
    // However they were copied, it is the same from here on.
    (bounded(prefix, MASK, unknown), bounded(tail, TAIL as u64 - 1, unknown))
}

/// The same for a vector: the first ones in the lower half of what it returns, the last ones in the upper. Not static, so
/// that the verifier looks at it once, for any arguments, and not for each way that leads here.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_vector(which: u64, vector: u64, parts: u64, wanted: u64, unknown: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(which as u32 & 1) else { return 0 };
    // SAFETY: the slot is the calling program's own while it runs.
    let (moved, to) = unsafe { (u64::from((*scratch).data.len), (&raw mut (*scratch).bytes).cast::<u8>()) };
    let mut copying = Copying::<PIECE> { prefix: 0, seen: 0, kept: 0, whole: true };
    // Most vectors have one part or two, which are looked up together.
    let [address, len, next @ ..] = if parts > 1 {
        words::<4>(vector)
    } else {
        let [address, len] = words(vector);
        [address, len, 0, 0]
    };
    copying.part(address, len, moved, wanted, to, unknown);
    if parts > 1 && copying.seen < moved {
        copying.forget(unknown);
        let [address, len] = next;
        copying.part(address, len, moved, wanted, to, unknown);
    }
    for index in 2..MAX_PARTS {
        if index >= parts || copying.seen >= moved {
            break;
        }
        copying.forget(unknown);
        let [address, len] = words(vector.wrapping_add(index * 16));
        copying.part(address, len, moved, wanted, to, unknown);
    }
    copying.prefix & 0xffff_ffff | copying.kept << 32
}

/// Copies the first and the last bytes of one piece to a room of `mask`, one and [`TAIL`] bytes.
#[inline(always)]
pub(crate) fn flat(
    address: u64,
    moved: u64,
    wanted: u64,
    to: *mut u8,
    mask: u64,
    unknown: u64,
) -> (u64, u64) {
    let len = bounded(wanted, mask, unknown);
    let prefix = copy_piece(to, len, address);
    if prefix == moved {
        return (prefix, 0);
    }
    (prefix, end(to, prefix, address, moved, moved.wrapping_sub(prefix), unknown))
}

/// Copies the first bytes of one piece.
#[inline(always)]
pub(crate) fn first(address: u64, wanted: u64, to: *mut u8, mask: u64, unknown: u64) -> (u64, u64) {
    (copy_piece(to, bounded(wanted, mask, unknown), address), 0)
}

/// Bytes in memory as Rust's slices of slices are, which is as vectors are, of which the first ones don't belong to the
/// operation.
#[derive(Clone, Copy)]
pub(crate) struct Slices {
    pub(crate) list: u64,
    pub(crate) parts: u64,
    pub(crate) skip: u64,
    pub(crate) moved: u64,
}

impl Slices {
    /// What of the part that is told at `at` belongs to the operation.
    #[inline(always)]
    fn part(&mut self, at: u64, unknown: u64) -> [u64; 2] {
        let [address, len] = words(at);
        let skipped = if self.skip < len { self.skip } else { len };
        self.skip = forget(self.skip - skipped, unknown);
        [address.wrapping_add(skipped), len - skipped]
    }
}

/// Copies the first and the last bytes of few slices to a room of twice `HALF`, and [`TAIL`] bytes.
#[inline(always)]
pub(crate) fn slices<const HALF: u64>(
    mut slices: Slices,
    wanted: u64,
    to: *mut u8,
    unknown: u64,
) -> (u64, u64) {
    let Slices { list, parts, moved, .. } = slices;
    let mut copying = Copying::<HALF> { prefix: 0, seen: 0, kept: 0, whole: true };
    for index in 0..MAX_PARTS {
        if index >= parts || copying.seen >= moved {
            break;
        }
        copying.forget(unknown);
        let [address, len] = slices.part(list.wrapping_add(index * 16), unknown);
        copying.part(address, len, moved, wanted, to, unknown);
    }
    (copying.prefix, copying.kept)
}

/// The same of any number of slices, to a room of [`Limits::MOST`] and [`PIECE`], and [`TAIL`] bytes.
#[inline(always)]
pub(crate) fn gather_slices(mut slices: Slices, to: *mut u8, unknown: u64) -> (u64, u64) {
    let Slices { list, parts, moved, .. } = slices;
    let moved = forget(moved, unknown);
    let wanted = forget(if moved < MASK { moved } else { MASK }, unknown);
    let mut gathering = Gathering { next: list, address: 0, len: 0, left: moved, wanted, copied: 0, to };
    for index in 0..MAX_PARTS {
        if index >= parts || slices.skip == 0 {
            break;
        }
        let part = slices.part(gathering.next, unknown);
        gathering.goes_on(part);
    }
    // More slices before it are not looked at.
    if slices.skip != 0 {
        return (0, 0);
    }
    gathering.run(parts);
    let prefix = bounded(gathering.copied, MASK, unknown);
    if gathering.left == 0 {
        return (prefix, 0);
    }
    // No message is longer by more than one byte.
    if gathering.len == 0 {
        gathering.load();
    }
    (prefix, end(to, prefix, gathering.address, gathering.len, gathering.left, unknown))
}

/// How far copying a vector's parts has come, to a room of twice `HALF`.
struct Copying<const HALF: u64> {
    /// How many of the operation's first bytes are copied.
    prefix: u64,
    /// How many bytes the parts so far hold.
    seen: u64,
    /// How many of its last bytes are copied.
    kept: u64,
    /// Whether all bytes of the parts so far are copied.
    whole: bool,
}

impl<const HALF: u64> Copying<HALF> {
    /// Copies the next part's bytes. A part begins in the first half of the room and is at most as long as the other, as
    /// the verifier wants it.
    #[inline(always)]
    fn part(&mut self, address: u64, len: u64, moved: u64, wanted: u64, to: *mut u8, unknown: u64) {
        let mask = HALF - 1;
        let left = moved - self.seen;
        let part = if len > left { left } else { len };
        self.seen += part;
        if self.whole && self.prefix < wanted {
            let at = bounded(self.prefix, mask, unknown);
            let fits = bounded(part, mask, unknown);
            // SAFETY: `at` and `fits` are each less than half of the room.
            let copied = copy_piece(unsafe { to.add(at as usize) }, fits, address);
            self.prefix = at + copied;
            self.whole = copied == part && self.prefix < mask;
        }
        if self.seen == moved && self.prefix < moved {
            let at = bounded(self.prefix, 2 * HALF - 1, unknown);
            self.kept = end(to, at, address, part, moved - self.prefix, unknown);
        }
    }

    /// Makes the verifier forget which way the parts so far took.
    #[inline(always)]
    fn forget(&mut self, unknown: u64) {
        self.prefix = forget(self.prefix, unknown);
        self.seen = forget(self.seen, unknown);
        self.kept = forget(self.kept, unknown);
        self.whole = forget(self.whole.into(), unknown) != 0;
    }
}

/// What is left to do of copying the parts of a vector, however many.
struct Gathering {
    /// Where the next part's address and length are.
    next: u64,
    /// What is left of the part before.
    address: u64,
    /// How much that is.
    len: u64,
    /// How many bytes of the operation are in this part and the next ones.
    left: u64,
    /// How many are wanted.
    wanted: u64,
    /// How many are copied.
    copied: u64,
    to: *mut u8,
}

impl Gathering {
    /// Copies them.
    #[inline(always)]
    fn run(&mut self, parts: u64) {
        // A part of two pieces or more is one for each. The kernel takes at most 1024 parts (`UIO_MAXIOV`), of which each may
        // be empty.
        let most = if parts < MOST_PARTS { parts } else { MOST_PARTS } + MOST_PIECES;
        // SAFETY: the callback is given what is on the calling function's stack.
        unsafe {
            let gathering = &raw mut *self;
            bpf_loop(most as u32, gather_piece as *mut c_void, gathering.cast(), 0);
        }
    }

    /// Goes on to the next part.
    #[inline(always)]
    fn load(&mut self) {
        self.goes_on(words(self.next));
    }

    /// Goes on to this part, the next one.
    #[inline(always)]
    fn goes_on(&mut self, [address, len]: [u64; 2]) {
        self.next = self.next.wrapping_add(16);
        self.address = address;
        self.len = if len > self.left { self.left } else { len };
    }
}

/// Copies the first `wanted` bytes of a vector, of which many small parts may hold what matters, to the scratch that `which`
/// says, whose record is the operation's. Returns how many were copied.
#[inline(always)]
pub(crate) fn gather(call: &Call, which: u32, wanted: u64, unknown: u64) -> u64 {
    bounded(httpmon_gather(which.into(), call.address, call.parts, wanted), MASK, unknown)
}

/// The same, looked at by the verifier once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_gather(which: u64, vector: u64, parts: u64, wanted: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(which as u32 & 1) else { return 0 };
    // SAFETY: the slot is the calling program's own while it runs.
    let (left, to) = unsafe { ((*scratch).data.len.into(), (&raw mut (*scratch).bytes).cast()) };
    let mut gathering = Gathering { next: vector, address: 0, len: 0, left, wanted, copied: 0, to };
    gathering.run(parts);
    gathering.copied
}

/// Copies a piece; 1 when there is no more to do.
unsafe extern "C" fn gather_piece(_index: u64, gathering: *mut Gathering) -> i64 {
    // SAFETY: `gather` passes it, and waits.
    let gathering = unsafe { &mut *gathering };
    if gathering.len == 0 {
        gathering.load();
        if gathering.len == 0 {
            return 0;
        }
    }
    let unknown = gathering.next;
    let at = bounded(gathering.copied, MASK, unknown);
    let len = bounded(gathering.len, PIECE - 1, unknown);
    // SAFETY: the room is for [`Limits::MOST`] bytes and a piece.
    let copied = copy_piece(unsafe { gathering.to.add(at as usize) }, len, gathering.address);
    gathering.copied = at + copied;
    gathering.address = gathering.address.wrapping_add(len);
    gathering.len -= len;
    gathering.left -= len;
    i64::from(copied == 0 || gathering.left == 0 || gathering.copied >= gathering.wanted)
}

/// Copies `len` bytes of user memory; how many came, all or none.
#[inline(always)]
pub(crate) fn copy_piece(to: *mut u8, len: u64, address: u64) -> u64 {
    // SAFETY: the caller bounded `len` by the room, and the helper checks the address.
    let failed = unsafe { bpf_probe_read_user(to.cast(), len as u32, address as *const c_void) };
    if failed == 0 { len } else { 0 }
}

/// Copies the end of a piece of `len` bytes at `address`, of which `left` are not copied yet, to `to` behind `prefix` bytes.
#[inline(always)]
fn end(to: *mut u8, prefix: u64, address: u64, len: u64, left: u64, unknown: u64) -> u64 {
    let kept = if left < len { left } else { len };
    let kept = bounded(kept, TAIL as u64 - 1, unknown);
    if kept == 0 {
        return 0;
    }
    // SAFETY: `prefix` is less than [`Limits::MOST`], and there is room for the tail beyond that.
    copy_piece(unsafe { to.add(prefix as usize) }, kept, address.wrapping_add(len).wrapping_sub(kept))
}
