//! How much the kernel side's tables hold.

use std::str::FromStr;

/// A table whose size can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The ring buffer, in bytes.
    Events,
    /// Selected processes.
    Processes,
    /// Connections, where they are in a table.
    Connections,
    /// Ports that selected processes listen on, where they are in a table.
    Ports,
    /// Addresses of unix sockets that selected processes listen on.
    UnixAddresses,
}

/// The most entries that a table may have: some hundred megabytes.
const MOST: u32 = 1 << 22;
/// The most bytes of the ring buffer.
const MOST_BYTES: u32 = 1 << 30;
/// The fewest: a page, the ring buffer's smallest size (kernel/bpf/ringbuf.c).
const FEWEST_BYTES: u32 = 1 << 12;

impl Table {
    const ALL: [Self; 5] =
        [Self::Events, Self::Processes, Self::Connections, Self::Ports, Self::UnixAddresses];

    fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Processes => "processes",
            Self::Connections => "connections",
            Self::Ports => "ports",
            Self::UnixAddresses => "unix-addresses",
        }
    }

    /// What the kernel side calls it.
    pub(super) fn map(self) -> &'static str {
        match self {
            Self::Events => "EVENTS",
            Self::Processes => "PROCESSES",
            Self::Connections => "SOCKETS",
            Self::Ports => "PORTS",
            Self::UnixAddresses => "UNIX_ADDRESSES",
        }
    }
}

/// A table, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Which.
    pub table: Table,
    /// Entries; of the ring buffer bytes.
    pub size: u32,
}

/// What is no such word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// Not a known table and a number.
    #[error(
        "it is TABLE=N; the tables are events (bytes), processes, connections, ports and unix-addresses (entries)"
    )]
    Shape,
    /// A ring buffer that the kernel doesn't make.
    #[error("the bytes for events are a power of two, from {FEWEST_BYTES} to {MOST_BYTES}")]
    Bytes,
    /// None, or more than anybody has.
    #[error("a table has from 1 to {MOST} entries")]
    Entries,
}

impl FromStr for Room {
    type Err = RoomError;

    fn from_str(text: &str) -> Result<Self, RoomError> {
        let (name, size) = text.split_once('=').ok_or(RoomError::Shape)?;
        let table = Table::ALL.into_iter().find(|table| table.name() == name).ok_or(RoomError::Shape)?;
        let size: u32 = size.parse().map_err(|_| RoomError::Shape)?;
        match table {
            Table::Events if !size.is_power_of_two() || !(FEWEST_BYTES..=MOST_BYTES).contains(&size) => {
                Err(RoomError::Bytes)
            }
            Table::Events => Ok(Self { table, size }),
            _ if !(1..=MOST).contains(&size) => Err(RoomError::Entries),
            _ => Ok(Self { table, size }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_read() {
        for table in Table::ALL {
            let text = format!("{}=65536", table.name());
            assert_eq!(text.parse::<Room>().unwrap(), Room { table, size: 65_536 });
        }
        for text in ["", "events", "sockets=1", "events=", "events=x", "processes=-1", "processes=5000000000"]
        {
            assert_eq!(text.parse::<Room>(), Err(RoomError::Shape), "{text}");
        }
        for text in ["events=0", "events=2048", "events=5000", "events=2147483648"] {
            assert_eq!(text.parse::<Room>(), Err(RoomError::Bytes), "{text}");
        }
        for text in ["processes=0", "ports=4194305"] {
            assert_eq!(text.parse::<Room>(), Err(RoomError::Entries), "{text}");
        }
    }
}
