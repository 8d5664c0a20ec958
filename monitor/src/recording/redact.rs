//! What a recording must not hold: of a request's target the query, of header fields all values but those that say how
//! a message ends or what it is, of bodies every octet, and all of what isn't HTTP. It is overwritten, so that every
//! length stays, and the recording is read as the original was. In HTTP/2's compressed header blocks so do the lengths
//! of decoded values, since tables have room for so many octets; but of a block that was not captured in one operation and
//! one frame nothing stays, and what it says is unknown to a replay.

use std::{collections::HashMap, mem};

use crate::{
    event::{Closing, ConnectionId, Data, Direction, Event},
    exchange::{Answer, Course, Peer, Portion, Request, Session, Sink, Ticket, Unanswered, Unparsed},
    http1::Chunks,
    http2::Blocks,
};

/// Header fields whose values stay; lower-case.
const KEPT: [&str; 9] = [
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "server",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Fields of HTTP/2 whose values stay beside those; of `:path` not the query.
const KEPT_OF_HTTP2: [&str; 7] =
    [":authority", ":method", ":path", ":protocol", ":scheme", ":status", "grpc-status"];

/// Overwrites octets of bodies and header values.
const FILLER: u8 = b'x';
/// Overwrites what isn't HTTP: begins no message.
const NOISE: u8 = 0x01;

/// Overwrites bytes of records, connection by connection.
#[derive(Debug, Default)]
pub struct Redactor {
    streams: HashMap<(ConnectionId, Direction), Stream>,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Stream {
    head: Head,
    chunks: Option<Chunks>,
    /// Of one that carries frames.
    blocks: Option<Box<Blocks>>,
}

/// Where in a message's head the stream stands.
#[derive(Debug, Default)]
enum Head {
    #[default]
    FirstLine,
    Query,
    /// A field's name, as far as it has been read.
    Name(String),
    Value {
        kept: bool,
    },
}

/// A sink that passes everything on, and notes what the bytes were.
#[derive(Debug)]
pub struct Tap<'a, S> {
    sink: &'a mut S,
    portions: Vec<(Portion, usize)>,
}

impl Redactor {
    /// Lets `handle` read an event, and overwrites the record's bytes by what they turned out to be; whether the
    /// record matters at all.
    pub fn redact<S: Sink>(
        &mut self,
        event: &Event<'_>,
        record: &mut [u8],
        sink: &mut S,
        handle: impl FnOnce(&Event<'_>, &mut Tap<'_, S>),
    ) -> bool {
        let mut tap = Tap { sink, portions: Vec::new() };
        handle(event, &mut tap);
        let portions = tap.portions;
        if portions.iter().any(|(portion, _)| *portion == Portion::Unfollowed) {
            return false;
        }
        match event {
            Event::Data(_, id, data) => self.overwrite(*id, data, record, &portions),
            Event::Closed(_, id, closed) if closed.how == Closing::Fully => {
                self.streams.remove(&(*id, Direction::Received));
                self.streams.remove(&(*id, Direction::Sent));
            }
            _ => {}
        }
        true
    }

    fn overwrite(
        &mut self,
        id: ConnectionId,
        data: &Data<'_>,
        record: &mut [u8],
        portions: &[(Portion, usize)],
    ) {
        let stream = self.streams.entry((id, data.direction)).or_default();
        let start = size_of::<monitor_ebpf::record::Data>();
        let prefix = start..start + data.prefix.len();
        let tail = prefix.end..prefix.end + data.tail.len();
        let captured = prefix.len() + tail.len();
        let mut at = 0;
        let all = portions.iter().copied().chain([(Portion::Other, captured)]);
        for (portion, len) in all {
            let from = at;
            at = (at + len).min(captured);
            for (range, offset) in [(prefix.clone(), 0), (tail.clone(), prefix.len())] {
                let begin = from.saturating_sub(offset).min(range.len());
                let end = at.saturating_sub(offset).min(range.len());
                if begin < end {
                    let beyond =
                        offset == 0 && end == range.len() && (data.prefix.len() as u64) < u64::from(data.len);
                    stream.overwrite(portion, &mut record[range.start + begin..range.start + end]);
                    if beyond {
                        stream.skip(u64::from(data.len) - captured as u64);
                    }
                }
            }
        }
    }
}

impl Stream {
    fn overwrite(&mut self, portion: Portion, bytes: &mut [u8]) {
        if portion != Portion::Chunked {
            self.chunks = None;
        }
        match portion {
            Portion::Head => bytes.iter_mut().for_each(|byte| self.head.overwrite(byte)),
            Portion::Body => bytes.fill(FILLER),
            Portion::Framing => self.blocks().framing(bytes),
            Portion::Block => self.blocks().overwrite(bytes, kept_of),
            Portion::Chunked => self.chunks.get_or_insert_default().overwrite(bytes, FILLER),
            Portion::Other | Portion::Unfollowed => other(bytes),
        }
        if portion != Portion::Head {
            self.head = Head::default();
        }
    }

    fn blocks(&mut self) -> &mut Blocks {
        self.blocks.get_or_insert_with(|| Box::new(Blocks::new(is_kept)))
    }

    fn skip(&mut self, count: u64) {
        if let Some(chunks) = &mut self.chunks {
            chunks.skip(count);
        }
    }
}

/// Whether the value of a field of HTTP/2 stays, or its beginning.
fn is_kept(name: &[u8]) -> bool {
    KEPT.iter().chain(&KEPT_OF_HTTP2).any(|kept| kept.as_bytes() == name)
}

/// How many octets of it.
fn kept_of(name: Option<&[u8]>, value: &[u8]) -> usize {
    match name {
        Some(b":path") => {
            value.iter().position(|octet| *octet == b'?').map_or(value.len(), |query| query + 1)
        }
        Some(name) if is_kept(name) => value.len(),
        _ => 0,
    }
}

/// What isn't HTTP/1: only what tells which protocol it is stays.
fn other(bytes: &mut [u8]) {
    const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let kept = match bytes {
        [0x16, 0x03, ..] => 3,
        _ if bytes.starts_with(b"PRI * HTTP/2") => {
            bytes.iter().zip(HTTP2).take_while(|(a, b)| a == b).count()
        }
        _ => 0,
    };
    bytes[kept..].fill(NOISE);
}

impl Head {
    fn overwrite(&mut self, byte: &mut u8) {
        *self = match (mem::take(self), *byte) {
            (Self::FirstLine, b'?') => Self::Query,
            (Self::FirstLine | Self::Query | Self::Value { .. }, b'\n') => Self::Name(String::new()),
            (Self::FirstLine, _) | (Self::Query, b' ') => Self::FirstLine,
            (Self::Query, _) => {
                *byte = FILLER;
                Self::Query
            }
            (Self::Name(name), b':') => {
                Self::Value { kept: KEPT.iter().any(|kept| kept.eq_ignore_ascii_case(&name)) }
            }
            // An empty line: the head has ended.
            (Self::Name(_), b'\n') => Self::FirstLine,
            (Self::Name(mut name), byte) => {
                if name.len() < 32 {
                    name.push(byte.into());
                }
                Self::Name(name)
            }
            (Self::Value { kept }, b'\r' | b' ' | b'\t') => Self::Value { kept },
            (Self::Value { kept }, _) => {
                if !kept {
                    *byte = FILLER;
                }
                Self::Value { kept }
            }
        };
    }
}

impl<S: Sink> Sink for Tap<'_, S> {
    fn request(&mut self, peer: &Peer, request: &Request<'_>) -> Ticket {
        self.sink.request(peer, request)
    }

    fn finished(&mut self, peer: &Peer, ticket: Ticket, answer: Answer, course: &Course) {
        self.sink.finished(peer, ticket, answer, course);
    }

    fn unanswered(&mut self, peer: &Peer, ticket: Ticket, reason: Unanswered, course: &Course) {
        self.sink.unanswered(peer, ticket, reason, course);
    }

    fn unparsed(&mut self, peer: &Peer, reason: Unparsed, bytes: u64) {
        self.sink.unparsed(peer, reason, bytes);
    }

    fn offers_http3(&mut self, peer: &Peer) {
        self.sink.offers_http3(peer);
    }

    fn websocket(&mut self, peer: &Peer, ticket: Ticket) -> Session {
        self.sink.websocket(peer, ticket)
    }

    fn websocket_ended(&mut self, session: Session, seconds: f64) {
        self.sink.websocket_ended(session, seconds);
    }

    fn passed(&mut self, portion: Portion, bytes: usize) {
        self.portions.push((portion, bytes));
    }
}
