//! Connections that carry TLS: records that say nothing, and clear text beside them.

use super::wire::Wire;
use crate::{
    event::{Closing, Direction},
    exchange::{Scheme, Unparsed},
};

const HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc";
const GET: &str = "GET /a HTTP/1.1\r\nhost: x\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// After a handshake.
fn shaken() -> Wire {
    let mut wire = Wire::born();
    wire.reads(HELLO).writes([0x16; 1500]).reads([0x14; 80]);
    wire
}

#[test]
fn clear_text_is_read_and_the_handshake_is_nothing() {
    for mut wire in [shaken(), shaken().recorded()] {
        wire.unsealed().reads(GET).writes(OK).reads(GET).writes(OK).closes(Closing::Fully);
        assert_eq!(wire.log.answered(), [("GET", "/a", 200), ("GET", "/a", 200)]);
        assert_eq!(wire.log.unparsed, []);
        assert_eq!(wire.log.schemes, [Scheme::Https, Scheme::Https]);
        if let Some(shadow) = &wire.shadow {
            assert_eq!(shadow.log.ended, wire.log.ended);
            assert_eq!(shadow.log.schemes, wire.log.schemes);
        }
    }
}

#[test]
fn records_beside_clear_text_are_nothing() {
    let mut wire = shaken();
    wire.unsealed().reads(GET);
    wire.sealed(Direction::Sent, 200_000);
    wire.writes(OK);
    wire.sealed(Direction::Sent, 60).sealed(Direction::Received, 24).closes(Closing::Fully);
    assert_eq!(wire.log.answered(), [("GET", "/a", 200)]);
    assert_eq!(wire.log.unparsed, []);
}

#[test]
fn clear_text_from_the_middle_on_counts_from_the_next_request_on() {
    let mut wire = Wire::joined();
    wire.reads(b"\x17\x03\x03\x00\x40").unsealed();
    wire.writes("the end of something\n").reads(GET).writes(OK).closes(Closing::Fully);
    assert_eq!(wire.log.answered(), [("GET", "/a", 200)]);
    assert_eq!(wire.log.unparsed(Unparsed::Tls), 0);
}

#[test]
fn a_handshake_that_nothing_follows_counts_when_it_ends() {
    let mut wire = shaken();
    assert_eq!(wire.log.unparsed, []);
    wire.closes(Closing::Fully);
    assert_eq!(wire.log.unparsed, [(Unparsed::Tls, HELLO.len() as u64 + 1580)]);
}

#[test]
fn what_nobody_tells_counts_once_a_handshake_would_be_over() {
    let mut wire = shaken();
    for _ in 0..3 {
        wire.writes([0x17; 100]).reads([0x17; 100]);
    }
    let all = HELLO.len() as u64 + 1580 + 600;
    assert_eq!(wire.log.unparsed(Unparsed::Tls), all);
    wire.writes([0x17; 100]).closes(Closing::Fully);
    assert_eq!(wire.log.unparsed(Unparsed::Tls), all + 100);
    // And an operation of much counts at once.
    let mut wire = shaken();
    wire.reads(vec![0x17; 2 << 20]);
    assert!(wire.log.unparsed(Unparsed::Tls) > 2 << 20);
}
