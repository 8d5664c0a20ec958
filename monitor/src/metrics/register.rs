//! Registers families, and keeps what they mean for those who read about them.

use std::{cell::RefCell, fmt::Write as _};

use prometheus::{CounterVec, GaugeVec, HistogramVec, IntCounterVec, IntGaugeVec, Registry, core::Collector};

use super::{Metrics, MetricsError, Options, Sets, histograms::Histograms};

/// A metric, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Its name.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Its labels.
    pub labels: Vec<String>,
    /// What it means.
    pub help: String,
}

/// A kind of metric.
pub(super) trait Kind {
    const KIND: &'static str;
}

impl Kind for HistogramVec {
    const KIND: &'static str = "histogram";
}
impl Kind for IntCounterVec {
    const KIND: &'static str = "counter";
}
impl Kind for CounterVec {
    const KIND: &'static str = "counter";
}
impl Kind for IntGaugeVec {
    const KIND: &'static str = "gauge";
}
impl Kind for GaugeVec {
    const KIND: &'static str = "gauge";
}

/// A registry that remembers.
#[derive(Default)]
pub(super) struct Register {
    pub(super) registry: Registry,
    pub(super) explained: RefCell<Vec<Explained>>,
}

impl Register {
    pub(super) fn add<C: Collector + Kind + Clone + 'static>(&self, family: C) -> prometheus::Result<C> {
        self.registry.register(Box::new(family.clone()))?;
        self.explained.borrow_mut().extend(family.desc().into_iter().map(|about| Explained {
            name: about.fq_name.clone(),
            kind: C::KIND,
            labels: about.variable_labels.clone(),
            help: about.help.clone(),
        }));
        Ok(family)
    }

    /// Remembers what histograms mean that are told apart.
    pub(super) fn explain(&self, family: &Histograms) {
        let labels: Vec<String> = family.labels().map(str::to_owned).collect();
        self.explained.borrow_mut().extend(family.shapes().map(|shape| Explained {
            name: shape.name.to_owned(),
            kind: HistogramVec::KIND,
            labels: labels.clone(),
            help: shape.help.to_owned(),
        }));
    }
}

/// The page of the documentation about all metrics, in Markdown.
pub fn page() -> Result<String, MetricsError> {
    let metrics = Metrics::new(Options { sets: Sets { otel: true, flask: true }, ..Options::default() })?;
    let of = |prefix: &[&str]| {
        let explained = metrics.explained();
        let chosen = explained.iter().filter(|one| prefix.iter().any(|prefix| one.name.starts_with(prefix)));
        chosen.cloned().collect::<Vec<_>>()
    };
    let mut page = String::from(INTRODUCTION);
    for (title, text, prefix) in [
        ("Requests that the service answers", SERVER, &["http_server_"][..]),
        ("Requests that the service makes", CLIENT, &["http_client_", "httpmon_client_"]),
        ("Calls of gRPC", CALLS, &["rpc_"]),
        ("WebSockets", WEBSOCKETS, &["httpmon_websocket"]),
        ("The service's processes", WORKERS, &["httpmon_worker"]),
        (
            "The books",
            BOOKS,
            &["httpmon_requests_", "httpmon_series_", "httpmon_events_", "httpmon_bytes_", "httpmon_probe_"],
        ),
        ("The agent", AGENT, &["httpmon_build_", "httpmon_feature_"]),
        ("For the dashboards of prometheus-flask-exporter", FLASK, &["flask_"]),
    ] {
        let _ = write!(page, "\n## {title}\n\n{text}\n");
        for Explained { name, kind, labels, help } in of(prefix) {
            let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
            let _ = write!(page, "\n### `{name}`\n\n{help}\n\nA {kind}");
            let _ = if labels.is_empty() {
                writeln!(page, ", without labels.")
            } else {
                writeln!(page, ", by {labels}.")
            };
        }
    }
    Ok(page)
}

const INTRODUCTION: &str = "# Metrics

This page is generated from the code (`UPDATE_DOCS=1 cargo test --package monitor documentation`).

Durations are in seconds and sizes in bytes (octets). Times are those of the end of the system call that moved the byte,
on the kernel's monotonic clock (`bpf_ktime_get_ns`, Linux `kernel/bpf/helpers.c`); [time.md](time.md) draws them.
Counters never go down while the agent runs, and no series is removed: `--max-series` bounds how many there are.

`GET /metrics` gives them in Prometheus' text format 0.0.4, or as OpenMetrics 1.0.0 where the request's `Accept` prefers
it. A request is counted when its response ends, and shows in the next scrape.

The histograms of times have the bounds 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1,
2.5, 5, 7.5 and 10 seconds (OpenTelemetry's advice for HTTP, and three below 5 ms), or those of `--buckets`; the
histograms of sizes 100 bytes to 100 MB in steps of ten.

| label | value |
|---|---|
| `service_name` | the systemd unit without `.service` where the process runs in one of its own, else the name that matched, or the one that the configuration gives |
| `server_address`, `server_port` | the address where the request was served; `unix:PATH` and nothing for a unix socket |
| `http_request_method` | a method of RFC 9110, section 9, or `PATCH` (RFC 5789); `_OTHER` for all others |
| `http_route` | the route: see [routes.md](routes.md) |
| `http_response_status_code` | 100 to 599 (RFC 9110, section 15), never that of an interim response; `unknown` where it refers to what was sent on an HTTP/2 connection before httpmon saw it |
| `network_protocol_version` | `1.0`, `1.1` or `2`; of a request that was upgraded to HTTP/2, that in which it was sent |
| `url_scheme` | `http` |

On an HTTP/2 connection header fields may refer to fields that were sent before, by their place in a table (HPACK). Where
httpmon came later than those, or bytes of them were lost, what they said is not known: then the route is `unknown`, the
method `_OTHER`, the status `unknown`. All that is sent anew is known again, and nothing is guessed.

| `reason` of unanswered requests | what ended it |
|---|---|
| `client_closed`, `server_closed` | the client, or the server, closed or reset the connection |
| `process_exited` | the process ended |
| `client_reset`, `server_reset` | the client, or the server, reset the request's stream (HTTP/2's `RST_STREAM`) |
| `refused` | the server said that it did not look at the request (HTTP/2's `REFUSED_STREAM`, or `GOAWAY`) |
| `desync` | not known: events were lost, or what came could not be read |

A response of HTTP/2 whose `Content-Length` octets have all come, or that has none, is complete also where the client leaves
before its stream's end is said, as some do that have what they came for. One to a call of gRPC isn't: it is told by its trailers.

`--drop-label LABEL` leaves out any of them but `service_name`; what it told apart is counted together.
";
const SERVER: &str = "With `--role server` (the default) and `--role all`.";
const CLIENT: &str =
    "With `--role client` and `--role all`. `server_address` and `server_port` are the other's.";
const CALLS: &str = "Requests over HTTP/2 whose content type is `application/grpc`, or that with a suffix; they are counted as requests as
well. Names and labels are those of OpenTelemetry's conventions for RPC up to 1.37, in seconds (from 1.38 on the metric is
called `rpc.server.call.duration`, with one label for service and method). A call ends with its response's last byte:
the trailers, which carry the status.

| label | value |
|---|---|
| `rpc_service`, `rpc_method` | of the path `/rpc_service/rpc_method`; `other` over `--max-series` label sets, `unknown` where it could not be read |
| `rpc_grpc_status_code` | `grpc-status`, 0 to 16; `unknown` where the response said none |";
const WEBSOCKETS: &str = "Connections that a response with status 101 and `Upgrade: websocket` turned into WebSockets (RFC 6455), and streams
of HTTP/2 (RFC 8441), that the service serves. That response is counted as a request's; messages are not requests, and their bytes
are among `httpmon_bytes_unparsed_total{reason=\"not_http\"}`.";
const WORKERS: &str =
    "A service's processes are all that were selected under its name, a master process included.";
const BOOKS: &str = "At every scrape, for every set of request labels:
`httpmon_requests_seen_total` = `http_server_request_duration_seconds_count` + `http_server_active_requests` +
`http_server_requests_unanswered_total` + `httpmon_requests_ignored_total`.";
const AGENT: &str =
    "And `process_cpu_seconds_total`, `process_resident_memory_bytes`, `process_open_fds` and the other
`process_*` metrics, of the agent itself.

The features of `httpmon_feature_enabled`, which `httpmon check` lists too, with the reason where one is not there
([backends.md](backends.md) tells which kernels have them):

| `feature` | 1 | 0 |
|---|---|---|
| `socket_backend` | bytes are seen at the sockets | bytes are seen at system calls, which costs the whole host |
| `typed_hooks` | the cheapest form of the hooks | classic tracepoints |
| `queue_time` | `http_server_request_queue_duration_seconds` | it stays empty |
| `io_uring` | bytes that io_uring moves are counted in `httpmon_bytes_unparsed_total` | they are counted nowhere; the log names who uses it |
| `skipped_runs` | `httpmon_events_lost_total{reason=\"preempted\"}` | it stays 0, whatever happens |
| `tls` | TLS is read where a process's library has functions that are known: [tls.md](tls.md) | its bytes are counted in `httpmon_bytes_unparsed_total` |";
const FLASK: &str = "With `--metrics flask` or `otel,flask`. On `/metrics` they have the label `service_name` besides;
`GET /metrics/flask?service=NAME` gives those of one service without it, with `process_cpu_seconds_total` and
`process_resident_memory_bytes` summed over its processes: see [migration.md](migration.md). The histogram has the
Python client's bounds, 0.005 to 10 seconds.";

#[cfg(test)]
mod tests {
    #[test]
    fn the_documentation_of_metrics_is_that_of_the_code() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let made = super::page().unwrap();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap();
        assert_eq!(made, committed, "UPDATE_DOCS=1 writes it anew");
    }
}
