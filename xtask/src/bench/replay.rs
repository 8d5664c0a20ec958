//! Recorded events through the agent, without a kernel: how fast, and where the time goes.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
    path::PathBuf,
};

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
use crate::{
    run::{self, Command},
    signals,
};

/// How many requests are recorded.
const RECORDED: u64 = 100_000;
/// How often the recording is repeated in what is replayed.
const REPEATED: u64 = 20;
/// A recording's magic number, version and byte order.
const HEADER: usize = 16;
/// Functions that take less than this share of the instructions are told as one.
const SMALL: f64 = 1.0;

/// Records nginx under load.
fn record() -> Result<PathBuf> {
    let path = run::root().join("target/bench.httpmon");
    let subject = servers::nginx()?;
    let (pid, file) = (subject.pid().to_string(), path.display().to_string());
    let mut agent = watch::httpmon(&["--pid", &pid, "--record", &file])?;
    load::h2load(&subject.url(), 16, load::Amount::Requests(RECORDED))?;
    // The server's connections are closed before the recording ends: so each repetition begins with nothing open.
    watch::settled(&agent, RECORDED);
    watch::until(&agent, |metrics| metrics.count("http_server_open_connections", &[]) == 0);
    agent.stop();
    Ok(path)
}

/// Replays a recording many times over.
pub(super) fn replay(settings: &Settings, report: &mut Report) -> Result<()> {
    let recorded = record()?;
    let repeated = Repeated::of(&recorded)?;
    let mut measured = Vec::new();
    let mut counted = 0;
    for _ in 0..settings.rounds {
        signals::go_on()?;
        let before = children_cpu()?;
        let mut command = machine::on_core(OTHERS, Agent::program());
        let metrics = Metrics::parse(run::output(command.arg("replay").arg(&repeated.path))?);
        let seconds = children_cpu()? - before;
        counted = metrics.count("http_server_request_duration_seconds_count", &[]);
        measured.push((counted as f64, metrics.sum("httpmon_events_total", &[]), seconds));
    }
    let mut table =
        Table::new(&["requests", "requests/s of CPU time", "ns a request", "ns an event", "MiB/s"]);
    let size = fs::metadata(&repeated.path)?.len() as f64 / f64::from(1 << 20);
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

/// A recording many times over, in a file that goes when this is dropped.
struct Repeated {
    path: PathBuf,
}

impl Repeated {
    fn of(recorded: &PathBuf) -> Result<Self> {
        let once = fs::read(recorded)?;
        let repeated = Self { path: recorded.with_extension("repeated") };
        let mut file = File::create(&repeated.path)?;
        file.write_all(&once)?;
        for _ in 1..REPEATED {
            file.write_all(once.get(HEADER..).context("a recording has a header")?)?;
        }
        Ok(repeated)
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The CPU time of all children that have ended, in seconds.
fn children_cpu() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Counts each function's instructions.
pub(super) fn profile(report: &mut Report) -> Result<()> {
    let recorded = record()?;
    let folder = tempfile::tempdir()?;
    let counts = folder.path().join("counts");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--tool=callgrind"]).arg(format!("--callgrind-out-file={}", counts.display()));
    run::output(valgrind.arg(Agent::program()).arg("replay").arg(&recorded))?;
    let text = run::output(Command::new("callgrind_annotate").args(["--threshold=100"]).arg(&counts))?;
    let functions = functions(&text);
    let total: f64 = functions.values().sum();

    let each = |instructions: f64| format!("{:.0}", instructions / RECORDED as f64);
    let share = |instructions: f64| format!("{:.1} %", instructions / total * 100.0);
    let (mut large, small): (Vec<_>, Vec<_>) =
        functions.iter().partition(|(_, instructions)| **instructions / total * 100.0 >= SMALL);
    large.sort_by(|one, other| other.1.total_cmp(one.1));
    let small: f64 = small.into_iter().map(|(_, instructions)| instructions).sum();
    let mut table = Table::new(&["function", "instructions a request", "share"]);
    for (name, &instructions) in large {
        table.row(&[&format!("`{name}`"), &each(instructions), &share(instructions)]);
    }
    table.row(&[&"all others", &each(small), &share(small)]);
    table.row(&[&"together", &each(total), &share(total)]);
    report.say(&format!(
        "One replay of {RECORDED} recorded requests under valgrind's callgrind: exact instructions, a function's own \
         alone; what the compiler put into its callers counts as theirs."
    ));
    report.say(table.text());
    Ok(())
}

/// Instructions by function, of what `callgrind_annotate` prints.
fn functions(text: &str) -> BTreeMap<String, f64> {
    let mut functions = BTreeMap::new();
    for line in text.lines() {
        let Some((count, place)) = line.split_once("%)  ") else { continue };
        let count = count.split('(').next().unwrap_or_default().trim().replace(',', "");
        let (Ok(count), Some((_, name))) = (count.parse::<f64>(), place.split_once(':')) else { continue };
        let name = name.rsplit_once(" [").map_or(name, |(name, _)| name);
        // Assembler's files are named with their directories; recursion is marked.
        let name = name.rsplit_once(".S:").map_or(name, |(_, name)| name).trim_end_matches("'2");
        *functions.entry(name.replace('|', "\\|")).or_default() += count;
    }
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_is_understood() {
        let text = "Ir\n40,979,847 (100.0%)  PROGRAM TOTALS\n\n4,837,668 (11.80%)  ???:httparse::parse [/x/httpmon]\n\
                    1,000 ( 4.73%)  ./malloc/./malloc/malloc.c:_int_free [/usr/lib/libc.so.6]\n\
                    2,000 ( 4.73%)  ./malloc/./malloc/malloc.c:_int_free'2 [/usr/lib/libc.so.6]\n";
        let expected =
            BTreeMap::from([("httparse::parse".to_owned(), 4_837_668.0), ("_int_free".to_owned(), 3_000.0)]);
        assert_eq!(functions(text), expected);
    }
}
