//! A real Prometheus scrapes the agent and gives the right answers.

use std::{
    io::{Read as _, Write as _},
    process::{Command, Stdio},
    time::Instant,
};

use end_to_end::{
    Agent, App, Prometheus, Server, Tools,
    client::{Ask, Load},
    eventually, needs, run,
};

const SLEEP: Ask = Ask { method: "GET", path: "/sleep/60", route: "/sleep/{id}", body: 0 };
const BOOM: Ask = Ask { method: "GET", path: "/boom", route: "/boom", body: 0 };

#[test]
fn rates_and_quantiles_are_right() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2", "--worker-class", "sync"]);
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    let prometheus = needs!(Prometheus::start(&tools, agent.port()));
    // A counter's first sample is no increase: let it be one request.
    Load { target: server.target(), asks: &[SLEEP, BOOM], requests: 2, clients: 1, per_connection: 1 }.send();
    let count = r#"sum(http_server_request_duration_seconds_count{http_route="/sleep/{id}"})"#;
    eventually("Prometheus scrapes", || (prometheus.value(count) == Some(1.0)).then_some(()));

    let begun = Instant::now();
    let load = Load {
        target: server.target(),
        asks: &[SLEEP, SLEEP, SLEEP, BOOM],
        requests: 200,
        clients: 2,
        per_connection: 1,
    };
    let outcome = load.send();
    let took = begun.elapsed();
    assert_eq!(outcome.failed, 0);
    eventually("Prometheus has it all", || (prometheus.value(count) == Some(151.0)).then_some(()));
    let rate = |selection: &str| {
        let window = took.as_millis();
        let expression =
            format!("sum(rate(http_server_request_duration_seconds_count{{{selection}}}[{window}ms]))");
        prometheus.value(&expression).expect("there is a rate")
    };
    let sent = 150.0 / took.as_secs_f64();
    let seen = rate(r#"http_route="/sleep/{id}""#);
    // Prometheus extrapolates to the window's ends.
    assert!((0.7..1.3).contains(&(seen / sent)), "{seen} requests a second, not {sent}");
    let errors = rate(r#"http_response_status_code=~"5..""#) / rate("");
    assert!((0.2..0.3).contains(&errors), "{errors} of the requests are errors, not 0.25");
    let quantile = prometheus.value(
        r#"histogram_quantile(0.5, sum by (le) (rate(http_server_request_duration_seconds_bucket{http_route="/sleep/{id}"}[1m])))"#,
    );
    let quantile = quantile.expect("there is a quantile");
    // The handler sleeps 60 ms: between the buckets' bounds 50 and 75.
    assert!((0.05..=0.075).contains(&quantile), "{quantile}");
}

/// What a program says of what it is given.
fn told(command: &mut Command, input: &str) -> (bool, String) {
    let mut program = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let program = program.as_mut().expect("the program starts");
    program.stdin.take().expect("it was piped").write_all(input.as_bytes()).expect("the program reads");
    let mut said = String::new();
    program.stdout.take().expect("it was piped").read_to_string(&mut said).expect("it says text");
    program.stderr.take().expect("it was piped").read_to_string(&mut said).expect("it says text");
    (program.wait().expect("the program ends").success(), said)
}

#[test]
fn both_formats_are_in_order() {
    let tools = needs!(Tools::find());
    let promtool = needs!(tools.program("promtool"));
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1"]);
    let agent = Agent::start(&["--process-name", "gunicorn", "--metrics", "otel,flask"]);
    Load { target: server.target(), asks: &[BOOM], requests: 5, clients: 1, per_connection: 1 }.send();
    let metrics = agent.scrape_settled(5);
    let flask = agent.get("/metrics/flask");
    for text in [&metrics.text, &flask] {
        let (content, said) = told(Command::new(&promtool).args(["check", "metrics"]), text);
        assert!(content && said.is_empty(), "{said}");
    }

    let url = format!("http://127.0.0.1:{}/metrics", agent.port());
    let open = run(Command::new("curl").args([
        "--silent",
        "--header",
        "Accept: application/openmetrics-text;version=1.0.0",
        &url,
    ]));
    let parse = "import sys; from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse; \
                 print(sum(s.value for f in parse(sys.stdin.read()) for s in f.samples \
                 if s.name == 'http_server_request_duration_seconds_bucket' and s.labels['le'] == '10.0'))";
    let python = tools.python("python3");
    let (content, said) =
        told(Command::new(python).args(["-c", parse]), &String::from_utf8_lossy(&open.stdout));
    assert!(content && said.trim().parse() == Ok(5.0), "{said}");
}
