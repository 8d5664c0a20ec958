//! What the agent gives up once it is attached, and that it does all its work without.

use std::{collections::BTreeSet, ffi::OsStr, fs, process::Command, time::Duration};

use end_to_end::{
    Agent, App, Guard, Metrics, Server, Tools,
    client::{Ask, Connection, Load, MIX},
    eventually, needs, run,
    tls::Certificate,
};
use nix::sys::signal::Signal;

/// `CAP_SYS_PTRACE` and `CAP_DAC_READ_SEARCH` (include/uapi/linux/capability.h).
const KEPT: u64 = 1 << 19 | 1 << 2;

/// The values of a line in the status of each of a process's threads: those of the exporter, and the others.
fn status(pid: u32, key: &str) -> [BTreeSet<String>; 2] {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    let mut values = [BTreeSet::new(), BTreeSet::new()];
    for thread in threads {
        let file = thread.expect("it can be listed").path().join("status");
        let text = fs::read_to_string(file).expect("the thread is there");
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.expect("the kernel tells it").trim().to_owned()
        };
        values[usize::from(value("Name") != "exporter")].insert(value(key));
    }
    values
}

fn assert_confined(agent: &Agent) {
    // The threads that answer start with the first scrape.
    agent.scrape();
    let only = |value: &str| BTreeSet::from([value.to_owned()]);
    for set in ["CapEff", "CapPrm"] {
        // Who talks with clients has none.
        let kept = [0, KEPT].map(|mask| only(&format!("{mask:016x}")));
        assert_eq!(status(agent.pid(), set), kept, "{set}");
    }
    for (key, value) in [
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(status(agent.pid(), key), [only(value), only(value)], "{key}");
    }
}

const GET: Ask = Ask { method: "GET", path: "/items/#", route: "/items/{id}", body: 0 };

#[test]
fn workers_programs_and_configuration_that_come_later_are_taken_up() {
    let tools = needs!(Tools::find());
    for hooks in ["tp-btf", "tracepoint"] {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let (config, recording) = (folder.path().join("httpmon.toml"), folder.path().join("events"));
        fs::write(&config, "process-name = ['gunicorn']\n").expect("it can be written");
        let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1"]);
        let arguments =
            ["--config", config.to_str().expect("it is UTF-8"), "--hooks", hooks, "--print", "text"];
        let record = ["--record", recording.to_str().expect("it is UTF-8")];
        let mut agent = Agent::start(&[&arguments[..], &record[..]].concat());
        assert_confined(&agent);

        server.signal(Signal::SIGTTIN);
        eventually("there is another worker", || (server.workers().len() == 2).then_some(()));
        let another = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
        eventually("the other one has its workers", || (another.workers().len() == 2).then_some(()));
        let mut expected = 0;
        for target in [server.target(), another.target()] {
            let load = Load { target, asks: &MIX, requests: 90, clients: 3, per_connection: 1 };
            assert_eq!(load.send().total(), 90);
            expected += 90;
        }
        let metrics = agent.scrape_settled(expected);
        assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), expected);
        assert_eq!(metrics.count("httpmon_workers", &[]), 6);
        assert!(metrics.sum("httpmon_worker_resident_memory_bytes", &[]) > 1e6);
        assert!(metrics.sum("httpmon_worker_cpu_seconds_total", &[]) > 0.0);
        // Each of the connections is known from its birth, which takes their listening sockets to be prepared.
        assert_eq!(metrics.count("http_server_request_queue_duration_seconds_count", &[]), expected);
        metrics.assert_nothing_lost();

        fs::write(&config, "process-name = ['gunicorn']\nroute = ['/items/{item}']\n")
            .expect("it can be written");
        agent.signal(Signal::SIGHUP);
        eventually("it is read again", || agent.log().contains("read the configuration again").then_some(()));
        let load =
            Load { target: server.target(), asks: &[GET], requests: 10, clients: 1, per_connection: 1 };
        load.send();
        let metrics = agent.scrape_settled(expected + 10);
        let route = [("http_route", "/items/{item}")];
        assert_eq!(metrics.count("http_server_request_duration_seconds_count", &route), 10);
        eventually("all is printed", || {
            (agent.printed().lines().count() as u64 == expected + 10).then_some(())
        });
        agent.stop();
        let mut replay = Command::new(Agent::program());
        let replayed = run(replay.arg("replay").arg(&recording));
        let replayed = Metrics::parse(String::from_utf8_lossy(&replayed.stdout).into_owned());
        assert_eq!(replayed.count("httpmon_requests_seen_total", &[]), expected + 10);
    }
}

#[test]
fn another_users_listening_sockets_are_found_later() {
    let tools = needs!(Tools::find());
    let (setpriv, python) = (needs!(tools.program("setpriv")), needs!(tools.program("python3")));
    let mut agent = None;
    let server = Server::other(|address| {
        agent = Some(Agent::start(&["--port", &address.port().to_string()]));
        let mut command = Command::new(&setpriv);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&python);
        command.args(["-m", "http.server", "--bind", "127.0.0.1", &address.port().to_string()]);
        command.current_dir("/usr");
        command
    });
    let agent = agent.expect("it was started");
    assert_confined(&agent);
    agent.scrape_until("it is taken", |metrics| {
        metrics.sum("httpmon_worker_resident_memory_bytes", &[]) > 0.0
    });
    let get = Ask { method: "GET", path: "/", route: "/", body: 0 };
    Load { target: server.target(), asks: &[get], requests: 20, clients: 1, per_connection: 1 }.send();
    assert_eq!(agent.scrape_settled(20).count("httpmon_requests_seen_total", &[]), 20);
}

#[test]
fn an_ordinary_user_with_four_capabilities_keeps_two_of_them() {
    let tools = needs!(Tools::find());
    let setpriv = needs!(tools.program("setpriv"));
    let held = "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search";
    let mut command = Command::new(setpriv);
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.args(["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={held}")));
    command.arg(Agent::program());
    let agent = Agent::start_by(command, &["--process-name", "gunicorn"]);
    assert_confined(&agent);
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
    Load { target: server.target(), asks: &MIX, requests: 90, clients: 3, per_connection: 1 }.send();
    let metrics = agent.scrape_settled(90);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 90);
    metrics.assert_nothing_lost();
}

#[test]
fn what_was_captured_stands_in_no_log() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(
        &tools,
        App::Wsgi,
        &["--workers", "1", "--worker-class", "gthread", "--keep-alive", "60"],
    );
    let mut agent = Agent::start(&["--process-name", "gunicorn"]);
    let body = "body-s3cret";
    let head = "authorization: header-s3cret\r\ncookie: cookie-s3cret\r\nhost: host-s3cret\r\n";
    let mut connection = Connection::open(server.target());
    connection.send(
        format!(
            "POST /items?token=query-s3cret HTTP/1.1\r\n{head}content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .as_bytes(),
    );
    assert_eq!(connection.response(Duration::ZERO).status, 201);
    // What is no HTTP, or ends early, makes the agent say something; not what it was.
    for bytes in [
        "\u{1}binary-s3cret\r\n\r\n",
        "GET /path-s3cret HTTP/9.9\r\n\r\n",
        "GET /x HTTP/1.1\r\nhalf-s3cret: 1",
    ] {
        let mut connection = Connection::open(server.target());
        connection.send(bytes.as_bytes());
        connection.end();
        while connection.read(&mut [0; 4096]) > 0 {}
    }
    agent.scrape_until("all is seen and done", |metrics| {
        metrics.count("httpmon_bytes_unparsed_total", &[]) > 0
            && metrics
                .count("http_server_request_duration_seconds_count", &[("http_response_status_code", "201")])
                == 1
            && metrics.count("http_server_active_requests", &[]) == 0
    });
    agent.stop();
    assert!(!agent.log().contains("s3cret"), "{}", agent.log());
    assert!(agent.log().contains("not HTTP"), "{}", agent.log());
}

/// While a table is asked from outside, the kernel skips the classic programs that come on that processor (`bpf_prog_active`
/// in `trace_call_bpf`, `kernel/trace/bpf_trace.c`): so none is, whatever comes and goes, as long as no process is taken.
#[test]
fn no_table_is_asked_while_requests_come() {
    const REQUESTS: usize = 90;
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let strace = needs!(tools.program("strace"));
    let server = Server::gunicorn_tls(&tools, &certificate, App::Wsgi, &["--workers", "2"]);
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    let load =
        Load { target: server.target(), asks: &MIX, requests: REQUESTS, clients: 3, per_connection: 1 };
    assert_eq!(load.send().total(), REQUESTS as u64);
    agent.scrape_settled(REQUESTS as u64);

    let folder = tempfile::tempdir().expect("a directory can be made");
    let calls = folder.path().join("calls");
    let options = [OsStr::new("-e"), OsStr::new("trace=bpf"), OsStr::new("-o"), calls.as_os_str()];
    let mut tracer = Guard::strace(&strace, options, agent.pid());
    assert_eq!(load.send().total(), REQUESTS as u64);
    // Programs start all the time, and are none of its business.
    run(&mut Command::new("true"));
    let metrics = agent.scrape_settled(2 * REQUESTS as u64);
    tracer.signal(Signal::SIGTERM);
    tracer.wait();
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[("url_scheme", "https")]), 2 * REQUESTS as u64);
    assert_eq!(fs::read_to_string(&calls).expect("it can be read"), "");
}
