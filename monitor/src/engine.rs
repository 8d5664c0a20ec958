//! From events to metrics: what the running agent and a replay have in common.

use crate::{
    connection::Connections,
    event::{Event, ProcessChange},
    exchange::Roles,
    metrics::Metrics,
    recording::Redactor,
};

/// The connections, and what is counted of them.
pub struct Engine {
    /// The connections.
    pub connections: Connections,
    /// What is counted.
    pub metrics: Metrics,
}

impl Engine {
    /// Nothing happened yet.
    #[must_use]
    pub fn new(metrics: Metrics, roles: Roles) -> Self {
        Self { connections: Connections::new(roles), metrics }
    }

    /// Takes an event.
    pub fn take(&mut self, event: &Event<'_>) {
        let Self { connections, metrics } = self;
        Self::processes(metrics, event);
        connections.handle(event, metrics);
    }

    /// The same, overwriting in the event's record what a recording must not hold; whether it has a place there.
    pub fn take_recorded(&mut self, event: &Event<'_>, record: &mut [u8], redactor: &mut Redactor) -> bool {
        let Self { connections, metrics } = self;
        Self::processes(metrics, event);
        redactor.redact(event, record, metrics, |event, tap| connections.handle(event, tap))
    }

    fn processes(metrics: &Metrics, event: &Event<'_>) {
        match event {
            Event::Process(origin, ProcessChange::Forked(_)) => metrics.born(origin.service),
            Event::Process(origin, ProcessChange::Exited { code, .. }) => metrics.died(origin.service, *code),
            _ => {}
        }
    }
}
