//! One connection: requests on one direction, responses on the other, matched in order.

use std::collections::VecDeque;

use super::{
    requests::{Begun, Reading, Requests, Step as RequestStep},
    responses::{RequestKind, Responses, Step as ResponseStep, Writing},
};
use crate::{
    event::{Address, Capture, Closed, Closing, Data, Direction, Instant, Opened, Origin},
    exchange::{Course, Peer, Portion, Request, Role, Roles, Sink, Ticket, Unanswered, Unparsed},
    http1::{self, RequestHead},
};

/// How many requests of a connection can wait for their responses; one that pipelines more is given up.
const MOST_PENDING: usize = 4096;

/// Which end of the connection the monitored process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Unknown,
    Server,
    Client,
}

/// A request that waits for its response, or for the rest of it.
#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    kind: RequestKind,
    course: Course,
    /// Of the burst of requests that it came in.
    burst: u32,
}

/// One connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts, none of which excludes another")]
pub struct Connection {
    pub(super) peer: Peer,
    pub(super) inode: u64,
    pub(super) fd: Option<i32>,
    side: Side,
    born: bool,
    peer_closed: bool,
    /// How many bytes the requests' direction has carried, and the responses'.
    asked: u64,
    answered: u64,
    /// When the bytes that were read last had arrived.
    arrived: Option<Instant>,
    requests: Requests,
    responses: Responses,
    pending: VecDeque<Pending>,
    /// How many bursts of requests there were: what came between two turns of the direction.
    burst: u32,
    /// Whether the client sends requests while responses to earlier bursts are due. Then, once events were lost,
    /// nothing tells which response answers what.
    overlapping: bool,
    /// A head was longer than what the kernel side copies.
    pub(super) cut: bool,
}

impl Connection {
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            peer,
            inode: 0,
            fd: None,
            side: Side::Unknown,
            born: false,
            peer_closed: false,
            asked: 0,
            answered: 0,
            arrived: None,
            requests: Requests::new(),
            responses: Responses::new(),
            pending: VecDeque::new(),
            burst: 0,
            overlapping: false,
            cut: false,
        }
    }

    pub(super) fn opened(&mut self, opened: &Opened) {
        self.peer.local = Some(opened.local.clone());
        self.peer.remote = Some(opened.remote.clone());
        self.inode = opened.inode;
        self.born |= opened.born;
    }

    /// Whether it is known to serve.
    #[must_use]
    pub fn serves(&self) -> bool {
        match self.side {
            Side::Server => true,
            Side::Client => false,
            Side::Unknown => self.born,
        }
    }

    /// Whether only the connection's end can end the response under way.
    #[must_use]
    pub fn awaits_close(&self) -> bool {
        !self.pending.is_empty()
            && matches!(&self.responses.writing, Writing::Body(_, body) if body.ends_with_connection() || body.ends_with_turn())
    }

    /// Whether a request is under way.
    #[must_use]
    pub fn busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// An operation moved bytes.
    pub(super) fn moved(&mut self, origin: &Origin, data: &Data<'_>, roles: Roles, sink: &mut impl Sink) {
        self.peer.pid = origin.pid;
        self.fd = origin.fd.or(self.fd);
        // What looked like a client's request may have been the end of a server's body.
        if self.side == Side::Unknown || (self.side == Side::Client && data.turned) {
            self.find_side(data);
        }
        let (followed, requests) = match self.side {
            Side::Client => (roles.client, Direction::Sent),
            Side::Server | Side::Unknown => (roles.server, Direction::Received),
        };
        if !followed {
            sink.passed(Portion::Unfollowed, data.prefix.len() + data.tail.len());
            return;
        }
        if data.direction == requests {
            self.request_bytes(origin, data, sink);
        } else {
            self.response_bytes(origin, data, sink);
        }
    }

    /// Who sends requests is the client. What a listening socket took is a server's end; elsewhere heads tell.
    fn find_side(&mut self, data: &Data<'_>) {
        let (request, response) = (http1::begins_request(data.prefix), http1::begins_response(data.prefix));
        self.side = match data.direction {
            _ if self.born => Side::Server,
            Direction::Received if response => Side::Client,
            Direction::Sent if request => Side::Client,
            Direction::Received if request => Side::Server,
            Direction::Sent if response => Side::Server,
            _ => self.side,
        };
        self.peer.role = if self.side == Side::Client { Role::Client } else { Role::Server };
    }

    /// Requests come from clients: where nothing told before, this end is a server's.
    fn take_side(&mut self) {
        if self.side == Side::Unknown {
            self.side = Side::Server;
        }
    }

    fn request_bytes(&mut self, origin: &Origin, data: &Data<'_>, sink: &mut impl Sink) {
        let begun = Begun { read: origin.at, arrived: data.arrived.or(self.arrived) };
        self.arrived = begun.arrived;
        let missing = data.offset.saturating_sub(self.asked);
        let went_back = data.offset < self.asked;
        self.asked = data.offset + u64::from(data.len);
        if missing > 0 || went_back {
            self.requests_missing(missing, went_back, sink);
        }
        if data.turned {
            self.turned(data, sink);
        }
        let gap = u64::from(data.len) - (data.prefix.len() + data.tail.len()) as u64;
        self.read_requests(data.prefix, begun, sink);
        if gap > 0 || data.capture != Capture::Copied {
            self.pass_requests(gap, data.capture, sink);
        }
        if !data.tail.is_empty() {
            self.read_requests(data.tail, begun, sink);
            if let Reading::Body(body) = &mut self.requests.reading
                && body.look_at_tail(data.tail)
            {
                self.requests.expect_head();
            }
        }
    }

    /// The last bytes went the other way: what had no end of its own ended before, and a request may begin.
    fn turned(&mut self, data: &Data<'_>, sink: &mut impl Sink) {
        if let Writing::Body(status, body) = self.responses.writing
            && body.ends_with_turn()
        {
            self.finish_alone(status, sink);
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

    fn requests_missing(&mut self, missing: u64, went_back: bool, sink: &mut impl Sink) {
        let survived = match &mut self.requests.reading {
            Reading::Body(body) if !went_back && body.survives(missing) => {
                body.skip(missing);
                if let Some(last) = self.pending.back_mut() {
                    last.course.request_body += missing;
                }
                true
            }
            Reading::Opaque(_) => true,
            _ => false,
        };
        if !survived {
            let given_up = self.requests.lose(Unparsed::Desync);
            self.unparsed(Unparsed::Desync, given_up, sink);
            // What is known came before: the next response may not be its.
            self.burst += 1;
            self.lose_track(sink);
        }
    }

    fn read_requests(&mut self, mut bytes: &[u8], begun: Begun, sink: &mut impl Sink) {
        while !bytes.is_empty() {
            let portion = self.requests.portion();
            match self.requests.step(bytes, begun) {
                RequestStep::Head(head, read, begun) => {
                    sink.passed(Portion::Head, read);
                    let (ticket, kind) = tell(&self.peer, &head, begun, sink);
                    self.take_side();
                    self.requests.held = Vec::new();
                    self.begin(ticket, kind, begun, sink);
                    bytes = &bytes[read..];
                }
                RequestStep::Passed { read, octets } => {
                    sink.passed(portion, read);
                    if let Some(last) = self.pending.back_mut() {
                        last.course.request_body += octets;
                    }
                    bytes = &bytes[read..];
                }
                RequestStep::Consumed => {
                    sink.passed(Portion::Head, bytes.len());
                    return;
                }
                RequestStep::Unreadable(reason) => {
                    sink.passed(Portion::Other, bytes.len());
                    self.unparsed(reason, bytes.len() as u64, sink);
                    return;
                }
            }
        }
    }

    fn begin(&mut self, ticket: Ticket, kind: RequestKind, begun: Begun, sink: &mut impl Sink) {
        let course = Course { arrived: begun.arrived, read: begun.read, ..Course::default() };
        if self.pending.is_empty() {
            self.responses.expect_head();
        }
        self.pending.push_back(Pending { ticket, kind, course, burst: self.burst });
        if self.pending.len() > MOST_PENDING {
            self.give_up(Unanswered::Desync, sink);
            self.requests.reading = Reading::Opaque(Unparsed::Desync);
        }
    }

    /// Bytes that weren't captured.
    fn pass_requests(&mut self, gap: u64, capture: Capture, sink: &mut impl Sink) {
        let begun = self.requests.unfinished() > 0;
        match &mut self.requests.reading {
            Reading::Body(body) => {
                let passed = body.skip(gap);
                let ended = body.is_over();
                if let Some(last) = self.pending.back_mut() {
                    last.course.request_body += passed;
                }
                if ended {
                    self.requests.reading = Reading::Head;
                }
                if passed < gap {
                    self.requests.lose(Unparsed::Desync);
                    self.unparsed(reason_of(capture), gap - passed, sink);
                }
            }
            Reading::Head if begun => {
                self.cut = true;
                let mut held = std::mem::take(&mut self.requests.held);
                let len = held.len() as u64;
                if let Some((head, begun)) = self.requests.cut(&mut held) {
                    let (ticket, kind) = tell(&self.peer, &head, begun, sink);
                    self.take_side();
                    self.begin(ticket, kind, begun, sink);
                } else {
                    self.requests.lose(Unparsed::Desync);
                    self.unparsed(Unparsed::Desync, len + gap, sink);
                }
            }
            Reading::Head => {
                self.requests.lose(reason_of(capture));
                self.unparsed(reason_of(capture), gap, sink);
            }
            Reading::Lost(reason) | Reading::Opaque(reason) => {
                let reason = *reason;
                self.unparsed(reason, gap, sink);
            }
        }
    }

    fn response_bytes(&mut self, origin: &Origin, data: &Data<'_>, sink: &mut impl Sink) {
        let missing = data.offset.saturating_sub(self.answered);
        let went_back = data.offset < self.answered;
        self.answered = data.offset + u64::from(data.len);
        if (missing > 0 || went_back) && !self.pending.is_empty() {
            self.responses_missing(missing, went_back, data, sink);
        }
        if let Reading::Opaque(reason) = self.requests.reading {
            self.unparsed(reason, data.len.into(), sink);
            return;
        }
        self.read_responses(data.prefix, origin.at, sink);
        let gap = u64::from(data.len) - (data.prefix.len() + data.tail.len()) as u64;
        if gap > 0 {
            self.pass_responses(gap, origin.at, data.capture, sink);
        }
        if !data.tail.is_empty() {
            self.read_responses(data.tail, origin.at, sink);
            if let Writing::Body(status, body) = &mut self.responses.writing
                && body.look_at_tail(data.tail)
            {
                let status = *status;
                self.finish_alone(status, sink);
            }
        }
    }

    /// Bytes of responses never came. Where they can't have been a body's, only a request that came after them, of
    /// a client that sends one at a time, can still be matched with what comes now.
    fn responses_missing(&mut self, missing: u64, went_back: bool, data: &Data<'_>, sink: &mut impl Sink) {
        if let Writing::Body(_, body) = &mut self.responses.writing
            && !went_back
            && body.survives(missing)
        {
            body.skip(missing);
            if let Some(first) = self.pending.front_mut() {
                first.course.response_body += missing;
            }
            return;
        }
        let none_of_the_requests_is_missing = data.other == self.asked;
        let one_at_a_time =
            self.pending.iter().zip(self.pending.iter().skip(1)).all(|(one, next)| one.burst != next.burst);
        let came_last = self.pending.back().is_some_and(|last| last.burst == self.burst);
        let begins = data.turned && http1::begins_response(data.prefix);
        let sure = begins && one_at_a_time && came_last && none_of_the_requests_is_missing;
        let keep = if sure && !self.overlapping { self.pending.pop_back() } else { None };
        self.give_up(Unanswered::Desync, sink);
        self.pending.extend(keep);
        self.lose_track(sink);
    }

    /// Events were lost: a client that doesn't wait for responses can't be followed any more.
    fn lose_track(&mut self, sink: &mut impl Sink) {
        if self.overlapping {
            self.give_up(Unanswered::Desync, sink);
            self.requests.reading = Reading::Opaque(Unparsed::Desync);
        }
    }

    fn read_responses(&mut self, mut bytes: &[u8], at: Instant, sink: &mut impl Sink) {
        while !bytes.is_empty() {
            // Bytes that answer nothing known belong to a request from before.
            let Some(first) = self.pending.front_mut() else {
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
                ResponseStep::Head { read, status, ended } => {
                    sink.passed(Portion::Head, read);
                    if ended {
                        self.finish(status, sink);
                    }
                    bytes = &bytes[read..];
                }
                ResponseStep::Interim { read } => {
                    sink.passed(Portion::Head, read);
                    first.course.first_sent = None;
                    first.course.last_sent = None;
                    bytes = &bytes[read..];
                }
                ResponseStep::Tunnel { read, status } => {
                    sink.passed(Portion::Head, read);
                    sink.passed(Portion::Other, bytes.len() - read);
                    self.finish(status, sink);
                    self.give_up(Unanswered::Desync, sink);
                    let held = self.requests.lose(Unparsed::NotHttp);
                    self.requests.reading = Reading::Opaque(Unparsed::NotHttp);
                    self.unparsed(Unparsed::NotHttp, held + (bytes.len() - read) as u64, sink);
                    return;
                }
                ResponseStep::Body { read, octets, ended } => {
                    sink.passed(portion, read);
                    first.course.response_body += octets;
                    if let Some(status) = ended {
                        self.finish(status, sink);
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
                    self.unreadable(Unparsed::Desync, bytes.len() as u64, sink);
                    return;
                }
            }
        }
    }

    /// Bytes that weren't captured.
    fn pass_responses(&mut self, gap: u64, at: Instant, capture: Capture, sink: &mut impl Sink) {
        let Some(first) = self.pending.front_mut() else { return };
        match &mut self.responses.writing {
            Writing::Body(status, body) => {
                first.course.last_sent = Some(at);
                let passed = body.skip(gap);
                first.course.response_body += passed;
                if body.is_over() {
                    let status = *status;
                    self.finish(status, sink);
                }
                if passed < gap {
                    self.cut |= capture == Capture::Copied;
                    self.unreadable(Unparsed::Desync, gap - passed, sink);
                }
            }
            Writing::Head if !self.responses.held.is_empty() => {
                self.cut = true;
                if self.responses.cut().is_none() {
                    self.unreadable(Unparsed::Desync, gap, sink);
                }
            }
            Writing::Head => {
                self.cut |= capture == Capture::Copied;
                self.unreadable(reason_of(capture), gap, sink);
            }
        }
    }

    /// Where a response should begin there is something else, or nothing that was captured: what answers what isn't known.
    fn unreadable(&mut self, reason: Unparsed, bytes: u64, sink: &mut impl Sink) {
        self.unparsed(reason, bytes, sink);
        self.give_up(Unanswered::Desync, sink);
        self.lose_track(sink);
    }

    /// The response to the first pending request has ended.
    fn finish(&mut self, status: u16, sink: &mut impl Sink) {
        if let Some(first) = self.pending.pop_front() {
            sink.finished(&self.peer, first.ticket, status, &first.course);
        }
        self.responses.expect_head();
        if self.pending.is_empty() && self.pending.capacity() > 16 {
            self.pending.shrink_to(4);
        }
    }

    /// The response to the first pending request has ended, among bytes that may have held others' responses.
    fn finish_alone(&mut self, status: u16, sink: &mut impl Sink) {
        self.finish(status, sink);
        self.give_up(Unanswered::Desync, sink);
        self.lose_track(sink);
    }

    /// No pending request will be matched with a response.
    fn give_up(&mut self, reason: Unanswered, sink: &mut impl Sink) {
        for lost in self.pending.drain(..) {
            sink.unanswered(&self.peer, lost.ticket, reason, &lost.course);
        }
        self.responses.expect_head();
    }

    /// An end was closed; whether nothing can follow.
    pub(super) fn closed(&mut self, closed: &Closed, sink: &mut impl Sink) -> bool {
        match (closed.how, self.side) {
            (Closing::ByPeer, side) => {
                self.peer_closed = true;
                // A client's unix socket tells the end when it is read; TCP tells it before the last bytes are.
                if side == Side::Client && matches!(self.peer.local, Some(Address::Unix(_))) {
                    self.responses_ended(closed, sink);
                }
                false
            }
            // A client that will send no more may still read.
            (Closing::Locally, Side::Client) => false,
            (Closing::Locally, _) => {
                self.responses_ended(closed, sink);
                false
            }
            (Closing::Fully, _) => {
                self.responses_ended(closed, sink);
                let held = self.requests.unfinished();
                self.unparsed(Unparsed::NotHttp, held, sink);
                true
            }
        }
    }

    /// It is gone, and nothing told what became of its requests.
    pub(super) fn lost(&mut self, sink: &mut impl Sink) {
        self.give_up(Unanswered::Desync, sink);
    }

    /// No more responses will come: one that this ends is complete, all other requests stay unanswered.
    fn responses_ended(&mut self, closed: &Closed, sink: &mut impl Sink) {
        const SIGNAL: u32 = 0x7f;
        let client = self.side == Side::Client;
        let (asked, answered) =
            if client { (closed.sent, closed.received) } else { (closed.received, closed.sent) };
        if let Writing::Body(status, body) = self.responses.writing {
            let killed = closed.exit_code.is_some_and(|code| code & SIGNAL != 0);
            let cut_short = killed || closed.reset || (client && !self.peer_closed);
            let whole = answered == self.answered || answered == 0;
            if (body.ends_with_connection() || body.ends_with_turn()) && !cut_short && whole {
                self.finish(status, sink);
            }
        }
        let by_peer = self.peer_closed || closed.reset;
        let reason = if asked > self.asked || answered > self.answered {
            Unanswered::Desync
        } else if closed.exit_code.is_some() {
            Unanswered::ProcessExited
        } else if by_peer == client {
            Unanswered::ServerClosed
        } else {
            Unanswered::ClientClosed
        };
        self.give_up(reason, sink);
    }

    fn unparsed(&self, reason: Unparsed, bytes: u64, sink: &mut impl Sink) {
        if bytes > 0 {
            sink.unparsed(&self.peer, reason, bytes);
        }
    }
}

/// Tells of a request whose head was recognised, whole or cut.
fn tell(peer: &Peer, head: &RequestHead<'_>, begun: Begun, sink: &mut impl Sink) -> (Ticket, RequestKind) {
    let request = Request {
        method: head.method,
        target: head.target,
        version: head.version,
        read: begun.read,
        pid: peer.pid,
    };
    (sink.request(peer, &request), RequestKind::of(head.method))
}

fn reason_of(capture: Capture) -> Unparsed {
    match capture {
        Capture::Unreadable => Unparsed::IoUring,
        Capture::Copied | Capture::Spliced => Unparsed::Desync,
    }
}
