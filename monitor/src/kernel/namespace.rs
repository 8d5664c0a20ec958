//! Telling network namespaces apart: by their cookies, or where the kernel tells none by their inode numbers.
#![expect(unsafe_code, reason = "an option of sockets that has no wrapper")]

use std::{
    net::UdpSocket,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
};

/// How they are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    /// By a number that is never used again.
    Cookie,
    /// By one that may be, when its namespace is gone.
    Inode,
}

impl Identity {
    /// What this kernel tells.
    pub(super) fn probe() -> Self {
        let cookie = UdpSocket::bind("127.0.0.1:0").ok().and_then(|socket| cookie(socket.as_fd()).ok());
        if cookie.is_some() { Self::Cookie } else { Self::Inode }
    }

    /// Of a process's socket. A process is taken to be in the namespace of its sockets where only inode numbers tell.
    pub(super) fn of(self, socket: BorrowedFd<'_>, pid: u32) -> Result<u64, std::io::Error> {
        match self {
            Self::Cookie => Ok(cookie(socket)?),
            Self::Inode => Ok(std::fs::metadata(format!("/proc/{pid}/ns/net"))?.ino()),
        }
    }
}

/// `SO_NETNS_COOKIE` (include/uapi/asm-generic/socket.h, Linux 5.14).
fn cookie(socket: BorrowedFd<'_>) -> Result<u64, nix::Error> {
    let mut cookie = 0_u64;
    let mut len = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the option writes as many bytes as `len` says, into `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    nix::Error::result(result).map(|_| cookie)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_one_identity_whichever_socket_tells() {
        let sockets = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let pid = std::process::id();
        for identity in [Identity::probe(), Identity::Inode] {
            let [one, other] = [0, 1].map(|index| identity.of(sockets[index].as_fd(), pid).unwrap());
            assert!(one == other && one != 0);
        }
    }
}
