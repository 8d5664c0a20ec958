//! More routes: label sets of every metric.

use anyhow::Result;

use super::{BUCKETS, Scrape, mebibytes};
use crate::{
    bench::{Settings, load, machine, report::Table, servers, watch},
    signals,
};

/// As many paths as there are routes, asked for in turn, with histograms of 20 buckets.
pub(super) fn routes(settings: &Settings) -> Result<String> {
    let subject = servers::nginx()?;
    let mut table = Table::new(&[
        "routes",
        "label sets",
        "agent's CPU, µs a request",
        "its memory before a scrape, MiB",
        "after",
        "scrape, ms",
        "scrape, KiB",
        "events lost",
    ]);
    for routes in [1, 10, 100, 1_000, 2_000] {
        signals::go_on()?;
        let pid = subject.pid().to_string();
        let agent = watch::httpmon(&[
            "--pid",
            &pid,
            "--route-mode",
            "path",
            "--max-series",
            "4000",
            "--buckets",
            BUCKETS,
        ])?;
        let before = machine::cpu(agent.pid())?;
        let load = load::wrk(&subject.url(), 16, settings.seconds, Some(("routes.lua", routes)))?;
        let cpu = machine::cpu(agent.pid())? - before;
        let memory = mebibytes(&agent)?;
        let scrape = Scrape::of(&agent);
        let metrics = agent.scrape();
        table.row(&[
            &routes,
            &metrics.of("http_server_request_duration_seconds_count", &[]).count(),
            &format!("{:.2}", load.microseconds_each(cpu)),
            &memory,
            &mebibytes(&agent)?,
            &scrape.milliseconds,
            &format!("{:.0}", scrape.kibibytes),
            &metrics.sum("httpmon_events_lost_total", &[]),
        ]);
    }
    Ok(table.text().to_owned())
}
