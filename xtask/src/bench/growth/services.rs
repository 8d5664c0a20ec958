//! More services, and more processes of one.

use std::{fmt::Write as _, fs, time::Instant};

use anyhow::Result;
use end_to_end::eventually;

use super::{Scrape, mebibytes, quiet_cpu};
use crate::{
    bench::{
        load::{self, Amount},
        machine,
        report::Table,
        servers, watch,
    },
    signals,
};

/// How many requests there are, however many services share them.
const REQUESTS: u64 = 20_000;

/// An nginx for each service, each named in the configuration.
pub(super) fn services() -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("httpmon.toml");
    let mut table = Table::new(&[
        "services",
        "agent's CPU, µs a request",
        "its memory, MiB",
        "CPU at rest, ms/s",
        "scrape, ms",
        "counted",
        "events lost",
    ]);
    let mut subjects = Vec::new();
    let mut configuration = String::new();
    for count in [1, 10, 100] {
        signals::go_on()?;
        while subjects.len() < count {
            let subject = servers::nginx()?;
            write!(
                configuration,
                "[[service]]\nname = \"service-{}\"\nport = [{}]\n",
                subjects.len(),
                subject.address().port()
            )?;
            subjects.push(subject);
        }
        fs::write(&file, &configuration)?;
        let agent = watch::httpmon(&["--config", &file.display().to_string()])?;
        let before = machine::cpu(agent.pid())?;
        for subject in &subjects {
            load::h2load(&subject.url(), 2, Amount::Requests(REQUESTS / count as u64))?;
        }
        let cpu = machine::cpu(agent.pid())? - before;
        let settled = watch::settled(&agent, REQUESTS);
        let quiet = quiet_cpu(&agent)?;
        table.row(&[
            &count,
            &format!("{:.2}", cpu / REQUESTS as f64 * 1e6),
            &mebibytes(&agent)?,
            &format!("{quiet:.2}"),
            &Scrape::of(&agent).milliseconds,
            &settled.count("http_server_request_duration_seconds_count", &[]),
            &settled.count("httpmon_events_lost_total", &[]),
        ]);
    }
    Ok(table.text().to_owned())
}

/// One server with more and more processes.
pub(super) fn processes() -> Result<String> {
    let mut table = Table::new(&[
        "processes",
        "start, ms",
        "agent's memory, MiB",
        "CPU at rest, ms/s",
        "scrape, ms",
        "taken",
    ]);
    for workers in [1, 10, 100, 1_000] {
        signals::go_on()?;
        let subject = servers::prefork(workers);
        eventually("all workers run", || (subject.processes().len() > workers).then_some(()));
        let begun = Instant::now();
        let agent = watch::httpmon(&["--pid", &subject.pid().to_string()])?;
        let start = begun.elapsed();
        let quiet = quiet_cpu(&agent)?;
        table.row(&[
            &(workers + 1),
            &format!("{:.0}", start.as_secs_f64() * 1e3),
            &mebibytes(&agent)?,
            &format!("{quiet:.2}"),
            &Scrape::of(&agent).milliseconds,
            &agent.scrape().count("httpmon_workers", &[]),
        ]);
    }
    Ok(table.text().to_owned())
}
