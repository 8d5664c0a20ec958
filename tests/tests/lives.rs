//! What becomes of watched processes: they run other programs, fork away from their parents, become other users, and live
//! in namespaces and file systems of their own. Nothing of it is missed.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use end_to_end::{
    Agent, Container, Metrics, Server, Tools,
    client::{Connection, Load, MIX, Target, add},
    needs,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/lives.py");

fn server() -> Server {
    Server::other(|address| {
        let mut command = Command::new("python3");
        command.arg(SCRIPT).arg(address.port().to_string());
        command
    })
}

/// Asks once; the number of the process that answered.
fn ask(connection: &mut Connection, path: &str) -> u32 {
    connection.ask("GET", path);
    let (mut said, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let read = connection.read(&mut buffer);
        assert!(read > 0, "the response ended early: {said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if let Some((_, body)) = said.split_once("\r\n\r\n")
            && let Some(pid) = body.strip_suffix('\n')
        {
            return pid.parse().expect("it answers with its number");
        }
    }
}

fn assert_all_counted(agent: &Agent, asked: u64) -> Metrics {
    let metrics = agent.scrape_settled(asked);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), asked);
    assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), asked);
    metrics.assert_nothing_lost();
    metrics
}

#[test]
fn a_program_that_runs_another_goes_on_being_counted() {
    needs!(Tools::find());
    let server = server();
    let agent = Agent::start(&["--process-name", "lives"]);
    let mut connection = Connection::open(server.target());
    ask(&mut connection, "/before");
    ask(&mut connection, "/exec");
    let pid = ask(&mut connection, "/after");
    assert_eq!(pid, server.pid());
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
    assert!(command.starts_with("another\0"), "{command}");
    drop(connection);
    ask(&mut Connection::open(server.target()), "/later");
    let metrics = assert_all_counted(&agent, 4);
    assert_eq!(metrics.count("httpmon_workers", &[("service_name", "lives")]), 1);
}

/// A process that is nobody's child any more.
struct Orphan(u32);

impl Drop for Orphan {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = kill(Pid::from_raw(self.0.cast_signed()), Signal::SIGKILL);
    }
}

#[test]
fn a_daemon_that_left_its_parents_goes_on_being_counted() {
    needs!(Tools::find());
    let mut server = server();
    let agent = Agent::start(&["--pid", &server.pid().to_string()]);
    let mut connection = Connection::open(server.target());
    let parent = ask(&mut connection, "/daemon");
    let daemon = Orphan(ask(&mut connection, "/after"));
    assert_eq!(parent, server.pid());
    assert_ne!(parent, daemon.0);
    server.wait();
    drop(connection);
    ask(&mut Connection::open(server.target()), "/later");
    assert_all_counted(&agent, 3);
    agent.scrape_until("its parents are gone, and it is there", |metrics| {
        metrics.count("httpmon_workers", &[]) == 1
            && metrics.count("httpmon_worker_births_total", &[]) == 2
            && metrics.count("httpmon_worker_deaths_total", &[("cause", "exit"), ("code", "0")]) == 2
    });
    drop(daemon);
    agent.scrape_until("it is gone", |metrics| {
        metrics.count("httpmon_workers", &[]) == 0 && metrics.count("http_server_open_connections", &[]) == 0
    });
}

#[test]
fn a_process_that_becomes_another_user_goes_on_being_counted() {
    needs!(Tools::find());
    let server = server();
    let agent = Agent::start(&["--process-name", "lives"]);
    let mut connection = Connection::open(server.target());
    let pid = ask(&mut connection, "/user");
    ask(&mut connection, "/after");
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"), "{status}");
    drop(connection);
    ask(&mut Connection::open(server.target()), "/later");
    let metrics = assert_all_counted(&agent, 3);
    assert!(metrics.sum("httpmon_worker_resident_memory_bytes", &[]) > 1e6);
    assert_eq!(metrics.count("http_server_request_queue_duration_seconds_count", &[]), 3);
    // Who starts to watch it now can do so, too.
    let late = Agent::start(&["--process-name", "lives"]);
    ask(&mut Connection::open(server.target()), "/last");
    let metrics = assert_all_counted(&late, 1);
    assert_eq!(metrics.count("http_server_request_queue_duration_seconds_count", &[]), 1);
}

/// As systemd has it, which listens, and runs the service when somebody comes.
#[test]
fn a_service_that_is_given_its_sockets_is_like_others() {
    const REQUESTS: usize = 400;
    let tools = needs!(Tools::find());
    let activate = needs!(tools.program("systemd-socket-activate"));
    let folder = tempfile::tempdir().expect("a directory can be made");
    let path = folder.path().join("socket");
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    let server = Server::other(|address| {
        let mut command = Command::new(activate);
        command.args(["--listen", &address.to_string(), "--setenv=PYTHONDONTWRITEBYTECODE=1", "--listen"]);
        command.arg(&path).arg(tools.python("gunicorn")).args(["--workers", "2", "app:app"]);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/servers"));
        command
    });
    agent.scrape_until("it and its workers are there", |metrics| metrics.count("httpmon_workers", &[]) == 3);
    let mut answered = BTreeMap::new();
    for target in [server.target(), &Target::Unix(path)] {
        let load =
            Load { target, asks: &MIX, requests: REQUESTS / 2, clients: 4, per_connection: usize::MAX };
        let outcome = load.send();
        assert_eq!(outcome.failed, 0, "{}", server.log());
        add(&mut answered, outcome.answered);
    }
    let metrics = assert_all_counted(&agent, REQUESTS as u64);
    metrics.assert_finished(&[("service_name", "gunicorn")], &answered);
    let queued = metrics.count("http_server_request_queue_duration_seconds_count", &[]);
    assert_eq!(queued, REQUESTS as u64);
}

/// The port, in the server's own network.
const PORT: u16 = 8000;

#[test]
fn a_server_in_namespaces_and_a_root_of_its_own_is_like_others() {
    let tools = needs!(Tools::find());
    let curl = needs!(tools.program("curl"));
    let port = PORT.to_string();
    for selection in [["--process-name", "lives"], ["--port", &port]] {
        for is_there_before in [true, false] {
            let start = || Container::start(&[Path::new(SCRIPT)], &["/srv/lives.py", &port], &port);
            let mut container = is_there_before.then(start);
            let agent = Agent::start(&selection);
            let container = container.get_or_insert_with(start);
            let link =
                |name: &str| fs::read_link(format!("/proc/{}/{name}", container.pid())).expect("it runs");
            assert_ne!(link("root"), PathBuf::from("/"));
            for namespace in ["ns/pid", "ns/net", "ns/mnt"] {
                assert_ne!(
                    link(namespace),
                    fs::read_link(Path::new("/proc/self").join(namespace)).expect("it runs")
                );
            }
            agent.scrape_until("it is taken", |metrics| {
                metrics.sum("httpmon_worker_resident_memory_bytes", &[]) > 0.0
            });
            container.ask(&curl, &format!("http://127.0.0.1:{PORT}/items/[1-100]"));
            let metrics = assert_all_counted(&agent, 100);
            let place = [("server_address", "127.0.0.1"), ("server_port", &port), ("service_name", "lives")];
            assert_eq!(metrics.count("http_server_request_duration_seconds_count", &place), 100);
            assert_eq!(metrics.count("http_server_request_queue_duration_seconds_count", &place), 100);
        }
    }
}
