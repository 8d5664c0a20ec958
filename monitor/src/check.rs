//! `httpmon check`: whether the agent can run here, a line for each thing it needs, with the fix.

use std::{fmt::Write as _, path::Path};

use crate::kernel::{
    self, Availability, Flavour, LoadError, Probes, Settings, TRACEFS,
    pid_namespace::{self, Namespace},
};

/// One thing that the agent needs.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub requirement: String,
    /// What was found.
    pub found: String,
    /// What to do, where that isn't enough.
    pub fix: Option<String>,
    /// Whether it goes without something that it doesn't need.
    pub without: bool,
}

impl Finding {
    fn good(requirement: &str, found: impl Into<String>) -> Self {
        Self { requirement: requirement.to_owned(), found: found.into(), fix: None, without: false }
    }

    fn bad(requirement: &str, found: impl Into<String>, fix: &str) -> Self {
        Self {
            requirement: requirement.to_owned(),
            found: found.into(),
            fix: Some(fix.to_owned()),
            without: false,
        }
    }

    fn without(requirement: &str, found: impl Into<String>) -> Self {
        Self { without: true, ..Self::good(requirement, found) }
    }
}

/// Looks at everything. Loads the probes and drops them again; attaches nothing.
#[must_use]
pub fn findings(settings: &Settings) -> Vec<Finding> {
    let release = read("/proc/sys/kernel/osrelease");
    let mut all = vec![version(&release), architecture(), type_information(&settings.btf)];
    all.extend(capabilities(&read("/proc/self/status")));
    all.push(numbering(pid_namespace::current()));
    all.push(lockdown(&kernel::lockdown::state()));
    all.push(memory_limit(&release));
    all.extend(probes(settings));
    all
}

/// The findings as lines.
#[must_use]
pub fn report(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.requirement.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { requirement, found, fix, without } in findings {
        let mark = match (fix, without) {
            (Some(_), _) => "missing",
            (None, true) => "without",
            (None, false) => "ok     ",
        };
        let _ = write!(text, "{mark}  {requirement:width$}  {found}");
        if let Some(fix) = fix {
            let _ = write!(text, "; to fix: {fix}");
        }
        text.push('\n');
    }
    text
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim_end().to_owned()
}

/// The ring buffer came with Linux 5.8 (kernel/bpf/ringbuf.c). Whatever else differs is tried.
fn version(release: &str) -> Finding {
    let name = "kernel 5.8 or later";
    if kernel::parse_version(release) >= (5, 8) {
        Finding::good(name, release)
    } else {
        Finding::bad(name, release, "use a newer kernel: the ring buffer came with Linux 5.8")
    }
}

fn architecture() -> Finding {
    let name = "architecture";
    match std::env::consts::ARCH {
        known @ ("x86_64" | "aarch64") => Finding::good(name, known),
        other => Finding::bad(name, other, "run it on x86-64 or aarch64"),
    }
}

fn type_information(path: &Path) -> Finding {
    let name = "kernel type information (BTF)";
    match std::fs::metadata(path) {
        Ok(file) => Finding::good(name, format!("{} ({} KiB)", path.display(), file.len() / 1024)),
        Err(error) => Finding::bad(
            name,
            format!("{}: {error}", path.display()),
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as all large distributions' are",
        ),
    }
}

/// The numbers are include/uapi/linux/capability.h's.
const CAPABILITIES: [(&str, u32, &str); 4] = [
    ("CAP_BPF", 39, "load programs and maps"),
    ("CAP_PERFMON", 38, "attach them to tracepoints"),
    ("CAP_SYS_PTRACE", 19, "see other users' sockets and executables"),
    ("CAP_DAC_READ_SEARCH", 2, "read other users' /proc entries and the tracepoints' numbers"),
];
const CAP_SYS_ADMIN: u32 = 21;

fn capabilities(status: &str) -> Vec<Finding> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective & (1 << bit) != 0;
    CAPABILITIES
        .iter()
        .map(|&(name, bit, purpose)| {
            let implied = matches!(name, "CAP_BPF" | "CAP_PERFMON") && has(CAP_SYS_ADMIN);
            if has(bit) || implied {
                Finding::good(name, format!("to {purpose}"))
            } else {
                Finding::bad(
                    name,
                    format!("not held; needed to {purpose}"),
                    "run as root (sudo), or grant it to the service",
                )
            }
        })
        .collect()
}

fn numbering(namespace: Namespace) -> Finding {
    let name = "PID namespace";
    match namespace {
        Namespace::Host => Finding::good(name, "the host's"),
        Namespace::Own(_) => Finding::good(name, pid_namespace::OWN),
        Namespace::Foreign => Finding::bad(
            name,
            "/proc has the processes of another one, by other numbers",
            "mount httpmon's own (unshare --mount-proc), or give it that one (docker run --pid=host)",
        ),
    }
}

fn lockdown(state: &str) -> Finding {
    let name = "kernel lockdown";
    if kernel::lockdown::forbids_reading(state) {
        Finding::bad(
            name,
            "confidentiality",
            "boot with lockdown=integrity or less: probes can't read memory otherwise",
        )
    } else if state.is_empty() {
        Finding::good(name, "not in use, as far as can be seen (securityfs tells, where it is mounted)")
    } else {
        Finding::good(name, state.split(['[', ']']).nth(1).unwrap_or(state))
    }
}

/// Before 5.11 maps counted against `RLIMIT_MEMLOCK` (kernel/bpf/syscall.c).
fn memory_limit(release: &str) -> Finding {
    let name = "locked memory";
    if kernel::parse_version(release) >= (5, 11) {
        Finding::good(name, "no limit applies on this kernel")
    } else if kernel::is_memory_unlimited() {
        Finding::good(name, "unlimited")
    } else {
        Finding::bad(name, "limited on this kernel", "ulimit -l unlimited, or CAP_SYS_RESOURCE")
    }
}

fn probes(settings: &Settings) -> Vec<Finding> {
    let name = "probes load";
    match Probes::load(settings) {
        Ok(probes) => {
            let (backend, flavour) = (probes.backend().name(), probes.flavour());
            let found = format!("the {backend} backend ({}), {flavour}", probes.why());
            let needs_tracefs = flavour == Flavour::Classic;
            let loaded = [Finding::good(name, found)].into_iter();
            loaded.chain(needs_tracefs.then(|| tracefs(&TRACEFS))).chain(features(&probes)).collect()
        }
        Err(error @ LoadError::Privileges(_)) => {
            vec![Finding::bad(name, error.to_string(), "run as root (sudo), or with the capabilities above")]
        }
        Err(error @ (LoadError::NoTracepoint(_) | LoadError::Nothing(_))) => {
            vec![Finding::bad(
                name,
                error.to_string(),
                "leave --backend and --hooks to httpmon, or use a newer kernel",
            )]
        }
        Err(error) => vec![Finding::bad(
            name,
            error.to_string(),
            "see above; `httpmon run` with --log-level debug gives the verifier's words",
        )],
    }
}

/// A line for each, with what it means.
fn features(probes: &Probes) -> impl Iterator<Item = Finding> {
    probes.features().iter().map(|(feature, availability)| {
        let name = format!("feature {}", feature.name());
        match availability {
            Availability::Enabled => Finding::good(&name, feature.with()),
            Availability::Unused(reason) | Availability::Missing(reason) => {
                Finding::without(&name, format!("{}: {reason}", feature.without()))
            }
        }
    })
}

/// Classic tracepoints are attached by their numbers there.
fn tracefs(places: &[&str]) -> Finding {
    let name = "tracefs, for classic tracepoints";
    match places.iter().find(|place| Path::new(place).join("events/sock").exists()) {
        Some(place) => Finding::good(name, *place),
        None => Finding::bad(
            name,
            "not mounted, or not readable",
            "mount -t tracefs none /sys/kernel/tracing, or leave --hooks to httpmon",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_is_named_with_the_reason() {
        assert!(version("5.8.0").fix.is_none());
        assert!(version("10.0.1-generic").fix.is_none());
        let old = version("5.7.19-amd64");
        assert!(old.fix.unwrap().contains("5.8"));
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let all = capabilities("Name:\tx\nCapEff:\t000001fffeffffff\n");
        assert!(all.iter().all(|finding| finding.fix.is_none()));
        let none = capabilities("CapEff:\t0000000000000000\n");
        assert_eq!(none.iter().filter(|finding| finding.fix.is_some()).count(), 4);
        let admin = capabilities("CapEff:\t0000000000200000\n");
        assert_eq!(admin.iter().filter(|finding| finding.fix.is_some()).count(), 2);
    }

    #[test]
    fn only_confidentiality_stops_the_probes() {
        assert!(lockdown("none [integrity] confidentiality").fix.is_none());
        assert_eq!(lockdown("none [integrity] confidentiality").found, "integrity");
        assert!(lockdown("none integrity [confidentiality]").fix.is_some());
        assert!(lockdown("").fix.is_none());
    }

    #[test]
    fn the_tracing_file_system_is_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        assert!(tracefs(&[place]).fix.unwrap().contains("mount -t tracefs"));
        std::fs::create_dir_all(folder.path().join("events/sock")).unwrap();
        assert!(tracefs(&["/nowhere", place]).fix.is_none());
    }

    #[test]
    fn what_is_missing_comes_with_its_fix() {
        let text = report(&[
            Finding::good("a", "here"),
            Finding::bad("bb", "not here", "fetch it"),
            Finding::without("c", "not here either"),
        ]);
        let expected =
            "ok       a   here\nmissing  bb  not here; to fix: fetch it\nwithout  c   not here either\n";
        assert_eq!(text, expected);
    }
}
