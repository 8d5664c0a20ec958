//! One request of a keep-alive connection: its records read, its bytes followed, and both counted.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use monitor::{
    connection::Connections,
    engine::Engine,
    event::{self, Capture, ConnectionId, Data, Direction, Event, Instant, Origin, ServiceId},
    exchange::{Answer, Course, Peer, Request, Roles, Sink, Ticket, Unanswered, Unparsed},
    http1,
    metrics::{Metrics, Options},
};
use monitor_ebpf::record;

const REQUEST: &[u8] =
    b"GET /items/7?page=2 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 7\r\n\r\nitem 7\n";

/// Hears everything, and counts nothing.
struct Deaf;

impl Sink for Deaf {
    fn request(&mut self, _: &Peer, request: &Request<'_>) -> Ticket {
        black_box(request);
        Ticket(0)
    }
    fn finished(&mut self, _: &Peer, _: Ticket, answer: Answer, course: &Course) {
        black_box((answer, course));
    }
    fn unanswered(&mut self, _: &Peer, _: Ticket, _: Unanswered, _: &Course) {}
    fn unparsed(&mut self, _: &Peer, _: Unparsed, _: u64) {}
}

/// A connection, message after message.
#[derive(Default)]
struct Wire {
    clock: u64,
    received: u64,
    sent: u64,
}

impl Wire {
    fn next(&mut self, direction: Direction) -> Event<'static> {
        let bytes = match direction {
            Direction::Received => REQUEST,
            Direction::Sent => RESPONSE,
        };
        self.clock += 1_000_000;
        let (offset, other) = match direction {
            Direction::Received => (self.received, self.sent),
            Direction::Sent => (self.sent, self.received),
        };
        match direction {
            Direction::Received => self.received += bytes.len() as u64,
            Direction::Sent => self.sent += bytes.len() as u64,
        }
        let origin = Origin { at: Instant(self.clock), service: ServiceId(1), pid: 4242, fd: Some(9) };
        let data = Data {
            direction,
            offset,
            other,
            len: bytes.len() as u32,
            arrived: None,
            turned: true,
            plain: false,
            capture: Capture::Copied,
            prefix: bytes,
            tail: &[],
        };
        Event::Data(origin, ConnectionId(1), data)
    }
}

/// A request's record, as the kernel side writes it.
fn encoded() -> Vec<u8> {
    let mut bytes = vec![record::KIND_RECEIVED, 0];
    bytes.extend(record::FLAG_TURNED.to_ne_bytes());
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend([1_000_u64, 42].map(u64::to_ne_bytes).concat());
    bytes.extend([4242_u32, 9].map(u32::to_ne_bytes).concat());
    bytes.extend([0_u64, 0, 900].map(u64::to_ne_bytes).concat());
    bytes.extend((REQUEST.len() as u32).to_ne_bytes());
    bytes.extend([REQUEST.len() as u16, 0].map(u16::to_ne_bytes).concat());
    bytes.extend(REQUEST);
    bytes
}

fn events(criterion: &mut Criterion) {
    let bytes = encoded();
    assert!(event::decode(&bytes).is_ok(), "the record is one");
    criterion.bench_function("decode/record", |bencher| bencher.iter(|| event::decode(black_box(&bytes))));
    criterion
        .bench_function("http1/request head", |bencher| bencher.iter(|| http1::request(black_box(REQUEST))));
    criterion.bench_function("http1/response head", |bencher| {
        bencher.iter(|| http1::response(black_box(RESPONSE)));
    });
    criterion.bench_function("connection/request and response", |bencher| {
        let (mut wire, mut connections) = (Wire::default(), Connections::new(Roles::default()));
        bencher.iter(|| {
            connections.handle(&wire.next(Direction::Received), &mut Deaf);
            connections.handle(&wire.next(Direction::Sent), &mut Deaf);
        });
    });
    criterion.bench_function("engine/request and response", |bencher| {
        let metrics = Metrics::new(Options { max_series: 2_000, ..Options::default() });
        let mut metrics = metrics.expect("the options are right");
        metrics.service(ServiceId(1), "shop");
        let (mut wire, mut engine) = (Wire::default(), Engine::new(metrics, Roles::default()));
        bencher.iter(|| {
            engine.take(&wire.next(Direction::Received));
            engine.take(&wire.next(Direction::Sent));
        });
    });
}

criterion_group!(benches, events);
criterion_main!(benches);
