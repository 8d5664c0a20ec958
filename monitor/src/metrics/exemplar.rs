//! Which trace a request belonged to, one for each series: as many as there are series.

use std::sync::Arc;

use crate::{event::Instant, exchange::Trace};

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// The trace.
    pub trace: Trace,
    /// What was observed, in seconds.
    pub seconds: f64,
    /// When.
    pub at: Instant,
}

/// An observation, and where it was counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// The histogram.
    pub family: &'static str,
    /// Its labels: `name="value",…`, as the text formats have them.
    pub labels: Arc<str>,
    /// What was observed.
    pub observation: Observation,
}
