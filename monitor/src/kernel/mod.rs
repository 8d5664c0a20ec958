//! The kernel boundary: loading and attaching the probes, and reading what they send.
//!
//! Everything that needs a kernel is here; what comes out are records as bytes, which [`crate::event`] decodes.

mod btf;
pub mod lockdown;
mod offsets;
mod probes;
mod statistics;

pub use btf::BtfError;
pub use offsets::resolve as resolve_offsets;
pub use probes::{Flavour, ListenerError, LoadError, Probes, Settings, parse_version};
pub use statistics::{Losses, ProgramStatistics};

/// Where a kernel shows its type information.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";
