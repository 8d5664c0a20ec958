//! How fast recorded events are counted, on one core, without a kernel.

use std::{fs, io::Write as _};

use anyhow::{Context as _, Result};
use end_to_end::{Agent, Metrics};
use nix::sys::resource::{UsageWho, getrusage};

use super::{
    Settings, load,
    machine::{self, OTHERS},
    report::{Report, Table},
    servers,
    statistics::Spread,
    watch,
};
use crate::{run, signals};

/// How many requests are recorded.
const RECORDED: u64 = 100_000;
/// How often the recording is repeated in what is replayed.
const REPEATED: u64 = 20;
/// A recording's magic number, version and byte order.
const HEADER: usize = 16;

/// Records nginx, and replays the recording many times over.
pub(super) fn replay(settings: &Settings, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (recorded, repeated) = (folder.path().join("recorded"), folder.path().join("repeated"));
    {
        let subject = servers::nginx()?;
        let mut agent = watch::httpmon(&[
            "--pid",
            &subject.pid().to_string(),
            "--record",
            &recorded.display().to_string(),
        ])?;
        load::h2load(&subject.url(), 16, load::Amount::Requests(RECORDED))?;
        // The server's connections are closed before the recording ends: so each repetition begins with nothing open.
        watch::settled(&agent, RECORDED);
        watch::until(&agent, |metrics| metrics.count("http_server_open_connections", &[]) == 0);
        agent.stop();
    }
    let once = fs::read(&recorded)?;
    let mut file = fs::File::create(&repeated)?;
    file.write_all(&once)?;
    for _ in 1..REPEATED {
        file.write_all(once.get(HEADER..).context("a recording has a header")?)?;
    }
    drop(file);

    let mut measured = Vec::new();
    let mut counted = 0;
    for _ in 0..settings.rounds {
        signals::go_on()?;
        let before = children_cpu()?;
        let mut command = machine::on_core(OTHERS, Agent::program());
        let metrics = Metrics::parse(run::output(command.arg("replay").arg(&repeated))?);
        let seconds = children_cpu()? - before;
        counted = metrics.count("http_server_request_duration_seconds_count", &[]);
        measured.push((counted as f64, metrics.sum("httpmon_events_total", &[]), seconds));
    }
    let mut table =
        Table::new(&["requests", "requests/s of CPU time", "ns a request", "ns an event", "MiB/s"]);
    let size = (once.len() as u64 * REPEATED) as f64 / f64::from(1 << 20);
    table.row(&[
        &counted,
        &Spread::of(measured.iter().map(|(requests, _, seconds)| requests / seconds), 0),
        &Spread::of(measured.iter().map(|(requests, _, seconds)| seconds / requests * 1e9), 0),
        &Spread::of(measured.iter().map(|(_, events, seconds)| seconds / events * 1e9), 0),
        &Spread::of(measured.iter().map(|(_, _, seconds)| size / seconds), 0),
    ]);
    report.say(&format!(
        "{RECORDED} requests to nginx on 16 connections, recorded by `httpmon --record`, {REPEATED} times over in one \
         file; {} replays of it, reading and printing included.",
        settings.rounds,
    ));
    report.say(table.text());
    Ok(())
}

/// The CPU time of all children that have ended, in seconds.
fn children_cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}
