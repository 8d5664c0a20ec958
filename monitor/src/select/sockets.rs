//! Sockets of processes: who listens where, and who holds what.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{BufRead as _, BufReader},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use super::process::{ProcFs, Snapshot, socket_inode};

/// `TCP_LISTEN` as `/proc/net/tcp` has it.
const LISTEN: &str = "0A";
/// How much of such a table is read at once: what the kernel writes at once.
const PAGE: usize = 4096;

impl ProcFs {
    /// Which of these processes listen on which of these ports.
    pub(super) fn listening(&self, processes: &[Snapshot], ports: &[u16]) -> HashMap<u32, u16> {
        let mut by_namespace: HashMap<PathBuf, HashMap<u64, u16>> = HashMap::new();
        let mut found = HashMap::new();
        for process in processes {
            let folder = self.folder(process.pid);
            let namespace = std::fs::read_link(folder.join("ns/net")).unwrap_or_default();
            let listeners = by_namespace.entry(namespace).or_insert_with(|| {
                let mut listeners = tcp_listeners(&folder);
                listeners.retain(|_, port| ports.contains(port));
                listeners
            });
            if listeners.is_empty() {
                continue;
            }
            let port = self.descriptors(process.pid).find_map(|(_, inode)| listeners.get(&inode).copied());
            if let Some(port) = port {
                found.insert(process.pid, port);
            }
        }
        found
    }

    /// On which of these ports one process listens. Most hold no socket at all, and then no table is read.
    pub(super) fn listens(&self, pid: u32, ports: &[u16]) -> Option<u16> {
        let mut its = self.descriptors(pid).map(|(_, inode)| inode).peekable();
        its.peek()?;
        let mut listeners = tcp_listeners(&self.folder(pid));
        listeners.retain(|_, port| ports.contains(port));
        its.find_map(|inode| listeners.get(&inode).copied())
    }

    /// The listening TCP sockets of processes: who, under which descriptor, and the inode number.
    #[must_use]
    pub fn listeners_of(&self, pids: &[u32]) -> Vec<(u32, i32, u64)> {
        let mut tables: HashMap<PathBuf, HashMap<u64, u16>> = HashMap::new();
        let mut found = Vec::new();
        for &pid in pids {
            let folder = self.folder(pid);
            let namespace = std::fs::read_link(folder.join("ns/net")).unwrap_or_default();
            let listeners = tables.entry(namespace).or_insert_with(|| tcp_listeners(&folder));
            let its = self.descriptors(pid).filter(|(_, inode)| listeners.contains_key(inode));
            found.extend(its.map(|(fd, inode)| (pid, fd, inode)));
        }
        found
    }

    /// Both ends of every TCP connection in a process's network namespace; `None` where that can't be read.
    #[must_use]
    pub fn tcp_connections(&self, pid: u32) -> Option<HashSet<(SocketAddr, SocketAddr)>> {
        let folder = self.folder(pid).join("net");
        let mut ends = HashSet::new();
        for table in ["tcp", "tcp6"] {
            for line in lines(&folder.join(table)).ok()? {
                // What is missing would be taken for closed: half a table is none.
                ends.extend(connection(&line.ok()?));
            }
        }
        Some(ends)
    }

    /// Whether a process has a socket under this descriptor.
    #[must_use]
    pub fn has_socket_at(&self, pid: u32, fd: Option<i32>, inode: u64) -> bool {
        let link = |fd: i32| self.folder(pid).join("fd").join(fd.to_string());
        fd.and_then(|fd| socket_inode(&link(fd))) == Some(inode)
    }

    /// The sockets that any of these processes hold.
    #[must_use]
    pub fn sockets_of(&self, pids: impl Iterator<Item = u32>) -> HashSet<u64> {
        pids.flat_map(|pid| self.descriptors(pid).map(|(_, inode)| inode)).collect()
    }
}

/// Inode numbers and ports of the TCP sockets that listen in a process's network namespace.
///
/// The tables list the listening sockets first (`Documentation/networking/proc_net_tcp.rst`): however many connections
/// there are, and however many of them wait out their end, no more than a page of them is read. Asking `sock_diag` would
/// need a socket in each namespace.
fn tcp_listeners(process: &Path) -> HashMap<u64, u16> {
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| lines(&process.join("net").join(table)).ok())
        .flat_map(|lines| lines.map_while(|line| listener(&line.ok()?)))
        .collect()
}

/// The lines of such a table, without its head, read as they are asked for.
fn lines(table: &Path) -> std::io::Result<impl Iterator<Item = std::io::Result<String>> + use<>> {
    Ok(BufReader::with_capacity(PAGE, File::open(table)?).lines().skip(1))
}

/// A connection's ends, from a line of `/proc/net/tcp` or `tcp6`.
fn connection(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    Some((end(fields.next()?)?, end(fields.next()?)?))
}

/// `0100007F:1F40`: each word of the address is in the host's byte order.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        bytes.extend(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let address = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?).to_canonical(),
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

/// A listening socket's line of `/proc/net/tcp` (`net/ipv4/tcp_ipv4.c`, `get_tcp4_sock`).
fn listener(line: &str) -> Option<(u64, u16)> {
    let mut fields = line.split_ascii_whitespace();
    let local = fields.nth(1)?;
    if fields.nth(1)? != LISTEN {
        return None;
    }
    let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
    Some((fields.nth(5)?.parse().ok()?, port))
}
