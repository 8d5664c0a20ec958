//! Under a steady load the event path takes no memory: what it needs it has from before.

mod allocator;
mod records;

use monitor::{
    engine::Engine,
    event::{self, ServiceId},
    exchange::Roles,
    metrics::{Metrics, Options},
};
use monitor_ebpf::record;

/// A connection that asks and is answered in turn; how many bytes it has carried each way.
struct Wire {
    connection: u64,
    received: usize,
    sent: usize,
}

impl Wire {
    fn record(&mut self, kind: u8, at: u64, bytes: &[u8]) -> Vec<u8> {
        let (offset, other) = if kind == record::KIND_RECEIVED {
            (&mut self.received, self.sent)
        } else {
            (&mut self.sent, self.received)
        };
        let record = records::moved(kind, at, self.connection, (*offset, other), bytes);
        *offset += bytes.len();
        record
    }
}

#[test]
fn a_steady_load_takes_no_memory() {
    let mut metrics = Metrics::new(Options { max_series: 2_000, ..Options::default() }).unwrap();
    metrics.service(ServiceId(1), "shop");
    let mut engine = Engine::new(metrics, Roles::default());
    let mut wires: Vec<Wire> =
        (1..=64).map(|connection| Wire { connection: connection << 10, received: 0, sent: 0 }).collect();
    // What differs in each round has the same length, so that only the content is new.
    let requests: Vec<String> = (0..50)
        .map(|item| {
            format!("POST /items/{item:03} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 3\r\n\r\nx=1")
        })
        .collect();
    let response = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let mut clock = 1_000_000;
    let mut rounds = |count: usize| {
        let mut made = Vec::new();
        for round in 0..count {
            for (index, wire) in wires.iter_mut().enumerate() {
                let request = requests[(round + index) % requests.len()].as_bytes();
                for (kind, bytes) in
                    [(record::KIND_RECEIVED, request), (record::KIND_SENT, response.as_slice())]
                {
                    clock += 1000;
                    made.push(wire.record(kind, clock, bytes));
                }
            }
        }
        made
    };
    let mut take = |records: &[Vec<u8>]| {
        for record in records {
            engine.take(&event::decode(record).unwrap());
        }
    };
    take(&rounds(100));
    let load = rounds(1000);
    let (_, before) = allocator::taken();
    take(&load);
    let taken = allocator::taken().1 - before;

    let counted = engine.metrics.gather();
    let duration = counted.iter().find(|family| family.name() == "http_server_request_duration_seconds");
    let finished: u64 =
        duration.unwrap().get_metric().iter().map(|metric| metric.get_histogram().get_sample_count()).sum();
    assert_eq!(finished, 64 * 1100);
    assert_eq!(taken, 0, "allocations in 64 000 requests");
}
