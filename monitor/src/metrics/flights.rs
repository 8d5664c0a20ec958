//! Requests in flight. Their places, and the text in them, are used again: a steady load allocates nothing.

use crate::{
    exchange::{Request, Ticket, Trace, Version},
    route::cut,
};

/// What is kept of a method or a path that is longer.
const LONGEST: usize = 1024;

/// A request in flight.
#[derive(Debug)]
pub(super) struct Flight {
    /// What it is counted in; none if it is ignored.
    pub(super) series: Option<usize>,
    /// As sent.
    pub(super) method: String,
    /// Without query.
    pub(super) path: String,
    /// Of the request line.
    pub(super) version: Version,
    /// The trace that it belongs to.
    pub(super) trace: Option<Trace>,
    /// The process that read it.
    pub(super) pid: u32,
    /// Whether the router wants to hear of the answer.
    pub(super) unproven: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Flights {
    flying: Vec<Option<Flight>>,
    free: Vec<(u32, Flight)>,
}

impl Flights {
    pub(super) fn begin(
        &mut self,
        series: Option<usize>,
        path: &str,
        request: &Request<'_>,
        unproven: bool,
    ) -> Ticket {
        let (place, mut flight) = self.free.pop().unwrap_or_else(|| {
            self.flying.push(None);
            (self.flying.len() as u32 - 1, Flight::empty())
        });
        put(&mut flight.method, request.method);
        put(&mut flight.path, path);
        flight.series = series;
        flight.version = request.version;
        flight.trace = request.trace;
        flight.pid = request.pid;
        flight.unproven = unproven;
        self.flying[place as usize] = Some(flight);
        Ticket(place)
    }

    /// The flight of a ticket, which [`Flights::end`] wants back.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<Flight> {
        self.flying.get_mut(ticket.0 as usize)?.take()
    }

    /// What a flight is counted in.
    pub(super) fn series(&self, ticket: Ticket) -> Option<usize> {
        self.flying.get(ticket.0 as usize)?.as_ref()?.series
    }

    pub(super) fn end(&mut self, ticket: Ticket, flight: Flight) {
        self.free.push((ticket.0, flight));
    }
}

impl Flight {
    pub(super) fn empty() -> Self {
        Self {
            series: None,
            method: String::new(),
            path: String::new(),
            version: Version::Http11,
            trace: None,
            pid: 0,
            unproven: false,
        }
    }
}

/// Replaces a text, and keeps its memory.
pub(super) fn put(place: &mut String, text: &str) {
    place.clear();
    place.push_str(cut(text, LONGEST));
}
