//! From the ring buffer's bytes to [`Event`]s: a pure function, with no kernel behind it.

pub use monitor_ebpf::place::Place;
use monitor_ebpf::record;
use zerocopy::FromBytes;

/// A connection's identity, unique while the host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Which service a process was selected for: an index into the agent's table of services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// `CLOCK_MONOTONIC`, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instant(pub u64);

impl Instant {
    /// Seconds from `earlier` to `self`, 0 where the order is the other way round.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        self.nanoseconds_since(earlier) as f64 / 1e9
    }

    /// Nanoseconds from `earlier` to `self`, 0 where the order is the other way round.
    #[must_use]
    pub fn nanoseconds_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Who caused an event, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// When.
    pub at: Instant,
    /// The service that the process belongs to.
    pub service: ServiceId,
    /// The process (thread group).
    pub pid: u32,
    /// The file descriptor that the system call named.
    pub fd: Option<i32>,
}

/// Which way bytes went, seen from the monitored process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Read by the process.
    Received,
    /// Handed to the kernel by the process.
    Sent,
}

/// Why bytes of an operation are missing from its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// The prefix, and where that is short the tail, are there.
    Copied,
    /// The bytes were not in the calling system call's buffer: `io_uring`.
    Unreadable,
    /// The bytes never were in user memory: `sendfile`, `splice`.
    Spliced,
    /// Of HTTP/2's frames, which begin at this place, all but the payloads of DATA is in the prefix.
    Frames(Place),
}

/// Bytes that went through a connection in one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Data<'a> {
    /// Which way.
    pub direction: Direction,
    /// How many bytes this direction had carried before.
    pub offset: u64,
    /// How many bytes the other direction had carried.
    pub other: u64,
    /// How many bytes the operation moved.
    pub len: u32,
    /// When the first byte had arrived in the socket's buffer.
    pub arrived: Option<Instant>,
    /// Whether the other direction was the last to move bytes (or none had).
    pub turned: bool,
    /// Whether it is what a TLS library gave or was given, in clear text; offsets count that alone.
    pub plain: bool,
    /// Whether and why bytes are missing.
    pub capture: Capture,
    /// The operation's first bytes.
    pub prefix: &'a [u8],
    /// The operation's last bytes, where `prefix` is shorter than `len`; never overlaps `prefix`.
    pub tail: &'a [u8],
}

impl Data<'_> {
    /// Whether its first bytes are a TLS record's (RFC 8446, section 5.1).
    #[must_use]
    pub fn begins_tls(&self) -> bool {
        matches!(self.prefix, [20..=23, 3, 0..=4, ..])
    }
}

/// Where a socket is bound or connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// TCP.
    Inet(std::net::SocketAddr),
    /// A unix socket's path, abstract names with a leading `@`, empty where unnamed.
    Unix(String),
}

/// A connection seen for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The monitored process's end.
    pub local: Address,
    /// The other end.
    pub remote: Address,
    /// The socket's inode number.
    pub inode: u64,
    /// Whether it was seen from its first byte on.
    pub born: bool,
}

/// How far a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The peer will send no more.
    ByPeer,
    /// The monitored process will send no more.
    Locally,
    /// The socket is gone.
    Fully,
}

/// An end of a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed {
    /// How far.
    pub how: Closing,
    /// Whether by a reset.
    pub reset: bool,
    /// The code of the process whose exit closed it, as `wait(2)` gives it.
    pub exit_code: Option<u32>,
    /// Bytes received in all.
    pub received: u64,
    /// Bytes sent in all.
    pub sent: u64,
}

/// How bytes go past the probes on system calls; told once for each process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Evasion {
    /// Through `io_uring`.
    IoUring,
    /// By 32-bit system calls.
    Calls32Bit,
}

/// What happened to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessChange {
    /// It forked this child, which is selected with it.
    Forked(u32),
    /// It runs a new program.
    Executed,
    /// It ended.
    Exited {
        /// As `wait(2)` gives it.
        code: u32,
        /// Nanoseconds of CPU that it used in all.
        cpu: u64,
    },
    /// Its loader has mapped libraries.
    Mapped,
    /// It moves bytes in a way that the probes can't see.
    Evades(Evasion),
}

/// One record from the kernel side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bytes on a connection.
    Data(Origin, ConnectionId, Data<'a>),
    /// A new connection.
    Opened(Origin, ConnectionId, Opened),
    /// A process listens.
    Listening(Origin, Address),
    /// An end of a connection.
    Closed(Origin, ConnectionId, Closed),
    /// A process.
    Process(Origin, ProcessChange),
}

/// Why a record was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its kind needs.
    #[error("a record of {found} bytes where kind {kind} needs {needed}")]
    Short {
        /// The record's kind, 0 where even that was missing.
        kind: u8,
        /// How long it was.
        found: usize,
        /// How long it had to be.
        needed: usize,
    },
    /// A value that no kernel side of this version writes.
    #[error("a record whose {field} is {value}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What it held.
        value: u64,
    },
}

/// Reads one record. Never panics, whatever the bytes.
pub fn decode(bytes: &[u8]) -> Result<Event<'_>, DecodeError> {
    let kind = *bytes.first().ok_or(DecodeError::Short {
        kind: 0,
        found: 0,
        needed: size_of::<record::Header>(),
    })?;
    let record = Record { bytes, kind };
    match kind {
        record::KIND_RECEIVED => record.data(Direction::Received),
        record::KIND_SENT => record.data(Direction::Sent),
        record::KIND_OPENED => {
            let (header, opened) = record.socket()?;
            Ok(Event::Opened(origin(&header), ConnectionId(header.connection), opened))
        }
        record::KIND_LISTENING => {
            let (header, opened) = record.socket()?;
            Ok(Event::Listening(origin(&header), opened.local))
        }
        record::KIND_CLOSED => record.closed(),
        record::KIND_PROCESS => record.process(),
        _ => Err(DecodeError::Invalid { field: "kind", value: kind.into() }),
    }
}

fn origin(header: &record::Header) -> Origin {
    Origin {
        at: Instant(header.at),
        service: ServiceId(header.service),
        pid: header.pid,
        fd: (header.fd >= 0).then_some(header.fd),
    }
}

struct Record<'a> {
    bytes: &'a [u8],
    kind: u8,
}

impl<'a> Record<'a> {
    /// What the record begins with, and what follows.
    fn read<T: FromBytes>(&self) -> Result<(T, &'a [u8]), DecodeError> {
        T::read_from_prefix(self.bytes).map_err(|_| self.short(size_of::<T>()))
    }

    fn short(&self, needed: usize) -> DecodeError {
        DecodeError::Short { kind: self.kind, found: self.bytes.len(), needed }
    }

    fn data(&self, direction: Direction) -> Result<Event<'a>, DecodeError> {
        let (data, rest) = self.read::<record::Data>()?;
        let record::Data { header, offset, other, arrived, len, .. } = data;
        let (prefix, tail) = (usize::from(data.prefix), usize::from(data.tail));
        if prefix > len as usize {
            return Err(DecodeError::Invalid { field: "prefix", value: prefix as u64 });
        }
        let frames = header.flags & record::FLAG_FRAMES != 0;
        let possible = if frames {
            tail == size_of::<Place>()
        } else {
            tail <= record::TAIL && tail <= len as usize - prefix
        };
        if !possible {
            return Err(DecodeError::Invalid { field: "tail", value: tail as u64 });
        }
        let short = || self.short(size_of::<record::Data>() + prefix + tail);
        let (prefix, rest) = rest.split_at_checked(prefix).ok_or_else(short)?;
        let tail = rest.get(..tail).ok_or_else(short)?;
        let (capture, tail) = if frames {
            let place = u32::read_from_bytes(tail).map_err(|_| short())?;
            (Capture::Frames(Place(place)), &[][..])
        } else if header.flags & record::FLAG_NO_BUFFER != 0 {
            (Capture::Unreadable, tail)
        } else if header.flags & record::FLAG_SPLICED != 0 {
            (Capture::Spliced, tail)
        } else {
            (Capture::Copied, tail)
        };
        let data = Data {
            direction,
            offset,
            other,
            len,
            arrived: (arrived != 0).then_some(Instant(arrived)),
            turned: header.flags & record::FLAG_TURNED != 0,
            plain: header.flags & record::FLAG_PLAIN != 0,
            capture,
            prefix,
            tail,
        };
        Ok(Event::Data(origin(&header), ConnectionId(header.connection), data))
    }

    fn socket(&self) -> Result<(record::Header, Opened), DecodeError> {
        let (socket, _) = self.read::<record::Socket>()?;
        let record::Socket { header, inode, family, local, local_port, remote, remote_port, .. } = socket;
        let inet = |bytes: [u8; 16], port| match family {
            record::FAMILY_INET => Ok(Address::Inet(([bytes[0], bytes[1], bytes[2], bytes[3]], port).into())),
            record::FAMILY_INET6 => {
                Ok(Address::Inet((std::net::Ipv6Addr::from(bytes).to_canonical(), port).into()))
            }
            _ => Err(DecodeError::Invalid { field: "family", value: family.into() }),
        };
        let (local, remote) = if family == record::FAMILY_UNIX {
            let path = socket
                .path
                .get(..usize::from(socket.path_len))
                .ok_or(DecodeError::Invalid { field: "path_len", value: socket.path_len.into() })?;
            (Address::Unix(unix_name(path)), Address::Unix(String::new()))
        } else {
            (inet(local, local_port)?, inet(remote, remote_port)?)
        };
        let born = header.flags & record::FLAG_BORN != 0;
        Ok((header, Opened { local, remote, inode, born }))
    }

    fn closed(&self) -> Result<Event<'a>, DecodeError> {
        let (record::Closed { header, received, sent, exit_code, .. }, _) = self.read()?;
        let closed = Closed {
            how: match header.detail {
                record::CLOSED_BY_PEER => Closing::ByPeer,
                record::CLOSED_LOCALLY => Closing::Locally,
                record::CLOSED_FULLY => Closing::Fully,
                other => return Err(DecodeError::Invalid { field: "detail", value: other.into() }),
            },
            reset: header.flags & record::FLAG_RESET != 0,
            exit_code: (header.flags & record::FLAG_EXITING != 0).then_some(exit_code),
            received,
            sent,
        };
        Ok(Event::Closed(origin(&header), ConnectionId(header.connection), closed))
    }

    fn process(&self) -> Result<Event<'a>, DecodeError> {
        let (record::Process { header, other, exit_code, cpu }, _) = self.read()?;
        let change = match header.detail {
            record::PROCESS_FORKED => ProcessChange::Forked(other),
            record::PROCESS_EXECUTED => ProcessChange::Executed,
            record::PROCESS_EXITED => ProcessChange::Exited { code: exit_code, cpu },
            record::PROCESS_MAPPED => ProcessChange::Mapped,
            record::PROCESS_USES_RINGS => ProcessChange::Evades(Evasion::IoUring),
            record::PROCESS_IS_32_BIT => ProcessChange::Evades(Evasion::Calls32Bit),
            other => return Err(DecodeError::Invalid { field: "detail", value: other.into() }),
        };
        Ok(Event::Process(origin(&header), change))
    }
}

/// A bound unix socket's name for people: a path up to its first zero byte, an abstract name with `@` for the leading one.
fn unix_name(bytes: &[u8]) -> String {
    match bytes.split_first() {
        Some((0, rest)) if !rest.is_empty() => format!("@{}", String::from_utf8_lossy(rest)),
        _ => {
            let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).into_owned()
        }
    }
}

#[cfg(test)]
mod tests;
