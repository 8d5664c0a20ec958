//! Kernel lockdown (security/lockdown/lockdown.c): `integrity` lets probes read memory, `confidentiality` does not
//! (`LOCKDOWN_BPF_READ_KERNEL`).

/// Its state; empty where securityfs, which tells it, isn't mounted.
#[must_use]
pub fn state() -> String {
    let state = std::fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    state.trim_end().to_owned()
}

/// Whether no probe may read memory in that state.
#[must_use]
pub fn forbids_reading(state: &str) -> bool {
    state.contains("[confidentiality]")
}
