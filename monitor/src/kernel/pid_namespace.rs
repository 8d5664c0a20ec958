//! The PID namespace: the kernel side knows processes by the numbers that they have in the host's.

/// The host's (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h` of Linux 6.18).
const HOSTS: &str = "pid:[4026531836]";

/// Another one, in which httpmon runs: there processes have other numbers, and those known here are others' on the host.
#[must_use]
pub fn other() -> Option<String> {
    let name = std::fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned();
    (name != HOSTS).then_some(name)
}
