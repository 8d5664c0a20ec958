//! httpmon against real servers and clients: what the tests share.
//!
//! [`Agent`] runs the built program, [`Server`] a real server, [`client`] sends requests and keeps the truth,
//! [`Metrics`] is what the agent says. Whatever a test starts ends with it.

#![forbid(unsafe_code)]
#![allow(
    clippy::must_use_candidate,
    clippy::missing_panics_doc,
    reason = "a test that can't go on panics, and says why"
)]
#![allow(clippy::cast_sign_loss, reason = "counters are whole and never negative")]

pub mod client;
pub mod dashboard;
pub mod http2;
pub mod probes;
pub mod tls;

mod agent;
mod container;
mod metrics;
mod objects;
mod process;
mod prometheus;
mod script;
mod servers;

pub use agent::Agent;
pub use container::Container;
pub use metrics::{Metrics, Sample};
pub use objects::Objects;
pub use process::{Guard, eventually, free_port, patience, run, run_and_hear};
pub use prometheus::Prometheus;
pub use script::Script;
pub use servers::{App, Server, Tools, put_files};

/// Leaves the test, by name and reason, where something that it needs isn't there.
#[macro_export]
macro_rules! needs {
    ($what:expr) => {
        match $what {
            Ok(there) => there,
            Err(reason) => {
                $crate::skipped(module_path!(), &reason);
                return;
            }
        }
    };
}

/// Notes a test that can't run, for the summary.
pub fn skipped(test: &str, reason: &str) {
    use std::io::Write as _;
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let line = format!("{test}::{name}: {reason}\n");
    eprint!("skipped {line}");
    if let Some(list) = std::env::var_os("HTTPMON_SKIPPED") {
        let mut list = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(list)
            .expect("the list can be written");
        list.write_all(line.as_bytes()).expect("the list can be written");
    }
}
