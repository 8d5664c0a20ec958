//! What a connection costs in memory, counted at the allocator: while it is idle, and while it is busy.

mod allocator;
mod records;

use monitor::{
    connection::Connections,
    event,
    exchange::{Answer, Course, Peer, Request, Roles, Sink, Ticket, Unanswered, Unparsed},
};
use monitor_ebpf::record;
use records::{header, moved};

/// What an idle connection may take.
const MOST: usize = 512;
const CONNECTIONS: u64 = 10_000;
/// When everything happens.
const AT: u64 = 1_000;
const REQUEST: &[u8] = b"GET /items/7 HTTP/1.1\r\nHost: shop\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Keeps nothing: what is counted is the connections' memory alone.
#[derive(Default)]
struct Finished(u64);

impl Sink for Finished {
    fn request(&mut self, _: &Peer, _: &Request<'_>) -> Ticket {
        Ticket(0)
    }
    fn finished(&mut self, _: &Peer, _: Ticket, _: Answer, _: &Course) {
        self.0 += 1;
    }
    fn unanswered(&mut self, _: &Peer, _: Ticket, _: Unanswered, _: &Course) {}
    fn unparsed(&mut self, _: &Peer, _: Unparsed, _: u64) {}
}

/// A connection that a listening socket took.
fn opened(connection: u64) -> Vec<u8> {
    let mut bytes = header(record::KIND_OPENED, record::FLAG_BORN, AT, connection);
    bytes.extend(connection.to_ne_bytes());
    bytes.extend([record::FAMILY_INET, 8000, 40_000, 0].map(u16::to_ne_bytes).concat());
    bytes.extend([0; 16 + 16 + 108 + 4]);
    bytes
}

/// The `nth` request of a connection, and its response.
fn exchange(connection: u64, nth: usize) -> [Vec<u8>; 2] {
    let (asked, answered) = (nth * REQUEST.len(), nth * RESPONSE.len());
    [
        moved(record::KIND_RECEIVED, AT, connection, (asked, answered), REQUEST),
        moved(record::KIND_SENT, AT, connection, (answered, asked + REQUEST.len()), RESPONSE),
    ]
}

fn take(connections: &mut Connections, records: &[Vec<u8>], sink: &mut Finished) {
    for record in records {
        connections.handle(&event::decode(record).expect("the record is one"), sink);
    }
}

// One test alone: what others allocate meanwhile would be counted.
#[test]
fn an_idle_connection_takes_little_and_a_busy_one_allocates_nothing() {
    let (mut connections, mut sink) = (Connections::new(Roles::default()), Finished::default());
    let (before, _) = allocator::taken();
    for connection in 1..=CONNECTIONS {
        take(&mut connections, &[opened(connection)], &mut sink);
        take(&mut connections, &exchange(connection, 0), &mut sink);
    }
    let each = (allocator::taken().0 - before) / CONNECTIONS as usize;
    assert_eq!((connections.len(), sink.0), (CONNECTIONS as usize, CONNECTIONS));
    assert!(each <= MOST, "{each} bytes for each idle connection");

    let records: Vec<_> = (1..=1_000).flat_map(|nth| exchange(1, nth)).collect();
    let (_, before) = allocator::taken();
    take(&mut connections, &records, &mut sink);
    assert_eq!(allocator::taken().1 - before, 0, "allocations in 1 000 requests");
    assert_eq!(sink.0, CONNECTIONS + 1_000);

    // Pipelined requests need room, and leave none behind. (The second time, the heads that were read are remembered.)
    for round in 0..2 {
        let (asked, answered) = (1_001 + round * 9, 1_001 + round * 9);
        let (at, other) = (asked * REQUEST.len(), answered * RESPONSE.len());
        let records = [
            moved(record::KIND_RECEIVED, AT, 1, (at, other), &REQUEST.repeat(9)),
            moved(record::KIND_SENT, AT, 1, (other, at + 9 * REQUEST.len()), &RESPONSE.repeat(9)),
        ];
        let (before, _) = allocator::taken();
        take(&mut connections, &records, &mut sink);
        let (after, _) = allocator::taken();
        assert!(round == 0 || after == before, "{} bytes left", after - before);
    }
    assert_eq!(sink.0, CONNECTIONS + 1_018);
}
