//! The requests' direction: finds heads and passes over bodies.

use crate::{
    event::Instant,
    exchange::{Portion, Unparsed},
    http1::{self, Body, Framing, Head, RequestHead},
    http2,
};

/// The longest head that is put together from pieces.
pub(super) const LONGEST_HEAD: usize = 64 << 10;

/// Where the direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// At or in a request's head.
    Head,
    /// In a request's body.
    Body(Body),
    /// The framing was lost: at the next turn of the direction a request may begin.
    Lost(Unparsed),
    /// Never HTTP (again).
    Opaque(Unparsed),
}

/// When a head's first byte came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) read: Instant,
    pub(super) arrived: Option<Instant>,
}

/// What a step over some bytes came to.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// A request's head ended after so many bytes.
    Head(RequestHead<'a>, usize, Begun),
    /// So many bytes were read, so many of them octets of the body of the last request.
    Passed { read: usize, octets: u64 },
    /// All the bytes belong to a head that goes on, or to nothing readable.
    Consumed,
    /// The bytes, behind those that were held, begin like HTTP/2's preface.
    Preface(Vec<u8>),
    /// All the bytes aren't HTTP.
    Unreadable(Unparsed),
}

/// The requests' direction of a connection.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) reading: Reading,
    /// The beginning of a head that came in pieces.
    pub(super) held: Vec<u8>,
    begun: Option<Begun>,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self { reading: Reading::Head, held: Vec::new(), begun: None }
    }

    /// What the bytes that follow are.
    pub(super) fn portion(&self) -> Portion {
        match &self.reading {
            Reading::Body(body) => of_body(body),
            _ => Portion::Head,
        }
    }

    /// Whether the last message has ended, and the next one hasn't begun.
    pub(super) fn between_messages(&self) -> bool {
        self.reading == Reading::Head && self.held.is_empty()
    }

    /// How many bytes of a head were read that has not ended.
    pub(super) fn unfinished(&self) -> u64 {
        self.held.len() as u64
    }

    /// A request may begin with the bytes that follow.
    pub(super) fn expect_head(&mut self) {
        self.reading = Reading::Head;
        self.held.clear();
        self.begun = None;
    }

    /// Nothing can be read until a request surely begins; how many bytes of a head are given up.
    pub(super) fn lose(&mut self, reason: Unparsed) -> u64 {
        let given_up = self.unfinished();
        self.expect_head();
        self.reading = Reading::Lost(reason);
        given_up
    }

    /// Reads on in one operation's captured bytes.
    pub(super) fn step<'a>(&'a mut self, bytes: &'a [u8], at: Begun) -> Step<'a> {
        match &mut self.reading {
            Reading::Body(body) => {
                let progress = body.read(bytes);
                if progress.ended {
                    self.reading = Reading::Head;
                }
                Step::Passed { read: progress.read, octets: progress.octets }
            }
            Reading::Lost(reason) | Reading::Opaque(reason) => Step::Unreadable(*reason),
            Reading::Head => self.head(bytes, at),
        }
    }

    fn head<'a>(&'a mut self, bytes: &'a [u8], at: Begun) -> Step<'a> {
        if self.held.is_empty() && bytes.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            return Step::Passed { read: bytes.len(), octets: 0 };
        }
        let begun = *self.begun.get_or_insert(at);
        if self.held.is_empty() {
            return match http1::request(bytes) {
                Head::Complete(head, len) => {
                    self.head_ended(&head);
                    Step::Head(head, len, begun)
                }
                Head::Partial if bytes.len() <= LONGEST_HEAD && http1::may_begin_request(bytes) => {
                    self.held.extend_from_slice(bytes);
                    Step::Consumed
                }
                Head::Partial | Head::Invalid if http2::begins(bytes) => {
                    self.expect_head();
                    Step::Preface(Vec::new())
                }
                Head::Partial | Head::Invalid => self.no_head(what_is(bytes)),
            };
        }
        let before = self.held.len();
        self.held.extend_from_slice(bytes);
        match http1::request(&self.held) {
            Head::Complete(..) => {}
            Head::Partial if self.held.len() <= LONGEST_HEAD && http1::may_begin_request(&self.held) => {
                return Step::Consumed;
            }
            Head::Partial | Head::Invalid if http2::begins(&self.held) => {
                let mut held = std::mem::take(&mut self.held);
                held.truncate(before);
                self.expect_head();
                return Step::Preface(held);
            }
            Head::Partial | Head::Invalid => return self.no_head(what_is(&self.held)),
        }
        self.begun = None;
        match http1::request(&self.held) {
            Head::Complete(head, len) => {
                self.reading = after(&head);
                Step::Head(head, len - before, begun)
            }
            // The same bytes were a whole head just now.
            Head::Partial | Head::Invalid => Step::Consumed,
        }
    }

    fn head_ended(&mut self, head: &RequestHead<'_>) {
        self.begun = None;
        self.reading = after(head);
    }

    /// Pieces that were held are given up with the bytes at hand.
    fn no_head<'a>(&mut self, reason: Unparsed) -> Step<'a> {
        self.expect_head();
        self.held = Vec::new();
        self.reading = match reason {
            Unparsed::Tls => Reading::Opaque(reason),
            _ => Reading::Lost(reason),
        };
        Step::Unreadable(reason)
    }

    /// A head was not captured whole: its first lines are all there is. `None` where not even the request line is.
    pub(super) fn cut<'a>(&mut self, held: &'a mut Vec<u8>) -> Option<(RequestHead<'a>, Begun)> {
        let begun = self.begun.take()?;
        close_off(held)?;
        let Head::Complete(head, _) = http1::request(held) else { return None };
        self.reading = Reading::Body(Body::unknown());
        Some((RequestHead { framing: Framing::Unstated, ..head }, begun))
    }
}

/// What a body's bytes are.
pub(super) fn of_body(body: &Body) -> Portion {
    if body.is_chunked() { Portion::Chunked } else { Portion::Body }
}

/// What follows a head.
fn after(head: &RequestHead<'_>) -> Reading {
    let body = Body::framed(head.framing, Body::empty());
    if body.is_over() { Reading::Head } else { Reading::Body(body) }
}

/// Ends a head after its last whole line.
pub(super) fn close_off(held: &mut Vec<u8>) -> Option<()> {
    let end = held.iter().rposition(|&byte| byte == b'\n')?;
    held.truncate(end + 1);
    held.extend_from_slice(b"\r\n");
    Some(())
}

/// What bytes are that are no request.
fn what_is(bytes: &[u8]) -> Unparsed {
    match bytes {
        [0x16, 0x03, ..] => Unparsed::Tls,
        _ => Unparsed::NotHttp,
    }
}
