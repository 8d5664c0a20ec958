//! The kernel boundary: loading and attaching the probes, and reading what they send.
//!
//! Everything that needs a kernel is here; what comes out are records as bytes, which [`crate::event`] decodes.

mod abi;
mod btf;
mod features;
mod functions;
mod hooks;
pub mod lockdown;
mod mapped;
mod multi;
mod namespace;
mod offsets;
pub mod pid_namespace;
mod probes;
mod reader;
mod ring;
mod room;
mod statistics;

pub use aya::maps::MapError as TableError;
pub use btf::BtfError;
pub use features::{Availability, Feature, Features};
pub use functions::{Attached, Injector};
pub use hooks::{Backend, Flavour};
pub use offsets::resolve as resolve_offsets;
pub use probes::{ListenerError, LoadError, Probes, Settings, Tls, is_memory_unlimited, parse_version};
pub use reader::Reader;
pub use room::{Room, RoomError, Table};
pub use statistics::{Losses, ProgramStatistics};

/// Where a kernel shows its type information.
pub const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// Where the kernel's tracing file system is mounted (Documentation/trace/ftrace.rst).
pub const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
