//! Connections: one socket's bytes, in both directions, become exchanges.
//!
//! In: decoded events. Out: what a [`Sink`](crate::exchange::Sink) is told. Time is the events'; there is no IO.
//! Where events were lost it errs towards counting less: a request that can't be matched with its response for
//! certain ends as [`Desync`](crate::exchange::Unanswered::Desync), and the connection waits for a message that surely begins.

mod ends;
mod http1;
mod http2;
mod one;
mod requests;
mod responses;
mod table;
mod tallies;
#[cfg(test)]
mod tests;
mod waiting;

pub use one::Connection;
pub use table::{Connections, Suspect};
