//! Connections that stay open and idle: more than one process may have descriptors, from more addresses than one has
//! ports.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    os::fd::AsRawFd as _,
    process::{Child, ChildStdin, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};

use crate::run::Command;

/// How many connections a holder has: fewer than the usual limits of descriptors, and of ports.
const EACH: usize = 10_000;

/// Opens connections, asks once on each, and keeps them until its input ends.
#[derive(clap::Args)]
pub(crate) struct Hold {
    server: SocketAddrV4,
    from: Ipv4Addr,
    count: usize,
}

impl Hold {
    pub(crate) fn hold(&self) -> Result<()> {
        let mut held = Vec::with_capacity(self.count);
        for _ in 0..self.count {
            let mut stream = self.open().context("a connection can't be opened")?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")?;
            let mut answer = [0; 1024];
            ensure!(stream.read(&mut answer)? > 0, "the server closed");
            held.push(stream);
        }
        println!("held");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    }

    fn open(&self) -> Result<TcpStream> {
        let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        bind(fd.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(self.from, 0)))?;
        connect(fd.as_raw_fd(), &SockaddrIn::from(self.server))?;
        Ok(TcpStream::from(fd))
    }
}

/// Connections that others hold; closed when dropped.
#[derive(Debug, Default)]
pub(super) struct Held {
    holders: Vec<(Child, ChildStdin)>,
    count: usize,
}

impl Held {
    /// Opens more, until there are so many.
    pub(super) fn grow_to(&mut self, count: usize, server: SocketAddr) -> Result<()> {
        while self.count < count {
            let more = (count - self.count).min(EACH);
            self.add(more, server)?;
        }
        Ok(())
    }

    fn add(&mut self, more: usize, server: SocketAddr) -> Result<()> {
        // Every holder has an address of its own.
        let from = Ipv4Addr::new(127, 0, 1, 1 + self.holders.len() as u8);
        let mut child = Command::new(std::env::current_exe()?)
            .args(["hold", &server.to_string(), &from.to_string(), &more.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        self.holders.push((child, input.context("the input was piped")?));
        let mut line = String::new();
        BufReader::new(output.context("the output was piped")?).read_line(&mut line)?;
        ensure!(line == "held\n", "the connections can't be held");
        self.count += more;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        for (mut child, input) in self.holders.drain(..) {
            drop(input);
            let _ = child.wait();
        }
    }
}
