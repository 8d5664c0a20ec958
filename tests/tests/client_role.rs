//! The requests that processes make.

use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
};

use end_to_end::{
    Agent, App, Server, Tools,
    client::{Load, MIX},
    eventually, needs,
};

#[test]
fn the_calls_of_usual_clients_are_counted() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(
        &tools,
        App::Wsgi,
        &["--workers", "2", "--worker-class", "gthread", "--threads", "4"],
    );
    let agent = Agent::start(&["--process-name", "calls", "--role", "client"]);
    let address = server.target().address();
    let mut calls = Command::new("sh")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/calls.sh"))
        .arg(format!("http://{address}"))
        .arg(tools.python("python3"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell starts");
    eventually("the script is taken", || agent.log().contains("the script is").then_some(()));
    calls.stdin.take().expect("it was piped").write_all(b"go\n").expect("the script reads");
    let mut said = String::new();
    calls.stdout.take().expect("it was piped").read_to_string(&mut said).expect("the script says a number");
    assert!(calls.wait().expect("the script ends").success());
    let made: u64 = said.trim().parse().unwrap_or_else(|_| panic!("no number: {said:?}"));
    assert_eq!(made, 80);

    let count = "http_client_request_duration_seconds_count";
    let port = address.port().to_string();
    let place = [("service_name", "calls"), ("server_address", "127.0.0.1"), ("server_port", port.as_str())];
    let metrics = agent.scrape_until("every call is counted", |metrics| metrics.count(count, &place) == made);
    let by = |method: &str, status: &str| {
        let labels = [("http_request_method", method), ("http_response_status_code", status)];
        metrics.count(count, &labels)
    };
    let counted =
        [("GET", "200"), ("GET", "301"), ("GET", "500"), ("POST", "201"), ("DELETE", "204"), ("HEAD", "200")]
            .map(|(method, status)| by(method, status));
    assert_eq!(counted, [35, 10, 10, 10, 10, 5]);
    assert_eq!(metrics.count("httpmon_client_requests_seen_total", &[]), made);
    assert_eq!(metrics.count("http_client_active_requests", &[]), 0);
    // What they are asked themselves is another matter.
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 0);
    metrics.assert_nothing_lost();
}

#[test]
fn a_proxy_is_both() {
    let tools = needs!(Tools::find());
    for unix in [false, true] {
        let options = ["--workers", "2", "--worker-class", "sync"];
        let gunicorn = Server::gunicorn_on(unix, &tools, App::Wsgi, &options);
        let upstream = match gunicorn.target() {
            end_to_end::client::Target::Tcp(address) | end_to_end::client::Target::Tls(address) => {
                address.to_string()
            }
            end_to_end::client::Target::Unix(path) => format!("unix:{}:", path.display()),
            end_to_end::client::Target::Abstract(_) => unreachable!("it has a path"),
        };
        let nginx = needs!(Server::nginx(&tools, &format!("location / {{ proxy_pass http://{upstream}; }}")));
        let agent = Agent::start(&["--process-name", "nginx", "--role", "all"]);
        let load = Load { target: nginx.target(), asks: &MIX, requests: 900, clients: 4, per_connection: 20 };
        let outcome = load.send();
        assert_eq!(outcome.failed, 0);
        let metrics = agent.scrape_until("the calls to upstream are counted, too", |metrics| {
            metrics.count("http_client_request_duration_seconds_count", &[]) == 900
        });
        let metrics_of_server = agent.scrape_settled(900);
        assert_eq!(metrics_of_server.finished(&[]), outcome.answered);
        assert_eq!(metrics.count("httpmon_client_requests_seen_total", &[]), 900);
        assert_eq!(metrics.count("http_client_requests_unanswered_total", &[]), 0);
        metrics.assert_nothing_lost();
    }
}
