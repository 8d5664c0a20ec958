//! One direction of a connection: frames, and the header blocks in them.

use std::ops::Range;

use super::{
    PREFACE,
    fields::Fields,
    frame::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HAS_PRIORITY, HEADERS, Header, LEN, PADDED,
        PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    },
    hpack::{Beyond, Decoder},
    recognise::{Scout, recognise},
};
use crate::exchange::Portion;

/// The longest header block that is put together; of a longer one only the beginning is read.
const LONGEST_BLOCK: usize = 64 << 10;
/// The longest payload of any other frame that is looked at: more settings than there are.
const LONGEST_PAYLOAD: usize = 512;

const SETTINGS_HEADER_TABLE_SIZE: u16 = 1;

/// What was found out.
#[derive(Debug)]
pub enum Fact {
    /// Nothing that matters.
    Nothing,
    /// A header block ended.
    Headers {
        /// Whose.
        stream: u32,
        /// Whether it is the last that its sender says on the stream.
        end: bool,
        /// What it says.
        fields: Box<Fields>,
    },
    /// Octets of a body, padding excluded.
    Data {
        /// Whose.
        stream: u32,
        /// How many.
        octets: u64,
        /// Whether they were the last.
        end: bool,
    },
    /// The stream was given up.
    Reset {
        /// Which.
        stream: u32,
        /// RFC 9113, section 7.
        code: u32,
    },
    /// No stream after this one was or will be looked at.
    GoAway {
        /// The last one.
        last: u32,
    },
    /// The size that the other side's encoder may use.
    TableSize(u32),
    /// Where frames begin isn't known (any more).
    Lost,
}

/// What a step over some bytes came to.
#[derive(Debug)]
pub struct Step {
    /// How many bytes were read.
    pub read: usize,
    /// What they were.
    pub portion: Portion,
    /// What they told.
    pub fact: Fact,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the client's preface, of which so many bytes were read.
    Preface(usize),
    /// In a frame's header.
    Header { bytes: [u8; LEN], have: usize },
    /// In a payload, of which so much is left. Once a part of it is missing, what is held is all of it that counts.
    Payload { header: Header, left: u32, cut: bool },
    /// In the payload of DATA: how much is left, how much of that is padding, and whether that isn't known yet.
    Data { header: Header, left: u32, padding: u32, padded: bool },
    /// At an unknown place.
    Lost,
}

const START: State = State::Header { bytes: [0; LEN], have: 0 };

/// The block that is being put together.
#[derive(Debug)]
struct Block {
    stream: u32,
    end: bool,
    /// Of a promise: its fields are nobody's.
    promised: bool,
    bytes: Vec<u8>,
    whole: bool,
}

/// One direction.
#[derive(Debug)]
pub struct Half {
    state: State,
    /// Whether no frame was read of a direction that begins here: the first is to be SETTINGS (RFC 9113, section 3.4).
    opens: bool,
    decoder: Decoder,
    block: Option<Block>,
    /// A payload in pieces.
    held: Vec<u8>,
}

impl Half {
    /// A client's direction from its first byte on.
    #[must_use]
    pub fn client() -> Self {
        Self { state: State::Preface(0), ..Self::server() }
    }

    /// A server's direction from its first byte on.
    #[must_use]
    pub fn server() -> Self {
        let decoder = Decoder::new(Beyond::Nothing, Fields::asked);
        Self { state: START, opens: true, decoder, block: None, held: Vec::new() }
    }

    /// A direction of which the beginning wasn't seen.
    #[must_use]
    pub fn joined() -> Self {
        Self {
            state: State::Lost,
            opens: false,
            decoder: Decoder::new(Beyond::Unknown, Fields::asked),
            ..Self::server()
        }
    }

    /// Whether the first byte of a frame comes next that doesn't continue a header block.
    #[must_use]
    pub fn between_messages(&self) -> bool {
        matches!(self.state, State::Header { have: 0, .. }) && self.block.is_none()
    }

    /// Whether the place isn't known.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Where the place isn't known: an operation of `len` bytes begins, with these.
    pub fn find(&mut self, bytes: &[u8], len: u32) {
        if self.state == State::Lost && recognise(bytes, len) {
            self.state = START;
        }
    }

    /// Where the place isn't known: this was a frame's header, and its payload comes next.
    pub fn resume(&mut self, scout: &Scout) {
        if self.state == State::Lost {
            self.state = START;
            self.header(scout.header);
        }
    }

    /// Where the place isn't known: a frame begins here.
    pub fn start(&mut self) {
        if self.state == State::Lost {
            self.state = START;
        }
    }

    /// How many of the bytes that come next are DATA's payload, which records of frames leave out.
    #[must_use]
    pub fn left_out(&self) -> u64 {
        match self.state {
            State::Data { left, padded: false, .. } => left.into(),
            _ => 0,
        }
    }

    /// The other side's setting.
    pub fn allow_table(&mut self, size: u32) {
        self.decoder.allow(size);
    }

    /// The place isn't known from here on.
    pub fn lose(&mut self) {
        self.state = State::Lost;
        self.opens = false;
        self.block = None;
        self.held = Vec::new();
        self.decoder.forget();
    }

    /// Reads on.
    pub fn step(&mut self, bytes: &[u8]) -> Step {
        let framing = |read, fact| Step { read, portion: Portion::Framing, fact };
        match self.state {
            State::Lost => Step { read: bytes.len(), portion: Portion::Other, fact: Fact::Lost },
            State::Preface(have) => {
                let expected = &PREFACE[have..];
                let len = expected.len().min(bytes.len());
                if bytes[..len] != expected[..len] {
                    self.lose();
                    return Step { read: bytes.len(), portion: Portion::Other, fact: Fact::Lost };
                }
                self.state = if len == expected.len() { START } else { State::Preface(have + len) };
                framing(len, Fact::Nothing)
            }
            State::Header { bytes: mut header, have } => {
                let len = (LEN - have).min(bytes.len());
                header[have..have + len].copy_from_slice(&bytes[..len]);
                self.state = State::Header { bytes: header, have: have + len };
                let fact = if have + len == LEN { self.header(Header::read(&header)) } else { Fact::Nothing };
                framing(len, fact)
            }
            State::Data { header, left, padding: _, padded: true } => {
                let padding = u32::from(bytes[0]);
                let left = left - 1;
                if padding > left {
                    self.lose();
                    return framing(1, Fact::Lost);
                }
                self.state = State::Data { header, left, padding, padded: false };
                framing(1, if left == 0 { self.pass_data(0) } else { Fact::Nothing })
            }
            State::Data { left, .. } => {
                let read = bytes.len().min(left as usize);
                let fact = self.pass_data(read as u32);
                Step { read, portion: Portion::Body, fact }
            }
            State::Payload { header, left, cut } => {
                let (portion, most) = portion_of(&header, left);
                let read = bytes.len().min(most as usize);
                let fact = self.payload(header, left, cut, &bytes[..read]);
                Step { read, portion, fact }
            }
        }
    }

    /// Passes over bytes that weren't captured.
    pub fn skip(&mut self, count: u64) -> Fact {
        match self.state {
            State::Data { left, padded: false, .. } if count <= u64::from(left) => {
                self.pass_data(count as u32)
            }
            // Without the padding's length all of it counts as the body's.
            State::Data { header, left, padding, padded: true } if count > 0 && count <= u64::from(left) => {
                self.state = State::Data { header, left, padding, padded: false };
                self.pass_data(count as u32)
            }
            State::Payload { header, left, .. } if count > 0 && count <= u64::from(left) => {
                self.state = State::Payload { header, left: left - count as u32, cut: true };
                if count < u64::from(left) { Fact::Nothing } else { self.payload(header, 0, true, &[]) }
            }
            _ if count == 0 => Fact::Nothing,
            _ => {
                self.lose();
                Fact::Lost
            }
        }
    }

    /// A frame's header was read.
    fn header(&mut self, header: Header) -> Fact {
        let continues = header.kind == CONTINUATION;
        let expected = match &self.block {
            Some(block) => continues && block.stream == header.stream,
            None => !continues,
        };
        let settles = header.kind == SETTINGS && !header.has(ACK);
        let opens = std::mem::take(&mut self.opens);
        if !header.is_possible() || !expected || (opens && !settles) {
            self.lose();
            return Fact::Lost;
        }
        if matches!(header.kind, HEADERS | PUSH_PROMISE) {
            self.block = Some(Block {
                stream: header.stream,
                end: header.has(END_STREAM) && header.kind == HEADERS,
                promised: header.kind == PUSH_PROMISE,
                bytes: Vec::new(),
                whole: true,
            });
        }
        if header.kind == DATA {
            let padded = header.has(PADDED);
            if padded && header.len == 0 {
                self.lose();
                return Fact::Lost;
            }
            self.state = State::Data { header, left: header.len, padding: 0, padded };
            return if header.len == 0 { self.pass_data(0) } else { Fact::Nothing };
        }
        if header.len > 0 {
            self.state = State::Payload { header, left: header.len, cut: false };
            return Fact::Nothing;
        }
        self.payload(header, 0, false, &[])
    }

    /// So many bytes of DATA were passed over.
    fn pass_data(&mut self, count: u32) -> Fact {
        let State::Data { header, left, padding, .. } = self.state else { return Fact::Nothing };
        let octets = count.min(left - padding.min(left));
        let left = left - count;
        self.state = State::Data { header, left, padding: padding.min(left), padded: false };
        if left == 0 {
            self.state = START;
        }
        let end = left == 0 && header.has(END_STREAM);
        Fact::Data { stream: header.stream, octets: octets.into(), end }
    }

    /// A part of a payload other than DATA's, of which `left` bytes were to come.
    fn payload(&mut self, header: Header, left: u32, cut: bool, part: &[u8]) -> Fact {
        let left = left - part.len() as u32;
        let room = if self.block.is_some() { LONGEST_BLOCK } else { LONGEST_PAYLOAD };
        let cut = cut || self.held.len() + part.len() > room;
        if left > 0 || !self.held.is_empty() {
            if !cut {
                self.held.extend_from_slice(part);
            }
            if left > 0 {
                self.state = State::Payload { header, left, cut };
                return Fact::Nothing;
            }
            self.state = START;
            let held = std::mem::take(&mut self.held);
            return self.ended(&header, &held, cut);
        }
        self.state = START;
        self.ended(&header, if cut { &[] } else { part }, cut)
    }

    /// A frame has ended. Its payload is whole, or cut to its beginning.
    fn ended(&mut self, header: &Header, payload: &[u8], cut: bool) -> Fact {
        match header.kind {
            HEADERS | CONTINUATION | PUSH_PROMISE => self.block_goes_on(header, payload, cut),
            RST_STREAM => match word(payload, 0) {
                Some(code) => Fact::Reset { stream: header.stream, code },
                None => Fact::Nothing,
            },
            GOAWAY => match word(payload, 0) {
                Some(last) => Fact::GoAway { last: last & !(1 << 31) },
                None => Fact::Nothing,
            },
            SETTINGS if !header.has(ACK) => table_size(payload).map_or(Fact::Nothing, Fact::TableSize),
            _ => Fact::Nothing,
        }
    }

    fn block_goes_on(&mut self, header: &Header, payload: &[u8], cut: bool) -> Fact {
        let Some(block) = &mut self.block else { return Fact::Nothing };
        if block.whole {
            let fragment = fragment(header, payload, cut);
            let room = LONGEST_BLOCK.saturating_sub(block.bytes.len());
            block.whole = !cut && fragment.is_some_and(|fragment| fragment.len() <= room);
            let fragment = fragment.unwrap_or_default();
            block.bytes.extend_from_slice(&fragment[..fragment.len().min(room)]);
        }
        if !header.has(END_HEADERS) {
            return Fact::Nothing;
        }
        let Some(block) = self.block.take() else { return Fact::Nothing };
        let fields = Fields::of(&block.bytes, block.whole, &mut self.decoder);
        if block.promised {
            return Fact::Nothing;
        }
        Fact::Headers { stream: block.stream, end: block.end, fields: Box::new(fields) }
    }
}

/// What the next bytes of a payload are, of which `left` are to come, and how many of them are that.
fn portion_of(header: &Header, left: u32) -> (Portion, u32) {
    /// Of GOAWAY, before what may be any words.
    const GOAWAY_FIXED: u32 = 8;
    let words = header.len.saturating_sub(GOAWAY_FIXED);
    match header.kind {
        HEADERS | CONTINUATION | PUSH_PROMISE => (Portion::Block, left),
        SETTINGS | RST_STREAM | PRIORITY | WINDOW_UPDATE => (Portion::Framing, left),
        GOAWAY if left > words => (Portion::Framing, left - words),
        _ => (Portion::Body, left),
    }
}

fn word(payload: &[u8], at: usize) -> Option<u32> {
    payload.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// The header block's fragment in a payload, or as much of it as there is.
fn fragment<'a>(header: &Header, payload: &'a [u8], cut: bool) -> Option<&'a [u8]> {
    if header.kind == CONTINUATION {
        return Some(payload);
    }
    let place = fragment_place(header, payload)?;
    payload.get(place.start..if cut { place.end.min(payload.len()) } else { place.end })
}

/// Where in a payload that isn't CONTINUATION's the header block's fragment is (RFC 9113, sections 6.2 and 6.6).
pub(super) fn fragment_place(header: &Header, payload: &[u8]) -> Option<Range<usize>> {
    let padded = header.has(PADDED);
    let padding = if padded { u32::from(*payload.first()?) } else { 0 };
    let end = header.len.checked_sub(padding)? as usize;
    let more = match header.kind {
        PUSH_PROMISE => 4,
        _ if header.has(HAS_PRIORITY) => 5,
        _ => 0,
    };
    Some(usize::from(padded) + more..end)
}

fn table_size(payload: &[u8]) -> Option<u32> {
    let settings = payload.chunks_exact(6);
    let mut sizes = settings.filter(|setting| setting[..2] == SETTINGS_HEADER_TABLE_SIZE.to_be_bytes());
    word(sizes.next_back()?, 2)
}

#[cfg(test)]
mod tests;
