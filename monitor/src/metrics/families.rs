//! Every metric's name, help, labels and buckets, in one place.

use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts};

use super::{
    histograms::{Histograms, Shape, Unit},
    labels::Labels,
    register::Register,
};

/// Bounds in seconds: OpenTelemetry's advice for HTTP durations, and three below 5 ms.
pub const SECONDS: [f64; 17] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Bounds in seconds of what stays for long.
const LIFETIMES: [f64; 10] = [0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0];

/// Bounds in octets.
const OCTETS: [f64; 7] = [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8];

/// What tells calls of gRPC apart.
const RPC: [&str; 4] = ["service_name", "rpc_service", "rpc_method", "rpc_grpc_status_code"];

/// Why bytes were not read as HTTP.
pub(super) const UNPARSED: [&str; 5] = ["not_http", "tls", "http2", "io_uring", "desync"];

/// Why events never came.
pub(super) const LOST: [&str; 4] = ["ring_full", "map_full", "preempted", "undecodable"];

/// Whether a family is of the set named after OpenTelemetry.
pub(super) fn is_otel(name: &str) -> bool {
    ["http_server_", "http_client_", "rpc_"].iter().any(|prefix| name.starts_with(prefix))
}

/// The places of [`Families::served`], and the first of [`Families::asked`].
pub(super) mod place {
    pub(in super::super) const DURATION: usize = 0;
    pub(in super::super) const QUEUE: usize = 1;
    pub(in super::super) const FIRST_BYTE: usize = 2;
    pub(in super::super) const SEND: usize = 3;
    pub(in super::super) const REQUEST_BODY: usize = 4;
    pub(in super::super) const RESPONSE_BODY: usize = 5;
}

/// All families.
pub(super) struct Families {
    pub(super) labels: Labels,
    pub(super) served: Histograms,
    pub(super) active: IntGaugeVec,
    pub(super) unanswered: IntCounterVec,
    pub(super) open_connections: IntGaugeVec,
    pub(super) asked: Histograms,
    pub(super) client_active: IntGaugeVec,
    pub(super) client_unanswered: IntCounterVec,
    pub(super) client_seen: IntCounterVec,
    pub(super) seen: IntCounterVec,
    pub(super) ignored: IntCounterVec,
    pub(super) folded: IntCounterVec,
    pub(super) events: IntCounterVec,
    pub(super) events_lost: IntCounterVec,
    pub(super) unparsed: IntCounterVec,
    pub(super) probe_seconds: CounterVec,
    pub(super) workers: IntGaugeVec,
    pub(super) busy: CounterVec,
    pub(super) births: IntCounterVec,
    pub(super) deaths: IntCounterVec,
    pub(super) cpu: CounterVec,
    pub(super) resident: IntGaugeVec,
    pub(super) requests_lost: IntCounterVec,
    pub(super) feature_enabled: IntGaugeVec,
    pub(super) rpc_server: HistogramVec,
    pub(super) rpc_client: HistogramVec,
    pub(super) websockets_open: IntGaugeVec,
    pub(super) websocket_duration: HistogramVec,
    pub(super) build: GaugeVec,
}

impl Families {
    /// Makes and registers them.
    #[expect(clippy::too_many_lines, reason = "a table with an entry for each metric")]
    pub(super) fn new(registry: &Register, seconds: &[f64], labels: &Labels) -> prometheus::Result<Self> {
        let request = labels.server(&[]);
        let client = labels.client(&[]);
        let time = |name, help| Shape { name, help, unit: Unit::Seconds, bounds: seconds.to_vec() };
        let octets = |name, help| Shape { name, help, unit: Unit::Octets, bounds: OCTETS.to_vec() };
        let histograms = |labels: &[&'static str], shapes| {
            let family = Histograms::new(labels, shapes);
            registry.explain(&family);
            family
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registry.add(IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            registry.add(IntGaugeVec::new(Opts::new(name, help), labels)?)
        };
        let rpc = |name: &str, help: &str| {
            let options = HistogramOpts::new(name, help).buckets(seconds.to_vec());
            registry.add(HistogramVec::new(options, &RPC)?)
        };
        let seconds_counter = |name: &str, help: &str, labels: &[&str]| {
            registry.add(CounterVec::new(Opts::new(name, help), labels)?)
        };
        Ok(Self {
            labels: labels.clone(),
            served: histograms(
                &labels.server(&["http_response_status_code"]),
                // In the order of their constants.
                vec![
                    time(
                        "http_server_request_duration_seconds",
                        "From the first request byte read by the process to the last response byte handed to the kernel.",
                    ),
                    time(
                        "http_server_request_queue_duration_seconds",
                        "From the first request byte in the socket's buffer to its reading by the process: the wait for a free worker, listen backlog included.",
                    ),
                    time(
                        "http_server_response_first_byte_seconds",
                        "From the first request byte read by the process to the first response byte handed to the kernel.",
                    ),
                    time(
                        "http_server_response_send_duration_seconds",
                        "From the first to the last response byte handed to the kernel: long for slow clients and streams.",
                    ),
                    octets(
                        "http_server_request_body_size_bytes",
                        "Octets of request bodies, heads and framing excluded.",
                    ),
                    octets(
                        "http_server_response_body_size_bytes",
                        "Octets of response bodies, heads and framing excluded.",
                    ),
                ],
            ),
            active: gauge("http_server_active_requests", "Requests in flight now.", &request)?,
            unanswered: counter(
                "http_server_requests_unanswered_total",
                "Requests that got no complete response, by what ended them.",
                &labels.server(&["reason"]),
            )?,
            open_connections: gauge(
                "http_server_open_connections",
                "Connections open now.",
                &labels.places(),
            )?,
            asked: histograms(
                &labels.client(&["http_response_status_code"]),
                vec![time(
                    "http_client_request_duration_seconds",
                    "Requests that the processes make: from the first request byte handed to the kernel to the last response byte read.",
                )],
            ),
            client_active: gauge(
                "http_client_active_requests",
                "Requests that the processes make, in flight now.",
                &client,
            )?,
            client_unanswered: counter(
                "http_client_requests_unanswered_total",
                "Requests that the processes made and that got no complete response, by what ended them.",
                &labels.client(&["reason"]),
            )?,
            client_seen: counter(
                "httpmon_client_requests_seen_total",
                "Requests that the processes made: always the sum of finished, active and unanswered ones.",
                &client,
            )?,
            seen: counter(
                "httpmon_requests_seen_total",
                "Requests whose head was recognised: always the sum of finished, active, unanswered and ignored ones.",
                &request,
            )?,
            ignored: counter(
                "httpmon_requests_ignored_total",
                "Requests of ignored paths; counted in no http_server metric.",
                &request,
            )?,
            folded: counter(
                "httpmon_series_folded_total",
                "Requests counted under the route \"other\" since there were as many label sets as allowed.",
                &["service_name"],
            )?,
            events: counter("httpmon_events_total", "Events from the kernel.", &[])?,
            events_lost: counter(
                "httpmon_events_lost_total",
                "Events that never came: no room in the ring buffer or in a table, a probe run skipped by the kernel, or a record that could not be read.",
                &["reason"],
            )?,
            unparsed: counter(
                "httpmon_bytes_unparsed_total",
                "Bytes of selected processes that were not read as HTTP.",
                &["reason"],
            )?,
            probe_seconds: seconds_counter(
                "httpmon_probe_run_seconds_total",
                "Time spent in each kernel program, where kernel.bpf_stats_enabled is set.",
                &["program"],
            )?,
            workers: gauge("httpmon_workers", "Processes of the service now.", &["service_name"])?,
            busy: seconds_counter(
                "httpmon_worker_busy_seconds_total",
                "Time that the service's processes spent inside requests, from first byte read to last byte written.",
                &["service_name"],
            )?,
            births: counter(
                "httpmon_worker_births_total",
                "Processes of the service that were forked, or began to run a selected program.",
                &["service_name"],
            )?,
            deaths: counter(
                "httpmon_worker_deaths_total",
                "Processes of the service that ended: by exit with a code, or killed by a signal.",
                &["service_name", "cause", "code"],
            )?,
            cpu: seconds_counter(
                "httpmon_worker_cpu_seconds_total",
                "CPU time that the service's processes used, in user and kernel mode, those that ended included.",
                &["service_name"],
            )?,
            resident: gauge(
                "httpmon_worker_resident_memory_bytes",
                "Resident memory of the service's processes; pages that they share are counted for each.",
                &["service_name"],
            )?,
            requests_lost: counter(
                "httpmon_requests_lost_total",
                "Requests that the kernel side saw begin in bytes for which there was no room in the ring buffer; not among those seen.",
                &[],
            )?,
            feature_enabled: gauge(
                "httpmon_feature_enabled",
                "1 for what the agent can do on this kernel, 0 for what it goes without.",
                &["feature"],
            )?,
            rpc_server: rpc(
                "rpc_server_duration_seconds",
                "Calls of gRPC that the service answers: from the first request byte read by the process to the last response byte handed to the kernel, the trailers with the status.",
            )?,
            rpc_client: rpc(
                "rpc_client_duration_seconds",
                "Calls of gRPC that the processes make: from the first request byte handed to the kernel to the last response byte read, the trailers with the status.",
            )?,
            websockets_open: gauge(
                "httpmon_websocket_open_connections",
                "WebSockets that are open now.",
                &request,
            )?,
            websocket_duration: {
                let options = HistogramOpts::new(
                    "httpmon_websocket_duration_seconds",
                    "From the response that made a connection a WebSocket, handed to the kernel, to the end of the connection.",
                );
                registry.add(HistogramVec::new(options.buckets(LIFETIMES.to_vec()), &request)?)?
            },
            build: registry.add(GaugeVec::new(
                Opts::new("httpmon_build_info", "The agent's version, as a label of the value 1."),
                &["version"],
            )?)?,
        })
    }
}
