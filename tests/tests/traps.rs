//! The ways in which servers and clients mislead those who watch, by name, with a server that answers by script.

use std::{collections::BTreeMap, process::Command};

use end_to_end::{
    Agent, Script, Server, Tools,
    client::{Ask, Connection, Load, Target},
    eventually, needs,
    probes::{ALL, BEST, CALLS, CALLS_CLASSIC, CLASSIC},
};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}

/// A trap: its name, what the client plays, and what it must have got: method, route and status.
type Trap = (&'static str, fn(&mut Script<'_>), &'static [(&'static str, &'static str, u16)]);

/// Asks for a path, and for a plain one after it on the same connection: the end was found where it is.
fn ask(script: &mut Script<'_>, path: &str) {
    script.request("GET", path).send(get(path)).answers();
    script.request("GET", "/plain").send(get("/plain")).answers();
}

const PLAIN: (&str, &str, u16) = ("GET", "/plain", 200);

const TRAPS: [Trap; 12] = [
    ("peeked bytes are not read twice", |script| ask(script, "/peeked"), &[("GET", "/peeked", 200), PLAIN]),
    (
        "head and body in separate iovecs",
        |script| ask(script, "/gathered"),
        &[("GET", "/gathered", 200), PLAIN],
    ),
    ("a response one byte a write", |script| ask(script, "/bytes"), &[("GET", "/bytes", 200), PLAIN]),
    ("sendfile", |script| ask(script, "/sendfile"), &[("GET", "/sendfile", 200), PLAIN]),
    ("partial sends and EAGAIN", |script| ask(script, "/partial"), &[("GET", "/partial", 200), PLAIN]),
    (
        "chunks with extensions and trailers",
        |script| ask(script, "/trailers"),
        &[("GET", "/trailers", 200), PLAIN],
    ),
    ("early hints", |script| ask(script, "/hints"), &[("GET", "/hints", 200), PLAIN]),
    (
        "a body like responses",
        |script| ask(script, "/like-a-response"),
        &[("GET", "/like-a-response", 200), PLAIN],
    ),
    ("304 with a length", |script| ask(script, "/not-modified"), &[("GET", "/not-modified", 304), PLAIN]),
    (
        "server-sent events, ended by the close",
        |script| {
            script.request("GET", "/events").send(get("/events")).answers();
        },
        &[("GET", "/events", 200)],
    ),
    (
        "a socket passed to another process",
        |script| ask(script, "/passed"),
        &[("GET", "/passed", 200), PLAIN],
    ),
    (
        "pipelined, in every way of answering",
        |script| {
            let paths = ["/gathered", "/sendfile", "/trailers", "/hints", "/not-modified", "/plain"];
            let all = paths.map(|path| {
                script.request("GET", path);
                get(path)
            });
            script.send(all.concat()).answers();
        },
        &[
            ("GET", "/gathered", 200),
            ("GET", "/sendfile", 200),
            ("GET", "/trailers", 200),
            ("GET", "/hints", 200),
            ("GET", "/not-modified", 304),
            PLAIN,
        ],
    ),
];

fn play(probes: &[&str], abstract_socket: bool) {
    let tools = needs!(Tools::find());
    let server = Server::other(|address| {
        let mut command = Command::new(tools.python("python3"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/traps.py"));
        command.args([address.port().to_string(), "3".to_owned()]);
        command
    });
    // All of the three listen on the port.
    eventually("every process runs", || (server.workers().len() == 3).then_some(()));
    let abstract_name = Target::Abstract(format!("httpmon-traps-{}", server.target().address().port()));
    let target = if abstract_socket { &abstract_name } else { server.target() };
    let agent = Agent::start(&[&["--process-name", "traps"], probes].concat());
    let mut expected = BTreeMap::new();
    let mut requests = 0;
    for (name, play, truth) in TRAPS {
        let mut script = Script::new(target);
        play(&mut script);
        script.close();
        let mut answers = BTreeMap::new();
        for (method, route, status) in truth {
            *answers.entry(((*method).to_owned(), (*route).to_owned(), *status)).or_insert(0) += 1;
            *expected.entry(((*method).to_owned(), (*route).to_owned(), *status)).or_insert(0) += 1;
        }
        assert_eq!(script.answered, answers, "{name}: the client got something else");
        requests += truth.len() as u64;
        let metrics = agent.scrape_settled(requests);
        assert_eq!(metrics.finished(&[]), expected, "{name}");
        assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), requests, "{name}");
        metrics.assert_nothing_lost();
    }
    // What isn't HTTP any more is bytes.
    for (method, route, fields, status) in
        [("GET", "/upgrade", "connection: upgrade\r\nupgrade: websocket\r\n", 101), ("CONNECT", "*", "", 200)]
    {
        let before = agent.scrape().count("httpmon_bytes_unparsed_total", &[("reason", "not_http")]);
        let mut connection = Connection::open(target);
        let request_target = if method == "CONNECT" { "test:80" } else { route };
        connection
            .send(format!("{method} {request_target} HTTP/1.1\r\nhost: test\r\n{fields}\r\n").as_bytes());
        let mut buffer = [0; 4096];
        assert!(connection.read(&mut buffer) > 0 && buffer.starts_with(b"HTTP/1.1"));
        // Frames that look like requests, and come back.
        for _ in 0..3 {
            connection.send(get("/in-the-tunnel").as_bytes());
            assert!(connection.read(&mut buffer) > 0);
        }
        drop(connection);
        requests += 1;
        *expected.entry((method.to_owned(), route.to_owned(), status)).or_insert(0) += 1;
        let bytes = 2 * 3 * get("/in-the-tunnel").len() as u64;
        let metrics = agent.scrape_until("the tunnel's bytes are counted", |metrics| {
            metrics.count("httpmon_bytes_unparsed_total", &[("reason", "not_http")]) == before + bytes
        });
        metrics.assert_finished(&[], &expected);
        assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), requests);
    }
    let address = format!("unix:@httpmon-traps-{}", server.target().address().port());
    let place = if abstract_socket { address } else { "127.0.0.1".to_owned() };
    let labels = [("server_address", place.as_str())];
    assert_eq!(agent.scrape().count("httpmon_requests_seen_total", &labels), requests);
}

#[test]
fn over_tcp_with_reuseport() {
    play(BEST, false);
}

#[test]
fn over_an_abstract_unix_socket() {
    play(BEST, true);
}

#[test]
fn with_classic_tracepoints() {
    play(CLASSIC, false);
}

#[test]
fn by_system_calls() {
    play(CALLS, false);
}

#[test]
fn by_system_calls_over_an_abstract_unix_socket() {
    play(CALLS, true);
}

#[test]
fn by_system_calls_with_classic_tracepoints() {
    play(CALLS_CLASSIC, false);
}

/// What the probes know of a unix socket before it is accepted doesn't replace what they know since.
#[test]
fn a_server_can_have_a_request_before_its_arrival_is_told() {
    const REQUESTS: usize = 20_000;
    let tools = needs!(Tools::find());
    let folder = tempfile::tempdir().expect("a directory can be made");
    let program = folder.path().join("eager");
    needs!(tools.c("eager.c", &program, &[]));
    let server = Server::other_on_unix(|path| {
        let mut command = Command::new(program);
        command.arg(path);
        command
    });
    for probes in ALL {
        let agent = Agent::start(&[&["--process-name", "eager"], probes].concat());
        let asks = [Ask { method: "GET", path: "/", route: "/", body: 0 }];
        let load =
            Load { target: server.target(), asks: &asks, requests: REQUESTS, clients: 1, per_connection: 1 };
        let outcome = load.send();
        assert_eq!(outcome.total(), REQUESTS as u64);
        let metrics = agent.scrape_settled(REQUESTS as u64);
        metrics.assert_finished(&[], &outcome.answered);
        metrics.assert_nothing_lost();
    }
}
