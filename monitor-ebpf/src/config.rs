//! What the agent tells the kernel side, and the tables that both read and write.

/// Byte offsets of the fields that the programs read, from the running kernel's BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Offsets {
    /// `task_struct.flags`
    pub task_flags: u64,
    /// `task_struct.exit_code`
    pub task_exit_code: u64,
    /// `task_struct.tgid`
    pub task_tgid: u64,
    /// `task_struct.pid`
    pub task_pid: u64,
    /// `task_struct.thread_pid`
    pub task_thread_pid: u64,
    /// `task_struct.group_leader`
    pub task_group_leader: u64,
    /// `task_struct.real_parent`
    pub task_real_parent: u64,
    /// `task_struct.children`
    pub task_children: u64,
    /// `task_struct.sibling`
    pub task_sibling: u64,
    /// `list_head.prev`
    pub list_prev: u64,
    /// `task_struct.files`
    pub task_files: u64,
    /// `files_struct.fdt`
    pub files_fdt: u64,
    /// `fdtable.fd`
    pub fdtable_fd: u64,
    /// `sock.sk_socket`
    pub sock_socket: u64,
    /// `socket.file`
    pub socket_file: u64,
    /// `socket.sk`
    pub socket_sk: u64,
    /// `file.f_inode`
    pub file_inode: u64,
    /// `file.private_data`: of a socket's file, the `struct socket`
    pub file_private_data: u64,
    /// `inode.i_ino`
    pub inode_ino: u64,
    /// `inode.i_mode`
    pub inode_mode: u64,
    /// `sock.__sk_common.skc_family`
    pub sock_family: u64,
    /// `sock.__sk_common.skc_state`
    pub sock_state: u64,
    /// `sock.__sk_common.skc_num`: the local port, host order
    pub sock_num: u64,
    /// `sock.__sk_common.skc_dport`: the peer's port, network order
    pub sock_dport: u64,
    /// `sock.__sk_common.skc_daddr`
    pub sock_daddr: u64,
    /// `sock.__sk_common.skc_rcv_saddr`
    pub sock_rcv_saddr: u64,
    /// `sock.__sk_common.skc_v6_daddr`
    pub sock_v6_daddr: u64,
    /// `sock.__sk_common.skc_v6_rcv_saddr`
    pub sock_v6_rcv_saddr: u64,
    /// `sock.sk_err`
    pub sock_err: u64,
    /// `sock.sk_type`
    pub sock_type: u64,
    /// `sock.__sk_common.skc_net`
    pub sock_net: u64,
    /// `sock.sk_bpf_storage`
    pub sock_storage: u64,
    /// `net.net_cookie`
    pub net_cookie: u64,
    /// `net.ns.inum`
    pub net_inode: u64,
    /// `sock.sk_peer_pid`
    pub sock_peer_pid: u64,
    /// `pid.level`: how many PID namespaces are around the one that it was made in
    pub pid_level: u64,
    /// `pid.numbers`: of the host's PID namespace first
    pub pid_numbers: u64,
    /// `upid.nr`
    pub upid_number: u64,
    /// `upid.ns`
    pub upid_namespace: u64,
    /// `pid_namespace.ns.inum`
    pub pid_namespace_inode: u64,
    /// `unix_sock.addr`
    pub unix_addr: u64,
    /// `unix_sock.peer`
    pub unix_peer: u64,
    /// `unix_address.len`
    pub unix_address_len: u64,
    /// `unix_address.name`
    pub unix_address_name: u64,
    /// `trace_event_raw_sched_process_fork.child_pid`: a classic tracepoint's record
    pub fork_child_pid: u64,
    /// `task_struct.signal`
    pub task_signal: u64,
    /// `signal_struct.live`
    pub signal_live: u64,
    /// `signal_struct.sum_sched_runtime`: of threads that have ended, in nanoseconds
    pub signal_sum_sched_runtime: u64,
    /// `task_struct.se`
    pub task_se: u64,
    /// `sched_entity.sum_exec_runtime`, in nanoseconds
    pub sched_entity_sum_exec_runtime: u64,
}

/// Where the user registers at a system call's entry are, and which call has which number, on this architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Abi {
    /// Offset in `pt_regs` of the system call's number.
    pub number: u64,
    /// Offsets in `pt_regs` of the first four arguments.
    pub arguments: [u64; 4],
    /// Offset in `pt_regs` of a word that tells 32-bit callers, whose numbers differ.
    pub width: u64,
    /// Which bits of that word tell.
    pub width_mask: u64,
    /// Those bits' value for 64-bit callers.
    pub width_64: u64,
    /// `read`, `write`, `recvfrom`, `sendto`: the second argument is the buffer.
    pub flat: [u64; 4],
    /// `readv`, `writev`, `preadv2`, `pwritev2`: the second argument is the vector, the third its length.
    pub vectored: [u64; 4],
    /// `recvmsg`, `sendmsg`: the second argument is the message header.
    pub message: [u64; 2],
    /// `recvmmsg`, `sendmmsg`: the second argument is an array of message headers, the third its length.
    pub messages: [u64; 2],
    /// `sendfile`, `splice`: no buffer.
    pub spliced: [u64; 2],
    /// `clone`: the first argument is the flags.
    pub clone: u64,
    /// `clone3`: the first argument points to a `struct clone_args`, which begins with the flags.
    pub clone3: u64,
    /// `io_uring_setup`, `io_uring_enter`.
    pub rings: [u64; 2],
    /// Offsets in `pt_regs` of a function's first four arguments.
    pub parameters: [u64; 4],
    /// Offset in `pt_regs` of what a function returned.
    pub result: u64,
    /// Offset in `pt_regs` of the stack pointer.
    pub stack: u64,
    /// Offsets in `pt_regs` of the first three words that a Go function is given (its receiver, a slice's address, and how
    /// long that is), by Go's src/cmd/compile/abi-internal.md. The first word that it returns is where C functions' is.
    pub go_parameters: [u64; 3],
    /// Offsets in `pt_regs` of where a Rust function is to put a result that no register holds, and of the first three words
    /// that it is given.
    pub rust_parameters: [u64; 4],
    /// Offset in `pt_regs` of the running goroutine, in Go's functions and in the system calls that they make.
    pub goroutine: u64,
    /// Offset in `pt_regs` of the flags, by which a Go function branches when it begins: where its stack is too small, it
    /// will begin anew.
    pub flags: u64,
    /// Which of them count there.
    pub fits_mask: u64,
    /// Their value where the stack is large enough.
    pub fits: u64,
}

impl Abi {
    /// x86-64: arch/x86/include/asm/ptrace.h (`cs` is 0x33 in 64-bit code) and `arch/x86/entry/syscalls/syscall_64.tbl` (Linux 6.18).
    pub const X86_64: Self = Self {
        number: 120,
        arguments: [112, 104, 96, 56],
        width: 136,
        width_mask: 0xffff,
        width_64: 0x33,
        flat: [0, 1, 45, 44],
        vectored: [19, 20, 327, 328],
        message: [47, 46],
        messages: [299, 307],
        spliced: [40, 275],
        clone: 56,
        clone3: 435,
        rings: [425, 426],
        parameters: [112, 104, 96, 88],
        result: 80,
        stack: 152,
        go_parameters: [80, 40, 88],
        rust_parameters: [112, 104, 96, 88],
        goroutine: 8,
        // `jbe`: neither CF nor ZF.
        flags: 144,
        fits_mask: 0x41,
        fits: 0,
    };

    /// aarch64: arch/arm64/include/asm/ptrace.h and include/uapi/asm-generic/unistd.h (Linux 6.18).
    /// The number is `regs[8]`, as the call was made: `syscallno` is half a word, and programs load whole ones. The first
    /// argument is `orig_x0`, since `regs[0]` becomes the return value; `pstate` has `PSR_MODE32_BIT` in 32-bit code.
    pub const AARCH64: Self = Self {
        number: 64,
        arguments: [272, 8, 16, 24],
        width: 264,
        width_mask: 0x10,
        width_64: 0,
        flat: [63, 64, 207, 206],
        vectored: [65, 66, 286, 287],
        message: [212, 211],
        messages: [243, 269],
        spliced: [71, 76],
        clone: 220,
        clone3: 435,
        rings: [425, 426],
        parameters: [0, 8, 16, 24],
        result: 0,
        stack: 248,
        go_parameters: [0, 8, 16],
        rust_parameters: [64, 0, 8, 16],
        goroutine: 224,
        // `b.ls`: C without Z.
        flags: 264,
        fits_mask: 3 << 29,
        fits: 1 << 29,
    };
}

/// How many bytes of a burst (what one direction carries until the other one moves) are copied; the rest is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Limits {
    /// Of what is received.
    pub received: u32,
    /// Of what is sent.
    pub sent: u32,
    /// Counts the processes that the agent selected, anew or no more: what is remembered of who is selected is good as
    /// long as this stays.
    pub epoch: u32,
}

impl Limits {
    /// To begin with: more than nearly all heads, little of large bodies.
    pub const FIRST: Self = Self { received: 8192, sent: 4096, epoch: 0 };
    /// The most that one record can hold.
    pub const MOST: u32 = 16384;
    /// Copied of each operation beyond the limit: enough for a chunk's or a message's first line.
    pub const BEYOND: u32 = 63;
}

/// A selected process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Selected {
    /// The service it was selected for.
    pub service: u32,
    /// What the agent was told of it that it needs to hear once: the details of [`crate::record::KIND_PROCESS`] as bits.
    pub told: u32,
}

/// A TCP port that a selected process listens on, in its network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Port {
    /// The namespace's cookie (`SO_NETNS_COOKIE`), or where the kernel tells none its inode number.
    pub namespace: u64,
    /// Host byte order.
    pub port: u64,
}

/// [`Connection::kind`]: a socket that takes connections; its children start as copies of it.
pub const SOCKET_LISTENS: u8 = 1;
/// [`Connection::kind`]: a connection.
pub const SOCKET_CONNECTED: u8 = 2;

/// [`Connection::kind`]: a connection that nobody wants to hear of.
pub const SOCKET_IGNORED: u8 = 3;

/// [`Connection::announced`]: the agent was told of it at its birth.
pub const TOLD_BORN: u8 = 1;
/// [`Connection::announced`]: the agent was told of it later, so that its first bytes may have gone unseen.
pub const TOLD_MIDWAY: u8 = 2;

/// What is wanted of the kernel side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Choices {
    /// Not 0: the TCP connections that selected processes open themselves are left alone.
    pub ignore_outgoing: u32,
    /// Not 0: network namespaces are told apart by their inode numbers, not by their cookies.
    pub namespaces_by_inode: u32,
    /// Not 0: what TLS libraries are given and give is read.
    pub tls: u32,
    /// Not 0: the agent knows processes by the numbers that they have in the PID namespace with this inode number, not by
    /// those on the host.
    pub pid_namespace: u32,
}

/// What the kernel side knows of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Connection {
    /// Unique while the host runs; 0 for a listener.
    pub id: u64,
    /// Bytes received so far.
    pub received: u64,
    /// Bytes sent so far.
    pub sent: u64,
    /// When the first of the bytes waiting in the buffer had arrived, 0 where none waits.
    pub arrived: u64,
    /// The process that used it last.
    pub pid: u32,
    /// That process's service.
    pub service: u32,
    /// [`Limits::epoch`] when the process was last looked up; of a connection that is over, see [`Self::next_arrives`].
    pub epoch: u32,
    /// The file descriptor by which that process was last seen to use it, and 1; 0 where none was.
    pub descriptor: u32,
    /// Its inode number (sockets' have 32 bits), where the address alone is no identity: unix sockets in classic
    /// tracepoints; else 0.
    pub inode: u32,
    /// Bytes moved in the last direction since it turned; where it carries frames, the [`Place`](crate::place::Place) of
    /// what is received.
    pub burst: u32,
    /// Where it carries frames, the place of what is sent.
    pub sent_place: u32,
    /// `SOCKET_` constants.
    pub kind: u8,
    /// The direction that moved last: 0 none, else the record's kind.
    pub last: u8,
    /// `TOLD_` constants; 0 where the agent wasn't told of it yet.
    pub announced: u8,
    /// `CARRIES_` constants.
    pub carries: u8,
}

impl Connection {
    /// A process of this service uses it.
    #[inline]
    pub fn used_by(&mut self, pid: u32, service: u32) {
        self.pid = pid;
        self.service = service;
    }

    /// This connection is over, and bytes arrive for the next socket at its address. That they may be told late, when this is
    /// the next one's state already, changes nothing: the mark is of another inode number then.
    #[inline]
    pub fn next_arrives(&mut self, at: u64) {
        if self.epoch != self.next_waits() {
            self.arrived = at;
            self.epoch = self.next_waits();
        }
    }

    /// When the first bytes arrived for the socket that takes this one's place; 0 where that wasn't seen.
    #[inline]
    #[must_use]
    pub fn arrived_for_next(&self) -> u64 {
        if self.kind != SOCKET_CONNECTED || self.epoch == self.next_waits() { self.arrived } else { 0 }
    }

    /// The [`Self::epoch`] of one that is over while the next waits: epochs count from 0, and no inode number is near the last.
    #[inline]
    fn next_waits(&self) -> u32 {
        !self.inode
    }
}

/// [`Connection::carries`]: frames (HTTP/2), whose headers may lie anywhere, so that every operation is copied.
pub const CARRIES_FRAMES: u8 = 1;
/// [`Connection::carries`]: TLS records, of which nothing is copied.
pub const CARRIES_TLS: u8 = 2;

/// What a function does at which a probe stands, as the kernel tells the program that runs there: it gives clear text.
pub const FUNCTION_READS: u64 = 1;
/// It takes clear text.
pub const FUNCTION_WRITES: u64 = 2;
/// It takes clear text from a file.
pub const FUNCTION_WRITES_FILE: u64 = 3;
/// It ends a session.
pub const FUNCTION_FREES: u64 = 4;
/// It tells that something was mapped.
pub const FUNCTION_MAPPED: u64 = 5;
/// It begins a session.
pub const FUNCTION_SHAKES_HANDS: u64 = 6;
/// It has returned how many bytes it moved.
pub const FUNCTION_TELLS_COUNT: u64 = 7;
/// It has returned whether it succeeded.
pub const FUNCTION_TELLS_SUCCESS: u64 = 8;
/// One of Go's: it gives clear text.
pub const FUNCTION_GO_READS: u64 = 9;
/// One of Go's: it takes clear text.
pub const FUNCTION_GO_WRITES: u64 = 10;
/// One of Go's: it begins a session.
pub const FUNCTION_GO_SHAKES_HANDS: u64 = 11;
/// One of Go's: it ends a session.
pub const FUNCTION_GO_FREES: u64 = 12;
/// How much more it is of one of Go's that is about to return than of one that begins.
pub const FUNCTION_GO_DID: u64 = 4;
/// [`FUNCTION_GO_READS`] is about to return how many bytes it moved.
pub const FUNCTION_GO_DID_READ: u64 = FUNCTION_GO_READS + FUNCTION_GO_DID;
/// [`FUNCTION_GO_WRITES`] is.
pub const FUNCTION_GO_DID_WRITE: u64 = FUNCTION_GO_WRITES + FUNCTION_GO_DID;
/// [`FUNCTION_GO_SHAKES_HANDS`] is about to return.
pub const FUNCTION_GO_DID_SHAKE_HANDS: u64 = FUNCTION_GO_SHAKES_HANDS + FUNCTION_GO_DID;
/// It is about to return how many bytes it moved.
pub const FUNCTION_WILL_TELL_COUNT: u64 = 16;
/// [`FUNCTION_GO_READS`] copies clear text to where it was told to.
pub const FUNCTION_GO_GIVES: u64 = 17;
/// [`FUNCTION_GO_WRITES`] has written what it was given.
pub const FUNCTION_GO_WROTE: u64 = 18;
/// One of rustls': it deciphers a record.
pub const FUNCTION_RUST_DECRYPTS: u64 = 19;
/// It has.
pub const FUNCTION_RUST_DECRYPTED: u64 = 20;
/// One of rustls': it enciphers a message.
pub const FUNCTION_RUST_ENCRYPTS: u64 = 21;

/// A TLS library's name for a connection: what its functions are called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Session {
    /// The process.
    pub pid: u32,
    /// Padding.
    pub reserved: u32,
    /// Where the library keeps it.
    pub address: u64,
}

/// What the kernel side knows of a connection that carries TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Cipher {
    /// What went through it in clear text, counted as on any other connection.
    pub plain: Connection,
    /// The library's name for it, 0 where none is known, and all ones where the library has ended it.
    pub session: u64,
    /// When the first of the bytes were read that came since clear text was last got from them; 0 where none came.
    pub read: u64,
    /// When that byte had arrived; 0 where unknown.
    pub arrived: u64,
    /// When bytes were last read.
    pub read_last: u64,
    /// When bytes last arrived.
    pub arrived_last: u64,
    /// When bytes were last sent.
    pub sent: u64,
    /// How many bytes at least have to be sent until all clear text is that was given to the library.
    pub owed: u64,
}

/// What the kernel side knows of a thread, or a goroutine, that uses TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Thread {
    /// The session that the function under way was called with; 0 where none is under way.
    pub session: u64,
    /// Where its bytes are.
    pub buffer: u64,
    /// Where it will say how many were moved, if it does; of one of Go's that writes, how many it was given.
    pub count: u64,
    /// The stack pointer when it began; of a goroutine, whose stack may be moved, the `FUNCTION_` constant, and
    /// [`Self::WITHIN`] bits above it that of the function that called this one.
    pub stack: u64,
    /// When it began.
    pub entered: u64,
    /// The connection that the thread received from last.
    pub received_on: u64,
    /// The connection that moved bytes since the function began; 0 where none did.
    pub inside: u64,
    /// When the first of those were received.
    pub inside_read: u64,
    /// When that one had arrived.
    pub inside_arrived: u64,
    /// The kind of the record that it makes.
    pub direction: u32,
    /// The record's flags.
    pub flags: u32,
    /// What it enciphered since it last sent.
    pub waiting: Waiting,
}

/// What a thread enciphered of which it is not known yet whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Waiting {
    /// The library's name for the cipher; 0 where nothing waits.
    pub session: u64,
    /// Where clear text begins.
    pub address: u64,
    /// Its first bytes, by which it is known again.
    pub first: u64,
    /// How much of it is there.
    pub known: u32,
    /// How much of it there is.
    pub len: u32,
    /// How long all messages are in clear.
    pub moved: u32,
    /// How many they are.
    pub records: u32,
}

impl Thread {
    /// By how many bits the function that called the one under way is shifted in [`Self::stack`].
    pub const WITHIN: u32 = 8;
}

/// Whether a structure that begins so is that of a goroutine whose stack pointer this is. First come its stack's bounds, which
/// are a power of two apart, and then two guards, of which the second is all ones (Go's src/runtime/runtime2.go, `g`; proc.go,
/// `malg`; stack.go, `stackalloc`). In another language's program the register that has a goroutine's address has any number,
/// as the address of a small number and a large one.
#[inline]
#[must_use]
pub fn is_goroutine([low, high, _, guard]: [u64; 4], stack: u64) -> bool {
    low < stack && stack <= high && high.wrapping_sub(low).is_power_of_two() && guard == u64::MAX
}

/// How the kernel side counts what never reached the agent: indices of its table of losses.
pub mod loss {
    /// No room in the ring buffer.
    pub const RING_FULL: u32 = 0;
    /// No room in a table of connections or processes.
    pub const MAP_FULL: u32 = 1;
    /// Requests that began in bytes for which there was no room in the ring buffer; their records are among those.
    pub const REQUESTS: u32 = 2;
    /// How many there are.
    pub const COUNT: u32 = 3;
}

const _: () = {
    assert!(size_of::<Connection>() == 64);
    assert!(size_of::<Limits>() == 12);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_the_next_connections_unless_that_was_told_late() {
        let over =
            Connection { kind: SOCKET_CONNECTED, inode: 7, arrived: 5, epoch: 3, ..Connection::default() };
        assert_eq!(over.arrived_for_next(), 0);
        let mut known = over;
        known.next_arrives(10);
        known.next_arrives(20);
        assert_eq!(known.arrived_for_next(), 10);
        // The next one took the place just before.
        let mut late = over;
        late.next_arrives(10);
        let next = Connection { inode: 8, ..late };
        assert_eq!(next.arrived_for_next(), 0);
        let unaccepted = Connection { kind: SOCKET_LISTENS, arrived: 10, ..Connection::default() };
        assert_eq!(unaccepted.arrived_for_next(), 10);
    }

    #[test]
    fn goroutines_are_told_from_what_is_none() {
        const LOW: u64 = 0xc0_0018_a000;
        const HIGH: u64 = LOW + 0x2000;
        let goroutine = [LOW, HIGH, LOW + 928, u64::MAX];
        assert!(is_goroutine(goroutine, LOW + 1));
        assert!(is_goroutine(goroutine, HIGH));
        // About to be preempted.
        assert!(is_goroutine([LOW, HIGH, u64::MAX - 1313, u64::MAX], HIGH - 8));
        assert!(!is_goroutine(goroutine, LOW));
        assert!(!is_goroutine(goroutine, HIGH + 1));
        // A thread's first, on which the runtime itself runs.
        assert!(!is_goroutine([LOW, HIGH, LOW + 928, LOW + 928], HIGH - 8));
        // Rust's: a count and an address; an address and no limit; what can't be read.
        assert!(!is_goroutine([4, HIGH, 0, u64::MAX], HIGH - 8));
        assert!(!is_goroutine([LOW, u64::MAX, u64::MAX, u64::MAX], HIGH));
        assert!(!is_goroutine([0; 4], HIGH));
    }
}
