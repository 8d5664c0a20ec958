//! What is asked of all connections at once, kept as they change: asking costs no look at each.

use rustc_hash::{FxHashMap, FxHashSet};

use super::one::Connection;
use crate::event::{Address, ConnectionId, ServiceId};

/// What a connection counts for, beside its service and local address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    serves: bool,
    is_unix: bool,
    urgent: bool,
}

impl Standing {
    pub(super) fn of(connection: &Connection) -> Self {
        let is_unix = matches!(connection.ends.peer.local, Some(Address::Unix(_)));
        Self { serves: connection.serves(), is_unix, urgent: is_unix && connection.awaits_close() }
    }
}

/// How many connections serve, and which are unix sockets.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tallies {
    /// By service and local address; never 0.
    pub(super) open: FxHashMap<(ServiceId, Option<Address>), u64>,
    /// No event tells their ends.
    pub(super) unix: FxHashSet<ConnectionId>,
    /// Those of them on whose end a response waits.
    pub(super) urgent: FxHashSet<ConnectionId>,
}

impl Tallies {
    /// A connection is there, or stands otherwise than before. Its addresses are what they were.
    pub(super) fn changed(&mut self, id: ConnectionId, connection: &Connection, before: Standing) {
        if Standing::of(connection) != before {
            self.remove(id, connection, before);
            self.add(id, connection);
        }
    }

    pub(super) fn add(&mut self, id: ConnectionId, connection: &Connection) {
        let Standing { serves, is_unix, urgent } = Standing::of(connection);
        if serves {
            *self.open.entry(key(connection)).or_default() += 1;
        }
        if is_unix {
            self.unix.insert(id);
        }
        if urgent {
            self.urgent.insert(id);
        }
    }

    /// A connection that stood so goes, or its addresses are about to change.
    pub(super) fn remove(&mut self, id: ConnectionId, connection: &Connection, before: Standing) {
        let Standing { serves, is_unix, urgent } = before;
        if serves {
            let key = key(connection);
            if let Some(count) = self.open.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.open.remove(&key);
                }
            }
        }
        if is_unix {
            self.unix.remove(&id);
        }
        if urgent {
            self.urgent.remove(&id);
        }
    }
}

fn key(connection: &Connection) -> (ServiceId, Option<Address>) {
    (connection.ends.peer.service, connection.ends.peer.local.clone())
}
