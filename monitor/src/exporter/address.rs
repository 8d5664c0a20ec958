//! Where the exporter listens: an address and a port, a unix socket, or sockets that systemd hands over.

use std::{
    fmt,
    fs::{self, Permissions},
    io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use listenfd::ListenFd;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
};

/// What an address of a unix socket begins with.
const UNIX: &str = "unix:";
/// Who may connect to a unix socket: its owner and group.
const SOCKET_MODE: u32 = 0o660;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket at this path.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ACCEPTED: &str = "an IP address and a port, such as 127.0.0.1:9464, or unix:/PATH";
        match text.strip_prefix(UNIX) {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(PathBuf::from(path))),
            Some(_) => Err(ACCEPTED),
            None => text.parse().map(Self::Tcp).map_err(|_| ACCEPTED),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// Why the exporter can't listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address can't be had.
    #[error("--listen {address}: {source}; {}", advice(.address, .source))]
    Address {
        /// Which.
        address: Address,
        /// Why not.
        source: io::Error,
    },
    /// A socket that the service manager handed over is of no use.
    #[error("socket {number} of those in LISTEN_FDS: {reason}; ListenStream= makes the right ones")]
    HandedOver {
        /// Counted from 0.
        number: usize,
        /// What is wrong with it.
        reason: io::Error,
    },
}

fn advice(address: &Address, error: &io::Error) -> &'static str {
    match (address, error.kind()) {
        (Address::Tcp(_), io::ErrorKind::AddrInUse) => {
            "another program listens there (`ss -ltnp` tells which): stop it, or give --listen another port"
        }
        (Address::Tcp(_), io::ErrorKind::AddrNotAvailable) => {
            "no interface of this host has that address (`ip address` lists them)"
        }
        (Address::Tcp(_), io::ErrorKind::PermissionDenied) => {
            "ports below 1024 need root: give --listen a higher one"
        }
        (Address::Tcp(_), _) => "give --listen another address, such as 127.0.0.1:9464",
        (Address::Unix(_), io::ErrorKind::AddrInUse) => {
            "another program listens there (`ss -lxp` tells which), or it is no socket: name another path"
        }
        (Address::Unix(_), _) => "name a path in a directory that httpmon can write",
    }
}

/// A socket that takes connections.
#[derive(Debug)]
pub enum Listener {
    /// Of TCP.
    Tcp(TcpListener),
    /// Of the host's own processes.
    Unix(UnixListener),
}

/// A connection that was taken.
pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Listener {
    /// Waits for a connection.
    pub(super) async fn accept(&self) -> io::Result<Box<dyn Io>> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Io>),
            Self::Unix(listener) => {
                listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Io>)
            }
        }
    }

    /// Where it listens, as far as that can be told.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(Address::Tcp),
            Self::Unix(listener) => {
                listener.local_addr().ok()?.as_pathname().map(|path| Address::Unix(path.to_owned()))
            }
        }
    }
}

/// Begins to listen: on the sockets that systemd handed over (`sd_listen_fds(3)`), or else at this address.
pub fn listen(address: &Address) -> Result<Vec<Listener>, ListenError> {
    let mut handed = ListenFd::from_env();
    if handed.len() > 0 {
        return (0..handed.len()).map(|number| handed_over(&mut handed, number)).collect();
    }
    let failed = |source| ListenError::Address { address: address.clone(), source };
    let listener = match address {
        Address::Tcp(address) => std::net::TcpListener::bind(address).and_then(tcp),
        Address::Unix(path) => bind_unix(path).and_then(unix),
    };
    Ok(vec![listener.map_err(failed)?])
}

fn handed_over(handed: &mut ListenFd, number: usize) -> Result<Listener, ListenError> {
    let listener = match handed.take_tcp_listener(number) {
        Ok(Some(listener)) => tcp(listener),
        Ok(None) => Err(io::ErrorKind::NotFound.into()),
        Err(_) => handed
            .take_unix_listener(number)
            .and_then(|listener| listener.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .and_then(unix),
    };
    listener.map_err(|reason| ListenError::HandedOver { number, reason })
}

fn tcp(listener: std::net::TcpListener) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Listener::Tcp)
}

fn unix(listener: std::os::unix::net::UnixListener) -> io::Result<Listener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener).map(Listener::Unix)
}

/// A socket that an agent before left behind, and nobody listens on, is in nobody's way.
fn bind_unix(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let is_refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && StdUnixStream::connect(path).is_err_and(is_refused) {
        fs::remove_file(path)?;
    }
    let listener = std::os::unix::net::UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["127.0.0.1:9464", "[::1]:80", "unix:/run/httpmon/metrics.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["here", "127.0.0.1", "unix:", "unix:here", ""] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_listens_already_says_what_to_do() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let _other = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for (address, word) in
            [(Address::Tcp(taken.local_addr().unwrap()), "ss -ltnp"), (Address::Unix(path), "ss -lxp")]
        {
            let message = listen(&address).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("--listen {address}")) && message.contains(word),
                "{message}"
            );
        }
    }

    #[test]
    fn a_socket_that_was_left_behind_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(bind_unix(&path).unwrap());
        let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let _again = bind_unix(&path).unwrap();
        assert_eq!(mode(&path), SOCKET_MODE);
        let file = folder.path().join("file");
        fs::write(&file, "kept").unwrap();
        assert_eq!(bind_unix(&file).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert_eq!(fs::read(&file).unwrap(), b"kept");
    }
}
