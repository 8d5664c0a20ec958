//! gRPC: calls and statuses are those that its own implementation saw as the client.

use std::{
    collections::BTreeMap,
    io::Read as _,
    process::{Command, Stdio},
};

use end_to_end::{Agent, Metrics, Server, Tools, needs};

/// Calls by method and status, as counted.
fn counted(metrics: &Metrics) -> BTreeMap<(String, String), u64> {
    let mut calls = BTreeMap::new();
    let name = "rpc_server_duration_seconds_count";
    for sample in metrics.of(name, &[]) {
        assert_eq!(sample.labels["rpc_service"], "shop.v1.Cart");
        let (method, status) = (&sample.labels["rpc_method"], &sample.labels["rpc_grpc_status_code"]);
        let labels = [("rpc_method", method.as_str()), ("rpc_grpc_status_code", status.as_str())];
        calls.insert((method.clone(), status.clone()), metrics.count(name, &labels));
    }
    calls
}

#[test]
fn calls_and_statuses_are_the_clients() {
    let tools = needs!(Tools::find());
    let script = |name: &str| {
        let mut command = Command::new(tools.python("python3"));
        command.arg(format!("{}/servers/{name}", env!("CARGO_MANIFEST_DIR")));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command
    };
    let server = Server::other(|address| {
        let mut command = script("grpc_server.py");
        command.arg(address.port().to_string());
        command
    });
    let port = server.target().address().port().to_string();
    let agent = Agent::start(&["--pid", &server.pid().to_string()]);
    let mut calls = script("grpc_calls.py")
        .arg(&port)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    drop(calls.stdin.take());
    let mut said = String::new();
    calls.stdout.take().expect("it was piped").read_to_string(&mut said).expect("the script says");
    assert!(calls.wait().expect("the script ends").success());
    let said: Vec<(String, u32, u64)> = serde_json::from_str::<serde_json::Value>(&said)
        .expect("it is JSON")
        .as_array()
        .expect("it is a list")
        .iter()
        .map(|call| {
            let number = |index: usize| call[index].as_u64().expect("a number");
            (call[0].as_str().expect("a name").to_owned(), number(1) as u32, number(2))
        })
        .collect();
    let made: BTreeMap<_, _> =
        said.iter().map(|(method, status, count)| ((method.clone(), status.to_string()), *count)).collect();
    assert_eq!(made[&("Fail".to_owned(), "5".to_owned())], 20, "NOT_FOUND");
    assert_eq!(made[&("Missing".to_owned(), "12".to_owned())], 20, "UNIMPLEMENTED");

    let metrics = agent.scrape_settled(120);
    assert_eq!(counted(&metrics), made);
    // A streaming call lasts until its trailers.
    let watched = [("rpc_method", "Watch")];
    assert!(metrics.mean("rpc_server_duration_seconds", &watched) > 0.14, "{}", metrics.text);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[("http_route", "/shop.v1.Cart/Add")]), 20);
    metrics.assert_nothing_lost();
}
