//! Variants of one load, measured in turn, round after round, so that what the machine does meanwhile meets all of them.

use std::{thread, time::Duration};

use anyhow::Result;

use super::{
    Settings,
    load::Load,
    machine,
    report::Table,
    servers::Subject,
    statistics::Spread,
    watch::{Watch, Watcher},
};
use crate::signals;

/// How many connections the load has.
const CONNECTIONS: usize = 16;
/// Within this time after the load all of it has been told: the agent's longest wait, and some.
const SETTLED: Duration = Duration::from_millis(200);

/// A server and who watches it.
#[derive(Debug)]
pub(super) struct Variant<'a> {
    pub(super) name: String,
    pub(super) subject: &'a Subject,
    pub(super) watch: Watch,
    /// Whether httpmon is to count these requests.
    pub(super) counts: bool,
}

impl<'a> Variant<'a> {
    /// A server that nobody watches.
    pub(super) fn bare(name: &str, subject: &'a Subject) -> Self {
        Self { name: name.to_owned(), subject, watch: Watch::Nobody, counts: false }
    }

    /// A server under httpmon with these options.
    pub(super) fn httpmon(name: &str, subject: &'a Subject, options: &[&str]) -> Self {
        let watch = Watch::httpmon(subject.pid(), options);
        Self { name: name.to_owned(), subject, watch, counts: true }
    }
}

/// One measured stretch of load.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    load: Load,
    server_cpu: f64,
    watcher_cpu: Option<f64>,
    watcher_memory: Option<f64>,
    lost: Option<f64>,
    missing: Option<f64>,
}

/// Measures all variants; the first is what the others are compared with.
pub(super) fn compare(variants: &[Variant<'_>], settings: &Settings) -> Result<String> {
    for variant in variants.iter().filter(|variant| matches!(variant.watch, Watch::Nobody)) {
        variant.subject.load(CONNECTIONS, 1)?;
    }
    let mut measured = vec![Vec::new(); variants.len()];
    for _ in 0..settings.rounds {
        for (variant, stretches) in variants.iter().zip(&mut measured) {
            signals::go_on()?;
            stretches.push(stretch(variant, settings.seconds)?);
        }
    }
    Ok(table(variants, &measured))
}

fn stretch(variant: &Variant<'_>, seconds: u64) -> Result<Stretch> {
    let watcher = variant.watch.start()?;
    let watcher_cpu = || watcher.pid().map(machine::cpu).transpose();
    let processes = variant.subject.processes();
    let (server_before, watcher_before) = (machine::cpu_of(&processes)?, watcher_cpu()?);
    let load = variant.subject.load(CONNECTIONS, seconds)?;
    let server_cpu = machine::cpu_of(&processes)? - server_before;
    if watcher.pid().is_some() {
        thread::sleep(SETTLED);
    }
    let mut result = Stretch {
        load,
        server_cpu,
        watcher_cpu: watcher_cpu()?.zip(watcher_before).map(|(after, before)| after - before),
        watcher_memory: watcher.pid().map(machine::resident).transpose()?,
        ..Stretch::default()
    };
    if let Watcher::Httpmon(agent) = &watcher {
        let metrics = agent.scrape();
        result.lost = Some(metrics.sum("httpmon_events_lost_total", &[]));
        if variant.counts {
            let counted = metrics.sum("http_server_request_duration_seconds_count", &[]);
            result.missing = Some((load.requests as f64 - counted).max(0.0));
        }
    }
    Ok(result)
}

fn table(variants: &[Variant<'_>], measured: &[Vec<Stretch>]) -> String {
    let mut table = Table::new(&[
        "",
        "requests/s",
        "ratio",
        "p50, ms",
        "p99, ms",
        "server CPU, µs a request",
        "added to it",
        "server's capacity, ratio",
        "watcher's CPU, µs a request",
        "its memory, MiB",
        "events lost",
        "not counted",
    ]);
    let bare = &measured[0];
    for (index, (variant, stretches)) in variants.iter().zip(measured).enumerate() {
        let of = |figure: &dyn Fn(&Stretch) -> f64, digits| Spread::of(stretches.iter().map(figure), digits);
        let some = |figure: &dyn Fn(&Stretch) -> Option<f64>, digits| {
            Spread::of(stretches.iter().filter_map(figure), digits)
        };
        let beside = |figure: &dyn Fn(&Stretch, &Stretch) -> f64, digits| {
            let pairs = stretches.iter().zip(bare).filter(|_| index > 0);
            Spread::of(pairs.map(|(one, bare)| figure(one, bare)), digits)
        };
        let total = |figure: &dyn Fn(&Stretch) -> Option<f64>| {
            let all: Option<Vec<f64>> = stretches.iter().map(figure).collect();
            all.map_or_else(|| "–".to_owned(), |all| all.iter().sum::<f64>().to_string())
        };
        let server = |one: &Stretch| one.load.microseconds_each(one.server_cpu);
        table.row(&[
            &variant.name,
            &of(&|one| one.load.rate(), 0),
            &beside(&|one, bare| one.load.rate() / bare.load.rate(), 3),
            &some(&|one| one.load.p50.map(|seconds| seconds * 1e3), 3),
            &some(&|one| one.load.p99.map(|seconds| seconds * 1e3), 3),
            &of(&server, 2),
            &beside(&|one, bare| server(one) - server(bare), 2),
            &beside(&|one, bare| server(bare) / server(one), 3),
            &some(&|one| Some(one.load.microseconds_each(one.watcher_cpu?)), 2),
            &some(&|one| Some(one.watcher_memory? / f64::from(1 << 20)), 1),
            &total(&|one| one.lost),
            &total(&|one| one.missing),
        ]);
    }
    table.text().to_owned()
}
