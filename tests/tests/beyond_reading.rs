//! What httpmon can't read is counted by reason, and said once, with the name of the process.

use std::process::Command;

use end_to_end::{
    Agent, App, Guard, Server, Tools,
    client::{Ask, Load, MIX},
    eventually, needs,
    probes::{ALL, BEST, CALLS, CALLS_CLASSIC},
    run,
    tls::Certificate,
};

/// How often the agent's log says something of a process.
fn said(agent: &Agent, what: &str, process: &str) -> usize {
    agent.log().lines().filter(|line| line.contains(what) && line.contains(process)).count()
}

/// A server that answers through `io_uring`, and an agent that has seen it do so 20 times.
fn uring(probes: &[&str]) -> (Server, Agent) {
    let server = Server::other(|address| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_uring-server"));
        command.arg(address.to_string());
        command
    });
    let agent = Agent::start(&[&["--pid", &server.pid().to_string()], probes].concat());
    let ask = Ask { method: "GET", path: "/", route: "/", body: 0 };
    let load = Load { target: server.target(), asks: &[ask], requests: 20, clients: 1, per_connection: 1 };
    let outcome = load.send();
    assert_eq!((outcome.total(), outcome.failed), (20, 0));
    (server, agent)
}

#[test]
fn io_uring() {
    needs!(Agent::possible());
    let (_server, agent) = uring(BEST);
    assert_eq!(agent.scrape().count("httpmon_feature_enabled", &[("feature", "io_uring")]), 1);
    let metrics = agent.scrape_until("the bytes are counted", |metrics| {
        metrics.count("httpmon_bytes_unparsed_total", &[("reason", "io_uring")]) >= 20 * 30
    });
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 0);
    metrics.assert_nothing_lost();
    assert_eq!(said(&agent, "reason=\"io_uring\"", "uring-server"), 1, "{}", agent.log());
}

#[test]
fn io_uring_where_system_calls_are_all_that_is_seen() {
    needs!(Agent::possible());
    for probes in [CALLS, CALLS_CLASSIC] {
        let (_server, agent) = uring(probes);
        let said = || agent.log().lines().filter(|line| line.contains("uses io_uring")).count();
        eventually("it is said", || (said() > 0).then_some(()));
        let metrics = agent.scrape();
        assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 0);
        assert_eq!(metrics.count("httpmon_feature_enabled", &[("feature", "io_uring")]), 0);
        metrics.assert_nothing_lost();
        assert_eq!(said(), 1, "{}", agent.log());
        assert!(agent.log().contains("uring-server"), "{}", agent.log());
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_of_32_bit_programs_where_system_calls_are_all_that_is_seen() {
    let tools = needs!(Tools::find());
    let folder = tempfile::tempdir().expect("a directory can be made");
    let program = folder.path().join("calls32");
    let options = ["-m32", "-nostdlib", "-static", "-fno-pie", "-no-pie"];
    needs!(tools.c("calls32.c", &program, &options));
    let running = Guard::start(&mut Command::new(&program));
    let agent = Agent::start(&[&["--pid", &running.pid().to_string()], CALLS].concat());
    let said = || agent.log().lines().filter(|line| line.contains("makes 32-bit system calls")).count();
    eventually("it is said", || (said() > 0).then_some(()));
    assert!(said() == 1 && agent.log().contains("calls32"), "{}", agent.log());
}

#[test]
fn tls() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let file = certificate.file();
    let folder = file.parent().expect("it is in a folder");
    let server = Server::other(|address| {
        let mut command = Command::new(tools.python("python3"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/tls.py")).arg(address.port().to_string());
        command.args([&file, &certificate.key()]).current_dir(folder);
        command
    });
    let agent = Agent::start(&["--pid", &server.pid().to_string(), "--tls", "off"]);
    for _ in 0..3 {
        let url = format!("https://{}/certificate", server.target().address());
        let got = run(Command::new("curl").args(["--silent", "--insecure", &url]));
        assert!(got.stdout.starts_with(b"-----BEGIN CERTIFICATE"), "{got:?}");
    }
    let metrics = agent.scrape_until("the bytes are counted", |metrics| {
        metrics.count("httpmon_bytes_unparsed_total", &[("reason", "tls")]) > 1000
    });
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 0);
    assert_eq!(said(&agent, "reason=\"tls\"", "python3"), 1, "{}", agent.log());
}

/// Of what comes by UDP there is nothing to count: that there may be some is told by what servers offer.
#[test]
fn an_offer_of_http3_is_told() {
    const OFFERS: &str = "location / { add_header Alt-Svc 'h3=\":443\"; ma=60'; return 200; }";
    let tools = needs!(Tools::find());
    let curl = needs!(tools.program("curl"));
    for (server, version) in [
        (needs!(Server::nginx(&tools, OFFERS)), "--http1.1"),
        (needs!(Server::nginx_http2(&tools, OFFERS)), "--http2-prior-knowledge"),
    ] {
        let agent = Agent::start(&["--pid", &server.pid().to_string()]);
        for _ in 0..3 {
            let url = format!("http://{}/", server.target().address());
            assert!(run(Command::new(&curl).args(["--silent", "--fail", version, &url])).status.success());
        }
        agent.scrape_settled(3);
        assert_eq!(said(&agent, "offers HTTP/3", "nginx"), 1, "{}", agent.log());
    }
}

#[test]
fn connections_that_a_service_opens_are_nobodys_business() {
    let tools = needs!(Tools::find());
    let gunicorn = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
    let proxied = format!("location / {{ proxy_pass http://{}; }}", gunicorn.target().address());
    let nginx = needs!(Server::nginx(&tools, &proxied));
    for probes in ALL {
        let events = |role: &str| {
            let agent = Agent::start(&[&["--process-name", "nginx", "--role", role], probes].concat());
            let load = Load {
                target: nginx.target(),
                asks: &MIX[..1],
                requests: 100,
                clients: 2,
                per_connection: 10,
            };
            assert_eq!(load.send().failed, 0);
            let metrics = agent.scrape_settled(100);
            assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 100);
            metrics.count("httpmon_events_total", &[])
        };
        let (server, all) = (events("server"), events("all"));
        // Each request upstream is a connection of its own: opened, asked, answered, closed by both.
        assert!(server + 100 * 4 <= all, "{server} events, and {all} with the calls upstream");
    }
}
