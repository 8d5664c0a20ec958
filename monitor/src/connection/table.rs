//! All connections, by identity.

use std::{collections::HashMap, net::SocketAddr};

use super::one::Connection;
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
    /// Whether a request is under way that only the connection's end can finish.
    pub urgent: bool,
}

/// All connections of the selected processes.
#[derive(Debug, Default)]
pub struct Connections {
    all: HashMap<ConnectionId, Box<Connection>>,
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
                let roles = self.roles;
                let connection = self.connection(origin, *id);
                connection.moved(origin, data, roles, sink);
                self.cut |= std::mem::take(&mut connection.ends.cut);
            }
            Event::Opened(origin, id, opened) => self.connection(origin, *id).opened(opened),
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
        if self.all.get_mut(&id).is_some_and(|connection| connection.closed(closed, at, sink)) {
            self.all.remove(&id);
        }
    }

    /// How many connections serve, by service and local address.
    #[must_use]
    pub fn open(&self) -> HashMap<(ServiceId, Option<&Address>), u64> {
        let mut open = HashMap::new();
        for connection in self.all.values().filter(|connection| connection.serves()) {
            *open.entry((connection.ends.peer.service, connection.ends.peer.local.as_ref())).or_default() +=
                1;
        }
        open
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
        self.all.iter().filter(|(_, connection)| is_unix(connection)).map(|(&id, connection)| Suspect {
            connection: id,
            pid: connection.ends.peer.pid,
            fd: connection.ends.fd,
            inode: connection.ends.inode,
            urgent: connection.awaits_close(),
        })
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
            connection.lost(sink);
        }
    }

    /// Whether, since the last call, a head was longer than what the kernel side copies.
    pub fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.cut)
    }

    fn connection(&mut self, origin: &Origin, id: ConnectionId) -> &mut Connection {
        self.all.entry(id).or_insert_with(|| {
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

    /// A process ended: its unix sockets are closed, unless another process had taken them over. (TCP tells itself.)
    fn process_exited(&mut self, origin: &Origin, code: u32, sink: &mut impl Sink) {
        let closed =
            Closed { how: Closing::Fully, reset: false, exit_code: Some(code), received: 0, sent: 0 };
        self.all.retain(|_, connection| {
            let its = connection.ends.peer.pid == origin.pid && is_unix(connection);
            !(its && connection.closed(&closed, Some(origin.at), sink))
        });
    }
}

fn is_unix(connection: &Connection) -> bool {
    matches!(connection.ends.peer.local, Some(Address::Unix(_)))
}
