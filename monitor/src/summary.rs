//! What people look at: each route's figures in few numbers, from the metrics as they are now.
//!
//! Totals since the agent's start; rates and quantiles of an interval come from the difference of two summaries.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily};
use serde::{Deserialize, Serialize};

/// Everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The agent's version.
    pub version: String,
    /// When this was, in seconds since 1970.
    pub time: f64,
    /// The histograms' bounds, in seconds.
    pub bounds: Vec<f64>,
    /// Each service's routes, by method.
    pub routes: Vec<Route>,
    /// The services.
    pub services: Vec<Service>,
    /// Whether all of it is there.
    pub books: Books,
    /// What the agent itself uses.
    pub agent: Agent,
}

/// A route of a service, asked for by a method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The service's name.
    pub service: String,
    /// The request method.
    pub method: String,
    /// The route.
    pub route: String,
    /// Requests that were answered.
    pub requests: u64,
    /// Those of them whose status is 500 or more.
    pub errors: u64,
    /// Requests that got no complete answer.
    pub unanswered: u64,
    /// Requests in flight.
    pub active: i64,
    /// Octets of request bodies.
    pub received_bytes: f64,
    /// Octets of response bodies.
    pub sent_bytes: f64,
    /// From the first byte read to the last byte written.
    pub duration: Histogram,
    /// From the first byte's arrival to its reading.
    pub queue: Histogram,
    /// Requests by status.
    pub statuses: BTreeMap<String, u64>,
}

/// How often which times were seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// The sum of all, in seconds.
    pub sum: f64,
    /// How many were up to each bound and above the one before; the last is for those above all.
    pub buckets: Vec<u64>,
}

/// A service's processes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// The service's name.
    pub service: String,
    /// How many processes it has.
    pub workers: i64,
    /// Seconds that they spent inside requests.
    pub busy_seconds: f64,
    /// Seconds of CPU that they used.
    pub cpu_seconds: f64,
    /// Their resident memory.
    pub resident_bytes: i64,
    /// Their open connections.
    pub open_connections: i64,
}

/// What was seen is the sum of what became of it; what was not seen is counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Books {
    /// Requests whose head was recognised.
    pub seen: u64,
    /// Those that were answered.
    pub finished: u64,
    /// Those in flight.
    pub active: i64,
    /// Those that got no complete answer.
    pub unanswered: u64,
    /// Those of ignored paths.
    pub ignored: u64,
    /// Requests that began in lost events.
    pub requests_lost: u64,
    /// Events from the kernel.
    pub events: u64,
    /// Events that never came.
    pub events_lost: u64,
    /// Bytes that could not be read.
    pub unparsed_bytes: u64,
    /// Requests counted under `other`.
    pub series_folded: u64,
}

/// What the agent itself uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Agent {
    /// Seconds of CPU.
    pub cpu_seconds: f64,
    /// Its resident memory.
    pub resident_bytes: f64,
}

impl Histogram {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// What came since an earlier time.
    #[must_use]
    pub fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else { return self.clone() };
        let buckets = self.buckets.iter().zip(before.buckets.iter().chain(std::iter::repeat(&0)));
        Self {
            sum: self.sum - before.sum,
            buckets: buckets.map(|(now, before)| now.saturating_sub(*before)).collect(),
        }
    }

    /// Takes in another's.
    pub fn add(&mut self, other: &Self) {
        self.sum += other.sum;
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }

    /// A quantile, interpolated within its bucket as Prometheus' `histogram_quantile` does; none of nothing.
    #[must_use]
    pub fn quantile(&self, bounds: &[f64], quantile: f64) -> Option<f64> {
        let rank = quantile * self.count() as f64;
        if self.count() == 0 {
            return None;
        }
        let mut below = 0.0;
        let mut lower = 0.0;
        for (&count, &bound) in self.buckets.iter().zip(bounds) {
            let count = count as f64;
            if below + count >= rank && count > 0.0 {
                return Some(lower + (bound - lower) * ((rank - below) / count));
            }
            below += count;
            lower = bound;
        }
        bounds.last().copied()
    }
}

impl Summary {
    /// Of these metrics, at this time in seconds since 1970.
    #[must_use]
    pub fn new(families: &[MetricFamily], time: f64) -> Self {
        let mut summary = Self { version: env!("CARGO_PKG_VERSION").to_owned(), time, ..Self::default() };
        let mut routes = BTreeMap::new();
        let mut services = BTreeMap::new();
        for family in families {
            for metric in family.get_metric() {
                summary.take(family.name(), metric, &mut routes, &mut services);
            }
        }
        summary.routes = routes.into_values().collect();
        summary.services = services.into_values().collect();
        summary
    }

    fn take(&mut self, name: &str, metric: &Metric, routes: &mut Routes, services: &mut Services) {
        let total = metric.get_counter().get_value();
        let gauge = metric.get_gauge().get_value();
        let books = &mut self.books;
        match name {
            "http_server_request_duration_seconds" => {
                let (histogram, bounds) = histogram(metric);
                let (count, status) = (histogram.count(), label(metric, "http_response_status_code"));
                books.finished += count;
                let route = route(routes, metric);
                route.requests += count;
                if status.starts_with('5') {
                    route.errors += count;
                }
                *route.statuses.entry(status).or_default() += count;
                route.duration.add(&histogram);
                self.bounds = bounds;
            }
            "http_server_request_queue_duration_seconds" => {
                route(routes, metric).queue.add(&histogram(metric).0);
            }
            "http_server_request_body_size_bytes" => {
                route(routes, metric).received_bytes += metric.get_histogram().get_sample_sum();
            }
            "http_server_response_body_size_bytes" => {
                route(routes, metric).sent_bytes += metric.get_histogram().get_sample_sum();
            }
            "http_server_active_requests" => {
                books.active += gauge as i64;
                route(routes, metric).active += gauge as i64;
            }
            "http_server_requests_unanswered_total" => {
                books.unanswered += whole(total);
                route(routes, metric).unanswered += whole(total);
            }
            "http_server_open_connections" => service(services, metric).open_connections += gauge as i64,
            "httpmon_workers" => service(services, metric).workers = gauge as i64,
            "httpmon_worker_busy_seconds_total" => service(services, metric).busy_seconds = total,
            "httpmon_worker_cpu_seconds_total" => service(services, metric).cpu_seconds = total,
            "httpmon_worker_resident_memory_bytes" => service(services, metric).resident_bytes = gauge as i64,
            "httpmon_requests_seen_total" => books.seen += whole(total),
            "httpmon_requests_ignored_total" => books.ignored += whole(total),
            "httpmon_requests_lost_total" => books.requests_lost += whole(total),
            "httpmon_events_total" => books.events += whole(total),
            "httpmon_events_lost_total" => books.events_lost += whole(total),
            "httpmon_bytes_unparsed_total" => books.unparsed_bytes += whole(total),
            "httpmon_series_folded_total" => books.series_folded += whole(total),
            "process_cpu_seconds_total" => self.agent.cpu_seconds = total,
            "process_resident_memory_bytes" => self.agent.resident_bytes = gauge,
            _ => {}
        }
    }
}

type Routes = BTreeMap<[String; 3], Route>;
type Services = BTreeMap<String, Service>;

fn route<'a>(routes: &'a mut Routes, metric: &Metric) -> &'a mut Route {
    let names = ["service_name", "http_request_method", "http_route"].map(|name| label(metric, name));
    let route = routes.entry(names.clone()).or_default();
    [route.service, route.method, route.route] = names;
    route
}

fn service<'a>(services: &'a mut Services, metric: &Metric) -> &'a mut Service {
    let name = label(metric, "service_name");
    let service = services.entry(name.clone()).or_default();
    service.service = name;
    service
}

fn label(metric: &Metric, name: &str) -> String {
    let label = metric.get_label().iter().find(|label| label.name() == name);
    label.map_or_else(String::new, |label| label.value().to_owned())
}

#[expect(clippy::cast_sign_loss, reason = "counters are whole and never negative")]
fn whole(value: f64) -> u64 {
    value as u64
}

/// With its bounds.
fn histogram(metric: &Metric) -> (Histogram, Vec<f64>) {
    let proto = metric.get_histogram();
    let mut before = 0;
    let mut buckets = Vec::with_capacity(proto.get_bucket().len() + 1);
    let mut bounds = Vec::with_capacity(proto.get_bucket().len());
    for bucket in proto.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
        buckets.push(bucket.cumulative_count().saturating_sub(before));
        bounds.push(bucket.upper_bound());
        before = bucket.cumulative_count();
    }
    buckets.push(proto.get_sample_count().saturating_sub(before));
    (Histogram { sum: proto.get_sample_sum(), buckets }, bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [f64; 3] = [0.1, 0.2, 0.4];

    fn histogram(buckets: [u64; 4]) -> Histogram {
        Histogram { sum: 0.0, buckets: buckets.to_vec() }
    }

    #[test]
    fn quantiles_are_interpolated() {
        for (buckets, quantile, expected) in [
            ([10, 0, 0, 0], 0.5, Some(0.05)),
            ([0, 10, 0, 0], 0.5, Some(0.15)),
            ([5, 0, 5, 0], 0.99, Some(0.396)),
            ([0, 0, 0, 3], 0.5, Some(0.4)),
            ([0, 0, 0, 0], 0.5, None),
        ] {
            let found = histogram(buckets).quantile(&BOUNDS, quantile);
            let close = found.zip(expected).map(|(found, expected)| (found - expected).abs() < 1e-9);
            assert!(close.unwrap_or(found == expected), "{buckets:?}: {found:?}");
        }
    }

    #[test]
    fn an_interval_is_a_difference() {
        let interval = histogram([3, 4, 5, 6]).since(Some(&histogram([1, 4, 2, 0])));
        assert_eq!(interval.buckets, [2, 0, 3, 6]);
    }
}
