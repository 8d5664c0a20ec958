//! Which processes are monitored, why, and under which service name.
//!
//! In: the selectors and `/proc`. Out: processes with their reasons. A child of a taken process is taken too.

mod names;
mod process;
mod report;
mod sockets;

use std::{cell::OnceCell, collections::HashMap, fmt, path::PathBuf};

use globset::{Glob, GlobMatcher};

pub use process::ProcFs;
pub use report::report;

use self::{names::Candidate, process::Snapshot};

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub struct Criteria {
    /// `--process-name`
    pub process_names: Vec<String>,
    /// `--pid`
    pub pids: Vec<u32>,
    /// `--port`
    pub ports: Vec<u16>,
    /// `--systemd-unit`
    pub systemd_units: Vec<String>,
    /// `--exclude-process-name`
    pub excluded_names: Vec<String>,
    /// Processes that are counted under a name of their own, first come first served.
    pub services: Vec<(String, Criteria)>,
}

/// Why a selection can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SelectError {
    /// A glob that is none.
    #[error("{option} {glob:?}: {reason}; a glob is a name with * ? [abc] {{a,b}}, such as 'gunicorn*'")]
    Glob {
        /// The option that it was given to.
        option: &'static str,
        /// As given.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `/proc` can't be read.
    #[error("processes can't be listed: {path}: {source}; mount /proc, or run where it is mounted")]
    Proc {
        /// Where it was looked for.
        path: PathBuf,
        /// Why it can't be read.
        source: std::io::Error,
    },
}

/// Why a process is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A name of it matches.
    Name {
        /// What matched, such as `argv[0]`.
        what: &'static str,
        /// The name.
        name: String,
        /// The glob.
        glob: String,
    },
    /// It was asked for by number.
    Pid,
    /// It listens on this port.
    Port(u16),
    /// It runs in this systemd unit.
    Unit(String),
    /// It descends from this taken process.
    ChildOf(u32),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { what, name, glob } => write!(f, "process-name {glob}: {what} is {name:?}"),
            Self::Pid => f.write_str("pid"),
            Self::Port(port) => write!(f, "listens on port {port}"),
            Self::Unit(unit) => write!(f, "systemd-unit {unit}"),
            Self::ChildOf(parent) => write!(f, "child of {parent}"),
        }
    }
}

/// A process that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Its number.
    pub pid: u32,
    /// The service that it is counted for.
    pub service: String,
    /// Why it is taken.
    pub reason: Reason,
    /// Its command line, for people.
    pub command: String,
}

/// What becomes of a process that runs a new program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A selector matches it.
    Taken(Selected),
    /// It is excluded by name.
    Excluded,
    /// No selector matches it.
    Unmatched,
}

/// The selectors, ready to match.
#[derive(Clone, Debug)]
pub struct Selectors {
    names: Vec<GlobMatcher>,
    units: Vec<GlobMatcher>,
    excluded: Vec<GlobMatcher>,
    pids: Vec<u32>,
    ports: Vec<u16>,
    services: Vec<(String, Selectors)>,
}

impl Selectors {
    /// Compiles the globs.
    pub fn new(criteria: &Criteria) -> Result<Self, SelectError> {
        Ok(Self {
            names: globs("--process-name", &criteria.process_names)?,
            units: globs("--systemd-unit", &criteria.systemd_units)?,
            excluded: globs("--exclude-process-name", &criteria.excluded_names)?,
            pids: criteria.pids.clone(),
            ports: criteria.ports.clone(),
            services: criteria
                .services
                .iter()
                .map(|(name, criteria)| Ok((name.clone(), Self::new(criteria)?)))
                .collect::<Result<_, SelectError>>()?,
        })
    }

    /// Whether nothing selects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
            && self.units.is_empty()
            && self.pids.is_empty()
            && self.ports.is_empty()
            && self.services.iter().all(|(_, selectors)| selectors.is_empty())
    }

    /// All ports that select.
    fn all_ports(&self) -> Vec<u16> {
        let named = self.services.iter().flat_map(|(_, selectors)| &selectors.ports);
        self.ports.iter().chain(named).copied().collect()
    }

    /// Every process that is taken now.
    pub fn select(&self, proc: &ProcFs) -> Result<Vec<Selected>, SelectError> {
        self.select_since(proc, 0)
    }

    /// The same of those that started with this one or later: what it has forked is among them. The others are passed over
    /// by a look at when they started.
    pub fn select_younger(&self, proc: &ProcFs, pid: u32) -> Result<Vec<Selected>, SelectError> {
        self.select_since(proc, proc.started(pid).unwrap_or(0))
    }

    fn select_since(&self, proc: &ProcFs, since: u64) -> Result<Vec<Selected>, SelectError> {
        let all = proc.snapshot(since)?;
        let ports = self.all_ports();
        let listening = if ports.is_empty() { HashMap::new() } else { proc.listening(&all, &ports) };
        let mut taken: HashMap<u32, Selected> = HashMap::new();
        for process in &all {
            if let Verdict::Taken(selected) =
                self.verdict(proc, process, || listening.get(&process.pid).copied())
            {
                taken.insert(process.pid, selected);
            }
        }
        // A parent may come after its child in the list: go on until nothing is added.
        loop {
            let mut added = Vec::new();
            for process in &all {
                if taken.contains_key(&process.pid) || self.is_excluded(process) || process.is_own() {
                    continue;
                }
                if let Some(parent) = taken.get(&process.ppid) {
                    added.push(Selected {
                        pid: process.pid,
                        service: parent.service.clone(),
                        reason: Reason::ChildOf(parent.pid),
                        command: process.command(),
                    });
                }
            }
            if added.is_empty() {
                break;
            }
            taken.extend(added.into_iter().map(|selected| (selected.pid, selected)));
        }
        let mut taken: Vec<_> = taken.into_values().collect();
        taken.sort_by_key(|selected| selected.pid);
        Ok(taken)
    }

    /// One process, by itself. A process that has gone matches nothing.
    ///
    /// Every program that starts on the host is judged: nothing is read that no selector asks for.
    #[must_use]
    pub fn judge(&self, proc: &ProcFs, pid: u32) -> Verdict {
        if self.is_by_pid() && !self.selects_pid(pid) {
            return Verdict::Unmatched;
        }
        let Some(process) = proc.process(pid) else { return Verdict::Unmatched };
        let ports = self.all_ports();
        self.verdict(proc, &process, || if ports.is_empty() { None } else { proc.listens(pid, &ports) })
    }

    /// Whether nothing but processes' numbers selects, and nothing excludes.
    fn is_by_pid(&self) -> bool {
        self.names.is_empty()
            && self.units.is_empty()
            && self.excluded.is_empty()
            && self.ports.is_empty()
            && self.services.iter().all(|(_, selectors)| selectors.is_by_pid())
    }

    fn selects_pid(&self, pid: u32) -> bool {
        self.pids.contains(&pid) || self.services.iter().any(|(_, selectors)| selectors.selects_pid(pid))
    }

    /// `port` is what the process listens on; it is asked for only where a port may select.
    fn verdict(&self, proc: &ProcFs, process: &Snapshot, port: impl Fn() -> Option<u16>) -> Verdict {
        if process.is_own() {
            return Verdict::Unmatched;
        }
        let listened = OnceCell::new();
        let port = || *listened.get_or_init(&port);
        let candidates = process.names();
        if matching(&self.excluded, &candidates).is_some() {
            return Verdict::Excluded;
        }
        for (name, selectors) in &self.services {
            if let Some((reason, _)) = selectors.found(proc, process, &candidates, port) {
                let service = name.clone();
                let command = process.command();
                return Verdict::Taken(Selected { pid: process.pid, service, reason, command });
            }
        }
        let Some((reason, matched)) = self.found(proc, process, &candidates, port) else {
            return Verdict::Unmatched;
        };
        let unit = process.unit(proc).filter(|unit| Some(*unit) != proc.own_unit());
        let service = unit
            .map(|unit| unit.strip_suffix(".service").unwrap_or(unit).to_owned())
            .or(matched)
            .or_else(|| candidates.first().map(|candidate| candidate.name.clone()))
            .unwrap_or_else(|| process.comm.clone());
        Verdict::Taken(Selected { pid: process.pid, service, reason, command: process.command() })
    }

    /// Why a process is selected, and the name that matched.
    fn found(
        &self,
        proc: &ProcFs,
        process: &Snapshot,
        candidates: &[Candidate],
        port: impl Fn() -> Option<u16>,
    ) -> Option<(Reason, Option<String>)> {
        let by_unit = || {
            let unit = if self.units.is_empty() { None } else { process.unit(proc) }?;
            let short = unit.strip_suffix(".service").unwrap_or(unit);
            let matched = self.units.iter().any(|glob| glob.is_match(unit) || glob.is_match(short));
            matched.then(|| (Reason::Unit(unit.to_owned()), None))
        };
        let by_name = || {
            let (glob, candidate) = matching(&self.names, candidates)?;
            let Candidate { what, name } = candidate;
            let reason = Reason::Name { what, name: name.clone(), glob: glob.to_owned() };
            Some((reason, Some(name.clone())))
        };
        by_name()
            .or_else(by_unit)
            .or_else(|| self.pids.contains(&process.pid).then_some((Reason::Pid, None)))
            .or_else(|| {
                // systemd holds the sockets of services that it starts on demand: they are not its own.
                let asked = !self.ports.is_empty() && process.comm != "systemd";
                let port = if asked { port() } else { None }.filter(|port| self.ports.contains(port))?;
                Some((Reason::Port(port), None))
            })
    }

    fn is_excluded(&self, process: &Snapshot) -> bool {
        matching(&self.excluded, &process.names()).is_some()
    }
}

/// The first glob and name that match; names in their order, so that a service's processes agree on one.
fn matching<'a>(globs: &'a [GlobMatcher], candidates: &'a [Candidate]) -> Option<(&'a str, &'a Candidate)> {
    candidates.iter().find_map(|candidate| {
        globs.iter().find(|glob| glob.is_match(&candidate.name)).map(|glob| (glob.glob().glob(), candidate))
    })
}

fn globs(option: &'static str, given: &[String]) -> Result<Vec<GlobMatcher>, SelectError> {
    given
        .iter()
        .map(|glob| {
            if glob.is_empty() {
                let reason = "it is empty".to_owned();
                return Err(SelectError::Glob { option, glob: glob.clone(), reason });
            }
            Glob::new(glob).map(|compiled| compiled.compile_matcher()).map_err(|error| SelectError::Glob {
                option,
                glob: glob.clone(),
                reason: error.kind().to_string(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
