//! Bad days: the agent stands still while load goes on, or its tables are too small for what there is.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use end_to_end::{
    Agent, Guard, Metrics, Server, Tools,
    client::{Ask, Connection, Load},
    eventually, needs, probes, run,
};
use nix::sys::signal::Signal;

const REQUESTS: u64 = 200_000;

fn lost_of(metrics: &Metrics) -> u64 {
    metrics.count("httpmon_requests_lost_total", &[])
}

/// Makes so many requests, on 16 connections that are kept; each is answered.
fn ask_all(ab: &Path, server: &Server, requests: u64) {
    let url = format!("http://{}/", server.target().address());
    let load = run(Command::new(ab).args(["-q", "-k", "-c", "16", "-n", &requests.to_string(), &url]));
    let report = String::from_utf8_lossy(&load.stdout).into_owned();
    assert!(report.contains(&format!("Complete requests:      {requests}")), "{report}");
    assert!(report.contains("Failed requests:        0"), "{report}");
}

fn seen_of(metrics: &Metrics) -> u64 {
    metrics.count("httpmon_requests_seen_total", &[])
}

/// Stopped, the agent reads nothing: what finds no room is counted, in requests, the server never waits, and
/// afterwards everything is counted again.
#[test]
fn an_agent_that_is_stopped_counts_what_it_missed() {
    let tools = needs!(Tools::find());
    let ab = needs!(tools.program("ab"));
    for probes in probes::ALL {
        let server = needs!(Server::nginx(&tools, "location / { return 200 'here'; }"));
        let agent = Agent::start(&[&["--process-name", "nginx"], probes].concat());
        agent.signal(Signal::SIGSTOP);
        // It ends while nobody reads the ring buffer.
        ask_all(&ab, &server, REQUESTS);
        agent.signal(Signal::SIGCONT);

        let metrics = agent.scrape_until("all is seen or known to be lost", |metrics| {
            seen_of(metrics) + lost_of(metrics) == REQUESTS
        });
        assert!(lost_of(&metrics) > REQUESTS / 2, "{}", lost_of(&metrics));
        assert!(metrics.count("httpmon_events_lost_total", &[("reason", "ring_full")]) > 0);
        let ask = Ask { method: "GET", path: "/after", route: "/after", body: 0 };
        let load =
            Load { target: server.target(), asks: &[ask], requests: 2_000, clients: 4, per_connection: 50 };
        let outcome = load.send();
        assert_eq!((outcome.total(), outcome.failed), (2_000, 0));
        let route = [("http_route", "/after")];
        let after = agent.scrape_until("the requests after are counted", |metrics| {
            metrics.count("http_server_request_duration_seconds_count", &route) == 2_000
        });
        assert_eq!(after.count("httpmon_requests_seen_total", &route), 2_000);
        assert_eq!(lost_of(&after), lost_of(&metrics));
        // The ends of connections were among what was lost: that they are gone is found out.
        agent.scrape_until("nothing is left in flight, and no connection open", |metrics| {
            metrics.count("http_server_active_requests", &[]) == 0
                && metrics.count("http_server_open_connections", &[]) == 0
        });
    }
}

/// A ring buffer of one page loses most of a load: all of it is seen or known to be lost, and whoever asks slowly enough
/// afterwards is counted whole.
#[test]
fn a_ring_buffer_of_a_page_counts_what_it_missed() {
    const SENT: u64 = 20_000;
    const AFTER: u64 = 50;
    let tools = needs!(Tools::find());
    let ab = needs!(tools.program("ab"));
    for probes in probes::ALL {
        let server = needs!(Server::nginx(&tools, "location / { return 200 'here'; }"));
        let agent = Agent::start(&[&["--process-name", "nginx", "--room", "events=4096"], probes].concat());
        ask_all(&ab, &server, SENT);
        let metrics = agent.scrape_until("all is seen or known to be lost", |metrics| {
            seen_of(metrics) + lost_of(metrics) == SENT
        });
        println!("{probes:?}: {} seen, {} lost", seen_of(&metrics), lost_of(&metrics));
        assert!(seen_of(&metrics) > 0 && lost_of(&metrics) > SENT / 2, "{}", metrics.text);
        assert!(metrics.count("httpmon_events_lost_total", &[("reason", "ring_full")]) > 0);

        let route = [("http_route", "/after")];
        let mut connection = Connection::open(server.target());
        for number in 1..=AFTER {
            connection.ask("GET", "/after");
            assert_eq!(connection.response(Duration::ZERO).status, 200);
            agent.scrape_until("it is counted before the next one comes", |metrics| {
                metrics.count("http_server_request_duration_seconds_count", &route) == number
            });
        }
        drop(connection);
        let after = agent.scrape_until("nothing is left in flight, and no connection open", |metrics| {
            metrics.count("http_server_active_requests", &[]) == 0
                && metrics.count("http_server_open_connections", &[]) == 0
        });
        assert_eq!(after.count("httpmon_requests_seen_total", &route), AFTER);
        assert_eq!(lost_of(&after), lost_of(&metrics));
    }
}

/// A process is taken that started just now, and looking for those that it may have forked takes as long as a load: what
/// comes meanwhile is more than the ring buffer holds, and all of it is counted.
#[test]
fn nothing_is_lost_while_the_agent_looks_through_processes() {
    const SENT: u64 = 50_000;
    let tools = needs!(Tools::find());
    let ab = needs!(tools.program("ab"));
    let strace = needs!(tools.program("strace"));
    let server = needs!(Server::nginx(&tools, "location / { return 200 'here'; }"));
    let agent = Agent::start(&["--process-name", "nginx", "--process-name", "latecomer"]);
    // A look through all processes takes minutes.
    let slow = ["-e", "trace=openat", "-e", "inject=openat:delay_enter=1000000", "-o", "/dev/null"];
    let tracer = Guard::strace(&strace, slow, agent.pid());
    let folder = tempfile::tempdir().expect("a directory can be made");
    let latecomer = folder.path().join("latecomer");
    fs::copy(needs!(tools.program("sleep")), &latecomer).expect("a program can be copied");
    let _latecomer = Guard::start(Command::new(latecomer).arg("600"));
    eventually("it is taken", || agent.log().contains("latecomer").then_some(()));

    thread::scope(|scope| {
        let scrape = scope.spawn(|| agent.scrape());
        ask_all(&ab, &server, SENT);
        assert!(!scrape.is_finished(), "the agent had time for others");
        drop(tracer);
        scrape.join().expect("the exporter answers")
    });
    let metrics = agent.scrape_settled(SENT);
    assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), SENT);
    metrics.assert_nothing_lost();
}

fn forking(tools: &Tools, workers: usize) -> Server {
    Server::other(|address| {
        let mut command = Command::new(tools.python("python3"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/forking.py"));
        command.args([address.port().to_string(), workers.to_string()]);
        command
    })
}

/// There is room for fewer processes than are selected: those that are taken are counted whole, the others are known, and
/// taken when there is room.
#[test]
fn processes_without_room_are_counted_and_taken_later() {
    let tools = needs!(Tools::find());
    let full = forking(&tools, 3);
    let agent = Agent::start(&["--process-name", "forking", "--room", "processes=4"]);
    let get = Ask { method: "GET", path: "/", route: "/", body: 0 };
    let send = |server: &Server, requests: usize| {
        let load = Load { target: server.target(), asks: &[get], requests, clients: 4, per_connection: 1 };
        let outcome = load.send();
        assert_eq!((outcome.total(), outcome.failed), (requests as u64, 0));
    };
    let lost = [("reason", "map_full")];
    send(&full, 1_000);
    let metrics = agent.scrape_settled(1_000);
    assert_eq!(seen_of(&metrics), 1_000);
    metrics.assert_nothing_lost();

    let roomless = forking(&tools, 2);
    let metrics = agent.scrape_until("there is no room for it", |metrics| {
        metrics.count("httpmon_events_lost_total", &lost) > 0
    });
    assert_eq!(metrics.count("httpmon_workers", &[]), 4);
    let log = agent.log();
    assert_eq!(log.matches("there is no room").count(), 1, "{log}");
    assert!(log.contains("--room processes=N"), "{log}");
    send(&roomless, 100);
    send(&full, 500);
    // A scrape takes all that has happened.
    let metrics = agent.scrape_settled(1_500);
    assert!(seen_of(&metrics) >= 1_500, "{}", metrics.text);
    drop(full);
    agent.scrape_until("the others are taken", |metrics| metrics.count("httpmon_workers", &[]) == 3);
    eventually("it says so", || agent.log().contains("room for all selected processes again").then_some(()));
    let before = seen_of(&agent.scrape());
    send(&roomless, 1_000);
    agent.scrape_until("all of them are counted", |metrics| seen_of(metrics) == before + 1_000);
}

/// Where connections are in a table that is too small, the least recently used give way, and are joined again: a client that
/// waits for its answers is counted whole.
#[test]
fn connections_without_room_are_joined_again() {
    const OPEN: usize = 1_500;
    let tools = needs!(Tools::find());
    for probes in [probes::CLASSIC, probes::CALLS] {
        let server =
            needs!(Server::nginx(&tools, "location / { return 200 'here'; } keepalive_timeout 600;"));
        let agent =
            Agent::start(&[&["--process-name", "nginx", "--room", "connections=512"], probes].concat());
        let mut connections: Vec<_> = (0..OPEN).map(|_| Connection::open(server.target())).collect();
        for _ in 0..3 {
            for connection in &mut connections {
                connection.ask("GET", "/");
                assert_eq!(connection.response(Duration::ZERO).status, 200);
            }
        }
        let metrics = agent.scrape_settled(3 * OPEN as u64);
        assert_eq!(seen_of(&metrics), 3 * OPEN as u64);
        assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), 3 * OPEN as u64);
        metrics.assert_nothing_lost();
    }
}
