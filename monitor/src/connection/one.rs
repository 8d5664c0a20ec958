//! One connection: what it speaks, and what becomes of it.

use super::{
    ends::{Ends, Side},
    http1::{Becoming, Http1},
    http2::Http2,
    requests::Begun,
};
use crate::{
    event::{Address, Capture, Closed, Closing, Data, Direction, Instant, Opened, Origin, Place},
    exchange::{Peer, Portion, Roles, Scheme, Session, Sink, Unparsed},
    http2::{self, Scout},
};

/// What a connection speaks.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all connections speak HTTP/1, and each is in a box of its own"
)]
enum Protocol {
    /// HTTP/1, or nothing yet.
    Http1(Http1),
    /// HTTP/2.
    Http2(Box<Http2>),
    /// TLS: what it carries may yet be told in clear text.
    Sealed(Sealed),
    /// A WebSocket, since then.
    WebSocket(Session, Instant),
    /// What can't be read.
    Opaque(Unparsed),
}

/// TLS records of which nobody has told what they carry.
#[derive(Debug, Default)]
struct Sealed {
    bytes: u64,
    /// How often the direction turned.
    turns: u32,
}

impl Sealed {
    /// More bytes come in one operation than clear text can wait for.
    const MOST_BYTES: u64 = 1 << 20;
    /// After so many turns the longest handshake is over, and what came after it was answered (RFC 8446, section 2.1, and
    /// RFC 5246, section 7.3).
    const MOST_TURNS: u32 = 8;

    /// Whether nobody will tell any more.
    fn is_for_good(&self) -> bool {
        self.bytes > Self::MOST_BYTES || self.turns > Self::MOST_TURNS
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    pub(super) ends: Ends,
    protocol: Protocol,
}

impl Connection {
    pub(super) fn new(peer: Peer) -> Self {
        Self { ends: Ends::new(peer), protocol: Protocol::Http1(Http1::new()) }
    }

    pub(super) fn opened(&mut self, opened: &Opened) {
        self.ends.peer.local = Some(opened.local.clone());
        self.ends.peer.remote = Some(opened.remote.clone());
        self.ends.inode = opened.inode;
        self.ends.born |= opened.born;
    }

    /// Whether it is known to serve.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.ends.serves()
    }

    /// Whether only the connection's end can end the response under way.
    #[must_use]
    pub fn awaits_close(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(http1) => http1.awaits_close(),
            Protocol::Http2(_) | Protocol::Sealed(_) | Protocol::WebSocket(..) | Protocol::Opaque(_) => false,
        }
    }

    /// Whether a request is under way.
    #[must_use]
    pub fn busy(&self) -> bool {
        match &self.protocol {
            Protocol::Http1(http1) => http1.busy(),
            Protocol::Http2(http2) => http2.busy(),
            Protocol::Sealed(_) | Protocol::WebSocket(..) | Protocol::Opaque(_) => false,
        }
    }

    /// An operation moved bytes.
    pub(super) fn moved(&mut self, origin: &Origin, data: &Data<'_>, roles: Roles, sink: &mut impl Sink) {
        let Self { ends, protocol } = self;
        ends.peer.pid = origin.pid;
        ends.fd = origin.fd.or(ends.fd);
        ends.heard = origin.at;
        if data.plain && ends.peer.scheme == Scheme::Http {
            ends.peer.scheme = Scheme::Https;
            ends.unsealed(data);
            *protocol = Protocol::Http1(Http1::new());
        } else if !data.plain && ends.peer.scheme == Scheme::Https {
            sink.passed(Portion::Unfollowed, data.prefix.len() + data.tail.len());
            return;
        }
        if let Protocol::Http1(http1) = protocol
            && http1.is_blank()
            && ends.begins_tls(data)
        {
            *protocol = Protocol::Sealed(Sealed::default());
        }
        // What looked like a client's request may have been the end of a server's body.
        if let Protocol::Http1(_) = protocol
            && (ends.side == Side::Unknown || (ends.side == Side::Client && data.turned))
        {
            ends.find_side(data);
        }
        if let Protocol::Http1(http1) = protocol
            && (http1.is_blank() || ends.scout.is_some())
            && let Some(http2) = joins(ends, http1, origin, data)
        {
            *protocol = Protocol::Http2(Box::new(http2));
        }
        // Where frames were recognised, it is their fields that tell the side.
        let either = ends.side == Side::Unknown && matches!(protocol, Protocol::Http2(_)) && roles.client;
        if !ends.is_followed(roles) && !either {
            sink.passed(Portion::Unfollowed, data.prefix.len() + data.tail.len());
            return;
        }
        match protocol {
            Protocol::Http1(http1) => {
                let plain = contiguous(data);
                if let Some(becoming) = http1.moved(ends, origin, &plain, sink) {
                    let captured = plain.prefix.len() + plain.tail.len();
                    *protocol = become_it(ends, becoming, origin, data, captured, sink);
                }
            }
            Protocol::Http2(http2) => http2.moved(ends, origin, data, 0, sink),
            Protocol::Sealed(sealed) => {
                sealed.bytes += u64::from(data.len);
                sealed.turns += u32::from(data.turned);
                if sealed.is_for_good() {
                    ends.unparsed(Unparsed::Tls, sealed.bytes, sink);
                    *protocol = Protocol::Opaque(Unparsed::Tls);
                }
            }
            Protocol::WebSocket(..) => ends.unparsed(Unparsed::NotHttp, data.len.into(), sink),
            Protocol::Opaque(reason) => ends.unparsed(*reason, data.len.into(), sink),
        }
    }

    /// An end was closed, and perhaps it is known when; whether nothing can follow.
    pub(super) fn closed(&mut self, closed: &Closed, at: Option<Instant>, sink: &mut impl Sink) -> bool {
        let Self { ends, protocol } = self;
        if let Protocol::WebSocket(session, begun) = *protocol {
            sink.websocket_ended(session, at.unwrap_or(ends.heard).seconds_since(begun));
            *protocol = Protocol::Opaque(Unparsed::NotHttp);
        }
        ends.heard = at.unwrap_or(ends.heard);
        let last = match (closed.how, ends.side) {
            (Closing::ByPeer, side) => {
                ends.peer_closed = true;
                // A client's unix socket tells the end when it is read; TCP tells it before the last bytes are.
                side == Side::Client && matches!(ends.peer.local, Some(Address::Unix(_)))
            }
            // A client that will send no more may still read.
            (Closing::Locally, Side::Client) => false,
            (Closing::Locally | Closing::Fully, _) => true,
        };
        let gone = closed.how == Closing::Fully;
        match protocol {
            Protocol::Http1(http1) if last => {
                http1.responses_ended(ends, closed, sink);
                if gone {
                    ends.unparsed(Unparsed::NotHttp, http1.unfinished(), sink);
                }
            }
            Protocol::Http2(http2) if last => http2.ended(ends, closed, sink),
            Protocol::Sealed(sealed) if gone => ends.unparsed(Unparsed::Tls, sealed.bytes, sink),
            Protocol::Http1(_)
            | Protocol::Sealed(_)
            | Protocol::Http2(_)
            | Protocol::WebSocket(..)
            | Protocol::Opaque(_) => {}
        }
        gone
    }

    /// It is gone, and nothing told what became of its requests.
    pub(super) fn lost(&mut self, sink: &mut impl Sink) {
        let Self { ends, protocol } = self;
        match protocol {
            Protocol::Http1(http1) => http1.lost(ends, sink),
            Protocol::Http2(http2) => http2.lost(ends, sink),
            Protocol::WebSocket(session, begun) => {
                sink.websocket_ended(*session, ends.heard.seconds_since(*begun));
            }
            Protocol::Sealed(sealed) => ends.unparsed(Unparsed::Tls, sealed.bytes, sink),
            Protocol::Opaque(_) => {}
        }
    }
}

/// HTTP/2 that is recognised by its frames: where a connection was joined midway or its beginning was lost, and where a
/// server says its settings before it reads anything.
fn joins(ends: &mut Ends, http1: &Http1, origin: &Origin, data: &Data<'_>) -> Option<Http2> {
    let end = data.offset + u64::from(data.len);
    if let Some((direction, scout, begun)) = ends.scout
        && direction == data.direction
    {
        ends.scout = None;
        if scout.is_followed(data.len, end) {
            return Some(Http2::scouted(data, scout, begun));
        }
    }
    if let Capture::Frames(place) = data.capture
        && http1.is_blank()
        && place != Place::PREFACE
    {
        return Some(Http2::joined(data));
    }
    if data.prefix.first() != Some(&0) || !http1.is_blank() {
        return None;
    }
    let settles = ends.born && data.direction == Direction::Sent && data.offset == 0 && data.other == 0;
    if settles && http2::settles(data.prefix, data.len) {
        return Some(Http2::server_first());
    }
    let missed = !ends.born || http1.is_lost();
    if missed && http2::recognise(data.prefix, data.len) {
        return Some(Http2::joined(data));
    }
    let begun = Begun { read: origin.at, arrived: data.arrived };
    let scout = missed.then(|| Scout::of(data.prefix, data.len, end)).flatten();
    ends.scout = scout.map(|scout| (data.direction, scout, begun));
    None
}

/// The operation as one that isn't taken for frames: cut where a payload was left out.
fn contiguous<'a>(data: &Data<'a>) -> Data<'a> {
    match data.capture {
        Capture::Frames(place) => {
            let prefix = &data.prefix[..http2::contiguous(place, data.prefix)];
            Data { prefix, capture: Capture::Copied, ..*data }
        }
        _ => *data,
    }
}

/// What the connection is from now on, with the operation at hand read to its end, of which so many bytes were looked at.
fn become_it(
    ends: &mut Ends,
    becoming: Becoming,
    origin: &Origin,
    data: &Data<'_>,
    captured: usize,
    sink: &mut impl Sink,
) -> Protocol {
    let (mut http2, left) = match becoming {
        Becoming::Opaque(reason) => return Protocol::Opaque(reason),
        Becoming::WebSocket(session) => return Protocol::WebSocket(session, origin.at),
        Becoming::Http2 { held, left } => {
            let mut http2 = Http2::client_first(data);
            http2.hold(data.direction, &held);
            (http2, left)
        }
        Becoming::Upgraded { request, left } => (Http2::upgraded(data, &request), left),
    };
    http2.moved(ends, origin, data, captured - left, sink);
    Protocol::Http2(Box::new(http2))
}
