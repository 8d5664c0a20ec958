//! What is known of a connection whatever it speaks: its ends, and how far they are closed.

use super::requests::Begun;
use crate::{
    event::{Capture, Closed, Data, Direction, Instant},
    exchange::{Peer, Role, Roles, Sink, Unanswered, Unparsed},
    http1,
    http2::{self, Scout},
};

/// Which end of the connection the monitored process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Unknown,
    Server,
    Client,
}

/// Both ends.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) peer: Peer,
    pub(super) inode: u64,
    pub(super) fd: Option<i32>,
    pub(super) side: Side,
    pub(super) born: bool,
    pub(super) peer_closed: bool,
    /// What may have been a frame's header, on a connection of which nothing was recognised yet.
    pub(super) scout: Option<(Direction, Scout, Begun)>,
    /// When anything was last heard of it.
    pub(super) heard: Instant,
    /// A head was longer than what the kernel side copies.
    pub(super) cut: bool,
}

impl Ends {
    pub(super) fn new(peer: Peer) -> Self {
        Self {
            peer,
            inode: 0,
            fd: None,
            side: Side::Unknown,
            born: false,
            peer_closed: false,
            scout: None,
            heard: Instant::default(),
            cut: false,
        }
    }

    /// Whether it is known to serve.
    pub(super) fn serves(&self) -> bool {
        match self.side {
            Side::Server => true,
            Side::Client => false,
            Side::Unknown => self.born,
        }
    }

    /// Which way requests go, as far as is known.
    pub(super) fn requests(&self) -> Direction {
        match self.side {
            Side::Client => Direction::Sent,
            Side::Server | Side::Unknown => Direction::Received,
        }
    }

    /// Whether such ends are followed.
    pub(super) fn is_followed(&self, roles: Roles) -> bool {
        match self.side {
            Side::Client => roles.client,
            Side::Server | Side::Unknown => roles.server,
        }
    }

    pub(super) fn take_side_of(&mut self, side: Side) {
        self.side = side;
        self.peer.role = if side == Side::Client { Role::Client } else { Role::Server };
    }

    /// Who sends requests is the client. What a listening socket took is a server's end; elsewhere heads tell.
    pub(super) fn find_side(&mut self, data: &Data<'_>) {
        let request = http1::begins_request(data.prefix) || http2::begins(data.prefix);
        let response = http1::begins_response(data.prefix);
        self.take_side_of(match data.direction {
            _ if self.born => Side::Server,
            Direction::Received if response => Side::Client,
            Direction::Sent if request => Side::Client,
            Direction::Received if request => Side::Server,
            Direction::Sent if response => Side::Server,
            _ => self.side,
        });
    }

    /// Whether bytes begin TLS: with a handshake (RFC 8446, section 5.1), or on a connection that was joined midway with a
    /// record of any type.
    pub(super) fn begins_tls(&self, data: &Data<'_>) -> bool {
        const HANDSHAKE: u8 = 22;
        data.begins_tls() && (!self.born || data.prefix.first() == Some(&HANDSHAKE))
    }

    /// The first clear text of a connection that carries TLS: there may have been some before that nobody saw.
    pub(super) fn unsealed(&mut self, data: &Data<'_>) {
        self.scout = None;
        let begins = match data.direction {
            Direction::Received => http1::begins_request(data.prefix) || http2::begins(data.prefix),
            Direction::Sent => http2::settles(data.prefix, data.len),
        };
        if self.born && !begins {
            self.born = false;
            self.take_side_of(Side::Server);
        }
    }

    /// Requests come from clients: where nothing told before, this end is a server's.
    pub(super) fn take_side(&mut self) {
        if self.side == Side::Unknown {
            self.side = Side::Server;
        }
    }

    /// Why the requests stay unanswered that are under way when an end is closed. `missing` tells that bytes of
    /// the connection never came.
    pub(super) fn reason(&self, closed: &Closed, missing: bool) -> Unanswered {
        let by_peer = self.peer_closed || closed.reset;
        if missing {
            Unanswered::Desync
        } else if closed.exit_code.is_some() {
            Unanswered::ProcessExited
        } else if by_peer == (self.side == Side::Client) {
            Unanswered::ServerClosed
        } else {
            Unanswered::ClientClosed
        }
    }

    pub(super) fn unparsed(&self, reason: Unparsed, bytes: u64, sink: &mut impl Sink) {
        if bytes > 0 {
            sink.unparsed(&self.peer, reason, bytes);
        }
    }
}

/// Why bytes that weren't captured can't be read.
pub(super) fn reason_of(capture: Capture) -> Unparsed {
    match capture {
        Capture::Unreadable => Unparsed::IoUring,
        Capture::Copied | Capture::Spliced | Capture::Frames(_) => Unparsed::Desync,
    }
}
