//! Any exchanges, cut anywhere: all are counted. Any of their operations lost: what is counted is still true.

use proptest::prelude::*;

use super::wire::{Log, Wire};
use crate::event::Direction;

/// An exchange, as bytes.
#[derive(Clone)]
struct Exchange {
    method: &'static str,
    status: u16,
    request: Vec<u8>,
    response: Vec<u8>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &[u8]| format!("{} bytes {:.250}", bytes.len(), bytes.escape_ascii().to_string());
        write!(
            f,
            "{} {} asked {} answered {}",
            self.method,
            self.status,
            text(&self.request),
            text(&self.response)
        )
    }
}

/// A body's framing as a header field, and its bytes on the wire.
fn framed(chunked: bool, body: &[u8]) -> (String, Vec<u8>) {
    if !chunked {
        return (format!("content-length: {}\r\n", body.len()), body.to_vec());
    }
    let mut bytes = Vec::new();
    for chunk in body.chunks(700) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    ("transfer-encoding: chunked\r\n".to_owned(), bytes)
}

/// Bodies that look like everything.
fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        Just(b"GET /body HTTP/1.1\r\n\r\n".to_vec()),
        Just(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".repeat(30)),
        Just(b"0\r\n\r\n".to_vec()),
        Just(b"SECRET".repeat(20)),
        Just(b"\r\n0\r\n\r\nx".repeat(600)),
        prop::collection::vec(any::<u8>(), 0..3000),
    ]
}

fn exchange() -> impl Strategy<Value = Exchange> {
    let method = prop::sample::select(vec!["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE"]);
    let status = prop::sample::select(vec![200_u16, 201, 204, 301, 304, 404, 500, 503]);
    (method, status, body(), body(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(method, status, asked, answer, chunked_request, chunked_response, interim)| {
            let (field, bytes) = framed(chunked_request, &asked);
            let request = [
                format!("{method} /TARGET?SECRET HTTP/1.1\r\nhost: x\r\ncookie: SECRET\r\n{field}\r\n")
                    .into_bytes(),
                bytes,
            ]
            .concat();
            let (field, bytes) = framed(chunked_response, &answer);
            let no_body = method == "HEAD" || matches!(status, 204 | 304);
            let response = [
                if interim { b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec() } else { Vec::new() },
                format!("HTTP/1.1 {status} Reason\r\n{field}\r\n").into_bytes(),
                if no_body { Vec::new() } else { bytes },
            ]
            .concat();
            Exchange { method, status, request, response }
        },
    )
}

/// Exchanges with targets that tell them apart, and how many are sent before their responses.
fn conversation() -> impl Strategy<Value = (Vec<Exchange>, usize)> {
    (prop::collection::vec(exchange(), 1..6), 1_usize..4).prop_map(|(mut exchanges, depth)| {
        for (number, exchange) in exchanges.iter_mut().enumerate() {
            let text = exchange.request.clone();
            let at = text.windows(6).position(|window| window == b"TARGET").expect("the template has one");
            exchange.request.splice(at..at + 6, number.to_string().bytes());
        }
        (exchanges, depth)
    })
}

/// Operations of up to `sizes` bytes each, in turn.
fn operations(bytes: &[u8], sizes: &[usize], next: &mut usize) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut operations = Vec::new();
    while !rest.is_empty() {
        let size = sizes[*next % sizes.len()].clamp(1, rest.len());
        *next += 1;
        operations.push(rest[..size].to_vec());
        rest = &rest[size..];
    }
    operations
}

/// All operations of a conversation, in order.
fn play(exchanges: &[Exchange], depth: usize, sizes: &[usize]) -> Vec<(Direction, Vec<u8>)> {
    let mut next = 0;
    let mut all = Vec::new();
    for batch in exchanges.chunks(depth) {
        let requests: Vec<u8> = batch.iter().flat_map(|one| one.request.clone()).collect();
        let responses: Vec<u8> = batch.iter().flat_map(|one| one.response.clone()).collect();
        all.extend(
            operations(&requests, sizes, &mut next).into_iter().map(|bytes| (Direction::Received, bytes)),
        );
        all.extend(
            operations(&responses, sizes, &mut next).into_iter().map(|bytes| (Direction::Sent, bytes)),
        );
    }
    all
}

fn carry(wire: &mut Wire, direction: Direction, bytes: &[u8]) {
    match direction {
        Direction::Received => wire.reads(bytes),
        Direction::Sent => wire.writes(bytes),
    };
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1_usize..10, 10_usize..200, 200_usize..9000], 1..8)
}

proptest! {
    #[test]
    fn cut_anywhere_everything_is_counted((exchanges, depth) in conversation(), sizes in sizes()) {
        let mut wire = Wire::born();
        // What isn't captured can't be read: see the next property.
        wire.limit = usize::MAX;
        for (direction, bytes) in play(&exchanges, depth, &sizes) {
            carry(&mut wire, direction, &bytes);
        }
        let targets: Vec<String> = (0..exchanges.len()).map(|number| format!("/{number}?SECRET")).collect();
        let expected: Vec<_> =
            exchanges.iter().zip(&targets).map(|(one, target)| (one.method, target.as_str(), one.status)).collect();
        prop_assert_eq!(wire.log.answered(), expected);
        prop_assert_eq!(wire.log.active(), 0);
        prop_assert!(wire.log.unparsed.is_empty());
    }

    #[test]
    fn lost_anywhere_what_is_counted_is_true(
        (exchanges, depth) in conversation(),
        sizes in sizes(),
        lost in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let mut wire = Wire::born();
        let operations = play(&exchanges, depth, &sizes);
        let lost: Vec<usize> = lost.iter().map(|index| index.index(operations.len())).collect();
        for (number, (direction, bytes)) in operations.iter().enumerate() {
            if lost.contains(&number) {
                wire.loses(*direction, bytes.len());
            } else {
                carry(&mut wire, *direction, bytes);
            }
        }
        for (method, target, status) in wire.log.answered() {
            let number: usize = target[1..].split('?').next().unwrap_or_default().parse().unwrap_or(usize::MAX);
            let Some(truth) = exchanges.get(number) else {
                return Err(TestCaseError::fail(format!("{target} was never asked for")));
            };
            prop_assert_eq!((method, status), (truth.method, truth.status), "{}", target);
        }
        // Afterwards the connection is as good as new.
        let before = wire.log.answered().len();
        for _ in 0..2 {
            wire.reads("GET /after HTTP/1.1\r\n\r\n").writes("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
        prop_assert_eq!(wire.log.answered().last().copied(), Some(("GET", "/after", 200)));
        prop_assert!(wire.log.answered().len() > before);
        prop_assert_eq!(wire.log.active(), 0);
    }

    #[test]
    fn a_recording_tells_the_same_and_no_secrets(
        (exchanges, depth) in conversation(),
        sizes in sizes(),
        limit in prop_oneof![Just(4096_usize), Just(usize::MAX)],
    ) {
        let mut wire = Wire::born().recorded();
        wire.limit = limit;
        for (direction, bytes) in play(&exchanges, depth, &sizes) {
            carry(&mut wire, direction, &bytes);
        }
        let shadow = wire.shadow.take().expect("it was made");
        let facts = |log: &Log| {
            let outcomes = log.ended.iter().map(|one| (one.method.clone(), one.outcome, one.course)).collect::<Vec<_>>();
            (outcomes, log.unparsed.clone(), log.active())
        };
        prop_assert_eq!(facts(&shadow.log), facts(&wire.log));
        // A body's bytes that were cut within the word may leave some of its letters where they are framing's.
        prop_assert!(!shadow.bytes.windows(6).any(|window| window == b"SECRET"));
    }
}
