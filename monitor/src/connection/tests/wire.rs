//! A connection as the kernel side tells it, and what was found out about it.

use crate::{
    connection::Connections,
    event::{
        self, Address, Capture, Closed, Closing, ConnectionId, Data, Direction, Event, Instant, Opened,
        Origin, Place, ProcessChange, ServiceId,
    },
    exchange::{
        Answer, Course, Grpc, Peer, Request, Roles, Scheme, Session, Sink, Status, Ticket, Trace, Unanswered,
        Unparsed,
    },
    recording::Redactor,
};
use monitor_ebpf::record;

/// How many bytes the kernel side's tail holds.
const TAIL: usize = monitor_ebpf::record::TAIL;
/// How many bytes are copied beyond the limit.
const BEYOND: usize = monitor_ebpf::config::Limits::BEYOND as usize;

/// A request that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) outcome: Result<Status, Unanswered>,
    pub(super) grpc: Option<Grpc>,
    pub(super) trace: Option<Trace>,
    pub(super) course: Course,
}

/// Everything that a sink was told.
#[derive(Debug, Default)]
pub(super) struct Log {
    open: Vec<Option<(String, String, Option<Trace>)>>,
    /// How many of RFC 6455 are open, and how long the others were.
    pub(super) websockets: (usize, Vec<f64>),
    pub(super) ended: Vec<Exchange>,
    pub(super) unparsed: Vec<(Unparsed, u64)>,
    /// By which scheme requests came.
    pub(super) schemes: Vec<Scheme>,
}

impl Log {
    fn end(
        &mut self,
        ticket: Ticket,
        outcome: Result<Status, Unanswered>,
        grpc: Option<Grpc>,
        course: &Course,
    ) {
        let (method, target, trace) = self.open[ticket.0 as usize].take().expect("a request ends once");
        self.ended.push(Exchange { method, target, outcome, grpc, trace, course: *course });
    }

    /// How many requests were seen.
    pub(super) fn seen(&self) -> usize {
        self.open.len()
    }

    /// How many are in flight.
    pub(super) fn active(&self) -> usize {
        self.open.iter().flatten().count()
    }

    /// Methods, targets and statuses of the answered ones, in order; 0 for a status that isn't known.
    pub(super) fn answered(&self) -> Vec<(&str, &str, u16)> {
        let answered = self.ended.iter().filter_map(|one| Some((one, one.outcome.ok()?)));
        let answered = answered.map(|(one, status)| (one, status.code().unwrap_or(0)));
        answered.map(|(one, status)| (one.method.as_str(), one.target.as_str(), status)).collect()
    }

    /// Targets of the others, with the reason.
    pub(super) fn unanswered(&self) -> Vec<(&str, Unanswered)> {
        self.ended.iter().filter_map(|one| Some((one.target.as_str(), one.outcome.err()?))).collect()
    }

    /// Bytes that were not read, for a reason.
    pub(super) fn unparsed(&self, reason: Unparsed) -> u64 {
        self.unparsed.iter().filter(|(why, _)| *why == reason).map(|(_, bytes)| bytes).sum()
    }
}

impl Sink for Log {
    fn request(&mut self, peer: &Peer, request: &Request<'_>) -> Ticket {
        self.schemes.push(peer.scheme);
        let target = request.target.unwrap_or("unknown").to_owned();
        self.open.push(Some((request.method.to_owned(), target, request.trace)));
        Ticket(self.open.len() as u32 - 1)
    }

    fn finished(&mut self, _: &Peer, ticket: Ticket, answer: Answer, course: &Course) {
        let Answer { status, grpc } = answer;
        assert!(status.code().is_none_or(|code| (100..600).contains(&code)), "{status:?} is no status");
        self.end(ticket, Ok(status), grpc, course);
    }

    fn unanswered(&mut self, _: &Peer, ticket: Ticket, reason: Unanswered, course: &Course) {
        self.end(ticket, Err(reason), None, course);
    }

    fn websocket(&mut self, _: &Peer, _: Ticket) -> Session {
        self.websockets.0 += 1;
        Session(7)
    }

    fn websocket_ended(&mut self, session: Session, seconds: f64) {
        assert_eq!(session, Session(7));
        self.websockets.0 -= 1;
        self.websockets.1.push(seconds);
    }

    fn unparsed(&mut self, _: &Peer, reason: Unparsed, bytes: u64) {
        assert!(bytes > 0, "nothing is not told");
        self.unparsed.push((reason, bytes));
    }
}

/// One connection of a monitored process. Every operation takes one unit of time.
pub(super) struct Wire {
    pub(super) connections: Connections,
    pub(super) log: Log,
    id: ConnectionId,
    /// How much of a burst the kernel side copies.
    pub(super) limit: usize,
    pub(super) clock: u64,
    received: u64,
    sent: u64,
    last: Option<Direction>,
    burst: usize,
    plain: bool,
    pub(super) shadow: Option<Shadow>,
    /// Where each direction stands, what is received first, where the kernel side walks over frames.
    pub(super) places: Option<[Place; 2]>,
}

/// What a recording and its replay make of the same events.
#[derive(Default)]
pub(super) struct Shadow {
    redactor: Redactor,
    connections: Connections,
    pub(super) log: Log,
    pub(super) bytes: Vec<u8>,
}

/// A data event as the kernel side writes it.
fn record(event: &Event<'_>) -> Vec<u8> {
    let Event::Data(origin, id, data) = event else { return Vec::new() };
    let kind = if data.direction == Direction::Received { record::KIND_RECEIVED } else { record::KIND_SENT };
    let mut flags = if data.turned { record::FLAG_TURNED } else { 0 };
    flags |= if data.plain { record::FLAG_PLAIN } else { 0 };
    flags |= match data.capture {
        Capture::Copied => 0,
        Capture::Unreadable => record::FLAG_NO_BUFFER,
        Capture::Spliced => record::FLAG_SPLICED,
        Capture::Frames(_) => record::FLAG_FRAMES,
    };
    let place = if let Capture::Frames(place) = data.capture { Some(place.0.to_ne_bytes()) } else { None };
    let tail = place.as_ref().map_or(data.tail, |place| &place[..]);
    let mut bytes = vec![kind, 0];
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(origin.service.0.to_ne_bytes());
    bytes.extend(origin.at.0.to_ne_bytes());
    bytes.extend(id.0.to_ne_bytes());
    bytes.extend(origin.pid.to_ne_bytes());
    bytes.extend(origin.fd.unwrap_or(-1).to_ne_bytes());
    bytes.extend(data.offset.to_ne_bytes());
    bytes.extend(data.other.to_ne_bytes());
    bytes.extend(data.arrived.map_or(0, |arrived| arrived.0).to_ne_bytes());
    bytes.extend(data.len.to_ne_bytes());
    bytes.extend((data.prefix.len() as u16).to_ne_bytes());
    bytes.extend((tail.len() as u16).to_ne_bytes());
    bytes.extend(data.prefix);
    bytes.extend(tail);
    bytes
}

/// As `frames.rs` of the kernel side does, a byte at a time.
fn without_bodies(bytes: &[u8], place: &mut Place) -> Vec<u8> {
    let mut held = Vec::new();
    for &byte in bytes {
        let Place(at) = *place;
        let (count, have) = (at & Place::COUNT, at >> Place::HAVE & 15);
        let of_data = at & Place::DATA;
        let payload =
            |of: u32| Place(if of & Place::COUNT == 0 { Place::START.0 } else { Place::PAYLOAD | of });
        if at & Place::PAYLOAD != 0 {
            if of_data == 0 || at & Place::PADDED != 0 {
                held.push(byte);
            }
            *place = payload(of_data | (count - 1));
            continue;
        }
        held.push(byte);
        let read = match have {
            0..=2 => Place::HEADER | count << 8 | u32::from(byte),
            3 if byte == 0 => at | Place::DATA,
            4 if of_data != 0 && byte & 8 != 0 => at | Place::PADDED,
            _ => at,
        };
        let read = read & !(15 << Place::HAVE) | (have + 1) << Place::HAVE;
        *place = if have == 8 {
            payload(read & (Place::COUNT | Place::DATA | Place::PADDED))
        } else {
            Place(read)
        };
    }
    held
}

impl Wire {
    /// A connection seen from its birth.
    pub(super) fn born() -> Self {
        let mut wire = Self::joined();
        wire.opened(true, Address::Inet(([127, 0, 0, 1], 8000).into()));
        wire
    }

    /// One that the process made, followed as a client's.
    pub(super) fn client() -> Self {
        let connections = Connections::new(Roles { server: true, client: true });
        let mut wire = Self { connections, ..Self::joined() };
        wire.opened(false, Address::Inet(([127, 0, 0, 1], 50_000).into()));
        wire
    }

    /// One on a unix socket.
    pub(super) fn unix() -> Self {
        let mut wire = Self::joined();
        wire.opened(false, Address::Unix("/run/app.sock".into()));
        wire
    }

    /// One that was open before.
    pub(super) fn joined() -> Self {
        Self {
            connections: Connections::default(),
            log: Log::default(),
            id: ConnectionId(1),
            limit: 4096,
            clock: 0,
            received: 0,
            sent: 0,
            last: None,
            burst: 0,
            plain: false,
            shadow: None,
            places: None,
        }
    }

    fn opened(&mut self, born: bool, local: Address) {
        let remote = Address::Inet(([127, 0, 0, 1], 50_000).into());
        self.tell(|origin, id| Event::Opened(origin, id, Opened { local, remote, inode: 1, born }));
    }

    fn tell<'a>(&mut self, event: impl FnOnce(Origin, ConnectionId) -> Event<'a>) {
        self.clock += 1;
        let origin = Origin { at: Instant(self.clock), service: ServiceId(1), pid: 7, fd: Some(9) };
        let event = event(origin, self.id);
        let Some(shadow) = &mut self.shadow else {
            self.connections.handle(&event, &mut self.log);
            return;
        };
        let mut record = record(&event);
        let connections = &mut self.connections;
        let kept = shadow
            .redactor
            .redact(&event, &mut record, &mut self.log, |event, tap| connections.handle(event, tap));
        if matches!(event, Event::Data(..)) {
            let replayed = event::decode(&record).expect("a redacted record is a record");
            shadow.connections.handle(&replayed, &mut shadow.log);
            shadow.bytes.extend(record);
        } else if kept {
            shadow.connections.handle(&event, &mut shadow.log);
        }
    }

    /// Records what it tells, redacted, and replays that.
    pub(super) fn recorded(mut self) -> Self {
        let mut shadow = Shadow::default();
        // The birth has been told already.
        let origin = Origin { at: Instant(self.clock), service: ServiceId(1), pid: 7, fd: Some(9) };
        let local = Address::Inet(([127, 0, 0, 1], 8000).into());
        let opened = Opened { remote: local.clone(), local, inode: 1, born: true };
        shadow.connections.handle(&Event::Opened(origin, self.id, opened), &mut shadow.log);
        self.shadow = Some(shadow);
        self
    }

    /// The process read these bytes in one operation.
    pub(super) fn reads(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.moves(Direction::Received, bytes.as_ref(), Capture::Copied, None);
        self
    }

    /// The same, with the time at which they had arrived.
    pub(super) fn reads_arrived(&mut self, bytes: &str, arrived: u64) -> &mut Self {
        self.moves(Direction::Received, bytes.as_bytes(), Capture::Copied, Some(Instant(arrived)));
        self
    }

    /// The process wrote these bytes in one operation.
    pub(super) fn writes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.moves(Direction::Sent, bytes.as_ref(), Capture::Copied, None);
        self
    }

    /// So many bytes went without a user buffer.
    pub(super) fn passes(&mut self, direction: Direction, bytes: usize, capture: Capture) -> &mut Self {
        self.moves(direction, &vec![b'?'; bytes], capture, None);
        self
    }

    /// From here on bytes are what a TLS library gives and is given.
    pub(super) fn unsealed(&mut self) -> &mut Self {
        (self.received, self.sent, self.last, self.plain) = (0, 0, None, true);
        self
    }

    /// So many bytes of TLS records go by, beside the clear text.
    pub(super) fn sealed(&mut self, direction: Direction, len: u32) -> &mut Self {
        self.tell(|origin, id| {
            let (arrived, capture) = (None, Capture::Copied);
            let (prefix, tail) = (&[][..], &[][..]);
            let data = Data {
                direction,
                offset: 0,
                other: 0,
                len,
                arrived,
                turned: true,
                plain: false,
                capture,
                prefix,
                tail,
            };
            Event::Data(origin, id, data)
        });
        self
    }

    /// An operation whose record was lost.
    pub(super) fn loses(&mut self, direction: Direction, bytes: usize) -> &mut Self {
        self.account(direction, bytes);
        self
    }

    /// The same, of bytes that the kernel side walked over.
    pub(super) fn loses_frames(&mut self, direction: Direction, bytes: &[u8]) -> &mut Self {
        if let Some(places) = &mut self.places {
            without_bodies(bytes, &mut places[usize::from(direction == Direction::Sent)]);
        }
        self.loses(direction, bytes.len())
    }

    /// Offsets before, and whether the direction turned.
    fn account(&mut self, direction: Direction, bytes: usize) -> (u64, u64, bool, usize) {
        let turned = self.last != Some(direction);
        let before = if turned { 0 } else { self.burst };
        self.last = Some(direction);
        self.burst = before + bytes;
        let (own, other) = match direction {
            Direction::Received => (&mut self.received, self.sent),
            Direction::Sent => (&mut self.sent, self.received),
        };
        let offset = *own;
        *own += bytes as u64;
        (offset, other, turned, before)
    }

    fn moves(&mut self, direction: Direction, bytes: &[u8], capture: Capture, arrived: Option<Instant>) {
        let (offset, other, turned, before) = self.account(direction, bytes.len());
        if let Some(places) = &mut self.places {
            let place = &mut places[usize::from(direction == Direction::Sent)];
            let (begins, len) = (*place, bytes.len() as u32);
            if capture == Capture::Copied {
                let held = without_bodies(bytes, place);
                let (capture, prefix, tail) = (Capture::Frames(begins), &held[..], &[][..]);
                let data = Data {
                    direction,
                    offset,
                    other,
                    len,
                    arrived,
                    turned,
                    plain: false,
                    capture,
                    prefix,
                    tail,
                };
                return self.tell(|origin, id| Event::Data(origin, id, data));
            }
        }
        // As `transfer.rs` of the kernel side does.
        let message = bytes.len() >= 3 && bytes[..3].iter().all(u8::is_ascii_uppercase);
        let most = if before < self.limit || message { self.limit } else { BEYOND };
        let copied = if capture == Capture::Copied { bytes.len().min(most) } else { 0 };
        let (prefix, rest) = bytes.split_at(copied);
        let tail = if capture == Capture::Copied { &rest[rest.len() - rest.len().min(TAIL)..] } else { &[] };
        let (len, plain) = (bytes.len() as u32, self.plain);
        self.tell(|origin, id| {
            Event::Data(
                origin,
                id,
                Data { direction, offset, other, len, arrived, turned, plain, capture, prefix, tail },
            )
        });
    }

    /// An end is closed, in order.
    pub(super) fn closes(&mut self, how: Closing) -> &mut Self {
        self.closes_with(how, false, None)
    }

    /// An end is closed by a reset, or by a process's exit.
    pub(super) fn closes_with(&mut self, how: Closing, reset: bool, exit_code: Option<u32>) -> &mut Self {
        let closed = Closed { how, reset, exit_code, received: self.received, sent: self.sent };
        self.tell(|origin, id| Event::Closed(origin, id, closed));
        self
    }

    /// The process ends.
    pub(super) fn exits(&mut self, code: u32) -> &mut Self {
        self.tell(|origin, _| Event::Process(origin, ProcessChange::Exited { code, cpu: 0 }));
        self
    }
}
