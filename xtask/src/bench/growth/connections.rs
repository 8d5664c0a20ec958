//! More connections, and more requests a second.

use anyhow::Result;

use super::{Scrape, mebibytes, quiet_cpu};
use crate::{
    bench::{
        Settings,
        hold::Held,
        load::{self, Amount},
        machine,
        report::Table,
        servers::{self, Queue},
        watch,
    },
    signals,
};

/// Connections that all have a request under way.
pub(super) fn loaded(settings: &Settings) -> Result<String> {
    let subject = servers::nginx()?;
    let mut table = Table::new(&[
        "connections",
        "requests/s",
        "agent's CPU, µs a request",
        "its memory, MiB",
        "scrape, ms",
        "events lost",
        "not counted",
    ]);
    for connections in [1, 10, 100, 1_000, 10_000] {
        signals::go_on()?;
        let agent = watch::httpmon(&["--pid", &subject.pid().to_string()])?;
        let before = machine::cpu(agent.pid())?;
        let load = load::wrk(&subject.url(), connections, settings.seconds, None)?;
        let memory = mebibytes(&agent)?;
        let settled = watch::settled(&agent, load.requests);
        let cpu = machine::cpu(agent.pid())? - before;
        let counted = settled.sum("http_server_request_duration_seconds_count", &[]);
        table.row(&[
            &connections,
            &format!("{:.0}", load.rate()),
            &format!("{:.2}", load.microseconds_each(cpu)),
            &memory,
            &Scrape::of(&agent).milliseconds,
            &settled.sum("httpmon_events_lost_total", &[]),
            &(load.requests as f64 - counted).max(0.0),
        ]);
    }
    Ok(table.text().to_owned())
}

/// Connections on which one request was answered and no other follows, all watched by one agent.
pub(super) fn idle() -> Result<String> {
    // No process may have enough descriptors for all of them.
    let subject = servers::nginx_with(12, Queue::Own, 19_000)?;
    let agent = watch::httpmon(&["--pid", &subject.pid().to_string()])?;
    let mut held = Held::default();
    let mut table = Table::new(&[
        "connections",
        "known to httpmon",
        "agent's memory, MiB",
        "bytes for each more",
        "CPU at rest, ms/s",
        "scrape, ms",
        "events lost",
    ]);
    let mut before = (0, machine::resident(agent.pid())?);
    for connections in [1, 10, 100, 1_000, 10_000, 100_000] {
        signals::go_on()?;
        held.grow_to(connections, subject.address())?;
        let open = "http_server_open_connections";
        let known = watch::until(&agent, |metrics| metrics.count(open, &[]) >= connections as u64);
        let known = known.count(open, &[]);
        let resident = machine::resident(agent.pid())?;
        let quiet = quiet_cpu(&agent)?;
        let each = (resident - before.1) / (connections - before.0) as f64;
        before = (connections, resident);
        table.row(&[
            &connections,
            &known,
            &mebibytes(&agent)?,
            &if connections < 10_000 { "–".to_owned() } else { format!("{each:.0}") },
            &format!("{quiet:.2}"),
            &Scrape::of(&agent).milliseconds,
            &agent.scrape().sum("httpmon_events_lost_total", &[]),
        ]);
    }
    Ok(table.text().to_owned())
}

/// Requests at a steady rate, on ten connections.
pub(super) fn rates(settings: &Settings) -> Result<String> {
    const CONNECTIONS: u64 = 10;
    let subject = servers::nginx()?;
    let mut table = Table::new(&[
        "requests/s wanted",
        "requests/s",
        "agent's CPU, µs a request",
        "agent's CPU, ms/s",
        "events lost",
    ]);
    for rate in [100, 1_000, 10_000, 50_000] {
        signals::go_on()?;
        let agent = watch::httpmon(&["--pid", &subject.pid().to_string()])?;
        let before = machine::cpu(agent.pid())?;
        let load =
            load::h2load(&subject.url(), CONNECTIONS, Amount::Rate(rate / CONNECTIONS, settings.seconds))?;
        let cpu = machine::cpu(agent.pid())? - before;
        table.row(&[
            &rate,
            &format!("{:.0}", load.rate()),
            &format!("{:.2}", load.microseconds_each(cpu)),
            &format!("{:.2}", cpu / load.seconds * 1e3),
            &agent.scrape().sum("httpmon_events_lost_total", &[]),
        ]);
    }
    Ok(table.text().to_owned())
}
