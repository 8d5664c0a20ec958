//! A client that plays a script, byte by byte, and keeps what it sent and what came back.

use std::{collections::BTreeMap, thread, time::Duration};

use crate::client::{Connection, Tally, Target};

/// How long an answer may stay out that need not come.
const IMPATIENCE: Duration = Duration::from_millis(400);

/// One scenario's account.
#[derive(Debug)]
pub struct Script<'a> {
    target: &'a Target,
    connection: Option<Connection>,
    buffered: Vec<u8>,
    /// Requests that were sent whole, in their order, and not answered yet: method and route.
    waiting: Vec<(String, String)>,
    /// Whole responses.
    pub answered: Tally,
    /// Requests whose head was sent.
    pub sent: BTreeMap<(String, String), u64>,
}

impl<'a> Script<'a> {
    /// Nothing has been said.
    pub fn new(target: &'a Target) -> Self {
        Self {
            target,
            connection: None,
            buffered: Vec::new(),
            waiting: Vec::new(),
            answered: BTreeMap::new(),
            sent: BTreeMap::new(),
        }
    }

    /// Connects, unless a connection is open.
    pub fn connect(&mut self) -> &mut Self {
        if self.connection.is_none() {
            self.connection = Some(Connection::open(self.target));
            self.buffered.clear();
        }
        self
    }

    /// Says that a request's head is among the bytes that follow.
    pub fn request(&mut self, method: &str, route: &str) -> &mut Self {
        let key = (method.to_owned(), route.to_owned());
        *self.sent.entry(key.clone()).or_default() += 1;
        self.waiting.push(key);
        self
    }

    /// Sends bytes in one operation. A server that has closed already doesn't matter: it shows in the answers.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.connect();
        if let Some(connection) = &mut self.connection {
            connection.try_send(bytes.as_ref());
        }
        self
    }

    /// Waits.
    pub fn pause(&mut self, milliseconds: u64) -> &mut Self {
        thread::sleep(Duration::from_millis(milliseconds));
        self
    }

    /// Sends nothing more.
    pub fn end(&mut self) -> &mut Self {
        if let Some(connection) = &mut self.connection {
            connection.end();
        }
        self
    }

    /// Closes.
    pub fn close(&mut self) -> &mut Self {
        self.connection = None;
        self.waiting.clear();
        self
    }

    /// Reads responses until every request has one, or the server closes.
    pub fn answers(&mut self) -> &mut Self {
        while !self.waiting.is_empty() && self.answer().is_some() {}
        self.waiting.clear();
        self
    }

    /// Reads an interim response, if the server sends one soon.
    pub fn interim(&mut self) -> &mut Self {
        if let Some(connection) = &mut self.connection {
            connection.patience(IMPATIENCE);
        }
        while !self.buffered.windows(4).any(|window| window == b"\r\n\r\n") && self.fill() {}
        if let Some(connection) = &mut self.connection {
            connection.patience(Duration::from_secs(30));
        }
        self
    }

    /// Reads one final response; its status.
    fn answer(&mut self) -> Option<u16> {
        let (method, route) = self.waiting.first()?.clone();
        loop {
            match parse(&self.buffered, &method, false) {
                Parsed::Interim(len) => drop(self.buffered.drain(..len)),
                Parsed::Whole { status, len, closes } => {
                    self.buffered.drain(..len);
                    self.waiting.remove(0);
                    *self.answered.entry((method, route, status)).or_default() += 1;
                    if closes {
                        self.drained();
                    }
                    return Some(status);
                }
                Parsed::Partial => {
                    if !self.fill() {
                        let rest = std::mem::take(&mut self.buffered);
                        self.connection = None;
                        if let Parsed::Whole { status, .. } = parse(&rest, &method, true) {
                            *self.answered.entry((method, route, status)).or_default() += 1;
                        }
                        return None;
                    }
                }
            }
        }
    }

    /// The server closes: whatever it still says answers nothing.
    fn drained(&mut self) {
        if self.buffered.is_empty() {
            while self.fill() {}
            self.connection = None;
            self.waiting.clear();
        }
    }

    fn fill(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        let mut buffer = [0; 8192];
        let read = connection.read(&mut buffer);
        self.buffered.extend_from_slice(&buffer[..read]);
        read > 0
    }
}

enum Parsed {
    Partial,
    Interim(usize),
    Whole { status: u16, len: usize, closes: bool },
}

/// Reads a response from its first byte; `ended` tells that no more will come.
fn parse(bytes: &[u8], method: &str, ended: bool) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(head)) = response.parse(bytes) else { return Parsed::Partial };
    let status = response.code.unwrap_or(0);
    if (100..200).contains(&status) && status != 101 {
        return Parsed::Interim(head);
    }
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| String::from_utf8_lossy(field.value).to_ascii_lowercase())
    };
    let old = response.version == Some(0);
    let closes = field("connection").map_or(old, |value| value.contains("close"));
    let body = &bytes[head..];
    let len = if method == "HEAD" || matches!(status, 204 | 304 | 101) {
        Some(0)
    } else if field("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        chunked(body)
    } else if let Some(length) = field("content-length") {
        length.trim().parse().ok().filter(|length| *length <= body.len())
    } else {
        ended.then_some(body.len())
    };
    len.map_or(Parsed::Partial, |len| Parsed::Whole { status, len: head + len, closes })
}

/// The length of a chunked body, if it is whole.
fn chunked(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let Ok(httparse::Status::Complete((read, size))) = httparse::parse_chunk_size(&body[at..]) else {
            return None;
        };
        at += read;
        if size == 0 {
            let end = body[at..].windows(2).position(|window| window == b"\r\n")?;
            return Some(at + end + 2);
        }
        at += size as usize + 2;
        if at > body.len() {
            return None;
        }
    }
}
