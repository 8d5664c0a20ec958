//! Reading processes from `/proc`, or from a tree like it.

use std::{
    cell::OnceCell,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use procfs::{FromRead as _, process::Stat};

use super::{
    SelectError,
    names::{self, Candidate},
};

/// A mounted `/proc`.
#[derive(Clone, Debug)]
pub struct ProcFs {
    pub(super) root: PathBuf,
    own_unit: OnceLock<Option<String>>,
}

impl Default for ProcFs {
    fn default() -> Self {
        Self::at("/proc")
    }
}

/// A process as it was found.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) pid: u32,
    pub(super) ppid: u32,
    pub(super) comm: String,
    pub(super) exe: Option<String>,
    pub(super) argv: Vec<String>,
    /// Read only where something asks for it.
    unit: OnceCell<Option<String>>,
}

impl Snapshot {
    pub(super) fn names(&self) -> Vec<Candidate> {
        names::candidates(&self.comm, self.exe.as_deref(), &self.argv)
    }

    /// The systemd unit that it runs in.
    pub(super) fn unit(&self, proc: &ProcFs) -> Option<&str> {
        self.unit.get_or_init(|| proc.unit(&self.pid.to_string())).as_deref()
    }

    pub(super) fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(super) fn command(&self) -> String {
        if self.argv.is_empty() {
            format!("[{}]", self.comm)
        } else {
            self.argv.join(" ").trim_end().to_owned()
        }
    }
}

impl ProcFs {
    /// At this path.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), own_unit: OnceLock::new() }
    }

    /// Where a process is told of.
    pub(super) fn folder(&self, pid: u32) -> PathBuf {
        self.root.join(pid.to_string())
    }

    /// Whether a process is there.
    #[must_use]
    pub fn exists(&self, pid: u32) -> bool {
        self.folder(pid).exists()
    }

    /// The CPU seconds that a process has used, and its resident memory in bytes (`/proc/PID/stat`).
    #[must_use]
    pub fn usage_of(&self, pid: u32) -> Option<(f64, u64)> {
        let stat = self.stat(pid)?;
        let ticks = (stat.utime + stat.stime) as f64;
        Some((ticks / procfs::ticks_per_second() as f64, stat.rss * procfs::page_size()))
    }

    /// The network namespace that a process is in.
    #[must_use]
    pub fn network_of(&self, pid: u32) -> Option<PathBuf> {
        std::fs::read_link(self.folder(pid).join("ns/net")).ok()
    }

    /// The name that the kernel knows a process by.
    #[must_use]
    pub fn name_of(&self, pid: u32) -> Option<String> {
        let name = std::fs::read_to_string(self.folder(pid).join("comm")).ok()?;
        Some(name.trim_end().to_owned())
    }

    /// All processes that did not start before this time (see [`Self::started`]). One that goes while it is read is left out.
    pub(super) fn snapshot(&self, since: u64) -> Result<Vec<Snapshot>, SelectError> {
        let entries = std::fs::read_dir(&self.root)
            .map_err(|source| SelectError::Proc { path: self.root.clone(), source })?;
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid| self.look(pid, self.stat(pid).filter(|stat| stat.starttime >= since)?))
            .collect())
    }

    /// When a process started, in clock ticks after the host did (`/proc/PID/stat`).
    pub(super) fn started(&self, pid: u32) -> Option<u64> {
        self.stat(pid).map(|stat| stat.starttime)
    }

    fn stat(&self, pid: u32) -> Option<Stat> {
        Stat::from_file(self.folder(pid).join("stat")).ok()
    }

    /// One process; `None` once it has gone, and for kernel threads, which have no executable and no command line.
    pub(super) fn process(&self, pid: u32) -> Option<Snapshot> {
        self.look(pid, self.stat(pid)?)
    }

    fn look(&self, pid: u32, stat: Stat) -> Option<Snapshot> {
        let folder = self.folder(pid);
        let exe = std::fs::read_link(folder.join("exe")).ok().map(|path| path.to_string_lossy().into_owned());
        let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        let words = line.split(|&byte| byte == 0).filter(|word| !word.is_empty());
        let argv: Vec<_> = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        if exe.is_none() && argv.is_empty() {
            return None;
        }
        Some(Snapshot {
            pid,
            ppid: stat.ppid.cast_unsigned(),
            comm: stat.comm,
            exe,
            argv,
            unit: OnceCell::new(),
        })
    }

    /// The systemd unit that httpmon itself runs in: what shares it isn't in a unit of its own.
    pub(super) fn own_unit(&self) -> Option<&str> {
        self.own_unit.get_or_init(|| self.unit("self")).as_deref()
    }

    fn unit(&self, process: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join(process).join("cgroup")).ok()?;
        text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            if controllers.is_empty() || controllers == "name=systemd" { unit_of(path) } else { None }
        })
    }

    pub(super) fn descriptors(&self, pid: u32) -> impl Iterator<Item = (i32, u64)> + use<> {
        std::fs::read_dir(self.folder(pid).join("fd")).into_iter().flatten().filter_map(|entry| {
            let entry = entry.ok()?;
            Some((entry.file_name().to_str()?.parse().ok()?, socket_inode(&entry.path())?))
        })
    }
}

/// The inode number of the socket that a link in `/proc/PID/fd` names.
pub(super) fn socket_inode(link: &Path) -> Option<u64> {
    let target = std::fs::read_link(link).ok()?;
    target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The innermost service of a control group's path; a user's manager is no service of its own.
fn unit_of(path: &str) -> Option<String> {
    path.rsplit('/')
        .find(|part| part.ends_with(".service"))
        .filter(|unit| !unit.starts_with("user@"))
        .map(unescape)
}

/// systemd writes `-` in a unit's name as `\x2d` in some paths.
fn unescape(unit: &str) -> String {
    unit.replace("\\x2d", "-")
}
