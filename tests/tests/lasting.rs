//! What lasts: connections of RFC 6455 (web sockets), and events that a server sends.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use end_to_end::{Agent, Server, Tools, needs, run};

fn server(tools: &Tools) -> Server {
    Server::other(|address| {
        let mut command = Command::new(tools.python("uvicorn"));
        command.args(["live:app", "--ws", "websockets-sansio", "--log-level", "warning"]);
        command.args(["--port", &address.port().to_string()]);
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/servers"));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    })
}

#[test]
fn websockets_are_open_and_then_have_lasted_and_messages_are_no_requests() {
    let tools = needs!(Tools::find());
    let server = server(&tools);
    let agent = Agent::start(&["--pid", &server.pid().to_string()]);
    let mut clients: Vec<_> = (0..3)
        .map(|_| {
            let mut command = Command::new(tools.python("python3"));
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/ws_client.py"));
            command.args([&format!("ws://{}/ws", server.target().address()), "20"]);
            let mut client =
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("Python starts");
            let mut said = String::new();
            let mut out = BufReader::new(client.stdout.take().expect("it was piped"));
            out.read_line(&mut said).expect("the client says something");
            assert_eq!(said, "talked\n");
            client
        })
        .collect();
    let place = [("http_route", "/ws")];
    let open = "httpmon_websocket_open_connections";
    let ended = "httpmon_websocket_duration_seconds_count";
    let metrics = agent.scrape_until("three are open", |metrics| metrics.count(open, &place) == 3);
    assert_eq!(metrics.count(ended, &place), 0);
    let labels = [("http_route", "/ws"), ("http_response_status_code", "101")];
    assert_eq!(metrics.count("http_server_request_duration_seconds_count", &labels), 3);
    for client in &mut clients {
        drop(client.stdin.take());
        assert!(client.wait().expect("the client ends").success());
    }
    let metrics = agent.scrape_until("they have ended", |metrics| metrics.count(ended, &place) == 3);
    assert_eq!(metrics.count(open, &place), 0);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 3);
    assert!(metrics.count("httpmon_bytes_unparsed_total", &[("reason", "not_http")]) > 0);
    metrics.assert_nothing_lost();
}

#[test]
fn a_stream_of_events_shows_its_first_byte_and_how_long_it_lasted() {
    let tools = needs!(Tools::find());
    let server = server(&tools);
    let curl = needs!(tools.program("curl"));
    let agent = Agent::start(&["--pid", &server.pid().to_string()]);
    let url = format!("http://{}/events", server.target().address());
    let output = run(Command::new(curl).args(["-sN", &url]));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "data: 0\n\ndata: 1\n\ndata: 2\n\n");
    let metrics = agent.scrape_settled(1);
    let labels = [("http_route", "/events"), ("http_response_status_code", "200")];
    let of = |name: &str| metrics.mean(&format!("http_server_{name}_seconds"), &labels);
    // Three pauses of 100 ms lie between the first byte and the last, and none before the first.
    assert!(of("response_send_duration") > 0.25 && of("request_duration") > 0.25);
    let until_first = of("request_duration") - of("response_send_duration");
    assert!((of("response_first_byte") - until_first).abs() < 1e-6);
    assert_eq!(metrics.count("http_server_response_body_size_bytes_sum", &labels), 27);
}

#[test]
fn traces_show_in_lines_in_the_last_requests_and_as_exemplars() {
    let tools = needs!(Tools::find());
    let server = server(&tools);
    let curl = needs!(tools.program("curl"));
    let agent = Agent::start(&["--pid", &server.pid().to_string(), "--print", "json"]);
    let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
    let url = format!("http://{}/events", server.target().address());
    let ask = |more: &[&str]| run(Command::new(&curl).args(["-s", "-o", "/dev/null"]).args(more).arg(&url));
    ask(&["-H", &format!("traceparent: 00-{trace}-{span}-01")]);
    ask(&[]);
    agent.scrape_settled(2);
    let recent: serde_json::Value = serde_json::from_str(&agent.get("/api/requests")).expect("it is JSON");
    assert_eq!((&recent[1]["trace_id"], &recent[1]["span_id"]), (&trace.into(), &span.into()));
    assert!(recent[0]["trace_id"].is_null());
    end_to_end::eventually("it is printed", || agent.printed().contains(trace).then_some(()));
    let metrics = format!("http://127.0.0.1:{}/metrics", agent.port());
    let scrape = |accept: &str| {
        let output = run(Command::new(&curl).args(["-s", "-H", accept, &metrics]));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let open = scrape("accept: application/openmetrics-text;version=1.0.0");
    let exemplar = format!(" # {{span_id=\"{span}\",trace_id=\"{trace}\"}} ");
    let lines: Vec<_> = open.lines().filter(|line| line.contains(" # {")).collect();
    assert_eq!(lines.len(), 1, "{open}");
    assert!(lines[0].starts_with("http_server_request_duration_seconds_bucket{"), "{}", lines[0]);
    let seconds =
        lines[0].split_once(&exemplar).and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds > 0.25), "{}", lines[0]);
    assert!(!scrape("accept: text/plain").contains(trace));
}
