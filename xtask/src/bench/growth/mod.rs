//! How the agent's cost grows with what it watches: each figure should be flat, or go in a straight line.

mod connections;
mod routes;
mod services;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use end_to_end::Agent;

use super::{
    Settings, load, machine,
    report::{Report, Table},
    servers,
    statistics::Spread,
    watch,
};
use crate::signals;

/// How many buckets the histograms have: more than by default.
const BUCKETS: &str =
    "0.0001,0.0002,0.0005,0.001,0.002,0.003,0.005,0.007,0.01,0.025,0.05,0.075,0.1,0.25,0.5,0.75,1,2.5,5,10";
/// How often an answer's time is taken.
const SCRAPES: usize = 5;
/// For how long an agent with nothing to do is looked at.
const QUIET: Duration = Duration::from_secs(2);

/// A table, one row for each step.
struct Curve<'a> {
    title: &'static str,
    how: &'static str,
    measure: &'a dyn Fn() -> Result<String>,
}

/// All curves.
pub(super) fn growth(settings: &Settings, report: &mut Report) -> Result<()> {
    let curves = [
        Curve {
            title: "Nothing to do, and hostile clients",
            how: "nginx before any request, and after a while of wrk with 16 connections.",
            measure: &|| memory(settings),
        },
        Curve {
            title: "Connections under load",
            how: "wrk with so many connections, each with a request under way all the time.",
            measure: &|| connections::loaded(settings),
        },
        Curve {
            title: "Request rate",
            how: "h2load at a steady rate, on ten connections.",
            measure: &|| connections::rates(settings),
        },
        Curve {
            title: "Routes",
            how: "So many paths in turn, each a route of its own (`--route-mode path`); 20 buckets. A scrape tells six \
                  histograms of each label set.",
            measure: &|| routes::routes(settings),
        },
        Curve {
            title: "Services",
            how: "An nginx for each, named in the configuration by its port; 20 000 requests in all. With ports to look \
                  for, every program that starts on the host is looked at, those of the load and of others included.",
            measure: &services::services,
        },
        Curve {
            title: "Processes of a service",
            how: "One nginx with more and more workers; the start is until httpmon is attached.",
            measure: &services::processes,
        },
        Curve {
            title: "Connections that idle",
            how: "One request on each, and no other; 12 workers of nginx share them.",
            measure: &connections::idle,
        },
    ];
    for Curve { title, how, measure } in curves {
        signals::go_on()?;
        report.say(&format!("### {title}\n\n{how}\n\n{}", measure()?));
    }
    Ok(())
}

/// What an agent says of everything, and what that takes.
struct Scrape {
    milliseconds: Spread,
    kibibytes: f64,
}

impl Scrape {
    fn of(agent: &Agent) -> Self {
        let mut kibibytes = 0.0;
        let times: Vec<f64> = (0..SCRAPES)
            .map(|_| {
                let begun = Instant::now();
                kibibytes = agent.get("/metrics").len() as f64 / 1024.0;
                begun.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        Self { milliseconds: Spread::of(times, 1), kibibytes }
    }
}

fn mebibytes(agent: &Agent) -> Result<String> {
    Ok(format!("{:.1}", machine::resident(agent.pid())? / f64::from(1 << 20)))
}

/// Milliseconds of CPU a second that an agent takes while nothing happens.
fn quiet_cpu(agent: &Agent) -> Result<f64> {
    let before = machine::cpu(agent.pid())?;
    thread::sleep(QUIET);
    Ok((machine::cpu(agent.pid())? - before) / QUIET.as_secs_f64() * 1e3)
}

/// The agent's memory at rest, and after requests that try to fill it.
fn memory(settings: &Settings) -> Result<String> {
    let subject = servers::nginx()?;
    let agent = watch::httpmon(&["--pid", &subject.pid().to_string()])?;
    let mut table = Table::new(&[
        "",
        "requests",
        "agent's memory, MiB",
        "CPU at rest, ms/s",
        "series of durations",
        "scrape, ms",
    ]);
    let mut row = |name: &str, requests: u64| -> Result<()> {
        let quiet = format!("{:.2}", quiet_cpu(&agent)?);
        let series = agent.scrape().of("http_server_request_duration_seconds_count", &[]).count();
        // Memory is read before the answers that take it.
        let memory = mebibytes(&agent)?;
        table.row(&[&name, &requests, &memory, &quiet, &series, &Scrape::of(&agent).milliseconds]);
        Ok(())
    };
    row("idle", 0)?;
    let load = load::wrk(&subject.url(), 16, settings.seconds * 3, Some(("hostile.lua", 0)))?;
    row("another path, Host and method with every request", load.requests)?;
    Ok(table.text().to_owned())
}
