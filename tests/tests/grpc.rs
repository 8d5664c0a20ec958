//! gRPC: calls and statuses are those that its own implementation saw as the client.

use std::{
    collections::BTreeMap,
    io::Read as _,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};

use end_to_end::{Agent, Metrics, Server, Tools, eventually, needs};

/// Calls by method and status.
type Calls = BTreeMap<(String, String), u64>;

/// Calls by method and status, as counted.
fn counted(metrics: &Metrics, name: &str) -> Calls {
    let name = &format!("{name}_count");
    let mut calls = BTreeMap::new();
    for sample in metrics.of(name, &[]) {
        assert_eq!(sample.labels["rpc_service"], "shop.v1.Cart");
        let (method, status) = (&sample.labels["rpc_method"], &sample.labels["rpc_grpc_status_code"]);
        let labels = [("rpc_method", method.as_str()), ("rpc_grpc_status_code", status.as_str())];
        calls.insert((method.clone(), status.clone()), metrics.count(name, &labels));
    }
    calls
}

fn script(tools: &Tools, name: &str) -> Command {
    let mut command = Command::new(tools.python("python3"));
    command.arg(format!("{}/servers/{name}", env!("CARGO_MANIFEST_DIR")));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn serve(tools: &Tools, name: &str) -> Server {
    Server::other(|address| {
        let mut command = script(tools, name);
        command.arg(address.port().to_string());
        command
    })
}

/// Calls all methods, `more` of them if asked for, once `ready` says so; what the client says of them.
fn call(tools: &Tools, server: &Server, more: &[&str], ready: impl FnOnce()) -> Calls {
    let mut calls = script(tools, "grpc_calls.py")
        .arg(server.target().address().port().to_string())
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    ready();
    drop(calls.stdin.take());
    let mut said = String::new();
    calls.stdout.take().expect("it was piped").read_to_string(&mut said).expect("the script says");
    assert!(calls.wait().expect("the script ends").success());
    let said: Vec<(String, u32, u64)> = serde_json::from_str(&said).expect("calls as JSON");
    said.into_iter().map(|(method, status, count)| ((method, status.to_string()), count)).collect()
}

/// Agents that watch a script by its name would see that of the other test.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn calls_and_statuses_are_the_clients() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let tools = needs!(Tools::find());
    for implementation in ["grpclib_server.py", "grpcio_server.py"] {
        let server = serve(&tools, implementation);
        let agent = Agent::start(&["--pid", &server.pid().to_string()]);
        let made = call(&tools, &server, &[], || ());
        assert_eq!(made[&("Fail".to_owned(), "5".to_owned())], 20, "NOT_FOUND");
        assert_eq!(made[&("Missing".to_owned(), "12".to_owned())], 20, "UNIMPLEMENTED");

        let metrics = agent.scrape_settled(120);
        assert_eq!(counted(&metrics, "rpc_server_duration_seconds"), made, "{implementation}");
        // A streaming call lasts until its trailers.
        let watched = [("rpc_method", "Watch")];
        assert!(metrics.mean("rpc_server_duration_seconds", &watched) > 0.14, "{}", metrics.text);
        assert_eq!(metrics.count("httpmon_requests_seen_total", &[("http_route", "/shop.v1.Cart/Add")]), 20);
        metrics.assert_nothing_lost();
    }
}

/// Every status there is, as the client has it, at the server and at the client. A call that the client takes back, or gives
/// up when its deadline passes, has no status but what either side makes up: the server may say one before it hears of that.
#[test]
fn calls_that_end_in_any_way_are_the_clients() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let tools = needs!(Tools::find());
    let server = serve(&tools, "grpcio_server.py");
    let agent = Agent::start(&["--pid", &server.pid().to_string()]);
    let clients = Agent::start(&["--process-name", "grpc_calls.py", "--role", "client"]);
    let mut made = call(&tools, &server, &["more"], || {
        eventually("the script is taken", || clients.log().contains("the script is").then_some(()));
    });
    for (method, status) in [("Late", "4"), ("Cancelled", "1")] {
        assert_eq!(made.remove(&(method.to_owned(), status.to_owned())), Some(32));
    }
    for (agent, side) in [(&agent, "server"), (&clients, "client")] {
        let calls = format!("rpc_{side}_duration_seconds");
        let unanswered = format!("http_{side}_requests_unanswered_total");
        let metrics = agent.scrape_until("every call has ended", |metrics| {
            metrics.count(&format!("{calls}_count"), &[]) + metrics.count(&unanswered, &[]) == 288
        });
        let mut counted = counted(&metrics, &calls);
        counted.remove(&("Wait".to_owned(), "4".to_owned()));
        assert_eq!(counted, made, "{side}");
        let given_up = metrics.count(&unanswered, &[("reason", "client_reset")]);
        assert_eq!(given_up, metrics.count(&unanswered, &[]), "{side}");
        assert!((32..=64).contains(&given_up), "{side}: {given_up}");
        metrics.assert_nothing_lost();
    }
}
