//! What a Grafana dashboard asks Prometheus.

use std::collections::BTreeSet;

/// The expressions of all panels, with the panels' titles; variables stand for everything.
pub fn expressions(dashboard: &serde_json::Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("a dashboard has panels");
    let nested = panels.iter().filter_map(|panel| panel["panels"].as_array()).flatten();
    let mut found = Vec::new();
    for panel in panels.iter().chain(nested) {
        let title = panel["title"].as_str().expect("a panel has a title").to_owned();
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("a target has an expression");
            let filled =
                [("$__rate_interval", "10s"), ("$__range", "1m"), ("$service", ".*"), ("$route", ".*")]
                    .iter()
                    .fold(expression.to_owned(), |text, (name, value)| text.replace(name, value));
            assert!(!filled.contains('$'), "{title}: {filled}");
            found.push((title.clone(), filled));
        }
    }
    found
}

/// Labels that are called like metrics.
const LABELS: [&str; 3] = ["http_route", "http_request_method", "http_response_status_code"];

/// The metrics' names in an expression.
pub fn names(expression: &str) -> BTreeSet<&str> {
    let is_metric = |word: &&str| {
        ["http_", "httpmon_", "process_", "service:"].iter().any(|start| word.starts_with(start))
            && !LABELS.contains(word)
    };
    let words = expression.split(|char: char| !char.is_ascii_alphanumeric() && char != '_' && char != ':');
    words.filter(is_metric).collect()
}
