//! The books, the cap, and the labels.

use proptest::prelude::*;

use super::*;
use crate::event::{ConnectionId, Instant};

fn peer() -> Peer {
    Peer {
        role: Role::Server,
        service: ServiceId(1),
        pid: 7,
        connection: ConnectionId(1),
        local: Some(Address::Inet(([127, 0, 0, 1], 8000).into())),
        remote: None,
    }
}

fn metrics(max_series: usize) -> Metrics {
    let ignore_paths = vec!["/health*".into()];
    let options = Options { max_series, ignore_paths, own_process: true, ..Options::default() };
    let mut metrics = Metrics::new(options).unwrap();
    metrics.service(ServiceId(1), "web");
    metrics
}

fn get(target: &str) -> Request<'_> {
    Request { method: "GET", target, version: Version::Http11, read: Instant(1_000), pid: 7 }
}

fn course() -> Course {
    Course {
        arrived: Some(Instant(500_000)),
        read: Instant(1_000_000),
        first_sent: Some(Instant(3_000_000)),
        last_sent: Some(Instant(4_000_000)),
        request_body: 3,
        response_body: 250,
    }
}

fn text(metrics: &Metrics) -> String {
    prometheus::TextEncoder::new().encode_to_string(&metrics.gather()).unwrap()
}

fn sum(metrics: &Metrics, name: &str) -> f64 {
    sum_in(&text(metrics), name)
}

fn sum_in(text: &str, name: &str) -> f64 {
    text.lines()
        .filter(|line| line.split(['{', ' ']).next() == Some(name))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

fn books_balance(metrics: &Metrics) -> bool {
    let text = text(metrics);
    let [seen, finished, active, unanswered, ignored] = [
        "httpmon_requests_seen_total",
        "http_server_request_duration_seconds_count",
        "http_server_active_requests",
        "http_server_requests_unanswered_total",
        "httpmon_requests_ignored_total",
    ]
    .map(|name| sum_in(&text, name));
    (seen - (finished + active + unanswered + ignored)).abs() < 0.5
}

#[test]
fn a_request_is_counted_with_all_its_labels() {
    let mut metrics = metrics(10);
    let ticket = metrics.request(&peer(), &get("/users/7?x=y"));
    metrics.finished(&peer(), ticket, 200, &course());
    let text = text(&metrics);
    let text = text.split_inclusive('\n').filter(|line| line.contains("http_")).collect::<String>();
    insta::assert_snapshot!(text);
}

#[test]
fn everything_to_watch_for_is_there_from_the_start() {
    let text = text(&metrics(10));
    for line in [
        "httpmon_events_lost_total{reason=\"ring_full\"} 0",
        "httpmon_events_lost_total{reason=\"map_full\"} 0",
        "httpmon_events_lost_total{reason=\"preempted\"} 0",
        "httpmon_bytes_unparsed_total{reason=\"not_http\"} 0",
        "httpmon_bytes_unparsed_total{reason=\"io_uring\"} 0",
        "httpmon_events_total 0",
        "httpmon_series_folded_total{service_name=\"web\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    assert!(text.contains("process_resident_memory_bytes "));
}

#[test]
fn a_hostile_client_makes_no_more_series_than_allowed() {
    let mut metrics = metrics(50);
    for index in 0..100_000 {
        let target = format!("/x{index}/page");
        let ticket = metrics.request(&peer(), &get(&target));
        metrics.finished(&peer(), ticket, 200, &course());
    }
    assert_eq!(sum(&metrics, "http_server_request_duration_seconds_count"), 100_000.0);
    let lines =
        text(&metrics).lines().filter(|line| line.starts_with("httpmon_requests_seen_total{")).count();
    assert_eq!(lines, 51);
    assert_eq!(sum(&metrics, "httpmon_series_folded_total"), 99_950.0);
    assert!(metrics.paths.len() <= REMEMBERED_PATHS && metrics.route_names.len() <= 101);
}

#[test]
fn ignored_paths_are_counted_as_ignored_alone() {
    let mut metrics = metrics(10);
    let ticket = metrics.request(&peer(), &get("/healthz"));
    metrics.finished(&peer(), ticket, 200, &course());
    assert_eq!(sum(&metrics, "httpmon_requests_ignored_total"), 1.0);
    assert_eq!(sum(&metrics, "http_server_request_duration_seconds_count"), 0.0);
    assert!(books_balance(&metrics));
}

#[test]
fn totals_from_the_kernel_never_go_down() {
    let metrics = metrics(10);
    metrics.lost("ring_full", 5);
    metrics.lost("ring_full", 3);
    assert_eq!(sum(&metrics, "httpmon_events_lost_total"), 5.0);
}

#[test]
fn bad_options_say_what_is_accepted() {
    let bad = |options| Metrics::new(options).err().unwrap().to_string();
    assert!(bad(Options { buckets: vec![1.0, 0.5], ..Options::default() }).contains("0.01,0.1,1"));
    assert!(bad(Options { ignore_paths: vec!["[".into()], ..Options::default() }).contains("--ignore-path"));
}

proptest! {
    #[test]
    fn the_books_balance_after_any_sequence(steps in prop::collection::vec((0_u8..4, 0_u8..6, 0_u8..4), 0..200)) {
        let mut metrics = metrics(3);
        let mut flying = Vec::new();
        for (step, path, reason) in steps {
            match step {
                0 | 1 => flying.push(metrics.request(&peer(), &get(&format!("/p{path}/x")))),
                2 => if let Some(ticket) = flying.pop() {
                    metrics.finished(&peer(), ticket, 200 + u16::from(reason), &course());
                },
                _ => if let Some(ticket) = flying.pop() {
                    let reasons = [Unanswered::ClientClosed, Unanswered::ServerClosed, Unanswered::ProcessExited, Unanswered::Desync];
                    metrics.unanswered(&peer(), ticket, reasons[usize::from(reason)], &course());
                },
            }
        }
        prop_assert!(books_balance(&metrics));
    }
}
