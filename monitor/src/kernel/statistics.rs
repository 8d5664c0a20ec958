//! The kernel's own account of the probes: `/proc/self/fdinfo` of each program (kernel/bpf/syscall.c,
//! `bpf_prog_show_fdinfo`, Linux 6.18).

use std::os::fd::{AsRawFd as _, BorrowedFd};

/// What never reached the agent, since the probes were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Records that found no room in the ring buffer.
    pub ring_full: u64,
    /// Connections and processes that found no room in a table.
    pub map_full: u64,
    /// Requests that began in lost records.
    pub requests: u64,
    /// Runs that the kernel skipped, because another run of the program was under way on that CPU.
    pub preempted: u64,
}

/// One program's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramStatistics {
    /// Its name.
    pub name: &'static str,
    /// Nanoseconds spent in it; 0 unless `kernel.bpf_stats_enabled` is set.
    pub run_nanoseconds: u64,
    /// How often it ran; 0 unless `kernel.bpf_stats_enabled` is set.
    pub runs: u64,
    /// How often the kernel skipped it; none where it doesn't tell (before Linux 5.12).
    pub missed: Option<u64>,
}

/// Reads a program's figures.
pub(super) fn of(name: &'static str, program: BorrowedFd<'_>) -> Option<ProgramStatistics> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd())).ok()?;
    Some(parse(name, &text))
}

fn parse(name: &'static str, text: &str) -> ProgramStatistics {
    let value = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().parse().ok())
    };
    ProgramStatistics {
        name,
        run_nanoseconds: value("run_time_ns").unwrap_or(0),
        runs: value("run_cnt").unwrap_or(0),
        missed: value("recursion_misses"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_fdinfo() {
        let text = "pos:\t0\nprog_type:\t26\nrun_time_ns:\t1234\nrun_cnt:\t5\nrecursion_misses:\t6\n";
        let expected = ProgramStatistics { name: "x", run_nanoseconds: 1234, runs: 5, missed: Some(6) };
        assert_eq!(parse("x", text), expected);
        assert_eq!(parse("x", "").missed, None);
    }
}
