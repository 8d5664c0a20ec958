//! Message heads: the request or status line, and the fields that decide how the body ends.
//!
//! In: the bytes from a message's start on. Out: the head and its length, or that more is needed.

use std::cell::RefCell;

use super::memo::Memo;
use crate::exchange::{Trace, Version, offers_http3};

/// How many header fields a head may have here; with more it can't be read.
const MAX_FIELDS: usize = 256;

/// What the bytes hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head<T> {
    /// A head of so many bytes.
    Complete(T, usize),
    /// The beginning of one.
    Partial,
    /// None.
    Invalid,
}

/// How a message's body ends (RFC 9112, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing says.
    Unstated,
    /// After so many octets.
    Length(u64),
    /// With the last chunk.
    Chunked,
}

/// What a connection turns into with a 101 response (RFC 9110, section 7.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// HTTP/2 (RFC 7540, section 3.2).
    Http2,
    /// RFC 6455.
    WebSocket,
    /// Something else, or nothing.
    #[default]
    Other,
}

/// What a request's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// As sent.
    pub method: &'a str,
    /// As sent.
    pub target: &'a str,
    /// Of the request line.
    pub version: Version,
    /// How its body ends.
    pub framing: Framing,
    /// The trace that it belongs to.
    pub trace: Option<Trace>,
}

/// What a response's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// 100 to 599.
    pub status: u16,
    /// What its fields say of the body; the request and the status may say otherwise.
    pub framing: Framing,
    /// What the connection turns into, where the status says that it does.
    pub upgrade: Upgrade,
    /// It says that the server speaks HTTP/3, too.
    pub http3: bool,
}

/// Where in a head what is, and what it says.
#[derive(Clone, Copy)]
struct Parts {
    /// From the method's first byte to the target's last.
    line: (usize, usize),
    method: usize,
    target: usize,
    version: Version,
    framing: Framing,
}

impl Parts {
    /// Method and target, from a head that begins with the same bytes.
    fn texts<'a>(&self, bytes: &'a [u8]) -> Option<(&'a str, &'a str)> {
        let (from, to) = self.line;
        let line = std::str::from_utf8(bytes.get(from..to)?).ok()?;
        Some((line.get(..self.method)?, line.get(line.len() - self.target..)?))
    }
}

thread_local! {
    static REQUESTS: RefCell<Memo<Parts>> = const { RefCell::new(Memo::new()) };
    static RESPONSES: RefCell<Memo<ResponseHead>> = const { RefCell::new(Memo::new()) };
}

/// Reads a request's head. Empty lines before it are part of it (RFC 9112, section 2.2).
#[must_use]
pub fn request(bytes: &[u8]) -> Head<RequestHead<'_>> {
    if let Some((parts, len)) = REQUESTS.with_borrow(|memo| memo.recall(bytes)) {
        let Parts { version, framing, .. } = parts;
        if let Some((method, target)) = parts.texts(bytes) {
            return Head::Complete(RequestHead { method, target, version, framing, trace: None }, len);
        }
    }
    let read = read_request(bytes);
    // Heads with a trace differ from each other.
    if let Head::Complete(RequestHead { method, target, version, framing, trace: None }, len) = read {
        let begin = |text: &str| text.as_ptr().addr() - bytes.as_ptr().addr();
        let line = (begin(method), begin(target) + target.len());
        let parts = Parts { line, method: method.len(), target: target.len(), version, framing };
        REQUESTS.with_borrow_mut(|memo| memo.keep(bytes, len, parts));
    }
    read
}

fn read_request(bytes: &[u8]) -> Head<RequestHead<'_>> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(len)) => {
            let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version)
            else {
                return Head::Invalid;
            };
            let Ok(Told { framing, trace, .. }) = told(parsed.headers) else { return Head::Invalid };
            let version = if version == 0 { Version::Http10 } else { Version::Http11 };
            Head::Complete(RequestHead { method, target, version, framing, trace }, len)
        }
        Ok(httparse::Status::Partial) => Head::Partial,
        Err(_) => Head::Invalid,
    }
}

/// Whether the bytes surely begin a request: its request line is there.
#[must_use]
pub fn begins_request(bytes: &[u8]) -> bool {
    let line = bytes.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
    let versioned = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
    versioned && line.len() < bytes.len() && request(bytes) != Head::Invalid
}

/// Whether the bytes surely begin a response.
#[must_use]
pub fn begins_response(bytes: &[u8]) -> bool {
    bytes.starts_with(b"HTTP/1.")
}

/// Reads a response's head.
#[must_use]
pub fn response(bytes: &[u8]) -> Head<ResponseHead> {
    if let Some((head, len)) = RESPONSES.with_borrow(|memo| memo.recall(bytes)) {
        return Head::Complete(head, len);
    }
    let read = read_response(bytes);
    if let Head::Complete(head, len) = read {
        RESPONSES.with_borrow_mut(|memo| memo.keep(bytes, len, head));
    }
    read
}

fn read_response(bytes: &[u8]) -> Head<ResponseHead> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let mut config = httparse::ParserConfig::default();
    config
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true);
    match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields) {
        Ok(httparse::Status::Complete(len)) => match (parsed.code, told(parsed.headers)) {
            (Some(status @ 100..=599), Ok(Told { framing, upgrade, http3, .. })) => {
                Head::Complete(ResponseHead { status, framing, upgrade, http3 }, len)
            }
            _ => Head::Invalid,
        },
        Ok(httparse::Status::Partial) => Head::Partial,
        Err(_) => Head::Invalid,
    }
}

/// Whether bytes may be the start of a request line: a method, a space, and a target's first character.
#[must_use]
pub fn may_begin_request(bytes: &[u8]) -> bool {
    const LONGEST_METHOD: usize = 24;
    let bytes = bytes.trim_ascii_start();
    let token = bytes.iter().take(LONGEST_METHOD).take_while(|&&byte| is_token(byte)).count();
    match bytes.get(token) {
        _ if token == 0 => bytes.is_empty(),
        None => true,
        Some(b' ') => bytes.get(token + 1).is_none_or(u8::is_ascii_graphic),
        Some(_) => false,
    }
}

/// Whether bytes may be the start of a status line.
#[must_use]
pub fn may_begin_response(bytes: &[u8]) -> bool {
    let expected = b"HTTP/1.";
    let len = bytes.len().min(expected.len());
    bytes[..len] == expected[..len]
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What the fields say that matters here.
struct Told {
    framing: Framing,
    trace: Option<Trace>,
    upgrade: Upgrade,
    http3: bool,
}

/// Reads the fields; an error where what they say of the body's end can't be believed.
fn told(fields: &[httparse::Header<'_>]) -> Result<Told, ()> {
    let mut told = Told { framing: Framing::Unstated, trace: None, upgrade: Upgrade::Other, http3: false };
    for field in fields {
        // The names' lengths spare the comparison nearly always.
        match field.name.len() {
            7 if field.name.eq_ignore_ascii_case("upgrade") => told.upgrade = upgrade(field.value),
            7 if field.name.eq_ignore_ascii_case("alt-svc") => told.http3 |= offers_http3(field.value),
            11 if field.name.eq_ignore_ascii_case("traceparent") => told.trace = Trace::read(field.value),
            14 if field.name.eq_ignore_ascii_case("content-length") && told.framing != Framing::Chunked => {
                told.framing = Framing::Length(length(field.value).ok_or(())?);
            }
            17 if field.name.eq_ignore_ascii_case("transfer-encoding") => {
                let last = field.value.rsplit(|&byte| byte == b',').next().unwrap_or_default();
                if last.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    told.framing = Framing::Chunked;
                }
            }
            _ => {}
        }
    }
    Ok(told)
}

fn upgrade(value: &[u8]) -> Upgrade {
    match value.trim_ascii() {
        value if value.eq_ignore_ascii_case(b"h2c") => Upgrade::Http2,
        value if value.eq_ignore_ascii_case(b"websocket") => Upgrade::WebSocket,
        _ => Upgrade::Other,
    }
}

/// A length, perhaps repeated as in `5, 5` (RFC 9110, section 8.6).
fn length(value: &[u8]) -> Option<u64> {
    let first = value.split(|&byte| byte == b',').next()?.trim_ascii();
    if first.is_empty() || !first.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(first).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_tells_which_message_begins() {
        assert!(begins_request(b"GET / HTTP/1.1\r\nhost") && !begins_request(b"GET / HTTP/1.1"));
        assert!(!begins_request(b"item 0\n") && !begins_request(b"slept for HTTP/1.1"));
        assert!(begins_response(b"HTTP/1.1 200") && !begins_response(b"HTTP"));
    }

    const REQUEST: &[u8] = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n";
    const RESPONSE: &[u8] =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, Chunked\r\ncontent-length: 9\r\n\r\n";

    #[test]
    fn a_head_that_was_read_before_says_the_same() {
        let heads: [&[u8]; 6] = [
            b"GET /a HTTP/1.1\r\nHost: h.example\r\n\r\n",
            b"\r\nGET /a HTTP/1.0\r\nHost: h.example\r\n\r\nGET /b",
            b"PUT /a?b HTTP/1.1\r\nContent-Length: 7\r\n\r\nGET / HT",
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        ];
        for head in heads.iter().chain(&heads) {
            for end in 0..=head.len() {
                let bytes = &head[..end];
                assert_eq!(request(bytes), read_request(bytes));
                assert_eq!(response(bytes), read_response(bytes));
            }
        }
    }

    #[test]
    fn a_request_head_cut_at_every_byte_is_partial() {
        for cut in 0..REQUEST.len() {
            assert_eq!(request(&REQUEST[..cut]), Head::Partial, "cut at {cut}");
            assert!(may_begin_request(&REQUEST[..cut]), "cut at {cut}");
        }
        let expected = RequestHead {
            method: "POST",
            target: "/a?b=c",
            version: Version::Http11,
            framing: Framing::Length(5),
            trace: None,
        };
        assert_eq!(request(REQUEST), Head::Complete(expected, REQUEST.len()));
    }

    #[test]
    fn a_response_head_cut_at_every_byte_is_partial() {
        for cut in 0..RESPONSE.len() {
            assert_eq!(response(&RESPONSE[..cut]), Head::Partial, "cut at {cut}");
            assert!(may_begin_response(&RESPONSE[..cut]), "cut at {cut}");
        }
        let expected =
            ResponseHead { status: 200, framing: Framing::Chunked, upgrade: Upgrade::Other, http3: false };
        assert_eq!(response(RESPONSE), Head::Complete(expected, RESPONSE.len()));
    }

    #[test]
    fn statuses_outside_100_to_599_are_refused() {
        for status in ["000", "099", "600", "999"] {
            assert_eq!(response(format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes()), Head::Invalid);
        }
    }

    #[test]
    fn other_bytes_begin_no_request() {
        for bytes in
            [&b"\x16\x03\x01\x02\x00"[..], b"HTTP/1.1 200 OK\r\n", b"{\"a\":1}", b"GET\t/", b"\0\0\0\x08"]
        {
            assert!(!may_begin_request(bytes) || request(bytes) == Head::Invalid, "{bytes:?}");
        }
        assert!(may_begin_request(b"\r\nGET / HTTP/1.1\r\n"));
        assert!(may_begin_request(b"PROPFIND /dav HTTP/1.1\r\n"));
    }

    #[test]
    fn lengths_that_are_no_numbers_are_refused() {
        for length in ["-1", "", "1x", "99999999999999999999999"] {
            let head = format!("GET / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(request(head.as_bytes()), Head::Invalid, "{length}");
        }
    }
}
