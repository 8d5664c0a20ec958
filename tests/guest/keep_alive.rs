//! A client that does as little as possible: one connection to an nginx that answers `ok`.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use end_to_end::{Server, Tools};

/// The server.
pub(super) fn nginx(tools: &Tools) -> Server {
    Server::nginx(tools, "location / { return 200 'ok'; }").expect("nginx starts")
}

pub(super) struct KeepAlive {
    stream: TcpStream,
    /// Kept, since every instruction of a request counts.
    buffer: [u8; 512],
}

impl KeepAlive {
    /// Connects.
    pub(super) fn open(server: &Server) -> Self {
        let stream = TcpStream::connect(server.target().address()).expect("nginx listens");
        stream.set_nodelay(true).expect("an option can be set");
        Self { stream, buffer: [0; 512] }
    }

    /// Makes a request, and reads the response to its end.
    pub(super) fn ask(&mut self) {
        self.stream.write_all(b"GET / HTTP/1.1\r\nHost: guest\r\n\r\n").expect("nginx reads");
        let mut read = 0;
        while !self.buffer[..read].ends_with(b"\r\n\r\nok") {
            let more = self.stream.read(&mut self.buffer[read..]).expect("nginx answers");
            assert!(more > 0, "nginx closed the connection");
            read += more;
        }
    }
}
