//! HTTP/2's frames in what an operation moved: all but the payloads of DATA goes into records, so that a large body costs
//! its frames' headers alone, and nothing of what matters lies too deep in an operation to be seen.
//!
//! That needs each direction's [`Place`], which is known from a connection's first byte on. Where it isn't (the connection
//! was joined midway, or bytes were out of reach), it is known again after an operation that is whole frames from its first
//! byte to its last; until then operations are copied as others are.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_loop;
use monitor_ebpf::{
    config::{CARRIES_FRAMES, Connection, Limits},
    place::Place,
    record::{Data, FLAG_FRAMES, FLAG_TURNED, Header, KIND_RECEIVED, KIND_SENT},
};

use crate::{
    maps::{EVENTS, SCRATCH, Scratch},
    output::{self, Room, Wake},
    user::{Call, PIECE, Shape, bounded, copy_piece, forget, words},
};

/// The most steps over one record's bytes: parts of a vector, headers, payloads and pieces of them.
const MOST_STEPS: u32 = 1 << 13;
/// The most records of one operation.
const MOST_RECORDS: u32 = 1 << 8;
/// One less than the most bytes of a record.
const MASK: u64 = Limits::MOST as u64 - 1;

const HEADER_LEN: u64 = Place::HEADER_LEN as u64;
const COUNT: u64 = Place::COUNT as u64;
const PAYLOAD: u64 = Place::PAYLOAD as u64;
const DATA: u64 = Place::DATA as u64;
const PADDED: u64 = Place::PADDED as u64;
const START: u64 = Place::START.0 as u64;

/// How far the walk over an operation has come.
struct Walk {
    /// Where the next part's address and length are, and how many parts are left.
    next: u64,
    parts: u64,
    /// What is left of the part at hand.
    address: u64,
    len: u64,
    /// What is left of the operation.
    left: u64,
    /// The [`Place`].
    place: u64,
    /// Not 0: that is an assumption, to be proved by the operation's being whole frames.
    assumed: u64,
    /// Not 0: there are headers that speak against it.
    unusual: u64,
    /// Not 0: the rest can't be read.
    failed: u64,
    /// How many bytes are in the record at hand, and how many of the operation it stands for.
    copied: u64,
    walked: u64,
    /// When the operation was done.
    at: u64,
    /// Where the record's bytes go.
    to: *mut u8,
}

/// Where what a direction carries stands.
#[inline(always)]
fn place_of(connection: &mut Connection, direction: u8) -> &mut u32 {
    if direction == KIND_RECEIVED { &mut connection.burst } else { &mut connection.sent_place }
}

/// A connection was found to carry frames, by an operation that began at `offset`, perhaps with the client's preface.
#[inline(always)]
pub(crate) fn begin(connection: &mut Connection, direction: u8, offset: u64, preface: bool) {
    // What a client sends first is surely the preface, and the server has sent nothing but frames. After an upgrade, which
    // can't be told from a body that begins so, places are found.
    let known = preface && offset == 0;
    connection.carries = CARRIES_FRAMES;
    connection.burst = if known { Place::START.0 } else { 0 };
    connection.sent_place = connection.burst;
    if known {
        *place_of(connection, direction) = Place::PREFACE.0;
    }
}

/// Sends what matters of an operation on a connection that carries frames. Where it could not be walked over, false: it is
/// to be copied as others are. The direction's scratch holds the operation's record.
#[inline(always)]
pub(crate) fn carry(connection: &mut Connection, direction: u8, call: &Call, moved: u32, at: u64) -> bool {
    let place = place_of(connection, direction);
    if call.shape == Shape::None {
        *place = beyond(*place, moved);
        return false;
    }
    let parts = if call.shape == Shape::Flat { FLAT } else { call.parts };
    let which = u64::from(direction == KIND_SENT);
    let done = httpmon_frames(which, (*place).into(), call.address, parts, at);
    *place = done as u32;
    done & TOLD != 0
}

/// Instead of a number of parts: the bytes are in one piece.
const FLAT: u64 = u64::MAX;
/// Beside a place: the operation was told.
const TOLD: u64 = 1 << 32;

/// Walks over an operation; its place after it, and whether it was told. Not static, so that the verifier looks at it once,
/// for any arguments, and not for each way that leads here.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn httpmon_frames(which: u64, place: u64, address: u64, parts: u64, at: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(which as u32 & 1) else { return 0 };
    // SAFETY: the slot is the calling program's own while it runs.
    let (moved, to) = unsafe { (u64::from((*scratch).data.len), (&raw mut (*scratch).bytes).cast()) };
    let mut records = Records { walk: Walk::new(place, address, parts, moved, at, to), scratch };
    // SAFETY: the callback is given what is on this function's stack.
    unsafe {
        let records = &raw mut records;
        bpf_loop(MOST_RECORDS, record as *mut c_void, records.cast(), 0);
    }
    let walk = &records.walk;
    if walk.failed == 0 {
        walk.place & 0xffff_ffff | TOLD
    } else if walk.assumed == 0 {
        TOLD
    } else {
        0
    }
}

/// The place after so many bytes that are out of reach: known as long as they belong to one payload.
#[inline(always)]
fn beyond(place: u32, moved: u32) -> u32 {
    let count = place & Place::COUNT;
    if place & Place::PAYLOAD == 0 || moved > count {
        return Place::UNKNOWN.0;
    }
    if moved == count { Place::START.0 } else { (place & !Place::PADDED) - moved }
}

/// A walk that makes records of the direction's scratch.
struct Records {
    walk: Walk,
    scratch: *mut Scratch,
}

/// Makes one record, and sends it; 1 when there is no more to do.
unsafe extern "C" fn record(_index: u64, records: *mut Records) -> i64 {
    // SAFETY: `carry` passes it, and waits.
    let Records { walk, scratch } = unsafe { &mut *records };
    let begins = walk.place as u32;
    let unknown = walk.at;
    walk.copied = forget(0, unknown);
    walk.walked = forget(0, unknown);
    // SAFETY: the callback is given what the calling program has on its stack.
    unsafe {
        let step = step::<{ Limits::MOST as u64 }, PIECE>;
        bpf_loop(MOST_STEPS, step as *mut c_void, (&raw mut *walk).cast(), 0);
    }
    if walk.walked == 0 {
        walk.failed = 1;
    }
    if walk.assumed != 0 && !walk.proved() {
        walk.failed = 1;
        return 1;
    }
    if walk.failed != 0 {
        walk.walked += walk.left;
        walk.left = 0;
    }
    walk.forget();
    let copied = bounded(walk.copied, MASK, unknown);
    // SAFETY: the slot is the calling program's own, and has room beyond [`Limits::MOST`].
    unsafe {
        let data = &raw mut (**scratch).data;
        (*data).header.flags |= FLAG_FRAMES;
        (*data).len = walk.walked as u32;
        (*data).prefix = copied as u16;
        (*data).tail = size_of::<Place>() as u16;
        walk.to.add(copied as usize).cast::<u32>().write_unaligned(begins);
        let size = size_of::<Data>() as u64 + copied + size_of::<Place>() as u64;
        output::copy(scratch.cast(), size, walk.at);
        (*data).offset += walk.walked;
        (*data).arrived = 0;
        (*data).header.flags &= !FLAG_TURNED;
    }
    i64::from(walk.left == 0)
}

/// Sends what matters of clear text in one piece, if it is whole frames, in one record; whether that could be.
/// One of `ROOM` bytes holds the headers of 16 KiB frames for nearly 2048 times as much, so the larger is for more than
/// most write at once.
#[inline(always)]
pub(crate) fn carry_whole(data: &Data, address: u64) -> bool {
    const SMALL: u64 = 1 << 10;
    const LARGE: u64 = 1 << 13;
    if data.len < 1 << 20 {
        carry_in::<SMALL, { 2 * SMALL as usize }>(data, address)
    } else {
        carry_in::<LARGE, { 2 * LARGE as usize }>(data, address)
    }
}

#[inline(never)]
fn carry_in<const ROOM: u64, const TWICE: usize>(data: &Data, address: u64) -> bool {
    let Some(mut entry) = EVENTS.reserve::<Room<TWICE>>(0) else { return false };
    let room = entry.as_mut_ptr();
    let at = data.header.at;
    // SAFETY: the record's own memory.
    let to = unsafe { (&raw mut (*room).bytes).cast::<u8>() };
    let mut walk = Walk::new(0, address, FLAT, data.len.into(), at, to);
    // SAFETY: the callback is given what is on this function's stack.
    unsafe {
        let (step, walk) = (step::<ROOM, ROOM>, &raw mut walk);
        bpf_loop(MOST_STEPS, step as *mut c_void, walk.cast(), 0);
    }
    if walk.failed != 0 || !walk.proved() {
        entry.discard(0);
        return false;
    }
    let copied = bounded(walk.copied, ROOM - 1, at);
    // SAFETY: as above, and there is room beyond `ROOM`.
    unsafe {
        to.add(copied as usize).cast::<u32>().write_unaligned(Place::START.0);
        let header = Header { flags: data.header.flags | FLAG_FRAMES, ..data.header };
        let tail = size_of::<Place>() as u16;
        (&raw mut (*room).data).write(Data { header, prefix: copied as u16, tail, ..*data });
    }
    output::submit(entry, Wake::Later);
    true
}

/// Walks over the rest of a part of the vector, of a payload, or over a header; 1 when the record, which holds `ROOM` bytes
/// and a piece, is full, or there is no more to do.
unsafe extern "C" fn step<const ROOM: u64, const PIECE: u64>(_index: u64, walk: *mut Walk) -> i64 {
    // SAFETY: the caller passes it, and waits.
    let walk = unsafe { &mut *walk };
    let unknown = walk.at;
    if walk.len == 0 {
        if walk.parts == 0 {
            walk.failed = 1;
            return 1;
        }
        let [address, len] = words(walk.next);
        walk.parts = forget(walk.parts - 1, unknown);
        walk.next = walk.next.wrapping_add(16);
        walk.address = address;
        walk.len = forget(if len > walk.left { walk.left } else { len }, unknown);
        return 0;
    }
    let place = walk.place;
    let most = if place & (PAYLOAD | PADDED) == PAYLOAD {
        place & COUNT
    } else if place == START && walk.len >= HEADER_LEN {
        HEADER_LEN
    } else {
        1
    };
    let most = forget(most, unknown);
    let mut passed = forget(if most > walk.len { walk.len } else { most }, unknown);
    let next = if place & (PAYLOAD | DATA | PADDED) == PAYLOAD | DATA {
        after(place, passed)
    } else {
        passed = bounded(passed, PIECE - 1, unknown);
        let at = bounded(walk.copied, ROOM - 1, unknown);
        if at + passed > ROOM - 1 {
            return 1;
        }
        // SAFETY: the room is for so many bytes and a piece.
        let to = unsafe { walk.to.add(at as usize) };
        if copy_piece(to, passed, walk.address) != passed {
            walk.failed = 1;
            return 1;
        }
        walk.copied = forget(at + passed, unknown);
        // SAFETY: so much was copied, or is left of what was before.
        let bytes = unsafe { to.cast::<[u8; HEADER_LEN as usize]>().read() };
        if place & PAYLOAD != 0 {
            after(place & !PADDED, passed)
        } else if passed == 1 {
            header_goes_on(place, bytes[0].into())
        } else {
            walk.unusual |= unusual(&bytes);
            begun(&bytes)
        }
    };
    walk.place = next;
    walk.address = walk.address.wrapping_add(passed);
    walk.len -= passed;
    walk.walked += passed;
    walk.left -= passed;
    let left = walk.left;
    walk.forget();
    i64::from(left == 0)
}

impl Walk {
    /// Over so many bytes, from an assumed place where it isn't known.
    #[inline(always)]
    fn new(place: u64, address: u64, parts: u64, moved: u64, at: u64, to: *mut u8) -> Self {
        let mut walk = Self {
            next: address,
            parts: if parts == FLAT { 0 } else { parts },
            address,
            len: if parts == FLAT { moved } else { 0 },
            left: moved,
            place: if place == 0 { START } else { place },
            assumed: u64::from(place == 0),
            unusual: 0,
            failed: 0,
            copied: 0,
            walked: 0,
            at,
            to,
        };
        walk.forget();
        walk
    }

    /// Whether the operation is whole frames, which an assumed place is right of.
    #[inline(always)]
    fn proved(&self) -> bool {
        self.unusual == 0 && self.left == 0 && self.place == START
    }

    /// Makes the verifier forget what it knows of how far this came, so that each step is to it like the first.
    #[inline(always)]
    fn forget(&mut self) {
        let unknown = self.at;
        self.next = forget(self.next, unknown);
        self.parts = forget(self.parts, unknown);
        self.address = forget(self.address, unknown);
        self.len = forget(self.len, unknown);
        self.left = forget(self.left, unknown);
        self.place = forget(self.place, unknown);
        self.assumed = forget(self.assumed, unknown);
        self.unusual = forget(self.unusual, unknown);
        self.failed = forget(self.failed, unknown);
        self.copied = forget(self.copied, unknown);
        self.walked = forget(self.walked, unknown);
    }
}

/// The place after so many bytes of a payload.
#[inline(always)]
fn after(place: u64, passed: u64) -> u64 {
    if place & COUNT == passed { START } else { place - passed }
}

/// The place after a header.
#[inline(always)]
fn begun(header: &[u8; HEADER_LEN as usize]) -> u64 {
    let [a, b, c, kind, flags, ..] = header.map(u64::from);
    payload(a << 16 | b << 8 | c | kind_bit(kind) | padding_bit(kind_bit(kind), flags))
}

/// The place after one byte more of a header that comes in pieces.
#[inline(always)]
fn header_goes_on(place: u64, byte: u64) -> u64 {
    let have = place >> Place::HAVE & 15;
    let place = place + (1 << Place::HAVE);
    if have < 3 {
        return (place & !COUNT) | ((place << 8 | byte) & COUNT);
    }
    match have {
        3 => place | kind_bit(byte),
        4 => place | padding_bit(place, byte),
        8 => payload(place & (COUNT | DATA | PADDED)),
        _ => place,
    }
}

/// A payload's first byte, or if it has none the next frame's.
#[inline(always)]
fn payload(of: u64) -> u64 {
    if of & COUNT == 0 { START } else { PAYLOAD | of }
}

/// What is told by a frame's kind: DATA's is 0.
#[inline(always)]
fn kind_bit(kind: u64) -> u64 {
    (kind.wrapping_sub(1) >> 63) * DATA
}

/// What is told by the flags of DATA.
#[inline(always)]
fn padding_bit(kind: u64, flags: u64) -> u64 {
    (kind & DATA) / DATA * (flags >> 3 & 1) * PADDED
}

/// Not 0 where a header isn't one that peers send: what is assumed to be one may be anything.
#[inline(always)]
fn unusual(header: &[u8; HEADER_LEN as usize]) -> u64 {
    const LAST_KIND: u64 = 9;
    const LONGEST: u64 = 1 << 14;
    // END_STREAM or ACK, END_HEADERS, PADDED, PRIORITY.
    const FLAGS: u64 = 0x2d;
    // By kind: of what belongs to a stream, and of what belongs to none.
    const OF_A_STREAM: u64 = 0b11_0010_1111;
    const OF_NONE: u64 = 0b01_1101_0000;
    let [a, b, c, kind, flags, stream @ ..] = header.map(u64::from);
    let len = a << 16 | b << 8 | c;
    let stream = stream[0] << 24 | stream[1] << 16 | stream[2] << 8 | stream[3];
    let any = stream.wrapping_neg() >> 63;
    let kinds = OF_A_STREAM * any + OF_NONE * (1 - any);
    LAST_KIND.wrapping_sub(kind) >> 63
        | LONGEST.wrapping_sub(len) >> 63
        | stream >> 31
        | flags & !FLAGS
        | !(kinds >> (kind & 15)) & 1
}
