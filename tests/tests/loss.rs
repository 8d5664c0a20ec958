//! Bad days: the agent stands still while load goes on.

use std::process::Command;

use end_to_end::{
    Agent, Server, Tools,
    client::{Ask, Load},
    needs, probes, run,
};
use nix::sys::signal::Signal;

const REQUESTS: u64 = 200_000;

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
        let url = format!("http://{}/", server.target().address());
        let load = run(Command::new(&ab).args(["-q", "-k", "-c", "16", "-n", &REQUESTS.to_string(), &url]));
        let report = String::from_utf8_lossy(&load.stdout).into_owned();
        // It ended while nobody read the ring buffer.
        assert!(report.contains(&format!("Complete requests:      {REQUESTS}")), "{report}");
        assert!(report.contains("Failed requests:        0"), "{report}");
        agent.signal(Signal::SIGCONT);

        let lost_of = |metrics: &end_to_end::Metrics| metrics.count("httpmon_requests_lost_total", &[]);
        let seen_of = |metrics: &end_to_end::Metrics| metrics.count("httpmon_requests_seen_total", &[]);
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
