//! The responses' direction: finds status lines and the responses' ends.

use super::requests::{LONGEST_HEAD, close_off, of_body};
use crate::exchange::Portion;
use crate::http1::{self, Body, Head, ResponseHead, Upgrade};

/// Where the direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// At or in a response's head.
    Head,
    /// In the body of a response with this status.
    Body(u16, Body),
}

/// What the request says of its response's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// `HEAD`: no body.
    Head,
    /// `CONNECT`: a tunnel, if it succeeds.
    Connect,
    /// Any other.
    Other,
}

impl RequestKind {
    pub(super) fn of(method: &str) -> Self {
        match method {
            "HEAD" => Self::Head,
            "CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }

    /// Whether its response with this status, where that is known, has no content, whatever its fields say (RFC 9110,
    /// section 6.4.1).
    pub(super) fn is_answered_without_content(self, status: Option<u16>) -> bool {
        self == Self::Head || matches!(status, Some(204 | 304))
    }
}

/// What a step over some bytes came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A response's head ended after so many bytes, and the response with it where it has no body. It may offer HTTP/3.
    Head { read: usize, status: u16, ended: bool, http3: bool },
    /// An interim response's head ended after so many bytes.
    Interim { read: usize },
    /// The connection is no HTTP connection any more after so many bytes.
    Tunnel { read: usize, status: u16, upgrade: Upgrade },
    /// So many bytes of a body.
    Body { read: usize, octets: u64, ended: Option<u16> },
    /// All the bytes belong to a head that goes on.
    Consumed,
    /// All the bytes are no response.
    Unreadable,
}

/// The responses' direction of a connection.
#[derive(Debug)]
pub(super) struct Responses {
    pub(super) writing: Writing,
    /// The beginning of a head that came in pieces.
    pub(super) held: Vec<u8>,
}

impl Responses {
    pub(super) fn new() -> Self {
        Self { writing: Writing::Head, held: Vec::new() }
    }

    /// What the bytes that follow are.
    pub(super) fn portion(&self) -> Portion {
        match &self.writing {
            Writing::Body(_, body) => of_body(body),
            Writing::Head => Portion::Head,
        }
    }

    /// A response may begin with the bytes that follow.
    pub(super) fn expect_head(&mut self) {
        self.writing = Writing::Head;
        self.held.clear();
    }

    /// Reads on in one operation's captured bytes, which answer a request of this kind.
    pub(super) fn step(&mut self, bytes: &[u8], request: RequestKind) -> Step {
        match &mut self.writing {
            Writing::Body(status, body) => {
                let status = *status;
                let progress = body.read(bytes);
                if progress.ended {
                    self.writing = Writing::Head;
                }
                Step::Body {
                    read: progress.read,
                    octets: progress.octets,
                    ended: progress.ended.then_some(status),
                }
            }
            Writing::Head => self.head(bytes, request),
        }
    }

    fn head(&mut self, bytes: &[u8], request: RequestKind) -> Step {
        let before = self.held.len();
        let whole = if before == 0 {
            bytes
        } else {
            self.held.extend_from_slice(bytes);
            &self.held
        };
        match http1::response(whole) {
            Head::Complete(head, len) => {
                let read = len - before;
                self.held.clear();
                self.begin_body(&head, request, read)
            }
            Head::Partial if whole.len() <= LONGEST_HEAD && http1::may_begin_response(whole) => {
                if before == 0 {
                    self.held.extend_from_slice(bytes);
                }
                Step::Consumed
            }
            Head::Partial | Head::Invalid => {
                self.held = Vec::new();
                Step::Unreadable
            }
        }
    }

    /// RFC 9112, section 6.3.
    fn begin_body(&mut self, head: &ResponseHead, request: RequestKind, read: usize) -> Step {
        let ResponseHead { status, framing, upgrade, http3 } = *head;
        let body = match (status, request) {
            (101, _) | (200..=299, RequestKind::Connect) => return Step::Tunnel { read, status, upgrade },
            (100..=199, _) => return Step::Interim { read },
            _ if request.is_answered_without_content(Some(status)) => Body::empty(),
            _ => Body::framed(framing, Body::until_close()),
        };
        let ended = body.is_over();
        if !ended {
            self.writing = Writing::Body(status, body);
        }
        Step::Head { read, status, ended, http3 }
    }

    /// A head was not captured whole: the status is known, the response's end is not. `None` where it is no final one.
    pub(super) fn cut(&mut self) -> Option<u16> {
        close_off(&mut self.held)?;
        let parsed = http1::response(&self.held);
        self.held = Vec::new();
        let Head::Complete(head, _) = parsed else { return None };
        if head.status < 200 {
            return None;
        }
        self.writing = Writing::Body(head.status, Body::unknown());
        Some(head.status)
    }
}
