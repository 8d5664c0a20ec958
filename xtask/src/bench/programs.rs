//! What each kernel program takes, by the kernel's own statistics.

use std::{collections::BTreeMap, fs};

use anyhow::{Context as _, Result};
use end_to_end::Agent;

use super::{
    Settings, load,
    report::{Report, Table},
    servers, watch,
};
use crate::{
    run::{self, Command},
    signals,
};

/// Whether the kernel measures programs; that itself takes some nanoseconds a run, so it is off otherwise.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel measures programs while it lives.
struct Statistics {
    before: String,
}

impl Statistics {
    fn keep() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).context(SWITCH)?;
        fs::write(SWITCH, "1").context(SWITCH)?;
        Ok(Self { before })
    }
}

impl Drop for Statistics {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, &self.before) {
            eprintln!("{SWITCH} can't be set back to {}: {error}", self.before.trim());
        }
    }
}

/// Runs and nanoseconds of each program, under nginx's load.
pub(super) fn programs(settings: &Settings, report: &mut Report) -> Result<()> {
    let subject = servers::nginx()?;
    report.say("nginx under the same load. Runs for operations of other processes, wrk's among them, are included, and so is what the kernel's measuring takes.");
    for (option, form) in [("--hooks", "tp-btf"), ("--hooks", "tracepoint"), ("--backend", "syscall")] {
        signals::go_on()?;
        let agent = watch::httpmon(&["--pid", &subject.pid().to_string(), option, form])?;
        let _statistics = Statistics::keep()?;
        let before = of(&agent)?;
        let load = load::wrk(&subject.url(), 16, settings.seconds, None)?;
        let after = of(&agent)?;
        let mut table = Table::new(&["program", "runs a request", "ns a run", "ns a request"]);
        for (name, (runs, nanoseconds)) in after {
            let (runs_before, nanoseconds_before) = before.get(&name).copied().unwrap_or_default();
            let (runs, nanoseconds) = (runs - runs_before, nanoseconds - nanoseconds_before);
            if runs > 0.0 {
                table.row(&[
                    &name,
                    &format!("{:.3}", runs / load.requests as f64),
                    &format!("{:.0}", nanoseconds / runs),
                    &format!("{:.0}", nanoseconds / load.requests as f64),
                ]);
            }
        }
        report.say(&format!("`{option} {form}`:\n\n{}", table.text()));
    }
    Ok(())
}

/// How often each of an agent's programs ran, and for how long in all (`/proc/PID/fdinfo`, kernel/bpf/syscall.c).
fn of(agent: &Agent) -> Result<BTreeMap<String, (f64, f64)>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{}/fdinfo", agent.pid()))? {
        // Descriptors come and go.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
        let (Some(id), Some(runs), Some(nanoseconds)) =
            (value("prog_id"), value("run_cnt"), value("run_time_ns"))
        else {
            continue;
        };
        let shown = run::output(Command::new("bpftool").args(["--json", "prog", "show", "id", id]))?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        let name = shown["name"].as_str().unwrap_or(id).to_owned();
        found.insert(name, (runs.parse()?, nanoseconds.parse()?));
    }
    Ok(found)
}
