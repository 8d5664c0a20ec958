//! The requests that ended last, in a ring whose places are used again.

use super::flights::{Flight, put};
use crate::{
    event::{Address, ServiceId},
    exchange::{Course, Peer, Role, Scheme, Trace, Version},
    metrics::Outcome,
    route::RouteId,
};

/// How many are kept.
const MOST: usize = 1000;

/// One of them.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) service: ServiceId,
    pub(super) pid: u32,
    pub(super) role: Role,
    pub(super) server: Option<Address>,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) version: Version,
    pub(super) scheme: Scheme,
    pub(super) trace: Option<Trace>,
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
    pub(super) fn add(
        &mut self,
        peer: &Peer,
        flight: &Flight,
        route: RouteId,
        outcome: Outcome,
        course: &Course,
    ) {
        if self.ring.len() < MOST {
            self.ring.push(Ended {
                service: peer.service,
                pid: flight.pid,
                role: peer.role,
                server: peer.server().cloned(),
                method: flight.method.clone(),
                path: flight.path.clone(),
                version: flight.version,
                scheme: peer.scheme,
                trace: flight.trace,
                route,
                outcome,
                course: *course,
            });
            self.next = self.ring.len() % MOST;
            return;
        }
        let ended = &mut self.ring[self.next];
        self.next = (self.next + 1) % MOST;
        put(&mut ended.method, &flight.method);
        put(&mut ended.path, &flight.path);
        if ended.server.as_ref() != peer.server() {
            ended.server = peer.server().cloned();
        }
        ended.service = peer.service;
        ended.pid = flight.pid;
        ended.role = peer.role;
        ended.version = flight.version;
        ended.scheme = peer.scheme;
        ended.trace = flight.trace;
        ended.route = route;
        ended.outcome = outcome;
        ended.course = *course;
    }

    /// The latest first.
    pub(super) fn latest(&self, most: usize) -> impl Iterator<Item = &Ended> {
        let (newer, older) = self.ring.split_at(self.next.min(self.ring.len()));
        newer.iter().rev().chain(older.iter().rev()).take(most)
    }
}
