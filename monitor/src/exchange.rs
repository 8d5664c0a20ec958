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

/// How bytes went: as they are, or through TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scheme {
    /// In clear text.
    #[default]
    Http,
    /// Through TLS.
    Https,
}

impl Scheme {
    /// As labels and lines have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
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
    /// How its bytes go.
    pub scheme: Scheme,
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

/// `HTTP/1.0`, `HTTP/1.1` or HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// RFC 1945.
    Http10,
    /// RFC 9112.
    Http11,
    /// RFC 9113.
    Http2,
}

impl Version {
    /// As labels and lines have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// The trace that a request belongs to, by its `traceparent` field (W3C Trace Context, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Trace {
    trace: u128,
    span: u64,
}

impl Trace {
    /// Reads the field's value; none where it is no valid one.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        /// Of version 00; later ones may be longer.
        const LEN: usize = 55;
        let value = std::str::from_utf8(value).ok()?.trim_ascii();
        let digits = |from: usize, len: usize| {
            let digits = value.get(from..from + len)?;
            let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            u128::from_str_radix(digits, 16).ok().filter(|_| digits.bytes().all(lower))
        };
        let dashes = [2, 35, 52].iter().all(|&at| value.as_bytes().get(at) == Some(&b'-'));
        let (version, trace, span, _flags) = (digits(0, 2)?, digits(3, 32)?, digits(36, 16)?, digits(53, 2)?);
        let ends = value.len() == LEN || (version > 0 && value.as_bytes().get(LEN) == Some(&b'-'));
        let valid = dashes && ends && version != 0xff && trace != 0 && span != 0;
        valid.then_some(Self { trace, span: span as u64 })
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }

    /// Of the caller's span: 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span)
    }
}

/// What stands for a request's method where that could not be read.
pub const UNKNOWN_METHOD: &str = "unknown";

/// A request whose head was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// As sent; case-sensitive. [`UNKNOWN_METHOD`] where it could not be read.
    pub method: &'a str,
    /// The request target as sent: origin, absolute, authority or asterisk form. `None` where it could not be read.
    pub target: Option<&'a str>,
    /// Of the request line, or of the connection.
    pub version: Version,
    /// The trace that it belongs to.
    pub trace: Option<Trace>,
    /// When its first byte was read by the process.
    pub read: Instant,
    /// The process that read it.
    pub pid: u32,
}

/// The status of a response that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// 100 to 599, never interim.
    Code(u16),
    /// It refers to what was sent before the connection was known.
    Unknown,
}

impl Status {
    /// As labels and lines have it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Code(code) => code.to_string(),
            Self::Unknown => "unknown".to_owned(),
        }
    }

    /// Where it is known.
    #[must_use]
    pub fn code(self) -> Option<u16> {
        match self {
            Self::Code(code) => Some(code),
            Self::Unknown => None,
        }
    }
}

/// What a call of gRPC came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Grpc {
    /// It said this status (0 is success).
    Status(u32),
    /// It said none that could be read.
    Unknown,
}

impl Grpc {
    /// As labels and lines have it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Status(code) => code.to_string(),
            Self::Unknown => "unknown".to_owned(),
        }
    }
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The response's.
    pub status: Status,
    /// Where it is a call of gRPC.
    pub grpc: Option<Grpc>,
}

impl From<u16> for Answer {
    fn from(code: u16) -> Self {
        Self { status: Status::Code(code), grpc: None }
    }
}

/// What a [`Sink`] returned for a connection that became a WebSocket, given back to it when that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session(pub u32);

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
    /// The client took it back: it reset the request's stream.
    ClientReset,
    /// The server gave it up: it reset the request's stream.
    ServerReset,
    /// The server said that it didn't look at it (HTTP/2's `REFUSED_STREAM` and `GOAWAY`).
    Refused,
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
            Self::ClientReset => "client_reset",
            Self::ServerReset => "server_reset",
            Self::Refused => "refused",
            Self::Desync => "desync",
        }
    }
}

/// Why bytes of a selected process could not be read as HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unparsed {
    /// Not HTTP.
    NotHttp,
    /// TLS records.
    Tls,
    /// HTTP/2 that its peers would refuse.
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
    /// HTTP/2's framing: no secrets.
    Framing,
    /// Of HTTP/2's header blocks, compressed.
    Block,
    /// Not read as HTTP.
    Other,
    /// Of a connection that isn't followed.
    Unfollowed,
}

/// Takes what the connections find out. Implemented by the metrics, and by tests.
pub trait Sink {
    /// A request's head was recognised: it is in flight until [`Sink::finished`] or [`Sink::unanswered`] is told its ticket.
    fn request(&mut self, peer: &Peer, request: &Request<'_>) -> Ticket;
    /// The response ended.
    fn finished(&mut self, peer: &Peer, ticket: Ticket, answer: Answer, course: &Course);
    /// There will be no complete response.
    fn unanswered(&mut self, peer: &Peer, ticket: Ticket, reason: Unanswered, course: &Course);
    /// Bytes that could not be read as HTTP.
    fn unparsed(&mut self, peer: &Peer, reason: Unparsed, bytes: u64);
    /// A response offers HTTP/3, whose requests come by UDP and aren't seen; told before its end.
    fn offers_http3(&mut self, peer: &Peer) {
        let _ = peer;
    }
    /// The request's connection or stream is a WebSocket from now on; told before the request is finished.
    fn websocket(&mut self, peer: &Peer, ticket: Ticket) -> Session {
        let _ = peer;
        Session(ticket.0)
    }
    /// A WebSocket ended, so many seconds after it began.
    fn websocket_ended(&mut self, session: Session, seconds: f64) {
        let _ = (session, seconds);
    }
    /// What the captured bytes of an operation were, in their order.
    fn passed(&mut self, portion: Portion, bytes: usize) {
        let _ = (portion, bytes);
    }
}

/// Whether the value of an `alt-svc` field (RFC 7838, section 3) offers HTTP/3 (RFC 9114, section 3.1.1), or a draft of it.
#[must_use]
pub fn offers_http3(value: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|service| {
        let protocol = service.trim_ascii_start().strip_prefix(b"h3");
        protocol.is_some_and(|rest| matches!(rest.first(), Some(b'=' | b'-')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http3_is_offered_by_its_names() {
        for (value, offers) in [
            (r#"h3=":443"; ma=86400"#, true),
            (r#"h2=":443"; ma=60, h3=":8443""#, true),
            (r#"h3-29=":443""#, true),
            (r#"h2="h3.example:443""#, false),
            ("clear", false),
            ("h3", false),
            ("", false),
        ] {
            assert_eq!(offers_http3(value.as_bytes()), offers, "{value}");
        }
    }

    #[test]
    fn a_trace_is_read_from_valid_values_alone() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let trace = Trace::read(valid.as_bytes()).unwrap();
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(trace.span_id(), "00f067aa0ba902b7");
        let newer = valid.replacen("00", "cc", 1) + "-what-else";
        assert_eq!(Trace::read(newer.as_bytes()), Some(trace));
        for value in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::read(value.as_bytes()), None, "{value}");
        }
    }
}
