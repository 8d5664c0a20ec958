//! Under a steady load the event path takes no memory: what it needs it has from before.

mod allocator;

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
    received: u64,
    sent: u64,
}

impl Wire {
    fn record(&mut self, kind: u8, at: u64, bytes: &[u8], record: &mut Vec<u8>) {
        let (offset, other) = if kind == record::KIND_RECEIVED {
            (self.received, self.sent)
        } else {
            (self.sent, self.received)
        };
        let len = bytes.len() as u64;
        if kind == record::KIND_RECEIVED {
            self.received += len;
        } else {
            self.sent += len;
        }
        record.clear();
        record.extend([kind, 0]);
        record.extend(record::FLAG_TURNED.to_ne_bytes());
        record.extend(1_u32.to_ne_bytes());
        record.extend(at.to_ne_bytes());
        record.extend(self.connection.to_ne_bytes());
        for word in [4242_u32, 9] {
            record.extend(word.to_ne_bytes());
        }
        for word in [offset, other, at - 500] {
            record.extend(word.to_ne_bytes());
        }
        record.extend((bytes.len() as u32).to_ne_bytes());
        record.extend((bytes.len() as u16).to_ne_bytes());
        record.extend(0_u16.to_ne_bytes());
        record.extend(bytes);
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
    let mut record = Vec::with_capacity(1024);
    let mut clock = 1_000_000;
    let mut rounds = |engine: &mut Engine, count: usize| {
        for round in 0..count {
            for (index, wire) in wires.iter_mut().enumerate() {
                let request = requests[(round + index) % requests.len()].as_bytes();
                for (kind, bytes) in
                    [(record::KIND_RECEIVED, request), (record::KIND_SENT, response.as_slice())]
                {
                    clock += 1000;
                    wire.record(kind, clock, bytes, &mut record);
                    engine.take(&event::decode(&record).unwrap());
                }
            }
        }
    };
    rounds(&mut engine, 100);
    let (_, before) = allocator::taken();
    rounds(&mut engine, 1000);
    let taken = allocator::taken().1 - before;

    let counted = engine.metrics.gather();
    let duration = counted.iter().find(|family| family.name() == "http_server_request_duration_seconds");
    let finished: u64 =
        duration.unwrap().get_metric().iter().map(|metric| metric.get_histogram().get_sample_count()).sum();
    assert_eq!(finished, 64 * 1100);
    assert_eq!(taken, 0, "allocations in 64 000 requests");
}
