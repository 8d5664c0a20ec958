//! The ways in which the agent can attach its probes, as options.

/// As the agent finds best.
pub const BEST: &[&str] = &[];
/// At the sockets, by classic tracepoints.
pub const CLASSIC: &[&str] = &["--backend", "socket", "--hooks", "tracepoint"];
/// At system calls.
pub const CALLS: &[&str] = &["--backend", "syscall", "--hooks", "tp-btf"];
/// At system calls, by classic tracepoints.
pub const CALLS_CLASSIC: &[&str] = &["--backend", "syscall", "--hooks", "tracepoint"];
/// All of them.
pub const ALL: [&[&str]; 4] = [BEST, CLASSIC, CALLS, CALLS_CLASSIC];
