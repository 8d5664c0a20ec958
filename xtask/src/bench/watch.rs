//! Who watches a server while it is under load.

use std::{
    fs::{self, File},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use end_to_end::{Agent, Guard, Metrics};

use super::{
    machine::{self, OTHERS},
    peers::sources,
};

/// Who is to watch.
#[derive(Clone, Debug)]
pub(super) enum Watch {
    /// Nobody.
    Nobody,
    /// httpmon, with these options.
    Httpmon(Vec<String>),
    /// The enter and exit tracepoints of system calls, of this process.
    Classic(u32),
}

impl Watch {
    /// httpmon on a process and its children.
    pub(super) fn httpmon(pid: u32, options: &[&str]) -> Self {
        let of = ["--pid".to_owned(), pid.to_string()];
        Self::Httpmon(of.into_iter().chain(options.iter().map(ToString::to_string)).collect())
    }

    /// Begins to watch, beside the load.
    pub(super) fn start(&self) -> Result<Watcher> {
        Ok(match self {
            Self::Nobody => Watcher::Nobody,
            Self::Httpmon(options) => {
                let options: Vec<&str> = options.iter().map(String::as_str).collect();
                Watcher::Httpmon(httpmon(&options)?)
            }
            Self::Classic(pid) => Watcher::Classic(classic(*pid)?),
        })
    }
}

/// Starts httpmon on the core of the load.
pub(super) fn httpmon(options: &[&str]) -> Result<Agent> {
    let agent = Agent::start(options);
    machine::pin(agent.pid(), OTHERS)?;
    Ok(agent)
}

/// How long what was lost may be waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A scrape for which a condition holds, or the last one after some patience.
pub(super) fn until(agent: &Agent, condition: impl Fn(&Metrics) -> bool) -> Metrics {
    let begun = Instant::now();
    loop {
        let metrics = agent.scrape();
        if condition(&metrics) || begun.elapsed() > PATIENCE {
            return metrics;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A scrape once so many requests are done, or it is clear that they will not all be.
pub(super) fn settled(agent: &Agent, requests: u64) -> Metrics {
    until(agent, |metrics| {
        metrics.count("http_server_request_duration_seconds_count", &[]) >= requests
            && metrics.count("http_server_active_requests", &[]) == 0
    })
}

/// Who watches now.
pub(super) enum Watcher {
    Nobody,
    Httpmon(Agent),
    Classic(Guard),
}

impl Watcher {
    /// The process, if there is one.
    pub(super) fn pid(&self) -> Option<u32> {
        match self {
            Self::Nobody => None,
            Self::Httpmon(agent) => Some(agent.pid()),
            Self::Classic(process) => Some(process.pid()),
        }
    }
}

/// bpftrace's compiler takes its time.
const COMPILATION: Duration = Duration::from_secs(30);

fn classic(pid: u32) -> Result<Guard> {
    let folder = tempfile::tempdir()?;
    let said = folder.path().join("said");
    let mut command = machine::on_core(OTHERS, "bpftrace");
    command.args(["-B", "line"]).arg(sources().join("classic.bt")).arg(pid.to_string());
    command.stdout(File::create(&said)?).stderr(File::create(folder.path().join("err"))?);
    let mut process = Guard::start(&mut command);
    let begun = Instant::now();
    while !fs::read_to_string(&said)?.contains("attached\n") {
        let err = || fs::read_to_string(folder.path().join("err")).unwrap_or_default();
        ensure!(process.ended().is_none(), "bpftrace ended: {}", err());
        ensure!(begun.elapsed() < COMPILATION, "bpftrace doesn't begin: {}", err());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(process)
}
