//! HTTP/2 in clear text, on real servers and with real clients: every count is the client's.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
};

use end_to_end::{
    Agent, Metrics, Server, Tools,
    client::add,
    http2::{Ask, Connection, MIX},
    needs, put_files, run,
};

/// A server.
struct Entry {
    name: &'static str,
    start: fn(&Tools, &Path) -> Result<Server, String>,
    /// Whether it takes an upgrade from HTTP/1.1.
    upgrades: bool,
    /// Whether it reads requests' bodies before it answers.
    reads: bool,
    /// How many streams are tried at once.
    streams: &'static [usize],
}

const ANY: &[usize] = &[1, 2, 10, 100];

const MIB: u64 = 1 << 20;

const SERVERS: [Entry; 7] = [
    Entry { name: "nginx", start: nginx, upgrades: false, reads: false, streams: ANY },
    // It writes each frame in two parts, hundreds in one operation.
    Entry { name: "Node", start: |tools, _| node(tools), upgrades: false, reads: true, streams: ANY },
    Entry { name: "Go", start: go, upgrades: true, reads: true, streams: ANY },
    Entry { name: "hyper", start: |_, _| Ok(hyper("2")), upgrades: false, reads: true, streams: ANY },
    Entry {
        name: "Hypercorn",
        start: |tools, _| Ok(hypercorn(tools)),
        upgrades: true,
        reads: true,
        streams: ANY,
    },
    Entry { name: "Apache", start: apache, upgrades: true, reads: false, streams: ANY },
    Entry { name: "HAProxy", start: haproxy, upgrades: false, reads: true, streams: ANY },
];

/// Puts large files into a folder, by their lengths.
fn put_large_files(folder: &Path) {
    std::fs::create_dir(folder.join("large")).expect("a directory can be made");
    for octets in [MIB, 50 * MIB] {
        let file = File::create(folder.join(format!("large/{octets}")));
        file.and_then(|file| file.set_len(octets)).expect("a file of holes can be made");
    }
}

fn apache(tools: &Tools, folder: &Path) -> Result<Server, String> {
    put_files(folder);
    put_large_files(folder);
    Server::apache(tools, None, folder)
}

fn haproxy(tools: &Tools, _: &Path) -> Result<Server, String> {
    Server::haproxy(tools, None, hyper("1"))
}

fn nginx(tools: &Tools, folder: &Path) -> Result<Server, String> {
    put_large_files(folder);
    let directives = format!(
        "location / {{ return 200 'read'; }} location /missing {{ return 404; }} location /boom {{ return 500; }}\n\
         location /empty {{ return 204; }} location /large {{ root {}; }} sendfile on;\n\
         client_max_body_size 0;",
        folder.display()
    );
    Server::nginx_http2(tools, &directives)
}

fn node(tools: &Tools) -> Result<Server, String> {
    let node = tools.program("node")?;
    Ok(Server::other(|address| {
        let mut command = Command::new(node);
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/server2.js")).args([ip, port]);
        command
    }))
}

fn go(tools: &Tools, folder: &Path) -> Result<Server, String> {
    let program = folder.join("go-server");
    tools.go("server2.go", &program, &[])?;
    Ok(Server::other(|address| {
        let mut command = Command::new(program);
        command.arg(address.to_string());
        command
    }))
}

fn hyper(version: &str) -> Server {
    Server::other(|address| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyper-server"));
        command.arg(address.to_string()).arg(version);
        command
    })
}

fn hypercorn(tools: &Tools) -> Server {
    Server::other(|address| {
        let mut command = Command::new(tools.python("hypercorn"));
        command.args(["--bind", &address.to_string(), "asgi2:app"]);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/servers"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    })
}

fn agent(server: &Server) -> Agent {
    Agent::start(&["--pid", &server.pid().to_string()])
}

fn nothing_unread(metrics: &Metrics) {
    metrics.assert_nothing_lost();
    for reason in ["http2", "desync", "not_http"] {
        assert_eq!(metrics.count("httpmon_bytes_unparsed_total", &[("reason", reason)]), 0, "{reason}");
    }
    assert_eq!(metrics.count("http_server_requests_unanswered_total", &[]), 0);
}

#[test]
fn every_count_is_the_clients_on_every_server_and_on_any_number_of_streams() {
    let tools = needs!(Tools::find());
    for Entry { name, start, reads, streams, .. } in SERVERS {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let server = needs!(start(&tools, folder.path()));
        let agent = agent(&server);
        let (mut answered, mut bodies, mut sent) = (std::collections::BTreeMap::new(), (0, 0), 0);
        for &streams in streams {
            let connection = Connection::open(server.target());
            let outcome = connection.send(&MIX, 400, streams);
            sent += 400;
            add(&mut answered, outcome.answered);
            bodies = (bodies.0 + outcome.bodies.0, bodies.1 + outcome.bodies.1);
            let metrics = agent.scrape_settled(sent);
            assert_eq!(metrics.finished(&[("network_protocol_version", "2")]), answered, "{name}, {streams}");
            assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), sent, "{name}, {streams}");
            let sum = |what: &str| metrics.count(&format!("http_server_{what}_body_size_bytes_sum"), &[]);
            assert_eq!(sum("response"), bodies.1, "{name}, {streams}");
            if reads {
                assert_eq!(sum("request"), bodies.0, "{name}, {streams}");
            }
            nothing_unread(&metrics);
        }
    }
}

#[test]
fn h2load_and_curl_count_the_same() {
    let tools = needs!(Tools::find());
    let h2load = needs!(tools.program("h2load"));
    let curl = needs!(tools.program("curl"));
    for Entry { name, start, upgrades, streams, .. } in SERVERS {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let server = needs!(start(&tools, folder.path()));
        let agent = agent(&server);
        let url = format!("http://{}/echo", server.target().address());
        let mut sent = 0;
        for streams in streams.iter().map(ToString::to_string) {
            let output = run(Command::new(&h2load).args(["-n", "1000", "-c", "4", "-m", &streams, &url]));
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(said.contains("1000 succeeded, 0 failed") && said.contains("1000 2xx"), "{name}: {said}");
            sent += 1000;
            let metrics = agent.scrape_settled(sent);
            assert_eq!(
                metrics.count("http_server_request_duration_seconds_count", &[]),
                sent,
                "{name}, {streams}"
            );
            nothing_unread(&metrics);
        }
        let ask = |how: &str| {
            let mut command = Command::new(&curl);
            let output =
                run(command.args(["-s", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", how, &url]));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!(ask("--http2-prior-knowledge"), "2 200", "{name}");
        sent += 1;
        if upgrades {
            assert_eq!(ask("--http2"), "2 200", "{name}");
            sent += 1;
        }
        let metrics = agent.scrape_settled(sent);
        let labels =
            [("http_request_method", "GET"), ("http_route", "/echo"), ("http_response_status_code", "200")];
        assert_eq!(metrics.count("http_server_request_duration_seconds_count", &labels), sent, "{name}");
        assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), sent, "{name}");
        let upgraded = [("network_protocol_version", "1.1")];
        assert_eq!(metrics.count("httpmon_requests_seen_total", &upgraded), u64::from(upgrades), "{name}");
        nothing_unread(&metrics);
    }
}

/// Bodies that are longer than what an operation is captured of, down and up, in operations as large as the servers make
/// them.
#[test]
fn large_bodies_are_counted_to_the_octet() {
    const ASKS: [Ask; 2] = [("GET", "/large/1048576", 0), ("POST", "/echo", MIB as usize)];
    let tools = needs!(Tools::find());
    for Entry { name, start, reads, streams, .. } in SERVERS {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let server = needs!(start(&tools, folder.path()));
        let agent = agent(&server);
        let (mut bodies, mut sent) = ((0, 0), 0);
        for &streams in streams {
            let connection = Connection::open(server.target());
            // A server that answers before it has read a request's body may refuse the rest of it.
            let outcome = connection.send(if reads { &ASKS } else { &ASKS[..1] }, streams.max(8), streams);
            sent += streams.max(8) as u64;
            bodies = (bodies.0 + outcome.bodies.0, bodies.1 + outcome.bodies.1);
            let metrics = agent.scrape_settled(sent);
            let sum = |what: &str| metrics.count(&format!("http_server_{what}_body_size_bytes_sum"), &[]);
            assert_eq!((sum("request"), sum("response")), bodies, "{name}, {streams}");
            let count = "http_server_request_duration_seconds_count";
            assert_eq!(
                metrics.count(count, &[("http_response_status_code", "200")]),
                sent,
                "{name}, {streams}"
            );
            nothing_unread(&metrics);
        }
    }
}

#[test]
fn fifty_mebibytes_of_curl_and_h2load_are_counted_to_the_octet() {
    let tools = needs!(Tools::find());
    let h2load = needs!(tools.program("h2load"));
    let curl = needs!(tools.program("curl"));
    for Entry { name, start, reads, .. } in SERVERS {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let server = needs!(start(&tools, folder.path()));
        let agent = agent(&server);
        let url = format!("http://{}", server.target().address());
        let upload = folder.path().join("upload");
        File::create(&upload).and_then(|file| file.set_len(50 * MIB)).expect("a file of holes can be made");
        let fetch = |arguments: &[&str]| {
            let mut command = Command::new(&curl);
            command.args(["-s", "--http2-prior-knowledge", "-w", "\n%{http_code} %{size_download}"]);
            let output = run(command.args(arguments));
            let said = String::from_utf8_lossy(&output.stdout);
            let (status, octets) = said.lines().last().and_then(|line| line.split_once(' ')).expect("both");
            assert_eq!(status, "200", "{name}");
            octets.parse::<u64>().expect("a number")
        };
        let large = format!("{url}/large/{}", 50 * MIB);
        let mut bodies = (0, fetch(&["-o", "/dev/null", &large]));
        assert_eq!(bodies.1, 50 * MIB);
        let mut sent = 1;
        if reads {
            bodies.1 += fetch(&["-T", &upload.display().to_string(), &format!("{url}/echo")]);
            bodies.0 += 50 * MIB;
            sent += 1;
        }
        let large = format!("{url}/large/{MIB}");
        let output = run(Command::new(&h2load).args(["-n", "40", "-c", "2", "-m", "10", &large]));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("40 succeeded, 0 failed") && said.contains("40 2xx"), "{name}: {said}");
        bodies.1 += 40 * MIB;
        sent += 40;
        let metrics = agent.scrape_settled(sent);
        let sum = |what: &str| metrics.count(&format!("http_server_{what}_body_size_bytes_sum"), &[]);
        assert_eq!((sum("request"), sum("response")), bodies, "{name}");
        assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), sent, "{name}");
        nothing_unread(&metrics);
    }
}

/// What is recorded of bodies is where their frames begin.
#[test]
fn bodies_are_not_copied() {
    let tools = needs!(Tools::find());
    for Entry { name, start, .. } in SERVERS.into_iter().filter(|entry| entry.reads) {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let server = needs!(start(&tools, folder.path()));
        let file = folder.path().join("events");
        let arguments = ["--pid", &server.pid().to_string(), "--record", &file.display().to_string()];
        let mut agent = Agent::start(&arguments);
        let asks = [("GET", "/large/1048576", 0), ("POST", "/echo", MIB as usize)];
        Connection::open(server.target()).send(&asks, 40, 10);
        agent.scrape_settled(40);
        agent.stop();
        let recorded = std::fs::metadata(&file).expect("it was recorded").len();
        assert!(recorded < 2 * MIB, "{name}: {recorded} bytes of 40 MiB");
    }
}

/// Paths, which clients say by reference once they said them.
const ASKS: [Ask; 3] = [("GET", "/echo", 0), ("POST", "/echo", 300), ("GET", "/missing", 0)];

#[test]
fn joined_midway_every_new_request_is_counted() {
    let tools = needs!(Tools::find());
    for Entry { name, start, streams, .. } in SERVERS {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let server = needs!(start(&tools, folder.path()));
        let streams = streams.iter().copied().filter(|streams| *streams <= 10).max().unwrap_or(1);
        let connection = Connection::open(server.target());
        connection.send(&ASKS, 30, streams);
        let agent = agent(&server);
        let outcome = connection.send(&ASKS, 300, streams);
        let metrics = agent.scrape_settled(300);
        assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 300, "{name}: {}", metrics.text);
        let count = "http_server_request_duration_seconds_count";
        assert_eq!(metrics.count(count, &[]), 300, "{name}");
        let by = |label: &str| {
            let mut counts = std::collections::BTreeMap::new();
            for sample in metrics.of(count, &[]) {
                let value = sample.labels[label].clone();
                let counted = metrics.count(count, &[(label, &value)]);
                counts.insert(value, counted);
            }
            counts
        };
        for (label, known) in [
            ("http_response_status_code", vec![("200", 200), ("404", 100)]),
            ("http_route", vec![("/echo", 200), ("/missing", 100)]),
        ] {
            let mut counts = by(label);
            let unknown = counts.remove("unknown").unwrap_or(0);
            let told: u64 = counts.values().sum();
            assert_eq!(told + unknown, 300, "{name} {label}");
            for (value, truth) in known {
                let counted = counts.remove(value).unwrap_or(0);
                assert!(
                    counted == truth || (unknown > 0 && counted < truth),
                    "{name} {label} {value}: {counted}"
                );
            }
            assert!(counts.is_empty(), "{name} {label}: {counts:?} was never said");
        }
        assert_eq!(outcome.answered.values().sum::<u64>(), 300);
        metrics.assert_nothing_lost();
    }
}

#[test]
fn requests_that_are_taken_back_are_unanswered() {
    let tools = needs!(Tools::find());
    let python = Server::other(|address| {
        let mut command = Command::new(tools.python("hypercorn"));
        command.args(["--bind", &address.to_string(), "asgi2:slow"]);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/servers"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    });
    let agent = agent(&python);
    let connection = Connection::open(python.target());
    connection.cancel("/slow", || {
        agent.scrape_until("it is in flight", |metrics| {
            metrics.count("http_server_active_requests", &[]) == 1
        });
    });
    let metrics = agent.scrape_until("it is taken back", |metrics| {
        metrics.count("http_server_requests_unanswered_total", &[("reason", "client_reset")]) == 1
    });
    assert_eq!(metrics.count("http_server_active_requests", &[]), 0);
    drop(connection);
}

#[test]
fn the_calls_that_processes_make_are_counted() {
    let tools = needs!(Tools::find());
    let server = hyper("2");
    let agent = Agent::start(&["--process-name", "calls2.py", "--role", "client"]);
    let mut calls = Command::new(tools.python("python3"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/calls2.py"))
        .arg(format!("http://{}", server.target().address()))
        .stdin(Stdio::piped())
        .spawn()
        .expect("Python starts");
    end_to_end::eventually("the script is taken", || agent.log().contains("the script is").then_some(()));
    drop(calls.stdin.take());
    assert!(calls.wait().expect("the script ends").success());
    let count = "http_client_request_duration_seconds_count";
    let metrics = agent.scrape_until("every call is counted", |metrics| metrics.count(count, &[]) == 40);
    for (status, calls) in [("200", 20), ("404", 10), ("204", 10)] {
        let labels = [("http_response_status_code", status), ("network_protocol_version", "2")];
        assert_eq!(metrics.count(count, &labels), calls, "{status}");
    }
    assert_eq!(metrics.count("httpmon_client_requests_seen_total", &[]), 40);
    metrics.assert_nothing_lost();
}
