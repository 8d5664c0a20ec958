//! httpmon's agent as a library. The data flows one way, and each module imports only what comes before it:
//!
//! [`event`] decodes the kernel's records → [`connection`] follows one socket's bytes through [`http1`] and
//! turns them into [`exchange`]s → [`route`] names them → [`metrics`] counts them → [`exporter`] serves them.

#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::float_cmp, reason = "sums of whole numbers are exact"))]

pub mod agent;
pub mod check;
pub mod cli;
pub mod config;
pub mod connection;
pub mod engine;
pub mod event;
pub mod exchange;
pub mod exit;
pub mod exporter;
pub mod http1;
pub mod http2;
pub mod kernel;
pub mod manual;
pub mod metrics;
pub mod print;
pub mod recording;
pub mod replay;
pub mod route;
pub mod select;
pub mod setup;
pub mod summary;
pub mod tls;
pub mod top;
