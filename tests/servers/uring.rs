//! A server that receives and sends through `io_uring`.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd as _,
};

use io_uring::{IoUring, opcode, squeue::Entry, types::Fd};

/// Runs one operation to its end; what it returned.
fn run(ring: &mut IoUring, entry: &Entry) -> io::Result<i32> {
    // SAFETY: the caller's buffers outlive the wait.
    unsafe { ring.submission().push(entry) }.map_err(io::Error::other)?;
    ring.submit_and_wait(1)?;
    let done = ring.completion().next().ok_or_else(|| io::Error::other("nothing completed"))?;
    Ok(done.result())
}

fn main() -> io::Result<()> {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\nok\n";
    let address: SocketAddr = std::env::args().nth(1).and_then(|word| word.parse().ok()).expect("an address");
    let listener = TcpListener::bind(address)?;
    let mut ring = IoUring::new(8)?;
    loop {
        let (stream, _) = listener.accept()?;
        let fd = Fd(stream.as_raw_fd());
        let mut buffer = [0_u8; 4096];
        let receive = opcode::Recv::new(fd, buffer.as_mut_ptr(), buffer.len() as u32).build();
        if run(&mut ring, &receive)? > 0 {
            run(&mut ring, &opcode::Send::new(fd, ANSWER.as_ptr(), ANSWER.len() as u32).build())?;
        }
    }
}
