//! A scrape of 2 000 label sets whose histograms have 20 buckets.

use criterion::{Criterion, criterion_group, criterion_main};
use monitor::{
    event::{ConnectionId, Instant, ServiceId},
    exchange::{Course, Peer, Request, Role, Scheme, Sink as _, Version},
    exporter::Format,
    metrics::{Metrics, Options},
    route::{Mode, Rules},
};

const SERIES: usize = 2_000;
const BUCKETS: [f64; 20] = [
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5,
    0.75, 1.0, 2.5, 5.0, 10.0,
];

/// One request of each route.
fn counted() -> Metrics {
    let metrics = Metrics::new(Options {
        buckets: BUCKETS.to_vec(),
        max_series: SERIES,
        rules: Rules::new(Mode::Path, &[], &[]).expect("no pattern is wrong"),
        ..Options::default()
    });
    let mut metrics = metrics.expect("the options are right");
    let service = ServiceId(1);
    metrics.service(service, "shop");
    let peer = Peer {
        role: Role::Server,
        service,
        pid: 4242,
        connection: ConnectionId(1),
        local: None,
        remote: None,
        scheme: Scheme::Http,
    };
    for number in 0..SERIES {
        let target = format!("/shop/route-{number}");
        let request = Request {
            method: "GET",
            target: Some(&target),
            version: Version::Http11,
            trace: None,
            read: Instant(1_000_000),
            pid: peer.pid,
        };
        let ticket = metrics.request(&peer, &request);
        let sent = Some(Instant(3_000_000));
        let course = Course {
            read: request.read,
            first_sent: sent,
            last_sent: sent,
            response_body: 7,
            ..Course::default()
        };
        metrics.finished(&peer, ticket, 200.into(), &course);
    }
    metrics
}

fn scrape(criterion: &mut Criterion) {
    let metrics = counted();
    let mut group = criterion.benchmark_group("scrape of 2000 label sets");
    group.sample_size(10);
    group.bench_function("told", |bencher| bencher.iter(|| metrics.told()));
    for (name, format) in [("text", Format::Text), ("OpenMetrics", Format::OpenMetrics)] {
        let octets =
            || format.write(metrics.told()).map(|piece| piece.map_or(0, |text| text.len())).sum::<usize>();
        group.bench_function(name, |bencher| bencher.iter(octets));
    }
    group.finish();
}

criterion_group!(benches, scrape);
criterion_main!(benches);
