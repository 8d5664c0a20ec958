//! httpmon's agent as a library. The data flows one way, and each module imports only what comes before it:
//!
//! [`event`] decodes the kernel's records → [`connection`] follows one socket's bytes through [`http1`] and
//! turns them into [`exchange`]s → [`route`] names them → [`metrics`] counts them → [`exporter`] serves them.
//!
//! Without the feature `agent` there is what rebuilds and names exchanges, which needs few other crates.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::float_cmp, reason = "sums of whole numbers are exact"))]

pub mod connection;
pub mod event;
pub mod exchange;
pub mod http1;
pub mod http2;
pub mod recording;
pub mod route;

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "agent")]
pub mod check;
#[cfg(feature = "agent")]
pub mod cli;
#[cfg(feature = "agent")]
pub mod config;
#[cfg(feature = "agent")]
pub mod engine;
#[cfg(feature = "agent")]
pub mod exit;
#[cfg(feature = "agent")]
pub mod exporter;
#[cfg(feature = "agent")]
pub mod kernel;
#[cfg(feature = "agent")]
pub mod manual;
#[cfg(feature = "agent")]
pub mod metrics;
#[cfg(feature = "agent")]
pub mod print;
#[cfg(feature = "agent")]
pub mod replay;
#[cfg(feature = "agent")]
pub mod select;
#[cfg(feature = "agent")]
pub mod setup;
#[cfg(feature = "agent")]
pub mod summary;
#[cfg(feature = "agent")]
pub mod tls;
#[cfg(feature = "agent")]
pub mod top;
