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
    Settings,
    hold::Held,
    load, machine,
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
            title: "Nothing to do, much to remember, and hostile clients",
            how: "nginx before any request, and after wrk asked on 16 connections, beside those that stay open.",
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
            how: "One server that forks more and more processes; the start is until httpmon is attached.",
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
                kibibytes = agent.octets("/metrics") as f64 / 1024.0;
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

/// The agent's memory: at rest, with much to remember, and after requests that try to fill it.
fn memory(settings: &Settings) -> Result<String> {
    let subject = servers::nginx()?;
    let pid = subject.pid().to_string();
    let mut table = Table::new(&[
        "",
        "requests",
        "agent's memory, MiB",
        "after scrapes",
        "CPU at rest, ms/s",
        "series of durations",
        "scrape, ms",
    ]);
    let mut row = |name: &str, options: &[&str], load: &dyn Fn() -> Result<(u64, Held)>| -> Result<()> {
        signals::go_on()?;
        let agent = watch::httpmon(&[&["--pid", &pid], options].concat())?;
        let (requests, _held) = load()?;
        let quiet = quiet_cpu(&agent)?;
        let memory = mebibytes(&agent)?;
        let scrape = Scrape::of(&agent);
        let series = agent.scrape().of("http_server_request_duration_seconds_count", &[]).count();
        table.row(&[
            &name,
            &requests,
            &memory,
            &mebibytes(&agent)?,
            &format!("{quiet:.2}"),
            &series,
            &scrape.milliseconds,
        ]);
        Ok(())
    };
    let wrk = |script, held: usize| {
        let mut connections = Held::default();
        connections.grow_to(held, subject.address())?;
        let load = load::wrk(&subject.url(), 16, settings.seconds * 3, Some(script))?;
        Ok((load.requests, connections))
    };
    row("idle", &[], &|| Ok((0, Held::default())))?;
    let paths = ["--route-mode", "path"];
    row("10 000 connections, 1000 routes", &paths, &|| wrk(("routes.lua", 1_000), 10_000))?;
    row("another path, Host and method with every request", &[], &|| wrk(("hostile.lua", 0), 0))?;
    Ok(table.text().to_owned())
}
