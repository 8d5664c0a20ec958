//! The requests that ended last, in a ring whose places are used again.

use super::flights::Flight;
use crate::{
    event::{Address, ServiceId},
    exchange::{Course, Peer, Role, Scheme},
    metrics::Outcome,
    route::RouteId,
};

/// How many are kept.
const MOST: usize = 1000;

/// One of them.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) flight: Flight,
    pub(super) service: ServiceId,
    pub(super) role: Role,
    pub(super) server: Option<Address>,
    pub(super) scheme: Scheme,
    pub(super) route: RouteId,
    pub(super) outcome: Outcome,
    pub(super) course: Course,
}

/// The ring.
#[derive(Debug, Default)]
pub(super) struct Recent {
    ring: Vec<Ended>,
    next: usize,
}

impl Recent {
    /// Keeps a flight, and leaves one in its place that is not needed any more.
    pub(super) fn add(
        &mut self,
        peer: &Peer,
        flight: &mut Flight,
        route: RouteId,
        outcome: Outcome,
        course: &Course,
    ) {
        if self.ring.len() < MOST {
            self.ring.push(Ended {
                flight: std::mem::replace(flight, Flight::empty()),
                service: peer.service,
                role: peer.role,
                server: peer.server().cloned(),
                scheme: peer.scheme,
                route,
                outcome,
                course: *course,
            });
            self.next = self.ring.len() % MOST;
            return;
        }
        let ended = &mut self.ring[self.next];
        self.next = (self.next + 1) % MOST;
        if ended.server.as_ref() != peer.server() {
            ended.server = peer.server().cloned();
        }
        ended.service = peer.service;
        ended.role = peer.role;
        ended.scheme = peer.scheme;
        ended.route = route;
        ended.outcome = outcome;
        ended.course = *course;
        std::mem::swap(&mut ended.flight, flight);
    }

    /// The latest first.
    pub(super) fn latest(&self, most: usize) -> impl Iterator<Item = &Ended> {
        let (newer, older) = self.ring.split_at(self.next.min(self.ring.len()));
        newer.iter().rev().chain(older.iter().rev()).take(most)
    }
}
