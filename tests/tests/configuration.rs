//! Options from a file and the environment, reloading, and what systemd is told.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::{Command, Stdio},
};

use end_to_end::{
    Agent, App, Guard, Server, Tools,
    client::{Ask, Load, MIX},
    eventually, free_port, needs, run, run_and_hear,
};
use nix::sys::signal::Signal;

const ITEM: Ask = MIX[0];

fn send(server: &Server, requests: usize) {
    let load = Load { target: server.target(), asks: &[ITEM], requests, clients: 2, per_connection: 5 };
    let outcome = load.send();
    assert_eq!((outcome.total(), outcome.failed), (requests as u64, 0));
}

fn checked(arguments: &[&str]) -> (Option<i32>, String) {
    let (status, said) = run_and_hear(Command::new(Agent::program()).args(arguments));
    (status.code(), said)
}

#[test]
fn a_configuration_is_checked_before_it_is_used() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let file = folder.path().join("httpmon.toml");
    let path = file.display().to_string();
    let check = |text: &str| {
        fs::write(&file, text).expect("it can be written");
        checked(&["run", "--config", &path, "--check-config"])
    };
    let (code, said) =
        check("process-name = ['gunicorn']\nroute = ['/users/{id}']\nmetrics = ['otel', 'flask']\n");
    assert_eq!((code, &*said), (Some(0), "the configuration is right\n"));
    for (text, what) in [
        ("process-name = 'x'\nroutes = []\n", "2: there is no option \"routes\": did you mean \"route\"?"),
        ("process-name = 'x'\nroute = 'users'\n", "it must begin with /"),
        ("process-name = 'x'\nbuckets = [1, 0.5]\n", "bounds are positive"),
        ("process-name = 'x'\ndrop-label = 'service_name'\n", "it can't be dropped"),
        ("route = '/x'\n", "no process is selected"),
    ] {
        let (code, said) = check(text);
        assert!(code == Some(2) && said.contains(what), "{text}: {said}");
    }
}

#[test]
fn a_reload_takes_up_selectors_and_routes_and_loses_no_count() {
    let tools = needs!(Tools::find());
    let first = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1"]);
    let second = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1"]);
    let folder = tempfile::tempdir().expect("a directory can be made");
    let file = folder.path().join("httpmon.toml");
    let ports = [&first, &second].map(|server| server.target().address().port());
    let write = |ports: &[u16], more: &str| {
        let services = ports
            .iter()
            .enumerate()
            .map(|(index, port)| format!("[[service]]\nname = 'service-{index}'\nport = {port}\n"));
        fs::write(&file, format!("{more}\n{}", services.collect::<String>())).expect("it can be written");
    };
    write(&ports[..1], "");
    let agent = Agent::start(&["--config", &file.display().to_string()]);
    send(&first, 20);
    send(&second, 20);
    let count = |service: &str, route: &str| {
        let labels = [("service_name", service), ("http_route", route)];
        agent.scrape().count("http_server_request_duration_seconds_count", &labels)
    };
    agent.scrape_settled(20);
    assert_eq!((count("service-0", "/items/{id}"), count("service-1", "/items/{id}")), (20, 0));

    let reloads = || agent.log().matches("read the configuration again").count();
    write(&ports, "route = '/items/{number}'");
    agent.signal(Signal::SIGHUP);
    eventually("the configuration is read again", || (reloads() == 1).then_some(()));
    send(&first, 10);
    send(&second, 10);
    agent.scrape_settled(40);
    assert_eq!((count("service-0", "/items/{id}"), count("service-0", "/items/{number}")), (20, 10));
    assert_eq!(count("service-1", "/items/{number}"), 10);

    write(&ports[1..], "route = [");
    agent.signal(Signal::SIGHUP);
    eventually("a wrong configuration is refused", || {
        agent.log().contains("the configuration stays as it was").then_some(())
    });
    send(&second, 5);
    agent.scrape_settled(45);

    write(&[ports[1]], "");
    agent.signal(Signal::SIGHUP);
    eventually("the configuration is read again", || (reloads() == 2).then_some(()));
    send(&first, 10);
    send(&second, 10);
    let metrics = agent.scrape_settled(55);
    metrics.assert_books_balance();
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 55);
    // The second service has the first one's name by now.
    assert_eq!((count("service-0", "/items/{id}"), count("service-1", "/items/{number}")), (30, 15));
}

#[test]
fn the_environment_is_heard() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1"]);
    let port = free_port();
    let mut command = Command::new(Agent::program());
    command
        .env("HTTPMON_PID", server.pid().to_string())
        .env("HTTPMON_LISTEN", format!("127.0.0.1:{port}"))
        .stderr(Stdio::null());
    let _agent = Guard::start(&mut command);
    let scrape =
        || run(Command::new("curl").args(["--silent", &format!("http://127.0.0.1:{port}/metrics")])).stdout;
    eventually("it listens where it should", || {
        String::from_utf8_lossy(&scrape())
            .contains("httpmon_workers{service_name=\"gunicorn\"} 2")
            .then_some(())
    });
}

#[test]
fn systemd_is_told() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1"]);
    let folder = tempfile::tempdir().expect("a directory can be made");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket can be bound");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("a timeout can be set");
    let hear = || {
        let mut bytes = [0; 1024];
        let len = socket.recv(&mut bytes).expect("systemd hears something");
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    let mut command = Command::new(Agent::program());
    command
        .args(["--pid", &server.pid().to_string(), "--listen", &format!("127.0.0.1:{}", free_port())])
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null());
    let mut agent = Guard::start(&mut command);
    let ready = hear();
    assert!(ready.contains("READY=1") && ready.contains("STATUS=metrics on http://127.0.0.1:"), "{ready}");
    agent.signal(Signal::SIGHUP);
    let reloading = hear();
    assert!(reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="), "{reloading}");
    assert!(hear().contains("READY=1"));
    agent.signal(Signal::SIGTERM);
    assert!(hear().contains("STOPPING=1"));
    assert_eq!(agent.wait().code(), Some(0));
}
