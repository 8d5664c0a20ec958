//! A day's coming and going, squeezed: workers and connections by the thousand leave nothing behind.

use std::process::Command;

use end_to_end::{
    Agent, Server, Tools,
    client::{Ask, Load},
    eventually, needs,
    probes::{BEST, CALLS, CLASSIC},
    run,
};

/// The numbers of entries in a map of the agent's, by its name.
fn entries(tools: &Tools, agent: &Agent, name: &str) -> Result<usize, String> {
    let bpftool = tools.program("bpftool")?;
    let mut count = 0;
    for entry in std::fs::read_dir(format!("/proc/{}/fdinfo", agent.pid())).expect("the agent runs") {
        let text =
            std::fs::read_to_string(entry.expect("the directory can be read").path()).unwrap_or_default();
        let Some(id) = text.lines().find_map(|line| line.strip_prefix("map_id:")) else { continue };
        let show = run(Command::new(&bpftool).args(["--json", "map", "show", "id", id.trim()]));
        let map: serde_json::Value =
            serde_json::from_slice(&show.stdout).map_err(|error| error.to_string())?;
        if map["name"] == name {
            let dump = run(Command::new(&bpftool).args(["--json", "map", "dump", "id", id.trim()]));
            let dump: serde_json::Value =
                serde_json::from_slice(&dump.stdout).map_err(|error| error.to_string())?;
            count += dump.as_array().map_or(0, Vec::len);
        }
    }
    Ok(count)
}

fn churn(probes: &[&str], connections: usize) {
    const WORKERS: usize = 4;
    let tools = needs!(Tools::find());
    let server = Server::other(|address| {
        let mut command = Command::new(tools.python("python3"));
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/forking.py"));
        command.args([address.port().to_string(), WORKERS.to_string()]);
        command
    });
    let agent = Agent::start(&[&["--process-name", "forking"], probes].concat());
    let ask = Ask { method: "GET", path: "/", route: "/", body: 0 };
    let send = |requests| {
        let load = Load { target: server.target(), asks: &[ask], requests, clients: 8, per_connection: 1 };
        let outcome = load.send();
        assert_eq!((outcome.total(), outcome.failed), (requests as u64, 0));
    };
    let resident = || agent.scrape().sum("process_resident_memory_bytes", &[]);
    send(connections / 10);
    let before = resident();
    send(connections - connections / 10);
    let after = resident();
    let metrics = agent.scrape_settled(connections as u64);
    assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), connections as u64);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), connections as u64);
    metrics.assert_nothing_lost();
    // A worker takes ten connections; the first ones may have taken one that tried whether the server listens.
    let births = metrics.count("httpmon_worker_births_total", &[]) as usize;
    assert!(births + WORKERS >= connections / 10, "{births} births");
    println!(
        "{births} births, {connections} connections: {:.1} MiB, then {:.1} MiB",
        before / 1e6,
        after / 1e6
    );
    assert!((after / before - 1.0).abs() < 0.1, "{before} bytes, then {after}");
    agent.scrape_until("nothing is left", |metrics| {
        metrics.count("http_server_open_connections", &[]) == 0
            && metrics.count("httpmon_workers", &[]) == 1 + WORKERS as u64
    });
    eventually("no map entry is left", || {
        let processes = entries(&tools, &agent, "PROCESSES").expect("bpftool lists it");
        let sockets = entries(&tools, &agent, "SOCKETS").expect("bpftool lists it");
        (processes == 1 + WORKERS && sockets == 0).then_some(())
    });
}

#[test]
fn twenty_thousand_workers_and_their_connections() {
    churn(BEST, 200_000);
}

#[test]
fn two_thousand_workers_with_classic_tracepoints() {
    churn(CLASSIC, 20_000);
}

#[test]
fn two_thousand_workers_by_system_calls() {
    churn(CALLS, 20_000);
}
