//! Large bodies: what they cost is bounded by the operations that carry them, and their bytes are not copied.

use std::{fs::File, process::Command};

use end_to_end::{Agent, Server, Tools, client::Connection, needs, probes};

const GIB: usize = 1 << 30;

/// Sends a file by `sendfile`, from blocking sockets, so that each operation is as large as the kernel makes them.
const SERVER: &str = "
import os, socket, sys
listener = socket.create_server((sys.argv[1], int(sys.argv[2])))
while True:
    connection, _ = listener.accept()
    if b'\\r\\n\\r\\n' in connection.recv(4096):
        with open(sys.argv[3], 'rb') as file:
            size = os.fstat(file.fileno()).st_size
            connection.send(b'HTTP/1.1 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n' % size)
            sent = 0
            while sent < size:
                sent += os.sendfile(connection.fileno(), file.fileno(), sent, size - sent)
    connection.close()
";

/// The kernel hands a file to a socket in pieces of 16 pages (fs/splice.c, `PIPE_DEF_BUFFERS`): 16 384 in a GiB, of which
/// each is an operation where the probes are at the sockets; at system calls, a call is one. What else happens on the
/// host, such as programs that start, is some hundred records more at most.
#[test]
fn a_download_of_a_gibibyte_costs_one_event_an_operation() {
    let tools = needs!(Tools::find());
    let python = tools.python("python3");
    let folder = tempfile::tempdir().expect("a directory can be made");
    let file = folder.path().join("large");
    File::create(&file).and_then(|made| made.set_len(GIB as u64)).expect("a file of holes can be made");
    for (probes, operations) in
        [(probes::BEST, 16_384), (probes::CLASSIC, 16_384), (probes::CALLS, 1), (probes::CALLS_CLASSIC, 1)]
    {
        let server = Server::other(|address| {
            let mut command = Command::new(&python);
            command.args(["-c", SERVER, &address.ip().to_string(), &address.port().to_string()]).arg(&file);
            command
        });
        let agent = Agent::start(&[&["--pid", &server.pid().to_string()], probes].concat());
        let before = agent.scrape().count("httpmon_events_total", &[]);
        let mut connection = Connection::open(server.target());
        connection.ask("GET", "/large");
        let mut buffer = vec![0; 1 << 20];
        let mut received = 0;
        loop {
            match connection.read(&mut buffer) {
                0 => break,
                count => received += count,
            }
        }
        assert!(received > GIB, "{received}");

        let metrics = agent.scrape_settled(1);
        // Not of all reasons: arrivals at other processes' sockets, such as the client's, count among skipped runs.
        assert_eq!(metrics.count("httpmon_events_lost_total", &[("reason", "ring_full")]), 0);
        assert_eq!(metrics.count("http_server_response_body_size_bytes_sum", &[]), GIB as u64);
        let events = metrics.count("httpmon_events_total", &[]) - before;
        assert!((operations..operations + 2_000).contains(&events), "{probes:?}: {events} events");
    }
}
