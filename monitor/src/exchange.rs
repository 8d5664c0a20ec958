//! What the part that reads bytes tells the part that counts: requests begun, exchanges ended, bytes beyond reading.

use crate::event::{Address, ConnectionId, Instant, ServiceId};

/// Which end of its connection a monitored process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// It answers.
    #[default]
    Server,
    /// It asks.
    Client,
}

/// Which ends are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Those that answer.
    pub server: bool,
    /// Those that ask.
    pub client: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self { server: true, client: false }
    }
}

/// A connection as far as labels need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which end it is.
    pub role: Role,
    /// The service whose process holds it.
    pub service: ServiceId,
    /// The process that used it last.
    pub pid: u32,
    /// The connection.
    pub connection: ConnectionId,
    /// The monitored process's end; `None` where the record that tells it was lost.
    pub local: Option<Address>,
    /// The other end.
    pub remote: Option<Address>,
}

impl Peer {
    /// The server's end, whichever that is; of a unix socket both ends know the one path.
    #[must_use]
    pub fn server(&self) -> Option<&Address> {
        match (self.role, &self.local) {
            (Role::Client, Some(Address::Inet(_)) | None) => self.remote.as_ref(),
            (_, local) => local.as_ref(),
        }
    }
}

/// `HTTP/1.0` or `HTTP/1.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// RFC 1945.
    Http10,
    /// RFC 9112.
    Http11,
}

impl Version {
    /// As labels and lines have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
        }
    }
}

/// A request whose head was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// As sent; case-sensitive.
    pub method: &'a str,
    /// The request target as sent: origin, absolute, authority or asterisk form.
    pub target: &'a str,
    /// Of the request line.
    pub version: Version,
    /// When its first byte was read by the process.
    pub read: Instant,
    /// The process that read it.
    pub pid: u32,
}

/// What a [`Sink`] returned for a request, given back to it with what becomes of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u32);

/// The measured course of a request; times are those of the operation that moved the byte. They are told as a
/// server sees them; for a client, what a server reads is what it writes, and the other way round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Course {
    /// The request's first byte arrived in the socket's buffer; unknown for data that came before the connection was known.
    pub arrived: Option<Instant>,
    /// The request's first byte was read by the process.
    pub read: Instant,
    /// The response's first byte was handed to the kernel.
    pub first_sent: Option<Instant>,
    /// The response's last byte so far was handed to the kernel.
    pub last_sent: Option<Instant>,
    /// Octets of the request's body, framing excluded.
    pub request_body: u64,
    /// Octets of the response's body, framing excluded.
    pub response_body: u64,
}

/// Why a request got no complete response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unanswered {
    /// The client closed or reset the connection.
    ClientClosed,
    /// The server closed it.
    ServerClosed,
    /// The process ended.
    ProcessExited,
    /// What became of it isn't known: events were lost, or what came could not be read.
    Desync,
}

impl Unanswered {
    /// As labels and lines have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::ServerClosed => "server_closed",
            Self::ProcessExited => "process_exited",
            Self::Desync => "desync",
        }
    }
}

/// Why bytes of a selected process could not be read as HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unparsed {
    /// Not HTTP/1.
    NotHttp,
    /// TLS records.
    Tls,
    /// HTTP/2.
    Http2,
    /// Never in a buffer that the probes can read.
    IoUring,
    /// HTTP, but its framing was lost.
    Desync,
}

/// What bytes of a connection were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Portion {
    /// Of a message's head.
    Head,
    /// Octets of a body.
    Body,
    /// Of a chunked body: octets and framing.
    Chunked,
    /// Not read as HTTP.
    Other,
    /// Of a connection that isn't followed.
    Unfollowed,
}

/// Takes what the connections find out. Implemented by the metrics, and by tests.
pub trait Sink {
    /// A request's head was recognised: it is in flight until [`Sink::finished`] or [`Sink::unanswered`] is told its ticket.
    fn request(&mut self, peer: &Peer, request: &Request<'_>) -> Ticket;
    /// The response ended with this status (100 to 599, never interim).
    fn finished(&mut self, peer: &Peer, ticket: Ticket, status: u16, course: &Course);
    /// There will be no complete response.
    fn unanswered(&mut self, peer: &Peer, ticket: Ticket, reason: Unanswered, course: &Course);
    /// Bytes that could not be read as HTTP.
    fn unparsed(&mut self, peer: &Peer, reason: Unparsed, bytes: u64);
    /// What the captured bytes of an operation were, in their order.
    fn passed(&mut self, portion: Portion, bytes: usize) {
        let _ = (portion, bytes);
    }
}
