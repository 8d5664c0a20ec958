//! Durations are what the client's own clock says.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use end_to_end::{
    Agent, App, Server, Tools,
    client::{Ask, Connection, Load, Target},
    eventually, needs,
};

/// How far apart the clients' clocks and the agent's may be. A wrong time is wrong by as much in every request; a client that
/// is woken late, on a machine that has more to do, is so in some: the quarter of them that agrees best tells.
const APART: f64 = 0.002;

/// One request by both accounts, in seconds from its first byte.
#[derive(Debug)]
struct Measured {
    client: (f64, f64),
    agent: (f64, f64),
}

/// Asks `count` times, one at a time, each on a connection that has waited `idle` and doesn't read for `pause`.
fn measure(
    target: &Target,
    agent: &Agent,
    path: &str,
    count: usize,
    idle: Duration,
    pause: Duration,
) -> Vec<Measured> {
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let mut connection = Connection::open(target);
            thread::sleep(idle);
            let begun = Instant::now();
            connection.ask("GET", path);
            let response = connection.response(pause);
            assert_eq!(response.status, 200);
            let since = |at: Instant| at.duration_since(begun).as_secs_f64();
            (since(response.first), since(response.last))
        })
        .collect();
    let agents = eventually("every request is printed", || {
        let lines: Vec<serde_json::Value> = agent
            .printed()
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &serde_json::Value| line["url.path"] == path)
            .collect();
        (lines.len() == count).then_some(lines)
    });
    let seconds = |value: &serde_json::Value| value.as_f64().expect("a number");
    clients
        .into_iter()
        .zip(&agents)
        .map(|(client, line)| Measured {
            client,
            // What waits for the server waits for the client as well.
            agent: (
                seconds(&line["queue"]) + seconds(&line["first_byte"]),
                seconds(&line["queue"]) + seconds(&line["duration"]),
            ),
        })
        .collect()
}

fn median(values: Vec<f64>) -> f64 {
    quantile(values, 2)
}

/// What one in so many is below.
fn quantile(mut values: Vec<f64>, part: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / part]
}

fn assert_agreement(measured: &[Measured]) {
    let first = |one: &Measured| (one.client.0 - one.agent.0).abs();
    let whole = |one: &Measured| (one.client.1 - one.agent.1).abs();
    for (name, of) in [("first byte", &first as &dyn Fn(&Measured) -> f64), ("duration", &whole)] {
        let apart: Vec<f64> = measured.iter().map(of).collect();
        let (best, usual) = (quantile(apart.clone(), 4), median(apart));
        println!("client and agent, {name}: {:.3} ms apart, {:.3} ms at the median", best * 1e3, usual * 1e3);
        assert!(best < APART, "{name}: {measured:?}");
    }
}

#[test]
fn durations_are_the_clients() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(
        &tools,
        App::Wsgi,
        &["--workers", "2", "--worker-class", "gthread", "--threads", "2"],
    );
    let agent = Agent::start(&["--process-name", "gunicorn", "--print", "json"]);
    let none = Duration::ZERO;
    let sleeping = measure(server.target(), &agent, "/sleep/50", 21, none, none);
    assert_agreement(&sleeping);
    assert!(median(sleeping.iter().map(|one| one.agent.1).collect()) >= 0.05);

    let streaming = measure(server.target(), &agent, "/stream", 11, none, none);
    assert_agreement(&streaming);
    assert!(median(streaming.iter().map(|one| one.agent.1).collect()) >= 0.18);
    assert!(median(streaming.iter().map(|one| one.agent.0).collect()) < 0.05);

    let idle = measure(server.target(), &agent, "/items/1", 1, Duration::from_secs(3), none);
    assert!(idle[0].agent.1 < 1.0, "{idle:?}");

    let metrics = agent.scrape_settled(33);
    metrics.assert_nothing_lost();
}

/// On a unix socket, whose buffers are small: what the client hasn't read yet, the server can't hand over.
#[test]
fn a_slow_reader_shows() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn_unix(&tools, App::Wsgi, &["--workers", "1", "--worker-class", "sync"]);
    let agent = Agent::start(&["--process-name", "gunicorn", "--print", "json"]);
    let pause = Duration::from_millis(200);
    let slow = measure(server.target(), &agent, "/big", 11, Duration::ZERO, pause);
    assert_agreement(&slow);
    assert!(median(slow.iter().map(|one| one.agent.1).collect()) >= 0.2);
    let metrics = agent.scrape_settled(11);
    metrics.assert_nothing_lost();
    assert_eq!(metrics.count("http_server_response_body_size_bytes_sum", &[]), 11 * (10 << 20));
}

/// One worker, eight clients, a handler of 20 ms: a request waits for the seven before it. The wait is what the
/// clients' time is beyond the service's own.
#[test]
fn the_wait_for_a_busy_worker_is_queue_time() {
    let tools = needs!(Tools::find());
    for (unix, hooks) in [(false, "auto"), (true, "auto"), (false, "tracepoint"), (true, "tracepoint")] {
        let options = ["--workers", "1", "--worker-class", "sync"];
        let server = Server::gunicorn_on(unix, &tools, App::Wsgi, &options);
        let agent = Agent::start(&["--process-name", "gunicorn", "--hooks", hooks]);
        let sleep = Ask { method: "GET", path: "/sleep/20", route: "/sleep/{id}", body: 0 };
        let load =
            Load { target: server.target(), asks: &[sleep], requests: 240, clients: 8, per_connection: 1 };
        let outcome = load.send();
        assert_eq!((outcome.total(), outcome.failed), (240, 0));
        let metrics = agent.scrape_settled(240);
        let queue = "http_server_request_queue_duration_seconds";
        assert_eq!(metrics.count(&format!("{queue}_count"), &[]), 240);
        let waited = metrics.mean(queue, &[]);
        let served = metrics.mean("http_server_request_duration_seconds", &[]);
        let clients = outcome.times.iter().map(|(_, whole)| whole).sum::<f64>() / 240.0;
        println!(
            "queue {:.1} ms, service {:.1} ms, clients {:.1} ms",
            waited * 1e3,
            served * 1e3,
            clients * 1e3
        );
        assert!((waited / (clients - served) - 1.0).abs() < 0.05, "{waited} of {clients} less {served}");
        assert!((0.12..0.25).contains(&waited), "{waited}");
    }
}

/// A server that answers by script keeps its own time, as the clients do.
#[test]
fn a_servers_and_the_clients_clocks_agree() {
    let tools = needs!(Tools::find());
    let script = |times: &Path| {
        Server::other(|address| {
            let mut command = Command::new(tools.python("python3"));
            command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/clocked.py"));
            command.args([address.port().to_string(), "4".to_owned(), "10".to_owned()]).arg(times);
            command
        })
    };
    for (clients, hooks) in [(1, "auto"), (4, "auto"), (1, "tracepoint")] {
        let apart = compare(&script, "clocked", "/", clients, hooks);
        assert!(
            apart.server.iter().all(|seconds| seconds.abs() < 0.0002),
            "{clients} clients, {hooks}: {apart:?}"
        );
        // The client must be woken to see the end.
        assert!(apart.client.abs() < APART, "{clients} clients, {hooks}: {apart:?}");
    }
}

/// A middleware within Gunicorn is called after the request was read and its head parsed.
#[test]
fn a_middlewares_clock_agrees() {
    let tools = needs!(Tools::find());
    let gunicorn = |times: &Path| {
        Server::other(|address| {
            let mut command = Command::new(tools.python("gunicorn"));
            command.args([
                "--bind",
                &address.to_string(),
                "--workers",
                "4",
                "--worker-class",
                "sync",
                "timed:app",
            ]);
            command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/servers")).env("TIMES", times);
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        })
    };
    for clients in [1, 4] {
        let apart = compare(&gunicorn, "gunicorn", "/delay/10", clients, "auto");
        assert!(apart.server.iter().all(|seconds| seconds.abs() < 0.001), "{clients} clients: {apart:?}");
        assert!(apart.client.abs() < APART, "{clients} clients: {apart:?}");
    }
}

/// How far clocks are apart, in seconds, by the fastest quarter of the requests.
#[derive(Debug)]
struct Apart {
    /// First byte, duration and sending: the agent's less the server's.
    server: [f64; 3],
    /// The clients' whole time less the agent's queue time and duration.
    client: f64,
}

/// Compares the agent's times of 100 requests with those that a server wrote to a file, and those of its clients.
fn compare(start: &dyn Fn(&Path) -> Server, name: &str, path: &str, clients: usize, hooks: &str) -> Apart {
    const REQUESTS: usize = 100;
    let folder = tempfile::tempdir().expect("a directory can be made");
    let times = folder.path().join("times");
    let server = start(&times);
    let agent = Agent::start(&["--process-name", name, "--print", "json", "--hooks", hooks]);
    let ask = || {
        let mut connection = Connection::open(server.target());
        let begun = Instant::now();
        connection.ask("GET", path);
        connection.response(Duration::ZERO).last.duration_since(begun).as_secs_f64()
    };
    let client: Vec<f64> = thread::scope(|scope| {
        let asking: Vec<_> = (0..clients)
            .map(|_| scope.spawn(|| (0..REQUESTS / clients).map(|_| ask()).collect::<Vec<_>>()))
            .collect();
        asking.into_iter().flat_map(|one| one.join().expect("a client ends in order")).collect()
    });
    let lines: Vec<serde_json::Value> = eventually("every request is printed", || {
        let printed = agent.printed();
        let lines: Vec<_> = printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        (lines.len() == REQUESTS).then_some(lines)
    });
    let text = eventually("the server has written", || {
        let text = std::fs::read_to_string(&times).ok()?;
        (text.lines().count() == REQUESTS).then_some(text)
    });
    let of = |line: &serde_json::Value, name: &str| line[name].as_f64().expect("a number");
    let agents = |value: &dyn Fn(&serde_json::Value) -> f64| quantile(lines.iter().map(value).collect(), 4);
    let servers = |index: usize| {
        let values = text.lines().map(|line| line.split(' ').nth(index).and_then(|word| word.parse().ok()));
        quantile(values.collect::<Option<Vec<f64>>>().expect("numbers"), 4)
    };
    let apart = Apart {
        server: [
            agents(&|line| of(line, "first_byte")) - servers(0),
            agents(&|line| of(line, "duration")) - servers(1),
            agents(&|line| of(line, "duration") - of(line, "first_byte")) - servers(2),
        ],
        client: quantile(client, 4) - agents(&|line| of(line, "queue") + of(line, "duration")),
    };
    let [first, duration, sending] = apart.server.map(|seconds| seconds * 1e3);
    println!(
        "{name}, {clients} clients, {hooks}: agent less server: first byte {first:+.3} ms, duration {duration:+.3} ms, \
         sending {sending:+.3} ms; client less agent {:+.3} ms",
        apart.client * 1e3
    );
    apart
}
