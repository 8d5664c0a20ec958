//! All connections, by identity.

use std::net::SocketAddr;

use rustc_hash::FxHashMap;

use super::{
    one::Connection,
    tallies::{Standing, Tallies},
};
use crate::{
    event::{Address, Closed, Closing, ConnectionId, Event, Instant, Origin, ProcessChange, ServiceId},
    exchange::{Peer, Role, Roles, Scheme, Sink},
};

/// A connection whose end no event tells: a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Which.
    pub connection: ConnectionId,
    /// The process that used it last.
    pub pid: u32,
    /// The file descriptor that it used.
    pub fd: Option<i32>,
    /// The socket's inode number.
    pub inode: u64,
}

/// All connections of the selected processes.
#[derive(Debug, Default)]
pub struct Connections {
    /// The kernel makes the identities: nobody can choose them so that they collide.
    all: FxHashMap<ConnectionId, Box<Connection>>,
    tallies: Tallies,
    roles: Roles,
    cut: bool,
}

impl Connections {
    /// Follows the ends of these roles.
    #[must_use]
    pub fn new(roles: Roles) -> Self {
        Self { roles, ..Self::default() }
    }

    /// Takes one event.
    pub fn handle(&mut self, event: &Event<'_>, sink: &mut impl Sink) {
        match event {
            Event::Data(origin, id, data) => {
                let Self { all, tallies, roles, cut } = self;
                let connection = connection(all, origin, *id);
                let before = Standing::of(connection);
                connection.moved(origin, data, *roles, sink);
                tallies.changed(*id, connection, before);
                *cut |= std::mem::take(&mut connection.ends.cut);
            }
            Event::Opened(origin, id, opened) => {
                let Self { all, tallies, .. } = self;
                let connection = connection(all, origin, *id);
                tallies.remove(*id, connection, Standing::of(connection));
                connection.opened(opened);
                tallies.add(*id, connection);
            }
            Event::Closed(origin, id, closed) => self.close_at(*id, closed, Some(origin.at), sink),
            Event::Process(origin, ProcessChange::Exited { code, .. }) => {
                self.process_exited(origin, *code, sink);
            }
            Event::Listening(..) | Event::Process(..) => {}
        }
    }

    /// An end of a connection was closed, or a look at the process showed so.
    pub fn close(&mut self, id: ConnectionId, closed: &Closed, sink: &mut impl Sink) {
        self.close_at(id, closed, None, sink);
    }

    fn close_at(&mut self, id: ConnectionId, closed: &Closed, at: Option<Instant>, sink: &mut impl Sink) {
        let Some(connection) = self.all.get_mut(&id) else { return };
        let before = Standing::of(connection);
        if connection.closed(closed, at, sink) {
            self.tallies.remove(id, connection, before);
            self.all.remove(&id);
        } else {
            self.tallies.changed(id, connection, before);
        }
    }

    /// How many connections serve, by service and local address.
    pub fn open(&self) -> impl Iterator<Item = (ServiceId, Option<&Address>, u64)> {
        self.tallies.open.iter().map(|((service, local), &count)| (*service, local.as_ref(), count))
    }

    /// How many connections are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The unix sockets among them.
    pub fn suspects(&self) -> impl Iterator<Item = Suspect> + '_ {
        self.tallies.unix.iter().filter_map(|id| self.suspect(*id))
    }

    /// Those of them that have a request under way that only the connection's end can finish.
    pub fn urgent(&self) -> impl Iterator<Item = Suspect> + '_ {
        self.tallies.urgent.iter().filter_map(|id| self.suspect(*id))
    }

    /// Whether one of them has a request under way that only the connection's end can finish.
    #[must_use]
    pub fn is_urgent(&self, id: ConnectionId) -> bool {
        self.tallies.urgent.contains(&id)
    }

    /// One of them.
    #[must_use]
    pub fn suspect(&self, id: ConnectionId) -> Option<Suspect> {
        let ends = &self.all.get(&id)?.ends;
        Some(Suspect { connection: id, pid: ends.peer.pid, fd: ends.fd, inode: ends.inode })
    }

    /// The TCP connections: which, whose, and between which ends.
    pub fn inet(&self) -> impl Iterator<Item = (ConnectionId, u32, SocketAddr, SocketAddr)> + '_ {
        self.all.iter().filter_map(|(&id, connection)| {
            match (&connection.ends.peer.local, &connection.ends.peer.remote) {
                (Some(Address::Inet(local)), Some(Address::Inet(remote))) => {
                    Some((id, connection.ends.peer.pid, *local, *remote))
                }
                _ => None,
            }
        })
    }

    /// A connection is gone, and the event that told it lost.
    pub fn lose(&mut self, id: ConnectionId, sink: &mut impl Sink) {
        if let Some(mut connection) = self.all.remove(&id) {
            self.tallies.remove(id, &connection, Standing::of(&connection));
            connection.lost(sink);
        }
    }

    /// Whether, since the last call, a head was longer than what the kernel side copies.
    pub fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.cut)
    }

    /// A process ended: its unix sockets are closed, unless another process had taken them over. (TCP tells itself.)
    fn process_exited(&mut self, origin: &Origin, code: u32, sink: &mut impl Sink) {
        let closed =
            Closed { how: Closing::Fully, reset: false, exit_code: Some(code), received: 0, sent: 0 };
        let its: Vec<_> =
            self.suspects().filter(|one| one.pid == origin.pid).map(|one| one.connection).collect();
        for id in its {
            self.close_at(id, &closed, Some(origin.at), sink);
        }
    }
}

/// The connection that an event is about, which may be the first that is heard of it.
fn connection<'a>(
    all: &'a mut FxHashMap<ConnectionId, Box<Connection>>,
    origin: &Origin,
    id: ConnectionId,
) -> &'a mut Connection {
    all.entry(id).or_insert_with(|| {
        let peer = Peer {
            role: Role::Server,
            service: origin.service,
            pid: origin.pid,
            connection: id,
            local: None,
            remote: None,
            scheme: Scheme::Http,
        };
        Box::new(Connection::new(peer))
    })
}

#[cfg(test)]
mod tests;
