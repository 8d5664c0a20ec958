//! The PID namespace: by whose numbers the agent knows processes.

use std::{os::unix::fs::MetadataExt as _, path::Path};

/// The inode number of the host's (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h` of Linux 6.18).
const HOSTS: u64 = 0xefff_fffc;

/// What one of httpmon's own is, for people.
pub const OWN: &str =
    "a container's: processes outside of it are not seen (--pid=host, hostPID: true for the host's)";

/// The one that httpmon runs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// The host's.
    Host,
    /// A container's, with this inode number: its processes are all that are seen, by the numbers that they have there.
    Own(u32),
    /// `/proc` is another one's: the numbers there are not those that httpmon's own system calls take.
    Foreign,
}

impl Namespace {
    /// What it is where it hides processes.
    #[must_use]
    pub fn hides(self) -> Option<&'static str> {
        matches!(self, Self::Own(_)).then_some(OWN)
    }
}

/// As `/proc` has it.
#[must_use]
pub fn current() -> Namespace {
    of(Path::new("/proc"), std::process::id())
}

/// The namespace of the process with this number; the host's where nothing says otherwise.
fn of(proc: &Path, pid: u32) -> Namespace {
    let own = std::fs::read_link(proc.join("self")).ok();
    if own.is_none_or(|own| own.as_os_str() != pid.to_string().as_str()) {
        return Namespace::Foreign;
    }
    match std::fs::metadata(proc.join("self/ns/pid")).map(|namespace| namespace.ino()) {
        Ok(inode) if inode != HOSTS => u32::try_from(inode).map_or(Namespace::Host, Namespace::Own),
        _ => Namespace::Host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proc_with_other_numbers_is_foreign() {
        let proc = Path::new("/proc");
        assert_ne!(of(proc, std::process::id()), Namespace::Foreign);
        assert_eq!(of(proc, std::process::id() + 1), Namespace::Foreign);
        assert_eq!(of(Path::new("/no/such/folder"), 1), Namespace::Foreign);
    }
}
