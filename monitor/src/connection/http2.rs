//! A connection that speaks HTTP/2: many requests at once, each on a stream of its own.

use std::collections::BTreeMap;

use super::{
    ends::{Ends, Side, reason_of},
    http1::Pending,
    requests::Begun,
    responses::RequestKind,
};
use crate::{
    event::{Capture, Closed, Data, Direction, Instant, Origin, Place},
    exchange::{
        Answer, Course, Grpc, Request, Session, Sink, Status, Ticket, UNKNOWN_METHOD, Unanswered, Unparsed,
        Version,
    },
    http2::{Fact, Fields, Half, Scout},
};

/// How many streams of a connection can be under way; servers allow their clients about a hundred.
const MOST_STREAMS: usize = 4096;
/// How long a request is waited for that may have ended among bytes that weren't captured.
const LONGEST_DOUBT: f64 = 10.0;
/// The error of a server that didn't look at a request (RFC 9113, section 7).
const REFUSED_STREAM: u32 = 7;

/// A stream that is under way.
#[derive(Debug)]
enum Stream {
    Exchange(Exchange),
    /// Through `CONNECT`; perhaps a WebSocket (RFC 8441), since then.
    Tunnel(Option<(Session, Instant)>),
}

/// A request that waits for its response, or for the rest of it.
#[derive(Debug)]
struct Exchange {
    ticket: Ticket,
    course: Course,
    /// The final response's status, once its head came.
    status: Option<Status>,
    /// How many octets its content has, where that was said or goes without saying.
    length: Option<u64>,
    kind: RequestKind,
    websocket: bool,
    grpc: bool,
    grpc_status: Option<u32>,
    /// Since when it isn't known whether the response went on, or ended.
    doubt: Option<Instant>,
}

impl Exchange {
    /// Whether all of the response's content has come: some clients leave then, before its end is said (RFC 9113, section
    /// 8.1.1, has that content be as long as was said). A call of gRPC is told by what comes after it.
    fn is_whole(&self) -> bool {
        let told = self.doubt.is_none() && !self.grpc;
        told && self.length.is_some_and(|length| length == self.course.response_body)
    }

    fn answer(&self) -> Answer {
        let grpc_status = self.grpc_status.map_or(Grpc::Unknown, Grpc::Status);
        Answer { status: self.status.unwrap_or(Status::Unknown), grpc: self.grpc.then_some(grpc_status) }
    }
}

/// One direction.
#[derive(Debug)]
struct Way {
    half: Half,
    /// How many bytes it has carried.
    carried: u64,
    /// When the first byte of the frame, or of the header block, at hand came.
    begun: Begun,
    /// When the bytes that were read last had arrived.
    arrived: Option<Instant>,
    /// What may have been a frame's header, where the place isn't known.
    scout: Option<(Scout, Begun)>,
    /// Why its place isn't known, where it isn't.
    why: Unparsed,
}

impl Way {
    fn new(half: Half, carried: u64) -> Self {
        let begun = Begun { read: Instant(0), arrived: None };
        Self { half, carried, begun, arrived: None, scout: None, why: Unparsed::Desync }
    }
}

impl Way {
    /// Looks for a frame where an operation begins.
    fn find(&mut self, data: &Data<'_>, begun: Begun) {
        match self.scout.take() {
            Some((scout, begun)) if scout.is_followed(data.len, self.carried) => {
                self.half.resume(&scout);
                self.begun = begun;
            }
            _ => self.half.find(data.prefix, data.len),
        }
        if self.half.is_lost() {
            self.scout = Scout::of(data.prefix, data.len, self.carried).map(|scout| (scout, begun));
        }
    }
}

/// One connection that speaks HTTP/2.
#[derive(Debug)]
pub(super) struct Http2 {
    received: Way,
    sent: Way,
    streams: BTreeMap<u32, Stream>,
    /// The newest stream that a client began; `None` where none was seen of a connection that was joined midway.
    newest: Option<u32>,
}

impl Http2 {
    /// The client's preface begins in this operation, or did in the one before.
    pub(super) fn client_first(data: &Data<'_>) -> Self {
        let unseen = data.other > 0;
        let (asks, answers) = (Half::client(), if unseen { Half::joined() } else { Half::server() });
        Self::by(data, Way::new(asks, data.offset), Way::new(answers, data.other), Some(0))
    }

    /// The server says its settings in this operation, before it reads anything.
    pub(super) fn server_first() -> Self {
        Self {
            received: Way::new(Half::client(), 0),
            sent: Way::new(Half::server(), 0),
            streams: BTreeMap::new(),
            newest: Some(0),
        }
    }

    /// The server agreed in this operation to go on with HTTP/2, and answers the request there.
    pub(super) fn upgraded(data: &Data<'_>, request: &Pending) -> Self {
        let mut answers = Way::new(Half::server(), data.offset);
        // What the client allows it said in the request already.
        answers.half.allow_table(u32::MAX);
        let mut http2 = Self::by(data, answers, Way::new(Half::client(), data.other), Some(1));
        let exchange = Exchange {
            ticket: request.ticket,
            course: request.course,
            status: None,
            length: None,
            kind: request.kind,
            websocket: false,
            grpc: false,
            grpc_status: None,
            doubt: None,
        };
        http2.streams.insert(1, Stream::Exchange(exchange));
        http2
    }

    /// This operation begins with frames.
    pub(super) fn joined(data: &Data<'_>) -> Self {
        let way = |carried| Way::new(Half::joined(), carried);
        Self::by(data, way(data.offset), way(data.other), None)
    }

    /// The operation before this one was a frame's header.
    pub(super) fn scouted(data: &Data<'_>, scout: Scout, begun: Begun) -> Self {
        let mut http2 = Self::joined(data);
        http2.way(data.direction).scout = Some((scout, begun));
        http2
    }

    fn by(data: &Data<'_>, way: Way, other: Way, newest: Option<u32>) -> Self {
        let (received, sent) = match data.direction {
            Direction::Received => (way, other),
            Direction::Sent => (other, way),
        };
        Self { received, sent, streams: BTreeMap::new(), newest }
    }

    /// Whether a request is under way.
    pub(super) fn busy(&self) -> bool {
        self.streams.values().any(|stream| matches!(stream, Stream::Exchange(_)))
    }

    /// Bytes of the client's that came before the operation at hand, and told that this is HTTP/2.
    pub(super) fn hold(&mut self, direction: Direction, held: &[u8]) {
        if !held.is_empty() {
            // As a part of the preface they tell nothing.
            self.way(direction).half.step(held);
        }
    }

    fn way(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::Received => &mut self.received,
            Direction::Sent => &mut self.sent,
        }
    }

    /// An operation moved bytes, of which the first captured ones, so many, are not HTTP/2's.
    pub(super) fn moved(
        &mut self,
        ends: &mut Ends,
        origin: &Origin,
        data: &Data<'_>,
        before: usize,
        sink: &mut impl Sink,
    ) {
        let direction = data.direction;
        let way = self.way(direction);
        let begun = Begun { read: origin.at, arrived: data.arrived.or(way.arrived) };
        way.arrived = begun.arrived;
        let missing = data.offset.saturating_sub(way.carried);
        let went_back = data.offset < way.carried;
        way.carried = data.offset + u64::from(data.len);
        if went_back {
            way.half.lose();
            self.lose(direction, Unparsed::Desync, origin.at);
        } else if missing > 0 {
            self.pass(ends, direction, missing, Unparsed::Desync, origin.at, sink);
        }
        if let Capture::Frames(place) = data.capture {
            self.frames(ends, data, before, place, begun, sink);
            return self.end_doubts(ends, origin.at, sink);
        }
        let way = self.way(direction);
        if way.half.is_lost() && before == 0 {
            way.find(data, begun);
        }
        self.read(ends, direction, data.prefix.get(before..).unwrap_or_default(), begun, sink);
        let gap = u64::from(data.len) - (data.prefix.len() + data.tail.len()) as u64;
        if gap > 0 && before <= data.prefix.len() {
            let lost = self.pass(ends, direction, gap, reason_of(data.capture), origin.at, sink);
            ends.cut |= lost && data.capture == Capture::Copied;
        }
        let before = before.saturating_sub(data.prefix.len());
        self.read(ends, direction, data.tail.get(before..).unwrap_or_default(), begun, sink);
        self.end_doubts(ends, origin.at, sink);
    }

    /// Frames without DATA's payloads. The kernel side has told where the first one begins, whatever is missing.
    fn frames(
        &mut self,
        ends: &mut Ends,
        data: &Data<'_>,
        before: usize,
        place: Place,
        begun: Begun,
        sink: &mut impl Sink,
    ) {
        let direction = data.direction;
        let mut bytes = data.prefix.get(before..).unwrap_or_default();
        let mut left_out = u64::from(data.len) - data.prefix.len() as u64;
        if self.way(direction).half.is_lost() {
            let rest = place.rest();
            let (held, out) = rest.unwrap_or((u32::MAX, u32::MAX));
            let (held, out) = (bytes.len().min(held as usize), left_out.min(out.into()));
            self.read(ends, direction, &bytes[..held], begun, sink);
            self.pass(ends, direction, out, Unparsed::Desync, begun.read, sink);
            (bytes, left_out) = (&bytes[held..], left_out - out);
            if rest == Some((held as u32, out as u32)) {
                self.way(direction).half.start();
            }
        }
        loop {
            let out = self.way(direction).half.left_out().min(left_out);
            if out > 0 {
                self.pass(ends, direction, out, Unparsed::Desync, begun.read, sink);
                left_out -= out;
            } else if bytes.is_empty() {
                break;
            } else {
                let read = self.step(ends, direction, bytes, begun, sink);
                bytes = &bytes[read..];
            }
        }
        self.pass(ends, direction, left_out, Unparsed::Desync, begun.read, sink);
    }

    fn read(
        &mut self,
        ends: &mut Ends,
        direction: Direction,
        mut bytes: &[u8],
        begun: Begun,
        sink: &mut impl Sink,
    ) {
        while !bytes.is_empty() {
            let read = self.step(ends, direction, bytes, begun, sink);
            bytes = &bytes[read..];
        }
    }

    /// Reads on, and says how far.
    fn step(
        &mut self,
        ends: &mut Ends,
        direction: Direction,
        bytes: &[u8],
        begun: Begun,
        sink: &mut impl Sink,
    ) -> usize {
        let way = self.way(direction);
        if way.half.between_messages() {
            way.begun = begun;
        }
        let was_lost = way.half.is_lost();
        let step = way.half.step(bytes);
        sink.passed(step.portion, step.read);
        if way.half.is_lost() && !was_lost {
            // Its peer would not have it either.
            self.lose(direction, Unparsed::Http2, begun.read);
        }
        if self.way(direction).half.is_lost() {
            ends.unparsed(self.way(direction).why, step.read as u64, sink);
        } else {
            self.take(ends, direction, step.fact, begun.read, sink);
        }
        step.read
    }

    /// Passes over bytes that weren't captured, or never came; whether the place was lost with them.
    fn pass(
        &mut self,
        ends: &mut Ends,
        direction: Direction,
        count: u64,
        why: Unparsed,
        at: Instant,
        sink: &mut impl Sink,
    ) -> bool {
        let way = self.way(direction);
        let was_lost = way.half.is_lost();
        let fact = way.half.skip(count);
        if !way.half.is_lost() {
            self.take(ends, direction, fact, at, sink);
            return false;
        }
        if !was_lost {
            self.lose(direction, why, at);
        }
        ends.unparsed(self.way(direction).why, count, sink);
        !was_lost
    }

    /// Where the frames of a direction begin isn't known any more.
    fn lose(&mut self, direction: Direction, why: Unparsed, at: Instant) {
        self.way(direction).why = why;
        for stream in self.streams.values_mut() {
            if let Stream::Exchange(exchange) = stream {
                exchange.doubt.get_or_insert(at);
            }
        }
    }

    /// What may have ended long ago will not be known to have.
    fn end_doubts(&mut self, ends: &Ends, at: Instant, sink: &mut impl Sink) {
        let long = |stream: &Stream| match stream {
            Stream::Exchange(exchange) => {
                exchange.doubt.is_some_and(|since| at.seconds_since(since) > LONGEST_DOUBT)
            }
            Stream::Tunnel(_) => false,
        };
        if self.streams.values().any(long) {
            self.end_all(ends, Unanswered::Desync, at, sink, |_, stream| long(stream));
        }
    }

    fn take(&mut self, ends: &mut Ends, direction: Direction, fact: Fact, at: Instant, sink: &mut impl Sink) {
        if let Fact::TableSize(size) = fact {
            let other = match direction {
                Direction::Received => &mut self.sent,
                Direction::Sent => &mut self.received,
            };
            return other.half.allow_table(size);
        }
        if let (Side::Unknown, Fact::Headers { fields, .. }) = (ends.side, &fact) {
            let asked_by_peer = match (fields.asks, fields.status) {
                (true, _) => direction == Direction::Received,
                (false, Some(_)) => direction == Direction::Sent,
                (false, None) => return,
            };
            ends.take_side_of(if asked_by_peer { Side::Server } else { Side::Client });
        }
        if ends.side == Side::Unknown {
            return;
        }
        if direction == ends.requests() {
            self.asked(ends, direction, fact, at, sink);
        } else {
            self.answered(ends, direction, fact, at, sink);
        }
    }

    /// The client said something.
    fn asked(&mut self, ends: &Ends, direction: Direction, fact: Fact, at: Instant, sink: &mut impl Sink) {
        match fact {
            Fact::Headers { stream, fields, .. } => {
                let begun = self.way(direction).begun;
                self.begin(ends, stream, &fields, begun, at, sink);
            }
            Fact::Data { stream, octets, end } => match self.streams.get_mut(&stream) {
                Some(Stream::Exchange(exchange)) => exchange.course.request_body += octets,
                Some(Stream::Tunnel(_)) => {
                    ends.unparsed(Unparsed::NotHttp, octets, sink);
                    if end {
                        self.end(ends, stream, Unanswered::ClientClosed, at, sink);
                    }
                }
                None => {}
            },
            Fact::Reset { stream, .. } => self.end(ends, stream, Unanswered::ClientReset, at, sink),
            Fact::GoAway { .. } | Fact::TableSize(_) | Fact::Nothing | Fact::Lost => {}
        }
    }

    /// A request's head, or its trailers.
    fn begin(
        &mut self,
        ends: &Ends,
        stream: u32,
        fields: &Fields,
        begun: Begun,
        at: Instant,
        sink: &mut impl Sink,
    ) {
        let is_new = match self.newest {
            Some(newest) => stream > newest && (fields.asks || fields.unknown),
            // It may be the trailers of a request from before.
            None => fields.asks,
        };
        if !is_new || stream.is_multiple_of(2) || self.streams.contains_key(&stream) {
            return;
        }
        self.newest = self.newest.max(Some(stream));
        let method = fields.method.as_deref().unwrap_or(UNKNOWN_METHOD);
        let kind = RequestKind::of(method);
        let connect = kind == RequestKind::Connect;
        let request = Request {
            method,
            target: fields.path.as_deref().or(if connect { fields.authority.as_deref() } else { None }),
            version: Version::Http2,
            trace: fields.trace,
            read: begun.read,
            pid: ends.peer.pid,
        };
        let exchange = Exchange {
            ticket: sink.request(&ends.peer, &request),
            course: Course { arrived: begun.arrived, read: begun.read, ..Course::default() },
            status: None,
            length: None,
            kind,
            websocket: connect && fields.websocket,
            grpc: fields.grpc,
            grpc_status: None,
            doubt: None,
        };
        self.streams.insert(stream, Stream::Exchange(exchange));
        if self.streams.len() > MOST_STREAMS
            && let Some((&oldest, _)) = self.streams.first_key_value()
        {
            self.end(ends, oldest, Unanswered::Desync, at, sink);
        }
    }

    /// The server said something.
    fn answered(&mut self, ends: &Ends, direction: Direction, fact: Fact, at: Instant, sink: &mut impl Sink) {
        match fact {
            Fact::Headers { stream, end, fields } => {
                let begun = self.way(direction).begun;
                self.head(ends, stream, end, &fields, begun, at, sink);
            }
            Fact::Data { stream, octets, end } => {
                match self.streams.get_mut(&stream) {
                    Some(Stream::Exchange(exchange)) => {
                        exchange.doubt = None;
                        exchange.course.response_body += octets;
                        exchange.course.first_sent.get_or_insert(at);
                        exchange.course.last_sent = Some(at);
                    }
                    Some(Stream::Tunnel(_)) => ends.unparsed(Unparsed::NotHttp, octets, sink),
                    None => {}
                }
                if end {
                    self.finish(ends, stream, at, sink);
                }
            }
            Fact::Reset { stream, code } => {
                let refused = code == REFUSED_STREAM;
                let reason = if refused { Unanswered::Refused } else { Unanswered::ServerReset };
                self.end(ends, stream, reason, at, sink);
            }
            Fact::GoAway { last } => {
                self.end_all(ends, Unanswered::Refused, at, sink, |stream, _| stream > last);
            }
            Fact::TableSize(_) | Fact::Nothing | Fact::Lost => {}
        }
    }

    /// A response's head, interim or final, or its trailers.
    #[expect(clippy::too_many_arguments, reason = "what a header block says, and when")]
    fn head(
        &mut self,
        ends: &Ends,
        stream: u32,
        end: bool,
        fields: &Fields,
        begun: Begun,
        at: Instant,
        sink: &mut impl Sink,
    ) {
        let Some(Stream::Exchange(exchange)) = self.streams.get_mut(&stream) else { return };
        exchange.doubt = None;
        if fields.http3 {
            sink.offers_http3(&ends.peer);
        }
        exchange.grpc |= fields.grpc;
        exchange.grpc_status = fields.grpc_status.or(exchange.grpc_status);
        if let (Some(100..=199), false) = (fields.status, end) {
            return;
        }
        let is_head = match exchange.status {
            None => true,
            // The one before was an interim response's.
            Some(Status::Unknown) => fields.status.is_some(),
            Some(Status::Code(_)) => false,
        };
        if is_head {
            exchange.status = Some(fields.status.map_or(Status::Unknown, Status::Code));
            exchange.course.first_sent = Some(begun.read);
            let none = exchange.kind.is_answered_without_content(fields.status);
            exchange.length = if none { Some(0) } else { fields.length };
        }
        exchange.course.last_sent = Some(at);
        let tunnels =
            exchange.kind == RequestKind::Connect && matches!(fields.status, Some(200..=299)) && !end;
        if tunnels {
            let session = exchange.websocket.then(|| sink.websocket(&ends.peer, exchange.ticket));
            self.finish(ends, stream, at, sink);
            self.streams.insert(stream, Stream::Tunnel(session.map(|session| (session, at))));
        } else if end {
            self.finish(ends, stream, at, sink);
        }
    }

    /// The response of a stream has ended.
    fn finish(&mut self, ends: &Ends, stream: u32, at: Instant, sink: &mut impl Sink) {
        match self.streams.remove(&stream) {
            Some(Stream::Exchange(exchange)) => {
                sink.finished(&ends.peer, exchange.ticket, exchange.answer(), &exchange.course);
            }
            Some(Stream::Tunnel(session)) => end_session(session, at, sink),
            None => {}
        }
    }

    /// A stream has ended before its response did.
    fn end(&mut self, ends: &Ends, stream: u32, reason: Unanswered, at: Instant, sink: &mut impl Sink) {
        let revoked = matches!(reason, Unanswered::ServerReset | Unanswered::Refused | Unanswered::Desync);
        match self.streams.remove(&stream) {
            Some(Stream::Exchange(exchange)) if !revoked && exchange.is_whole() => {
                sink.finished(&ends.peer, exchange.ticket, exchange.answer(), &exchange.course);
            }
            Some(Stream::Exchange(lost)) => {
                sink.unanswered(&ends.peer, lost.ticket, reason, &lost.course);
            }
            Some(Stream::Tunnel(session)) => end_session(session, at, sink),
            None => {}
        }
    }

    fn end_all(
        &mut self,
        ends: &Ends,
        reason: Unanswered,
        at: Instant,
        sink: &mut impl Sink,
        which: impl Fn(u32, &Stream) -> bool,
    ) {
        let chosen = self.streams.iter().filter(|(number, stream)| which(**number, stream));
        for stream in chosen.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.end(ends, stream, reason, at, sink);
        }
    }

    /// No more responses will come.
    pub(super) fn ended(&mut self, ends: &Ends, closed: &Closed, sink: &mut impl Sink) {
        let missing = closed.received > self.received.carried || closed.sent > self.sent.carried;
        let reason = ends.reason(closed, missing);
        self.end_all(
            ends,
            Unanswered::Desync,
            ends.heard,
            sink,
            |_, stream| matches!(stream, Stream::Exchange(exchange) if exchange.doubt.is_some()),
        );
        self.end_all(ends, reason, ends.heard, sink, |_, _| true);
    }

    /// It is gone, and nothing told what became of its requests.
    pub(super) fn lost(&mut self, ends: &Ends, sink: &mut impl Sink) {
        self.end_all(ends, Unanswered::Desync, ends.heard, sink, |_, _| true);
    }
}

fn end_session(session: Option<(Session, Instant)>, at: Instant, sink: &mut impl Sink) {
    if let Some((session, begun)) = session {
        sink.websocket_ended(session, at.seconds_since(begun));
    }
}
