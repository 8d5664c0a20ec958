//! The books, the cap, and the labels.

use proptest::prelude::*;

use super::*;
use crate::{
    event::{ConnectionId, Instant},
    exchange::{Grpc, UNKNOWN_METHOD},
};

fn peer() -> Peer {
    Peer {
        role: Role::Server,
        service: ServiceId(1),
        pid: 7,
        connection: ConnectionId(1),
        local: Some(Address::Inet(([127, 0, 0, 1], 8000).into())),
        remote: None,
        scheme: Scheme::Http,
    }
}

fn metrics(max_series: usize) -> Metrics {
    let rules = Rules::new(route::Mode::Auto, &[], &["/health*".into()]).unwrap();
    let options = Options { max_series, rules, own_process: true, ..Options::default() };
    let mut metrics = Metrics::new(options).unwrap();
    metrics.service(ServiceId(1), "web");
    metrics
}

fn get(target: &str) -> Request<'_> {
    Request {
        method: "GET",
        target: Some(target),
        version: Version::Http11,
        trace: None,
        read: Instant(1_000),
        pid: 7,
    }
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
    metrics.finished(&peer(), ticket, Answer::from(200), &course());
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
        metrics.finished(&peer(), ticket, Answer::from(200), &course());
    }
    assert_eq!(sum(&metrics, "http_server_request_duration_seconds_count"), 100_000.0);
    let lines =
        text(&metrics).lines().filter(|line| line.starts_with("httpmon_requests_seen_total{")).count();
    assert_eq!(lines, 51);
    assert_eq!(sum(&metrics, "httpmon_series_folded_total"), 99_950.0);
}

#[test]
fn strange_paths_do_not_crowd_out_routes() {
    let mut metrics = metrics(2000);
    let mut ask = |target: &str, status| {
        let ticket = metrics.request(&peer(), &get(target));
        metrics.finished(&peer(), ticket, Answer::from(status), &course());
    };
    for index in 0..10_000 {
        ask("/users/7", 200);
        ask(&format!("/x{index}x/{index}y/page"), 404);
    }
    let finished: Vec<(String, f64)> = text(&metrics)
        .lines()
        .filter(|line| line.starts_with("http_server_request_duration_seconds_count"))
        .map(|line| {
            let (_, route) = line.split_once("http_route=\"").unwrap();
            let (route, rest) = route.split_once('"').unwrap();
            (route.to_owned(), rest.rsplit(' ').next().unwrap().parse().unwrap())
        })
        .collect();
    let of = |route: &str| finished.iter().find(|(found, _)| found == route).map(|(_, count)| *count);
    assert_eq!(of("/users/{id}"), Some(10_000.0));
    assert!(of("/{var}/{var}/page") > Some(9_800.0) && finished.len() < 200, "{finished:?}");
    assert!(books_balance(&metrics));
}

#[test]
fn dropped_labels_count_together() {
    let labels =
        Labels::without(&["server_port".to_owned(), "http_response_status_code".to_owned()]).unwrap();
    let mut metrics = Metrics::new(Options { max_series: 100, labels, ..Options::default() }).unwrap();
    for (port, status) in [(1, 200), (1, 500), (2, 200)] {
        let peer = Peer { local: Some(Address::Inet(([127, 0, 0, 1], port).into())), ..peer() };
        let ticket = metrics.request(&peer, &get("/"));
        metrics.finished(&peer, ticket, Answer::from(status), &course());
    }
    let text = text(&metrics);
    let mut counts =
        text.lines().filter(|line| line.starts_with("http_server_request_duration_seconds_count"));
    let count = counts.next().unwrap();
    assert!(count.ends_with(" 3") && counts.next().is_none(), "{text}");
    assert!(!count.contains("server_port") && !count.contains("status"), "{count}");
    assert!(books_balance(&metrics));
    assert_eq!(Labels::without(&["service_name".to_owned()]).unwrap_err(), "service_name");
}

#[test]
fn the_exporter_for_flask_is_imitated() {
    let sets = Sets { otel: false, flask: true };
    let mut metrics = Metrics::new(Options { max_series: 100, sets, ..Options::default() }).unwrap();
    metrics.service(ServiceId(1), "web");
    metrics.service(ServiceId(2), "else");
    for (service, status) in [(1, 200), (1, 200), (1, 500), (2, 200)] {
        let peer = Peer { service: ServiceId(service), ..peer() };
        let ticket = metrics.request(&peer, &get("/users/7"));
        metrics.finished(&peer, ticket, Answer::from(status), &course());
    }
    let all = text(&metrics);
    assert!(
        !all.contains("http_server_")
            && all
                .contains("flask_http_request_total{method=\"GET\",service_name=\"else\",status=\"200\"} 1")
    );
    let of_web = metrics.gather_flask("web").unwrap();
    insta::assert_snapshot!(prometheus::TextEncoder::new().encode_to_string(&of_web).unwrap());
}

#[test]
fn the_last_requests_are_remembered() {
    let mut metrics = metrics(10);
    for index in 0..2500 {
        let target = format!("/users/{index}");
        let ticket = metrics.request(&peer(), &get(&target));
        metrics.finished(&peer(), ticket, Answer::from(200), &course());
    }
    let mut paths = Vec::new();
    metrics.recent(3, |request| paths.push(request.path.to_owned()));
    assert_eq!(paths, ["/users/2499", "/users/2498", "/users/2497"]);
    paths.clear();
    metrics.recent(usize::MAX, |request| paths.push(request.path.to_owned()));
    assert_eq!((paths.len(), paths.last().map(String::as_str)), (1000, Some("/users/1500")));
}

#[test]
fn strange_statuses_and_peers_make_no_more_series_than_allowed() {
    let mut metrics = metrics(50);
    for index in 0..10_000_u16 {
        let server = Address::Inet(([10, 0, (index >> 8) as u8, index as u8], 80).into());
        let client = Peer { role: Role::Client, remote: Some(server), ..peer() };
        let ticket = metrics.request(&client, &get("/"));
        metrics.finished(&client, ticket, Answer::from(200), &course());
    }
    let lines = |name: &str| text(&metrics).lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(lines("http_client_request_duration_seconds_count"), 51);
    assert_eq!(sum(&metrics, "http_client_request_duration_seconds_count"), 10_000.0);

    let mut metrics = self::metrics(50);
    for (route, status) in (0..10).flat_map(|route| (200..300).map(move |status| (route, status))) {
        let ticket = metrics.request(&peer(), &get(&format!("/page-{route}-x")));
        metrics.finished(&peer(), ticket, Answer::from(status), &course());
    }
    // The first route's statuses fill it; all others share one.
    let series = text(&metrics)
        .lines()
        .filter(|line| line.starts_with("http_server_request_duration_seconds_count"))
        .count();
    assert_eq!(series, 200);
    assert!(books_balance(&metrics));
}

#[test]
fn ignored_paths_are_counted_as_ignored_alone() {
    let mut metrics = metrics(10);
    let ticket = metrics.request(&peer(), &get("/healthz"));
    metrics.finished(&peer(), ticket, Answer::from(200), &course());
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
    let refused = Rules::new(route::Mode::Auto, &[], &["[".into()]).unwrap_err();
    assert!(refused.to_string().contains("--ignore-path"));
}

fn call(metrics: &mut Metrics, peer: &Peer, path: &str, grpc: Grpc) {
    let ticket = metrics.request(peer, &Request { method: "POST", ..get(path) });
    let answer = Answer { status: Status::Code(200), grpc: Some(grpc) };
    metrics.finished(peer, ticket, answer, &course());
}

#[test]
fn calls_of_grpc_are_counted_by_method_and_status_under_a_cap() {
    let mut metrics = metrics(3);
    let client = Peer { role: Role::Client, ..peer() };
    call(&mut metrics, &peer(), "/shop.Cart/Add", Grpc::Status(0));
    call(&mut metrics, &peer(), "/shop.Cart/Add", Grpc::Status(5));
    call(&mut metrics, &client, "/shop.Cart/Add", Grpc::Unknown);
    for number in 0..10 {
        call(&mut metrics, &peer(), &format!("/shop.Cart/Invented{number}"), Grpc::Status(12));
    }
    let text = text(&metrics);
    let series = |name: &str, status: &str, service: &str, method: &str| {
        format!(
            "{name}_count{{rpc_grpc_status_code=\"{status}\",rpc_method=\"{method}\",rpc_service=\"{service}\",service_name=\"web\"}}"
        )
    };
    let server = "rpc_server_duration_seconds";
    for (line, count) in [
        (series(server, "0", "shop.Cart", "Add"), 1),
        (series(server, "5", "shop.Cart", "Add"), 1),
        (series("rpc_client_duration_seconds", "unknown", "shop.Cart", "Add"), 1),
        (series(server, "12", "other", "other"), 10),
    ] {
        assert!(text.contains(&format!("{line} {count}\n")), "{line}: {text}");
    }
    assert!(books_balance(&metrics));
}

#[test]
fn websockets_are_open_until_they_end() {
    let mut metrics = metrics(100);
    let ticket = metrics.request(&peer(), &get("/chat"));
    let session = metrics.websocket(&peer(), ticket);
    metrics.finished(&peer(), ticket, Answer::from(101), &course());
    assert_eq!(sum(&metrics, "httpmon_websocket_open_connections"), 1.0);
    metrics.websocket_ended(session, 2.5);
    assert_eq!(sum(&metrics, "httpmon_websocket_open_connections"), 0.0);
    assert_eq!(sum(&metrics, "httpmon_websocket_duration_seconds_sum"), 2.5);
    // Nobody asked to count these.
    let ignored = metrics.request(&peer(), &get("/healthz"));
    let session = metrics.websocket(&peer(), ignored);
    metrics.websocket_ended(session, 1.0);
    assert_eq!(sum(&metrics, "httpmon_websocket_duration_seconds_count"), 1.0);
}

#[test]
fn what_is_not_known_is_said_to_be_so() {
    let mut metrics = metrics(100);
    let request = Request { method: UNKNOWN_METHOD, target: None, version: Version::Http2, ..get("/") };
    let ticket = metrics.request(&peer(), &request);
    metrics.finished(&peer(), ticket, Answer { status: Status::Unknown, grpc: None }, &course());
    let text = text(&metrics);
    assert!(
        text.contains(
            "http_server_request_duration_seconds_count{http_request_method=\"_OTHER\",http_response_status_code=\"unknown\",\
             http_route=\"unknown\",network_protocol_version=\"2\""
        ),
        "{text}"
    );
    assert!(books_balance(&metrics));
}

#[test]
fn each_histogram_has_the_trace_of_its_last_request_that_had_one() {
    let mut metrics = metrics(100);
    let trace = |digit: char| {
        let id = digit.to_string().repeat(32);
        Trace::read(format!("00-{id}-00f067aa0ba902b7-01").as_bytes())
    };
    for trace in [trace('1'), trace('2'), None] {
        let ticket = metrics.request(&peer(), &Request { trace, ..get("/a") });
        metrics.finished(&peer(), ticket, Answer::from(200), &course());
    }
    let exemplars = metrics.exemplars();
    assert_eq!(exemplars.len(), 1);
    let Observation { trace, seconds, at } = exemplars[0].observation;
    assert_eq!((trace.trace_id(), seconds, at), ("2".repeat(32), 0.003, Instant(4_000_000)));
    assert!(exemplars[0].labels.contains("http_response_status_code=\"200\""));
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
                    metrics.finished(&peer(), ticket, (200 + u16::from(reason)).into(), &course());
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
