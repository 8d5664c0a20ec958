//! The machine: what it is, who runs where, and what they use.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use nix::{
    sys::resource::{Resource, getrlimit, setrlimit},
    time::{clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

use crate::run::{self, Command};

/// The core of the servers.
pub(crate) const SERVERS: &str = "0";
/// The core of everybody else: the load, httpmon, and what the peers report to.
pub(crate) const OTHERS: &str = "1";

/// A command that runs on one core alone, with all that it starts.
pub(crate) fn on_core(core: &str, program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", core]).arg(program.as_ref());
    command
}

/// Lets all threads of a running process run on one core alone.
pub(crate) fn pin(pid: u32, core: &str) -> Result<()> {
    let mut command = Command::new("taskset");
    run::output(command.args(["--all-tasks", "--pid", "--cpu-list", core, &pid.to_string()])).map(|_| ())
}

/// Lets this process, and what it starts, have as many descriptors as it may.
pub(crate) fn raise_descriptors() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, most, most)?)
}

/// The CPU time that a process has used, of all its threads, in seconds.
pub(crate) fn cpu(pid: u32) -> Result<f64> {
    let time = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).and_then(clock_gettime);
    Ok(Duration::from(time.with_context(|| format!("process {pid} is gone"))?).as_secs_f64())
}

/// The CPU time that these processes have used together.
pub(crate) fn cpu_of(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|&pid| cpu(pid)).sum()
}

/// A process's resident memory, in bytes.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).context(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no resident memory")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kibibytes * 1024.0)
}

/// A process and all its descendants.
pub(crate) fn tree(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok());
    std::iter::once(pid).chain(children.flat_map(tree)).collect()
}

/// The day, the kernel, and the machine's size.
pub(crate) fn describe() -> Result<String> {
    let say = |program: &str, arguments: &[&str]| run::output(Command::new(program).args(arguments));
    let cores = std::thread::available_parallelism()?;
    let model = fs::read_to_string("/proc/cpuinfo")?;
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    let memory: f64 = memory.trim().trim_end_matches(" kB").parse().unwrap_or(0.0);
    Ok(format!(
        "Measured on {}, {}, {cores} cores ({}), {:.0} GiB of memory.",
        say("date", &["-u", "+%Y-%m-%d"])?.trim(),
        say("uname", &["-sr"])?.trim(),
        model.trim_start_matches([' ', '\t', ':']),
        memory / f64::from(1 << 20),
    ))
}
