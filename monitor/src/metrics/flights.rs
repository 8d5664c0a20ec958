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
    places: Vec<Place>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Place {
    taken: bool,
    /// The one that was there last, where it isn't taken.
    flight: Flight,
}

impl Flights {
    pub(super) fn begin(
        &mut self,
        series: Option<usize>,
        path: &str,
        request: &Request<'_>,
        unproven: bool,
    ) -> Ticket {
        let ticket = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { taken: false, flight: Flight::empty() });
            self.places.len() as u32 - 1
        });
        let Place { taken, flight } = &mut self.places[ticket as usize];
        *taken = true;
        put(&mut flight.method, request.method);
        put(&mut flight.path, path);
        flight.series = series;
        flight.version = request.version;
        flight.trace = request.trace;
        flight.pid = request.pid;
        flight.unproven = unproven;
        Ticket(ticket)
    }

    /// The flight of a ticket.
    pub(super) fn get(&self, ticket: Ticket) -> Option<&Flight> {
        self.places.get(ticket.0 as usize).filter(|place| place.taken).map(|place| &place.flight)
    }

    /// The flight of a ticket, which it is no more: its place is the next one's.
    pub(super) fn end(&mut self, ticket: Ticket) -> Option<&mut Flight> {
        let place = self.places.get_mut(ticket.0 as usize).filter(|place| place.taken)?;
        place.taken = false;
        self.free.push(ticket.0);
        Some(&mut place.flight)
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
