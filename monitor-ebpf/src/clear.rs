//! Clear text on its way to the agent. Programs at functions are preempted, so that no scratch is theirs: each record is put
//! together in the buffer.

use monitor_ebpf::{
    config::{CARRIES_FRAMES, Cipher, Connection, Limits, Thread, loss},
    record::{
        Data, FLAG_OWED, FLAG_PLAIN, FLAG_SPLICED, FLAG_TURNED, Header, KIND_RECEIVED, KIND_SENT, enciphered,
    },
};

use crate::{
    frames,
    kernel::now,
    maps::lost,
    output::{self, Room, Wake},
    tls::cipher,
    transfer::{self, Step},
    user::{self, Call, Shape, Slices},
};

/// Some of what a session carries.
struct Piece {
    at: u64,
    moved: u32,
    direction: u8,
    call: Call,
    step: Step,
    /// How many of its first bytes are to be copied.
    wanted: u32,
}

impl Piece {
    /// Counts `moved` bytes.
    #[inline(always)]
    fn new(plain: &mut Connection, call: Call, moved: u32, direction: u8, at: u64) -> Self {
        let step = transfer::step(plain, moved, direction);
        let wanted = transfer::wanted(plain, &step, &call, moved);
        Self { at, moved, direction, call, step, wanted }
    }

    /// The same of what is sent.
    #[inline(always)]
    fn sent(plain: &mut Connection, address: u64, moved: u32, flags: u16, at: u64) -> Self {
        Self::new(plain, Call::flat(address, flags), moved, KIND_SENT, at)
    }

    /// Sends a record with its bytes, which are in one piece; whether there was room for it.
    #[inline(always)]
    fn put_flat(&self, plain: &mut Connection) -> bool {
        let Self { at, moved, ref call, wanted, .. } = *self;
        let copy = |most: u64| {
            move |to| match call.shape {
                Shape::Flat => user::flat(call.address, moved.into(), wanted.into(), to, most - 1, at),
                _ => (0, 0),
            }
        };
        if wanted < 256 {
            self.put::<256>(plain, copy(256))
        } else if wanted < 2048 {
            self.put::<2048>(plain, copy(2048))
        } else {
            self.put::<16384>(plain, copy(16384))
        }
    }

    /// Sends a record with room for `N` bytes, which `copy` puts there, and tells how many of the first and of the last;
    /// whether there was room for it.
    #[inline(always)]
    fn put<const N: usize>(&self, plain: &mut Connection, copy: impl FnOnce(*mut u8) -> (u64, u64)) -> bool {
        let Some(mut entry) = output::reserve::<Room<N>>() else { return false };
        let room = entry.as_mut_ptr();
        // SAFETY: the record's own memory.
        unsafe {
            let bytes = (&raw mut (*room).bytes).cast::<u8>();
            let (prefix, tail) = copy(bytes);
            if user::forget(prefix, self.at) >= 8
                && transfer::starts_frames(plain, &self.step, bytes.cast::<u64>().read())
            {
                plain.carries = CARRIES_FRAMES;
            }
            let data = self.record(plain);
            (&raw mut (*room).data).write(Data { prefix: prefix as u16, tail: tail as u16, ..data });
        }
        output::submit(entry, Wake::Later);
        true
    }

    /// Its record, with none of its bytes yet.
    #[inline(always)]
    fn record(&self, plain: &Connection) -> Data {
        let Self { at, moved, direction, call, step, .. } = self;
        Data {
            header: Header {
                kind: *direction,
                detail: 0,
                flags: call.reason | if step.turned { FLAG_TURNED } else { 0 },
                service: plain.service,
                at: *at,
                connection: plain.id,
                pid: plain.pid,
                fd: -1,
            },
            offset: step.offset,
            other: step.other,
            arrived: step.arrived,
            len: *moved,
            prefix: 0,
            tail: 0,
        }
    }
}

/// Sends what a thread's function moved. `loops`: all kernels that have the hook have `bpf_loop`, from Linux 5.17.
#[inline(always)]
pub(crate) fn deliver(cipher: &mut Cipher, thread: &Thread, moved: u32, loops: bool) {
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
    let plain = &mut cipher.plain;
    let shape = if flags & FLAG_SPLICED == 0 { Shape::Flat } else { Shape::None };
    let call = Call { shape, ..Call::flat(thread.buffer, flags) };
    let piece = Piece::new(plain, call, moved, direction, at);
    let large = direction == KIND_SENT && moved > Limits::MOST && piece.call.shape == Shape::Flat;
    if loops && large && plain.carries == CARRIES_FRAMES {
        let flags = flags | if piece.step.turned { FLAG_TURNED } else { 0 };
        if httpmon_whole(plain.id, thread.buffer, moved.into(), at, flags.into()) != 0 {
            return;
        }
    }
    if !piece.put_flat(plain)
        && direction == KIND_RECEIVED
        && piece.step.turned
        && transfer::starts_message(&piece.call)
    {
        lost(loss::REQUESTS);
    }
}

/// Sends what a connection sent, of which so much is in one piece, and the rest out of reach. Not static, so that the
/// verifier looks at it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_piece(id: u64, address: u64, lengths: u64, at: u64, flags: u64) -> u64 {
    let (known, moved) = (lengths & 0xffff_ffff, (lengths >> 32) as u32);
    let Some(Cipher { plain, .. }) = cipher(id) else { return 0 };
    let piece = Piece::sent(plain, address, moved, flags as u16, at);
    let sent = if known >= u64::from(moved) {
        piece.put_flat(plain)
    } else {
        let wanted = u64::from(piece.wanted);
        let wanted = if known < wanted { known } else { wanted };
        piece.put::<2048>(plain, |to| user::first(address, wanted, to, 2047, at))
    };
    sent.into()
}

/// The same of what is in slices, and will be sent.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_slices(id: u64, list: u64, parts: u64, skip: u64, moved: u64) -> u64 {
    send_slices(id, Slices { list, parts, skip, moved }, false).into()
}

/// The same where the kernel has `bpf_loop`.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_many_slices(id: u64, list: u64, parts: u64, skip: u64, moved: u64) -> u64 {
    send_slices(id, Slices { list, parts, skip, moved }, true).into()
}

#[inline(always)]
fn send_slices(id: u64, slices: Slices, loops: bool) -> bool {
    let at = now();
    let Some(Cipher { plain, .. }) = cipher(id) else { return false };
    let piece = Piece::sent(plain, 0, slices.moved as u32, FLAG_PLAIN | FLAG_OWED, at);
    let wanted = u64::from(piece.wanted);
    if wanted < 1024 {
        piece.put::<2048>(plain, |to| user::slices::<1024>(slices, wanted, to, at))
    } else if loops {
        piece.put::<ROOM_FOR_GATHERING>(plain, |to| user::gather_slices(slices, to, at))
    } else {
        piece.put::<16384>(plain, |to| user::slices::<{ user::PIECE }>(slices, wanted, to, at))
    }
}

/// The most bytes, and a piece.
const ROOM_FOR_GATHERING: usize = 16384 + user::PIECE as usize;

/// Sends what matters of what a connection sent, and that counts already, if it is whole frames of HTTP/2: then 1. Not static,
/// so that the verifier looks at it once.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_whole(id: u64, address: u64, moved: u64, at: u64, flags: u64) -> u64 {
    let Some(Cipher { plain, .. }) = cipher(id) else { return 0 };
    let call = Call::flat(address, flags as u16);
    let step = Step::of_sent(plain, moved);
    let piece = Piece { at, moved: moved as u32, direction: KIND_SENT, call, step, wanted: 0 };
    frames::carry_whole(&piece.record(plain), address).into()
}
