//! Connections that ask the same again: what was found out of the last request holds, and nothing is looked up by text.

use super::flights::put;
use crate::{
    event::{Address, ConnectionId, ServiceId},
    exchange::{Peer, Request, Role, Scheme, Version},
    route::Named,
};

/// How many connections' last requests are kept.
const MOST: usize = 256;
/// Longer targets are not compared.
const LONGEST: usize = 256;

/// What a request is counted in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) series: usize,
    pub(super) named: Named,
}

#[derive(Debug)]
struct Last {
    connection: ConnectionId,
    service: ServiceId,
    role: Role,
    scheme: Scheme,
    server: Option<Address>,
    version: Version,
    method: String,
    target: String,
    found: Found,
}

/// The last requests, each at its connection's place.
#[derive(Debug)]
pub(super) struct Repeats(Vec<Option<Last>>);

impl Default for Repeats {
    fn default() -> Self {
        Self((0..MOST).map(|_| None).collect())
    }
}

impl Repeats {
    /// What the connection's last request was counted in, if this one is like it.
    pub(super) fn find(&self, peer: &Peer, request: &Request<'_>) -> Option<Found> {
        let last = self.0[place(peer.connection)].as_ref()?;
        let same = last.connection == peer.connection
            && last.service == peer.service
            && last.role == peer.role
            && last.scheme == peer.scheme
            && last.server.as_ref() == peer.server()
            && last.version == request.version
            && Some(last.target.as_str()) == request.target
            && last.method == request.method;
        same.then_some(last.found)
    }

    pub(super) fn keep(&mut self, peer: &Peer, request: &Request<'_>, found: Found) {
        let Some(target) = request.target.filter(|target| target.len() <= LONGEST) else { return };
        if request.method.len() > LONGEST {
            return;
        }
        let place = &mut self.0[place(peer.connection)];
        let (mut method, mut kept) =
            place.take().map_or_else(Default::default, |last| (last.method, last.target));
        put(&mut method, request.method);
        put(&mut kept, target);
        *place = Some(Last {
            connection: peer.connection,
            service: peer.service,
            role: peer.role,
            scheme: peer.scheme,
            server: peer.server().cloned(),
            version: request.version,
            method,
            target: kept,
            found,
        });
    }
}

/// Connections' numbers are times: their middle bits differ most.
fn place(connection: ConnectionId) -> usize {
    (connection.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize % MOST
}
