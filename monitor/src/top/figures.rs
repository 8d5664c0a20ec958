//! What the table shows: the figures of the last seconds, from summaries a while apart.

use std::{
    cmp::Ordering,
    collections::{HashMap, VecDeque},
};

use crate::summary::{Histogram, Route, Summary};

/// Over how many summaries figures are taken.
const WINDOW: usize = 5;
/// How many rates a trend has.
pub(super) const TREND: usize = 16;

/// What the table can be sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Column {
    /// The service's name
    Service,
    /// The request method
    Method,
    /// The route
    Route,
    /// Requests a second
    Rate,
    /// The median duration
    P50,
    /// The duration that 99 of 100 requests stay below
    P99,
    /// The share of requests that failed
    Errors,
    /// The wait for a free worker that 99 of 100 requests stay below
    Queue,
    /// Octets of request bodies a second
    In,
    /// Octets of response bodies a second
    Out,
    /// Requests since the agent's start
    Total,
}

/// A line of the table.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Row {
    pub(super) service: String,
    pub(super) method: String,
    pub(super) route: String,
    pub(super) total: u64,
    /// Nothing before there are two summaries.
    pub(super) now: Option<Figures>,
    /// Requests a second, the latest last.
    pub(super) trend: Vec<f64>,
}

/// Figures of the last seconds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    pub(super) rate: f64,
    /// From 0 to 1; nothing where nothing was asked for.
    pub(super) errors: Option<f64>,
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
    pub(super) queue: Option<f64>,
    pub(super) received: f64,
    pub(super) sent: f64,
}

/// A service's workers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Workers {
    pub(super) service: String,
    pub(super) count: i64,
    /// How many of them were busy at the mean.
    pub(super) busy: Option<f64>,
    pub(super) resident_bytes: i64,
}

/// The last summaries.
#[derive(Debug, Default)]
pub(super) struct History {
    summaries: VecDeque<Summary>,
    trends: HashMap<[String; 3], VecDeque<f64>>,
}

impl History {
    /// Takes the next. One of an agent that started anew begins anew.
    pub(super) fn add(&mut self, summary: Summary) {
        if let Some(last) = self.summaries.back() {
            let seconds = summary.time - last.time;
            if seconds <= 0.0 || summary.books.seen < last.books.seen {
                *self = Self::default();
            } else {
                let before = index(last);
                let mut trends = HashMap::with_capacity(summary.routes.len());
                for route in &summary.routes {
                    let key = key(route);
                    let requests = before.get(&key).map_or(0, |before| before.requests);
                    let mut trend = self.trends.remove(&key).unwrap_or_default();
                    trend.push_back(route.requests.saturating_sub(requests) as f64 / seconds);
                    if trend.len() > TREND {
                        trend.pop_front();
                    }
                    trends.insert(key, trend);
                }
                self.trends = trends;
            }
        }
        if self.summaries.len() > WINDOW {
            self.summaries.pop_front();
        }
        self.summaries.push_back(summary);
    }

    pub(super) fn latest(&self) -> Option<&Summary> {
        self.summaries.back()
    }

    /// The window's ends, and the seconds between them.
    fn window(&self) -> Option<(&Summary, &Summary, f64)> {
        let (first, last) = (self.summaries.front()?, self.summaries.back()?);
        (self.summaries.len() > 1).then_some((first, last, last.time - first.time))
    }

    /// A line for each route.
    pub(super) fn rows(&self) -> Vec<Row> {
        let Some(latest) = self.latest() else { return Vec::new() };
        let window = self.window();
        let before = window.map(|(first, ..)| index(first)).unwrap_or_default();
        latest
            .routes
            .iter()
            .map(|route| {
                let key = key(route);
                let now = window.map(|(_, last, seconds)| {
                    figures(route, before.get(&key).copied(), &last.bounds, seconds)
                });
                let trend = self.trends.get(&key).map(|trend| trend.iter().copied().collect());
                let [service, method, route_name] = key;
                Row {
                    service,
                    method,
                    route: route_name,
                    total: route.requests,
                    now,
                    trend: trend.unwrap_or_default(),
                }
            })
            .collect()
    }

    /// All routes together.
    pub(super) fn all(&self) -> Option<Figures> {
        let (first, last, seconds) = self.window()?;
        Some(figures(&total(last), Some(&total(first)), &last.bounds, seconds))
    }

    /// The services' workers.
    pub(super) fn workers(&self) -> Vec<Workers> {
        let Some(latest) = self.latest() else { return Vec::new() };
        let busy_before = |name: &str| {
            let (first, _, seconds) = self.window()?;
            let service = first.services.iter().find(|service| service.service == name)?;
            Some((service.busy_seconds, seconds))
        };
        let workers = latest.services.iter().map(|service| Workers {
            service: service.service.clone(),
            count: service.workers,
            busy: busy_before(&service.service)
                .map(|(before, seconds)| ((service.busy_seconds - before) / seconds).max(0.0)),
            resident_bytes: service.resident_bytes,
        });
        workers.collect()
    }
}

fn key(route: &Route) -> [String; 3] {
    [route.service.clone(), route.method.clone(), route.route.clone()]
}

fn index(summary: &Summary) -> HashMap<[String; 3], &Route> {
    summary.routes.iter().map(|route| (key(route), route)).collect()
}

fn total(summary: &Summary) -> Route {
    let mut total = Route::default();
    for route in &summary.routes {
        total.requests += route.requests;
        total.errors += route.errors;
        total.unanswered += route.unanswered;
        total.received_bytes += route.received_bytes;
        total.sent_bytes += route.sent_bytes;
        total.duration.add(&route.duration);
        total.queue.add(&route.queue);
    }
    total
}

fn figures(now: &Route, before: Option<&Route>, bounds: &[f64], seconds: f64) -> Figures {
    let nothing = Route::default();
    let then = before.unwrap_or(&nothing);
    let duration = now.duration.since(before.map(|before| &before.duration));
    let queue: Histogram = now.queue.since(before.map(|before| &before.queue));
    let requests = now.requests.saturating_sub(then.requests);
    let unanswered = now.unanswered.saturating_sub(then.unanswered);
    let failed = now.errors.saturating_sub(then.errors) + unanswered;
    Figures {
        rate: requests as f64 / seconds,
        errors: (requests + unanswered > 0).then(|| failed as f64 / (requests + unanswered) as f64),
        p50: duration.quantile(bounds, 0.5),
        p99: duration.quantile(bounds, 0.99),
        queue: queue.quantile(bounds, 0.99),
        received: (now.received_bytes - then.received_bytes) / seconds,
        sent: (now.sent_bytes - then.sent_bytes) / seconds,
    }
}

/// Those whose service, method or route contains the text, in the order of a column, largest first unless reversed;
/// names go from A to Z.
pub(super) fn arrange(mut rows: Vec<Row>, filter: &str, column: Column, reverse: bool) -> Vec<Row> {
    let wanted = filter.to_lowercase();
    rows.retain(|row| {
        wanted.is_empty()
            || format!("{} {} {}", row.service, row.method, row.route).to_lowercase().contains(&wanted)
    });
    rows.sort_by(|one, other| {
        let order = compare(one, other, column);
        let order = if reverse { order.reverse() } else { order };
        let names = |row: &Row| (row.route.clone(), row.method.clone(), row.service.clone());
        order.then_with(|| names(one).cmp(&names(other)))
    });
    rows
}

fn compare(one: &Row, other: &Row, column: Column) -> Ordering {
    let figure = |of: fn(&Figures) -> Option<f64>| {
        let value = |row: &Row| row.now.as_ref().and_then(of).unwrap_or(-1.0);
        value(other).total_cmp(&value(one))
    };
    match column {
        Column::Service => one.service.cmp(&other.service),
        Column::Method => one.method.cmp(&other.method),
        Column::Route => one.route.cmp(&other.route),
        Column::Rate => figure(|now| Some(now.rate)).then(other.total.cmp(&one.total)),
        Column::P50 => figure(|now| now.p50),
        Column::P99 => figure(|now| now.p99),
        Column::Errors => figure(|now| now.errors),
        Column::Queue => figure(|now| now.queue),
        Column::In => figure(|now| Some(now.received)),
        Column::Out => figure(|now| Some(now.sent)),
        Column::Total => other.total.cmp(&one.total),
    }
}

/// Seconds, as people read them.
pub(super) fn time(seconds: Option<f64>) -> String {
    match seconds {
        None => "-".to_owned(),
        Some(seconds) if seconds < 0.000_999_5 => format!("{:.0} us", seconds * 1e6),
        Some(seconds) if seconds < 0.009_995 => format!("{:.2} ms", seconds * 1e3),
        Some(seconds) if seconds < 0.099_95 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds < 0.999_5 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) => format!("{seconds:.2} s"),
    }
}

/// A number, shortened by thousands.
pub(super) fn short(number: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let mut number = number.max(0.0);
    let mut unit = 0;
    while number >= 999.5 && unit + 1 < UNITS.len() {
        number /= 1000.0;
        unit += 1;
    }
    let is_plain = (unit == 0 && number.fract() == 0.0) || number >= 99.95;
    let digits = usize::from(!is_plain);
    format!("{number:.digits$}{}", UNITS[unit])
}

/// A share, in percent.
pub(super) fn percent(share: Option<f64>) -> String {
    match share {
        None => "-".to_owned(),
        Some(share) if share > 0.0 && share < 0.000_95 => "<0.1".to_owned(),
        Some(share) => format!("{:.1}", share * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(time: f64, requests: u64) -> Summary {
        let route = Route {
            service: "web".into(),
            method: "GET".into(),
            route: "/a".into(),
            requests,
            errors: requests / 10,
            sent_bytes: requests as f64 * 100.0,
            duration: Histogram { sum: 0.0, buckets: vec![requests, 0] },
            ..Route::default()
        };
        Summary { time, bounds: vec![0.01], routes: vec![route], ..Summary::default() }
    }

    #[test]
    fn figures_are_of_the_last_seconds() {
        let mut history = History::default();
        history.add(summary(1.0, 1000));
        assert_eq!((history.rows()[0].total, &history.rows()[0].now), (1000, &None));
        for second in 1..20_u64 {
            history.add(summary(1.0 + second as f64, 1000 + second * 20));
        }
        let rows = history.rows();
        let now = rows[0].now.clone().unwrap();
        assert_eq!((now.rate, now.errors, now.sent), (20.0, Some(0.1), 2000.0));
        assert_eq!(now.p50, Some(0.005));
        assert_eq!(rows[0].trend, [20.0; TREND]);
        assert_eq!(history.all().unwrap().rate, 20.0);
        // The agent started anew.
        let mut fresh = summary(30.0, 5);
        fresh.books.seen = 5;
        let mut last = summary(29.0, 2000);
        last.books.seen = 2000;
        history.add(last);
        history.add(fresh);
        assert_eq!((history.rows()[0].total, &history.rows()[0].now), (5, &None));
    }

    #[test]
    fn rows_are_filtered_and_sorted() {
        let row = |route: &str, rate| Row {
            route: route.into(),
            now: Some(Figures { rate, ..Figures::default() }),
            ..Row::default()
        };
        let rows = vec![row("/b", 1.0), row("/a", 3.0), row("/users", 2.0)];
        let routes = |filter, column, reverse| {
            let rows = arrange(rows.clone(), filter, column, reverse);
            rows.into_iter().map(|row| row.route).collect::<Vec<_>>()
        };
        assert_eq!(routes("", Column::Rate, false), ["/a", "/users", "/b"]);
        assert_eq!(routes("", Column::Rate, true), ["/b", "/users", "/a"]);
        assert_eq!(routes("", Column::Route, false), ["/a", "/b", "/users"]);
        assert_eq!(routes("USER", Column::Rate, false), ["/users"]);
    }

    #[test]
    fn numbers_are_short() {
        let times = [0.000_25, 0.001_5, 0.012_34, 0.25, 2.5].map(|seconds| time(Some(seconds)));
        assert_eq!(times, ["250 us", "1.50 ms", "12.3 ms", "250 ms", "2.50 s"]);
        assert_eq!(
            [0.0, 7.0, 7.25, 999.9, 1500.0, 2e6].map(short),
            ["0", "7", "7.2", "1.0k", "1.5k", "2.0M"]
        );
        assert_eq!([None, Some(0.0), Some(0.0001), Some(0.256)].map(percent), ["-", "0.0", "<0.1", "25.6"]);
    }
}
