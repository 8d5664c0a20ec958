//! What the agent says: Prometheus' text format, read.

use std::collections::BTreeMap;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// One scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// As served.
    pub text: String,
    /// Line by line.
    pub samples: Vec<Sample>,
}

impl Metrics {
    /// Reads a scrape.
    pub fn parse(text: String) -> Self {
        let samples =
            text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(sample).collect();
        Self { text, samples }
    }

    /// What it says but for zeros and buckets, httpmon's own books first.
    pub fn brief(&self) -> String {
        let mut lines: Vec<_> = self
            .text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.contains("_bucket{") && !line.ends_with(" 0"))
            .collect();
        lines.sort_by_key(|line| !line.starts_with("httpmon_"));
        lines.join("\n")
    }

    /// All samples of a metric whose labels are (among others) these.
    pub fn of<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|&(key, value)| sample.labels.get(key).is_some_and(|found| found == value))
        })
    }

    /// Their sum.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name, labels).fold(0.0, |sum, sample| sum + sample.value)
    }

    /// Their sum, for what counts.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// Finished requests by method, route and status.
    pub fn finished(&self, labels: &[(&str, &str)]) -> BTreeMap<(String, String, u16), u64> {
        let mut finished = BTreeMap::new();
        for sample in self.of("http_server_request_duration_seconds_count", labels) {
            let label = |name: &str| sample.labels[name].clone();
            let status = label("http_response_status_code").parse().expect("a status is a number");
            let key = (label("http_request_method"), label("http_route"), status);
            *finished.entry(key).or_default() += sample.value as u64;
        }
        finished.retain(|_, count| *count > 0);
        finished
    }

    /// Whether so many requests are finished, by method, route and status.
    #[track_caller]
    pub fn assert_finished(&self, labels: &[(&str, &str)], expected: &BTreeMap<(String, String, u16), u64>) {
        assert_eq!(self.finished(labels), *expected, "{labels:?}\n{}", self.brief());
    }

    /// Whether requests seen = finished + active + unanswered + ignored, for every label set.
    pub fn assert_books_balance(&self) {
        let mut balance: BTreeMap<BTreeMap<String, String>, f64> = BTreeMap::new();
        for (name, sign) in [
            ("httpmon_requests_seen_total", 1.0),
            ("http_server_request_duration_seconds_count", -1.0),
            ("http_server_active_requests", -1.0),
            ("http_server_requests_unanswered_total", -1.0),
            ("httpmon_requests_ignored_total", -1.0),
        ] {
            for sample in self.of(name, &[]) {
                let mut labels = sample.labels.clone();
                labels.remove("http_response_status_code");
                labels.remove("reason");
                *balance.entry(labels).or_default() += sign * sample.value;
            }
        }
        balance.retain(|_, difference| *difference != 0.0);
        assert!(balance.is_empty(), "the books don't balance: {balance:?}");
    }

    /// Whether no event was lost. Runs that the kernel skipped are none that can be held against anybody: where an
    /// interrupt hits a probe it counts those for any socket, clients' and the exporter's among them (that of a selected
    /// process shows in the requests' counts). Where they do matter, the kernel's version does: the virtual machines show.
    pub fn assert_nothing_lost(&self) {
        let lost: Vec<_> = self
            .of("httpmon_events_lost_total", &[])
            .filter(|sample| sample.value > 0.0 && sample.labels["reason"] != "preempted")
            .collect();
        assert!(lost.is_empty(), "events were lost: {lost:?}");
        assert!(
            self.of("httpmon_events_lost_total", &[]).count() >= 3,
            "every reason is there from the start"
        );
    }

    /// The mean of a histogram, over all label sets.
    pub fn mean(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.sum(&format!("{name}_sum"), labels) / self.sum(&format!("{name}_count"), labels)
    }
}

fn sample(line: &str) -> Sample {
    let (head, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
    let (name, labels) = match head.split_once('{') {
        Some((name, rest)) => (name, self::labels(rest.strip_suffix('}').expect("labels end"))),
        None => (head, BTreeMap::new()),
    };
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    Sample { name: name.to_owned(), labels, value }
}

fn labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().expect("a value ends") {
                (at, '"') => break at,
                (_, '\\') => match chars.next().expect("an escape ends").1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(key.trim_start_matches(',').to_owned(), value);
        rest = &after[end + 1..];
    }
    labels
}
