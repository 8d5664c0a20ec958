//! Literal records, as the kernel side writes them.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::prelude::*;

use super::*;

/// A record's bytes, field by field.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn header(kind: u8, detail: u8, flags: u16) -> Self {
        Self(vec![kind, detail]).u16(flags).u32(3).u64(1_000).u64(42).u32(4242).u32((-1_i32).cast_unsigned())
    }

    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_ne_bytes());
        self
    }

    fn bytes(mut self, bytes: &[u8], room: usize) -> Self {
        self.0.extend(bytes);
        self.0.extend(vec![0; room - bytes.len()]);
        self
    }

    /// A data record: 10 received bytes after 100, the first 4 and the last 3 of them copied.
    fn data() -> Self {
        Self::header(1, 0, 1)
            .u64(100)
            .u64(7)
            .u64(900)
            .u32(10)
            .u16(4)
            .u16(3)
            .bytes(b"GET ", 4)
            .bytes(b"xyz", 3)
    }

    fn socket(family: u16, local: &[u8], path: &[u8]) -> Self {
        Self::header(3, 0, 8)
            .u64(77)
            .u16(family)
            .u16(8000)
            .u16(54_321)
            .u16(path.len() as u16)
            .bytes(local, 16)
            .bytes(&[10, 0, 0, 9], 16)
            .bytes(path, 108)
            .u32(0)
    }
}

fn origin() -> Origin {
    Origin { at: Instant(1_000), service: ServiceId(3), pid: 4242, fd: None }
}

#[test]
fn bytes_with_their_place_in_the_stream() {
    let record = Bytes::data().0;
    let expected = Data {
        direction: Direction::Received,
        offset: 100,
        other: 7,
        len: 10,
        arrived: Some(Instant(900)),
        turned: true,
        plain: false,
        capture: Capture::Copied,
        prefix: b"GET ",
        tail: b"xyz",
    };
    assert_eq!(decode(&record), Ok(Event::Data(origin(), ConnectionId(42), expected)));
}

#[test]
fn a_prefix_that_holds_everything_needs_no_tail() {
    let record = Bytes::header(2, 0, 0).u64(0).u64(0).u64(0).u32(2).u16(2).u16(0).bytes(b"ok", 2).0;
    let Ok(Event::Data(_, _, data)) = decode(&record) else { panic!("it is a data record") };
    assert_eq!(
        (data.direction, data.prefix, data.tail, data.arrived),
        (Direction::Sent, &b"ok"[..], &b""[..], None)
    );
    assert!(!data.turned);
}

#[test]
fn bytes_that_could_not_be_read_say_why() {
    for (flag, expected) in [(2, Capture::Unreadable), (4, Capture::Spliced)] {
        let record = Bytes::header(1, 0, flag).u64(0).u64(0).u64(0).u32(9).u16(0).u16(0).0;
        let Ok(Event::Data(_, _, data)) = decode(&record) else { panic!("it is a data record") };
        assert_eq!((data.capture, data.len), (expected, 9));
    }
}

#[test]
fn addresses_of_every_family() {
    let inet = |ip: std::net::IpAddr, port| Address::Inet(SocketAddr::new(ip, port));
    let mapped = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
    let cases: [(Bytes, Address); 5] = [
        (Bytes::socket(2, &[127, 0, 0, 1], b""), inet(Ipv4Addr::LOCALHOST.into(), 8000)),
        (Bytes::socket(10, &Ipv6Addr::LOCALHOST.octets(), b""), inet(Ipv6Addr::LOCALHOST.into(), 8000)),
        (Bytes::socket(10, &mapped, b""), inet(Ipv4Addr::LOCALHOST.into(), 8000)),
        (Bytes::socket(1, b"", b"/run/app.sock\0"), Address::Unix("/run/app.sock".into())),
        (Bytes::socket(1, b"", b"\0abstract"), Address::Unix("@abstract".into())),
    ];
    for (record, expected) in cases {
        let Ok(Event::Opened(_, ConnectionId(42), opened)) = decode(&record.0) else {
            panic!("{expected:?}")
        };
        assert_eq!((opened.local, opened.inode, opened.born), (expected, 77, true));
    }
    let nameless = Bytes::socket(1, b"", b"");
    let Ok(Event::Opened(_, _, opened)) = decode(&nameless.0) else { panic!("it is a socket record") };
    assert_eq!(opened.local, Address::Unix(String::new()));
}

#[test]
fn ends_of_connections_and_processes() {
    let closed = Bytes::header(5, 2, 16 | 32).u64(11).u64(22).u32(9).u32(0);
    let expected = Closed { how: Closing::Locally, reset: true, exit_code: Some(9), received: 11, sent: 22 };
    assert_eq!(decode(&closed.0), Ok(Event::Closed(origin(), ConnectionId(42), expected)));
    for (detail, expected) in [
        (1, ProcessChange::Forked(5)),
        (2, ProcessChange::Executed),
        (3, ProcessChange::Exited { code: 256, cpu: 1_500 }),
        (4, ProcessChange::Evades(Evasion::IoUring)),
        (5, ProcessChange::Evades(Evasion::Calls32Bit)),
    ] {
        let record = Bytes::header(6, detail, 0).u32(5).u32(256).u64(1_500);
        assert_eq!(decode(&record.0), Ok(Event::Process(origin(), expected)));
    }
}

#[test]
fn truncated_records_are_refused_at_every_length() {
    let records = [
        Bytes::data(),
        Bytes::socket(2, &[127, 0, 0, 1], b""),
        Bytes::header(5, 1, 0).u64(0).u64(0).u32(0).u32(0),
        Bytes::header(6, 1, 0).u32(5).u32(0).u64(0),
    ];
    for Bytes(record) in records {
        assert!(decode(&record).is_ok());
        for length in 0..record.len() {
            let refused = decode(&record[..length]);
            assert!(matches!(refused, Err(DecodeError::Short { .. })), "at {length}: {refused:?}");
        }
    }
}

#[test]
fn values_that_no_kernel_side_writes_are_refused() {
    let invalid = |record: Bytes| matches!(decode(&record.0), Err(DecodeError::Invalid { .. }));
    assert!(invalid(Bytes::header(0, 0, 0)) && invalid(Bytes::header(7, 0, 0)));
    assert!(invalid(Bytes::socket(99, &[], b"")));
    assert!(invalid(Bytes::header(5, 4, 0).u64(0).u64(0).u32(0).u32(0)));
    assert!(invalid(Bytes::header(6, 9, 0).u32(0).u32(0).u64(0)));
    // More bytes copied than moved, together or of one end; a longer tail than is ever kept.
    let data = |len, prefix, tail| Bytes::header(1, 0, 0).u64(0).u64(0).u64(0).u32(len).u16(prefix).u16(tail);
    assert!(invalid(data(3, 4, 0).bytes(b"", 64)));
    assert!(invalid(data(6, 4, 3).bytes(b"", 64)));
    assert!(invalid(data(300, 4, 17).bytes(b"", 64)));
    let long_path = Bytes::header(3, 0, 0).u64(0).u16(1).u16(0).u16(0).u16(109).bytes(b"", 16 + 16 + 108 + 4);
    assert!(invalid(long_path));
}

proptest! {
    #[test]
    fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
    }

    #[test]
    fn no_record_is_too_strange(kind in 1_u8..7, rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&[&[kind], &rest[..]].concat());
    }
}
