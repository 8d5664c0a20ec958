//! A connection that speaks HTTP/1: requests on one direction, responses on the other, matched in order.

use super::{
    ends::{Ends, Side, reason_of},
    requests::{Begun, Reading, Requests, Step as RequestStep},
    responses::{RequestKind, Responses, Step as ResponseStep, Writing},
    waiting::Waiting,
};
use crate::{
    event::{Capture, Closed, Data, Instant, Origin},
    exchange::{Course, Peer, Portion, Request, Session, Sink, Ticket, Unanswered, Unparsed},
    http1::{self, RequestHead, Upgrade},
};

/// How many requests of a connection can wait for their responses; one that pipelines more is given up.
const MOST_PENDING: usize = 4096;

/// A request that waits for its response, or for the rest of it.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) ticket: Ticket,
    pub(super) kind: RequestKind,
    pub(super) course: Course,
    /// Of the burst of requests that it came in.
    burst: u32,
}

/// What a connection turns out to be.
#[derive(Debug)]
pub(super) enum Becoming {
    /// HTTP/2 by prior knowledge: the client's preface began with what was held, and goes on where so many of the
    /// operation's captured bytes are left.
    Http2 { held: Vec<u8>, left: usize },
    /// HTTP/2 by an upgrade, where so many of the captured bytes are left: the request is that of its first stream.
    Upgraded { request: Pending, left: usize },
    /// A WebSocket.
    WebSocket(Session),
    /// Nothing that can be read (any more).
    Opaque(Unparsed),
}

/// One connection that speaks HTTP/1.
#[derive(Debug)]
pub(super) struct Http1 {
    /// How many bytes the requests' direction has carried, and the responses'.
    asked: u64,
    answered: u64,
    /// When the bytes that were read last had arrived.
    arrived: Option<Instant>,
    requests: Requests,
    responses: Responses,
    pending: Waiting,
    /// How many bursts of requests there were: what came between two turns of the direction.
    burst: u32,
    /// Whether the client sends requests while responses to earlier bursts are due. Then, once events were lost,
    /// nothing tells which response answers what.
    overlapping: bool,
    /// Whether a request was ever recognised.
    spoke: bool,
    /// In a box: connections are many, and few become anything.
    becoming: Option<Box<Becoming>>,
}

impl Http1 {
    pub(super) fn new() -> Self {
        Self {
            asked: 0,
            answered: 0,
            arrived: None,
            requests: Requests::new(),
            responses: Responses::new(),
            pending: Waiting::default(),
            burst: 0,
            overlapping: false,
            spoke: false,
            becoming: None,
        }
    }

    /// Whether nothing was recognised yet, and nothing is about to be.
    pub(super) fn is_blank(&self) -> bool {
        !self.spoke && self.requests.unfinished() == 0
    }

    /// Whether where requests begin isn't known.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.requests.reading, Reading::Lost(_))
    }

    /// Whether only the connection's end can end the response under way.
    pub(super) fn awaits_close(&self) -> bool {
        !self.pending.is_empty()
            && matches!(&self.responses.writing, Writing::Body(_, body) if body.ends_with_connection() || body.ends_with_turn())
    }

    /// Whether a request is under way.
    pub(super) fn busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// An operation moved bytes; what the connection is from now on, where that isn't HTTP/1.
    pub(super) fn moved(
        &mut self,
        ends: &mut Ends,
        origin: &Origin,
        data: &Data<'_>,
        sink: &mut impl Sink,
    ) -> Option<Becoming> {
        if data.direction == ends.requests() {
            self.request_bytes(ends, origin, data, sink);
        } else {
            self.response_bytes(ends, origin, data, sink);
        }
        let opaque = match self.requests.reading {
            Reading::Opaque(reason) if self.pending.is_empty() => Some(Becoming::Opaque(reason)),
            _ => None,
        };
        self.becoming.take().map(|becoming| *becoming).or(opaque)
    }

    fn request_bytes(&mut self, ends: &mut Ends, origin: &Origin, data: &Data<'_>, sink: &mut impl Sink) {
        let begun = Begun { read: origin.at, arrived: data.arrived.or(self.arrived) };
        self.arrived = begun.arrived;
        let missing = data.offset.saturating_sub(self.asked);
        let went_back = data.offset < self.asked;
        self.asked = data.offset + u64::from(data.len);
        if missing > 0 || went_back {
            self.requests_missing(ends, missing, went_back, sink);
        }
        if data.turned {
            self.turned(ends, data, sink);
        }
        let gap = u64::from(data.len) - (data.prefix.len() + data.tail.len()) as u64;
        self.read_requests(ends, data.prefix, begun, sink);
        if self.leaves(data.tail.len()) {
            return;
        }
        if gap > 0 || data.capture != Capture::Copied {
            self.pass_requests(ends, gap, data.capture, sink);
        }
        if !data.tail.is_empty() {
            self.read_requests(ends, data.tail, begun, sink);
            if let Reading::Body(body) = &mut self.requests.reading
                && body.look_at_tail(data.tail)
            {
                self.requests.expect_head();
            }
        }
    }

    /// Whether the rest of the operation, `more` bytes of it beyond those at hand, is HTTP/2's.
    fn leaves(&mut self, more: usize) -> bool {
        match self.becoming.as_deref_mut() {
            Some(Becoming::Http2 { left, .. } | Becoming::Upgraded { left, .. }) => {
                *left += more;
                true
            }
            _ => false,
        }
    }

    /// The last bytes went the other way: what had no end of its own ended before, and a request may begin.
    fn turned(&mut self, ends: &mut Ends, data: &Data<'_>, sink: &mut impl Sink) {
        if let Writing::Body(status, body) = self.responses.writing
            && body.ends_with_turn()
        {
            self.finish_alone(ends, status, sink);
        }
        match &self.requests.reading {
            Reading::Lost(_) => self.requests.expect_head(),
            Reading::Body(body) if body.ends_with_turn() => self.requests.expect_head(),
            _ => {}
        }
        if self.requests.between_messages() {
            self.burst += 1;
            let none_of_the_responses_is_missing = data.other == self.answered;
            self.overlapping |= !self.pending.is_empty() && none_of_the_responses_is_missing;
        }
    }

    fn requests_missing(&mut self, ends: &mut Ends, missing: u64, went_back: bool, sink: &mut impl Sink) {
        let survived = match &mut self.requests.reading {
            Reading::Body(body) if !went_back && body.survives(missing) => {
                body.skip(missing);
                if let Some(last) = self.pending.last_mut() {
                    last.course.request_body += missing;
                }
                true
            }
            Reading::Opaque(_) => true,
            _ => false,
        };
        if !survived {
            let given_up = self.requests.lose(Unparsed::Desync);
            ends.unparsed(Unparsed::Desync, given_up, sink);
            // What is known came before: the next response may not be its.
            self.burst += 1;
            self.lose_track(ends, sink);
        }
    }

    fn read_requests(&mut self, ends: &mut Ends, mut bytes: &[u8], begun: Begun, sink: &mut impl Sink) {
        while !bytes.is_empty() {
            let portion = self.requests.portion();
            match self.requests.step(bytes, begun) {
                RequestStep::Head(head, read, begun) => {
                    sink.passed(Portion::Head, read);
                    let (ticket, kind) = tell(&ends.peer, &head, begun, sink);
                    ends.take_side();
                    self.requests.held = Vec::new();
                    self.spoke = true;
                    self.begin(ends, ticket, kind, begun, sink);
                    bytes = &bytes[read..];
                }
                RequestStep::Passed { read, octets } => {
                    sink.passed(portion, read);
                    if let Some(last) = self.pending.last_mut() {
                        last.course.request_body += octets;
                    }
                    bytes = &bytes[read..];
                }
                RequestStep::Consumed => {
                    sink.passed(Portion::Head, bytes.len());
                    return;
                }
                RequestStep::Preface(held) => {
                    self.becoming = Some(Box::new(Becoming::Http2 { held, left: bytes.len() }));
                    return;
                }
                RequestStep::Unreadable(reason) => {
                    sink.passed(Portion::Other, bytes.len());
                    ends.unparsed(reason, bytes.len() as u64, sink);
                    return;
                }
            }
        }
    }

    fn begin(
        &mut self,
        ends: &mut Ends,
        ticket: Ticket,
        kind: RequestKind,
        begun: Begun,
        sink: &mut impl Sink,
    ) {
        let course = Course { arrived: begun.arrived, read: begun.read, ..Course::default() };
        if self.pending.is_empty() {
            self.responses.expect_head();
        }
        self.pending.push(Pending { ticket, kind, course, burst: self.burst });
        if self.pending.len() > MOST_PENDING {
            self.give_up(ends, Unanswered::Desync, sink);
            self.requests.reading = Reading::Opaque(Unparsed::Desync);
        }
    }

    /// Bytes that weren't captured.
    fn pass_requests(&mut self, ends: &mut Ends, gap: u64, capture: Capture, sink: &mut impl Sink) {
        let begun = self.requests.unfinished() > 0;
        match &mut self.requests.reading {
            Reading::Body(body) => {
                let passed = body.skip(gap);
                let ended = body.is_over();
                if let Some(last) = self.pending.last_mut() {
                    last.course.request_body += passed;
                }
                if ended {
                    self.requests.reading = Reading::Head;
                }
                if passed < gap {
                    self.requests.lose(Unparsed::Desync);
                    ends.unparsed(reason_of(capture), gap - passed, sink);
                }
            }
            Reading::Head if begun => {
                ends.cut = true;
                let mut held = std::mem::take(&mut self.requests.held);
                let len = held.len() as u64;
                if let Some((head, begun)) = self.requests.cut(&mut held) {
                    let (ticket, kind) = tell(&ends.peer, &head, begun, sink);
                    ends.take_side();
                    self.begin(ends, ticket, kind, begun, sink);
                } else {
                    self.requests.lose(Unparsed::Desync);
                    ends.unparsed(Unparsed::Desync, len + gap, sink);
                }
            }
            Reading::Head => {
                self.requests.lose(reason_of(capture));
                ends.unparsed(reason_of(capture), gap, sink);
            }
            Reading::Lost(reason) | Reading::Opaque(reason) => {
                let reason = *reason;
                ends.unparsed(reason, gap, sink);
            }
        }
    }

    fn response_bytes(&mut self, ends: &mut Ends, origin: &Origin, data: &Data<'_>, sink: &mut impl Sink) {
        let missing = data.offset.saturating_sub(self.answered);
        let went_back = data.offset < self.answered;
        self.answered = data.offset + u64::from(data.len);
        if (missing > 0 || went_back) && !self.pending.is_empty() {
            self.responses_missing(ends, missing, went_back, data, sink);
        }
        if let Reading::Opaque(reason) = self.requests.reading {
            ends.unparsed(reason, data.len.into(), sink);
            return;
        }
        self.read_responses(ends, data.prefix, origin.at, sink);
        if self.leaves(data.tail.len()) {
            return;
        }
        let gap = u64::from(data.len) - (data.prefix.len() + data.tail.len()) as u64;
        if gap > 0 {
            self.pass_responses(ends, gap, origin.at, data.capture, sink);
        }
        if !data.tail.is_empty() {
            self.read_responses(ends, data.tail, origin.at, sink);
            if let Writing::Body(status, body) = &mut self.responses.writing
                && body.look_at_tail(data.tail)
            {
                let status = *status;
                self.finish_alone(ends, status, sink);
            }
        }
    }

    /// Bytes of responses never came. Where they can't have been a body's, only a request that came after them, of
    /// a client that sends one at a time, can still be matched with what comes now.
    fn responses_missing(
        &mut self,
        ends: &mut Ends,
        missing: u64,
        went_back: bool,
        data: &Data<'_>,
        sink: &mut impl Sink,
    ) {
        if let Writing::Body(_, body) = &mut self.responses.writing
            && !went_back
            && body.survives(missing)
        {
            body.skip(missing);
            if let Some(first) = self.pending.first_mut() {
                first.course.response_body += missing;
            }
            return;
        }
        let none_of_the_requests_is_missing = data.other == self.asked;
        let one_at_a_time =
            self.pending.iter().zip(self.pending.iter().skip(1)).all(|(one, next)| one.burst != next.burst);
        let came_last = self.pending.last().is_some_and(|last| last.burst == self.burst);
        let begins = data.turned && http1::begins_response(data.prefix);
        let sure = begins && one_at_a_time && came_last && none_of_the_requests_is_missing;
        let keep = if sure && !self.overlapping { self.pending.pop_last() } else { None };
        self.give_up(ends, Unanswered::Desync, sink);
        if let Some(keep) = keep {
            self.pending.push(keep);
        }
        self.lose_track(ends, sink);
    }

    /// Events were lost: a client that doesn't wait for responses can't be followed any more.
    fn lose_track(&mut self, ends: &mut Ends, sink: &mut impl Sink) {
        if self.overlapping {
            self.give_up(ends, Unanswered::Desync, sink);
            self.requests.reading = Reading::Opaque(Unparsed::Desync);
        }
    }

    fn read_responses(&mut self, ends: &mut Ends, mut bytes: &[u8], at: Instant, sink: &mut impl Sink) {
        while !bytes.is_empty() {
            // Bytes that answer nothing known belong to a request from before.
            let Some(first) = self.pending.first_mut() else {
                sink.passed(Portion::Other, bytes.len());
                return;
            };
            let portion = self.responses.portion();
            let in_head = self.responses.writing == Writing::Head;
            if in_head && self.responses.held.is_empty() {
                first.course.first_sent = Some(at);
            }
            first.course.last_sent = Some(at);
            match self.responses.step(bytes, first.kind) {
                ResponseStep::Head { read, status, ended, http3 } => {
                    sink.passed(Portion::Head, read);
                    if http3 {
                        sink.offers_http3(&ends.peer);
                    }
                    if ended {
                        self.finish(ends, status, sink);
                    }
                    bytes = &bytes[read..];
                }
                ResponseStep::Interim { read } => {
                    sink.passed(Portion::Head, read);
                    first.course.first_sent = None;
                    first.course.last_sent = None;
                    bytes = &bytes[read..];
                }
                ResponseStep::Tunnel { read, status: _, upgrade: Upgrade::Http2 } => {
                    sink.passed(Portion::Head, read);
                    first.course.first_sent = None;
                    first.course.last_sent = None;
                    let request = self.pending.pop_first();
                    self.give_up(ends, Unanswered::Desync, sink);
                    let left = bytes.len() - read;
                    self.becoming = request.map(|request| Box::new(Becoming::Upgraded { request, left }));
                    return;
                }
                ResponseStep::Tunnel { read, status, upgrade } => {
                    sink.passed(Portion::Head, read);
                    sink.passed(Portion::Other, bytes.len() - read);
                    if upgrade == Upgrade::WebSocket {
                        let session = sink.websocket(&ends.peer, first.ticket);
                        self.becoming = Some(Box::new(Becoming::WebSocket(session)));
                    }
                    self.finish(ends, status, sink);
                    self.give_up(ends, Unanswered::Desync, sink);
                    let held = self.requests.lose(Unparsed::NotHttp);
                    self.requests.reading = Reading::Opaque(Unparsed::NotHttp);
                    ends.unparsed(Unparsed::NotHttp, held + (bytes.len() - read) as u64, sink);
                    return;
                }
                ResponseStep::Body { read, octets, ended } => {
                    sink.passed(portion, read);
                    first.course.response_body += octets;
                    if let Some(status) = ended {
                        self.finish(ends, status, sink);
                    }
                    bytes = &bytes[read..];
                }
                ResponseStep::Consumed => {
                    sink.passed(Portion::Head, bytes.len());
                    return;
                }
                ResponseStep::Unreadable => {
                    sink.passed(Portion::Other, bytes.len());
                    first.course.first_sent = None;
                    first.course.last_sent = None;
                    self.unreadable(ends, Unparsed::Desync, bytes.len() as u64, sink);
                    return;
                }
            }
        }
    }

    /// Bytes that weren't captured.
    fn pass_responses(
        &mut self,
        ends: &mut Ends,
        gap: u64,
        at: Instant,
        capture: Capture,
        sink: &mut impl Sink,
    ) {
        let Some(first) = self.pending.first_mut() else { return };
        match &mut self.responses.writing {
            Writing::Body(status, body) => {
                first.course.last_sent = Some(at);
                let passed = body.skip(gap);
                first.course.response_body += passed;
                if body.is_over() {
                    let status = *status;
                    self.finish(ends, status, sink);
                }
                if passed < gap {
                    ends.cut |= capture == Capture::Copied;
                    self.unreadable(ends, Unparsed::Desync, gap - passed, sink);
                }
            }
            Writing::Head if !self.responses.held.is_empty() => {
                ends.cut = true;
                if self.responses.cut().is_none() {
                    self.unreadable(ends, Unparsed::Desync, gap, sink);
                }
            }
            Writing::Head => {
                ends.cut |= capture == Capture::Copied;
                self.unreadable(ends, reason_of(capture), gap, sink);
            }
        }
    }

    /// Where a response should begin there is something else, or nothing that was captured: what answers what isn't known.
    fn unreadable(&mut self, ends: &mut Ends, reason: Unparsed, bytes: u64, sink: &mut impl Sink) {
        ends.unparsed(reason, bytes, sink);
        self.give_up(ends, Unanswered::Desync, sink);
        self.lose_track(ends, sink);
    }

    /// The response to the first pending request has ended.
    fn finish(&mut self, ends: &mut Ends, status: u16, sink: &mut impl Sink) {
        if let Some(first) = self.pending.pop_first() {
            sink.finished(&ends.peer, first.ticket, status.into(), &first.course);
        }
        self.responses.expect_head();
    }

    /// The response to the first pending request has ended, among bytes that may have held others' responses.
    fn finish_alone(&mut self, ends: &mut Ends, status: u16, sink: &mut impl Sink) {
        self.finish(ends, status, sink);
        self.give_up(ends, Unanswered::Desync, sink);
        self.lose_track(ends, sink);
    }

    /// No pending request will be matched with a response.
    fn give_up(&mut self, ends: &mut Ends, reason: Unanswered, sink: &mut impl Sink) {
        for lost in self.pending.take() {
            sink.unanswered(&ends.peer, lost.ticket, reason, &lost.course);
        }
        self.responses.expect_head();
    }

    /// No more responses will come: one that this ends is complete, all other requests stay unanswered.
    pub(super) fn responses_ended(&mut self, ends: &mut Ends, closed: &Closed, sink: &mut impl Sink) {
        const SIGNAL: u32 = 0x7f;
        let client = ends.side == Side::Client;
        let (asked, answered) =
            if client { (closed.sent, closed.received) } else { (closed.received, closed.sent) };
        if let Writing::Body(status, body) = self.responses.writing {
            let killed = closed.exit_code.is_some_and(|code| code & SIGNAL != 0);
            let cut_short = killed || closed.reset || (client && !ends.peer_closed);
            let whole = answered == self.answered || answered == 0;
            if (body.ends_with_connection() || body.ends_with_turn()) && !cut_short && whole {
                self.finish(ends, status, sink);
            }
        }
        let reason = ends.reason(closed, asked > self.asked || answered > self.answered);
        self.give_up(ends, reason, sink);
    }

    /// It is gone, and nothing told what became of its requests.
    pub(super) fn lost(&mut self, ends: &mut Ends, sink: &mut impl Sink) {
        self.give_up(ends, Unanswered::Desync, sink);
    }

    /// How many bytes of a request's head were read that has not ended.
    pub(super) fn unfinished(&self) -> u64 {
        self.requests.unfinished()
    }
}

/// Tells of a request whose head was recognised, whole or cut.
fn tell(peer: &Peer, head: &RequestHead<'_>, begun: Begun, sink: &mut impl Sink) -> (Ticket, RequestKind) {
    let request = Request {
        method: head.method,
        target: Some(head.target),
        version: head.version,
        trace: head.trace,
        read: begun.read,
        pid: peer.pid,
    };
    (sink.request(peer, &request), RequestKind::of(head.method))
}
