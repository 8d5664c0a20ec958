//! The ring buffer's records. Every record starts with a [`Header`], whose `kind` tells the rest.
//!
//! Layouts are `repr(C)` with explicit padding, in native byte order; sizes are asserted below.

/// [`Header::kind`]: bytes were received; a [`Data`] record.
pub const KIND_RECEIVED: u8 = 1;
/// [`Header::kind`]: bytes were sent; a [`Data`] record.
pub const KIND_SENT: u8 = 2;
/// [`Header::kind`]: a connection was seen for the first time; a [`Socket`] record.
pub const KIND_OPENED: u8 = 3;
/// [`Header::kind`]: some process's socket started to listen; a [`Socket`] record.
pub const KIND_LISTENING: u8 = 4;
/// [`Header::kind`]: an end of a connection was closed; a [`Closed`] record.
pub const KIND_CLOSED: u8 = 5;
/// [`Header::kind`]: a process came, changed or went; a [`Process`] record.
pub const KIND_PROCESS: u8 = 6;

/// [`Header::flags`] of data: the bytes that this direction carried before were followed by bytes of the other one, or it is the first.
pub const FLAG_TURNED: u16 = 1;
/// [`Header::flags`] of data: the buffer was not the calling system call's own (`io_uring`), so no byte could be read.
pub const FLAG_NO_BUFFER: u16 = 2;
/// [`Header::flags`] of data: the call has no user buffer (`sendfile`, `splice`), so no byte could be read.
pub const FLAG_SPLICED: u16 = 4;
/// [`Header::flags`] of [`KIND_OPENED`]: seen from its first byte on; without it the connection was joined midway.
pub const FLAG_BORN: u16 = 8;
/// [`Header::flags`] of [`KIND_CLOSED`]: the process was exiting, so that the kernel closed its sockets.
pub const FLAG_EXITING: u16 = 16;
/// [`Header::flags`] of [`KIND_CLOSED`]: the connection was reset.
pub const FLAG_RESET: u16 = 32;
/// [`Header::flags`] of data: HTTP/2's frames, of which the payloads of DATA are left out. The bytes that follow are the
/// others, and behind them, as the tail, the [`Place`](crate::place::Place) where they begin.
pub const FLAG_FRAMES: u16 = 256;

/// [`Header::flags`] of data: it is what a TLS library was given or gave; offsets count clear text.
pub const FLAG_PLAIN: u16 = 64;
/// [`Header::flags`] of sent clear text: what it became is still to be sent.
pub const FLAG_OWED: u16 = 128;

/// [`Header::detail`] of [`KIND_CLOSED`]: the peer will send no more.
pub const CLOSED_BY_PEER: u8 = 1;
/// [`Header::detail`] of [`KIND_CLOSED`]: the monitored process will send no more.
pub const CLOSED_LOCALLY: u8 = 2;
/// [`Header::detail`] of [`KIND_CLOSED`]: the socket is gone.
pub const CLOSED_FULLY: u8 = 3;

/// [`Header::detail`] of [`KIND_PROCESS`]: a selected process forked; `other` is the child, which the kernel side has taken.
pub const PROCESS_FORKED: u8 = 1;
/// [`Header::detail`] of [`KIND_PROCESS`]: any process runs a new program.
pub const PROCESS_EXECUTED: u8 = 2;
/// [`Header::detail`] of [`KIND_PROCESS`]: a selected process's last thread ended.
pub const PROCESS_EXITED: u8 = 3;
/// [`Header::detail`] of [`KIND_PROCESS`]: a selected process uses `io_uring`, where the probes can't see what that moves.
pub const PROCESS_USES_RINGS: u8 = 4;
/// [`Header::detail`] of [`KIND_PROCESS`]: a selected process makes 32-bit system calls, where the probes can't read those.
pub const PROCESS_IS_32_BIT: u8 = 5;

/// [`Header::detail`] of [`KIND_PROCESS`]: a selected process's loader has mapped libraries.
pub const PROCESS_MAPPED: u8 = 6;

/// How many bytes a TLS record adds to its clear text at least: header, content type and authentication tag of TLS 1.3
/// (RFC 8446, section 5.2), where TLS 1.2 adds more.
pub const TLS_OVERHEAD: u64 = 22;
/// How many bytes of clear text a TLS record holds at most (RFC 8446, section 5.1).
pub const TLS_RECORD: u64 = 16384;

/// How many bytes at least clear text becomes in TLS records.
#[must_use]
pub const fn enciphered(len: u64) -> u64 {
    len + len.div_ceil(TLS_RECORD) * TLS_OVERHEAD
}

/// `AF_UNIX` in [`Socket::family`].
pub const FAMILY_UNIX: u16 = 1;
/// `AF_INET` in [`Socket::family`].
pub const FAMILY_INET: u16 = 2;
/// `AF_INET6` in [`Socket::family`].
pub const FAMILY_INET6: u16 = 10;

/// How many of an operation's last bytes a [`Data`] record keeps at most, when it cannot keep all.
pub const TAIL: usize = 16;

/// What every record begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "reading", derive(zerocopy::FromBytes))]
#[repr(C)]
pub struct Header {
    /// One of the `KIND_` constants.
    pub kind: u8,
    /// Depends on the kind.
    pub detail: u8,
    /// `FLAG_` constants.
    pub flags: u16,
    /// The service that the process was selected for, 0 where none.
    pub service: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at: u64,
    /// The connection's identity, unique while the host runs; 0 where the record is not about one.
    pub connection: u64,
    /// The process (thread group).
    pub pid: u32,
    /// The file descriptor that the system call named, -1 where unknown.
    pub fd: i32,
}

/// Bytes that went through a socket, followed by the operation's first `prefix` bytes and its last `tail` bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "reading", derive(zerocopy::FromBytes))]
#[repr(C)]
pub struct Data {
    /// What every record begins with.
    pub header: Header,
    /// How many bytes this direction had carried before, since the connection was first seen.
    pub offset: u64,
    /// How many bytes the other direction had carried.
    pub other: u64,
    /// When the first of the bytes waiting in the socket's buffer had arrived; 0 where unknown. Received bytes only.
    pub arrived: u64,
    /// How many bytes the operation moved.
    pub len: u32,
    /// How many of the first bytes follow.
    pub prefix: u16,
    /// How many of the last bytes follow those, when `prefix` is less than `len`; at most [`TAIL`]. See [`FLAG_FRAMES`].
    pub tail: u16,
}

/// A socket's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "reading", derive(zerocopy::FromBytes))]
#[repr(C)]
pub struct Socket {
    /// What every record begins with.
    pub header: Header,
    /// The socket's inode number, as in `/proc/PID/fd`.
    pub inode: u64,
    /// One of the `FAMILY_` constants.
    pub family: u16,
    /// Host byte order.
    pub local_port: u16,
    /// Host byte order.
    pub remote_port: u16,
    /// How many bytes of `path` are used.
    pub path_len: u16,
    /// The first 4 or all 16 bytes, by family.
    pub local: [u8; 16],
    /// The first 4 or all 16 bytes, by family.
    pub remote: [u8; 16],
    /// A unix socket's bound path; an abstract name starts with a zero byte.
    pub path: [u8; 108],
    /// Padding.
    pub reserved: [u8; 4],
}

/// An end of a connection was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "reading", derive(zerocopy::FromBytes))]
#[repr(C)]
pub struct Closed {
    /// What every record begins with.
    pub header: Header,
    /// Bytes received in all, since the connection was first seen.
    pub received: u64,
    /// Bytes sent in all, since the connection was first seen.
    pub sent: u64,
    /// With [`FLAG_EXITING`], the exiting task's code as `wait(2)` gives it.
    pub exit_code: u32,
    /// Padding.
    pub reserved: u32,
}

/// A process came, changed or went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "reading", derive(zerocopy::FromBytes))]
#[repr(C)]
pub struct Process {
    /// What every record begins with.
    pub header: Header,
    /// The child of a fork.
    pub other: u32,
    /// The code as `wait(2)` gives it, of an exit.
    pub exit_code: u32,
    /// Nanoseconds of CPU that the process used in all, of an exit.
    pub cpu: u64,
}

const _: () = {
    assert!(size_of::<Header>() == 32);
    assert!(size_of::<Data>() == 64);
    assert!(size_of::<Socket>() == 192);
    assert!(size_of::<Closed>() == 56);
    assert!(size_of::<Process>() == 48);
};
