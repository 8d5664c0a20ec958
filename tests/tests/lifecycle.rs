//! Workers come and go under load, and no request is lost.

use std::{sync::atomic::AtomicBool, sync::atomic::Ordering, thread};

use end_to_end::{
    Agent, App, Server, Tools,
    client::{Ask, Connection, Load, MIX},
    eventually, needs,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const ITEM: Ask = MIX[0];

#[test]
fn hundreds_of_worker_births_lose_nothing() {
    let tools = needs!(Tools::find());
    // Preloaded, a worker serves within milliseconds of its fork.
    let options = ["--workers", "4", "--worker-class", "sync", "--preload", "--max-requests", "50"];
    let server = Server::gunicorn(&tools, App::Wsgi, &options);
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    let load = Load { target: server.target(), asks: &MIX, requests: 15_000, clients: 4, per_connection: 1 };
    let outcome = load.send();
    assert_eq!(outcome.failed, 0, "{}", server.log());
    let metrics = agent.scrape_settled(15_000);
    metrics.assert_finished(&[], &outcome.answered);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 15_000);
    metrics.assert_nothing_lost();
    // The first four were there before the agent.
    let logged = || server.log().matches("Booting worker").count() as u64 - 4;
    let metrics = agent.scrape_until("ended workers are gone, and the last ones have logged", |metrics| {
        metrics.count("httpmon_workers", &[]) == 5
            && metrics.count("httpmon_worker_births_total", &[]) == logged()
    });
    let births = metrics.count("httpmon_worker_births_total", &[]);
    assert!(births >= 250, "{births} births");
    let deaths = metrics.count("httpmon_worker_deaths_total", &[("cause", "exit"), ("code", "0")]);
    assert_eq!(deaths, births);
    assert_eq!(metrics.count("httpmon_worker_deaths_total", &[]), deaths);
    // 15 000 requests of a Flask application take seconds, and not minutes; four small workers some megabytes.
    let cpu = metrics.sum("httpmon_worker_cpu_seconds_total", &[("service_name", "gunicorn")]);
    assert!((2.0..200.0).contains(&cpu), "{cpu} seconds");
    let resident = metrics.sum("httpmon_worker_resident_memory_bytes", &[("service_name", "gunicorn")]);
    assert!((20e6..2e9).contains(&resident), "{resident} bytes");
}

#[test]
fn a_reload_under_load_loses_nothing() {
    let tools = needs!(Tools::find());
    let options = ["--workers", "3", "--worker-class", "sync"];
    let server = Server::gunicorn(&tools, App::Wsgi, &options);
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    let loaded = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            for reload in 1..=3 {
                server.signal(Signal::SIGHUP);
                // The next one comes when this one's three workers are there.
                eventually("the reload is done", || {
                    (server.log().matches("Booting worker").count() >= 3 + 3 * reload
                        || loaded.load(Ordering::Relaxed))
                    .then_some(())
                });
            }
        });
        let load =
            Load { target: server.target(), asks: &MIX, requests: 6_000, clients: 4, per_connection: 1 };
        let outcome = load.send();
        loaded.store(true, Ordering::Relaxed);
        outcome
    });
    assert_eq!(outcome.failed, 0, "{}", server.log());
    let metrics = agent.scrape_settled(6_000);
    metrics.assert_finished(&[], &outcome.answered);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 6_000);
    metrics.assert_nothing_lost();
}

#[test]
fn a_worker_killed_within_a_request_leaves_it_unanswered() {
    let tools = needs!(Tools::find());
    for unix in [false, true] {
        let options = ["--workers", "1", "--worker-class", "sync"];
        let server = Server::gunicorn_on(unix, &tools, App::Wsgi, &options);
        let agent = Agent::start(&["--process-name", "gunicorn"]);
        let mut client = Connection::open(server.target());
        client.send(b"GET /sleep/60000 HTTP/1.1\r\nhost: test\r\n\r\n");
        agent.scrape_until("the request is in flight", |metrics| {
            metrics.count("http_server_active_requests", &[("http_route", "/sleep/{id}")]) == 1
        });
        let worker = Pid::from_raw(server.workers()[0].cast_signed());
        kill(worker, Signal::SIGKILL).expect("the worker is there");
        let load =
            Load { target: server.target(), asks: &[ITEM], requests: 20, clients: 1, per_connection: 1 };
        let outcome = load.send();
        assert_eq!(outcome.failed, 0, "{}", server.log());
        let metrics = agent.scrape_settled(21);
        let unanswered = "http_server_requests_unanswered_total";
        assert_eq!(
            metrics.count(unanswered, &[("reason", "process_exited"), ("http_route", "/sleep/{id}")]),
            1
        );
        assert_eq!(metrics.count(unanswered, &[]), 1, "{}", metrics.text);
        metrics.assert_finished(&[], &outcome.answered);
        metrics.assert_nothing_lost();
        let killed = [("cause", "signal"), ("code", "SIGKILL")];
        assert_eq!(metrics.count("httpmon_worker_deaths_total", &killed), 1);
        assert_eq!(metrics.count("httpmon_worker_deaths_total", &[]), 1);
    }
}

#[test]
fn a_service_that_starts_after_the_agent_is_taken_with_its_first_request() {
    let tools = needs!(Tools::find());
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    eventually("it says what it waits for", || agent.log().contains("no process matches yet").then_some(()));
    let options = ["--workers", "2", "--worker-class", "gthread", "--threads", "2"];
    let server = Server::gunicorn(&tools, App::Wsgi, &options);
    let load = Load { target: server.target(), asks: &MIX, requests: 500, clients: 2, per_connection: 10 };
    let outcome = load.send();
    assert_eq!(outcome.failed, 0);
    let metrics = agent.scrape_settled(500);
    metrics.assert_finished(&[], &outcome.answered);
    drop(server);
    agent.scrape_until("nothing is left of it but its counts", |metrics| {
        metrics.count("httpmon_workers", &[]) == 0 && metrics.count("http_server_open_connections", &[]) == 0
    });
}
