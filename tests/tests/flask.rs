//! Dashboards of prometheus-flask-exporter go on: the same application, the same traffic, the exporter in the process
//! and httpmon outside, both scraped by a real Prometheus.

use end_to_end::{
    Agent, App, Prometheus, Server, Tools,
    client::{Ask, Load},
    eventually, needs,
};

const ASKS: [Ask; 5] = [
    Ask { method: "GET", path: "/items/1", route: "/items/1", body: 0 },
    Ask { method: "GET", path: "/sleep/60", route: "/sleep/60", body: 0 },
    Ask { method: "POST", path: "/items", route: "/items", body: 10 },
    Ask { method: "GET", path: "/boom", route: "/boom", body: 0 },
    Ask { method: "GET", path: "/nothing", route: "/nothing", body: 0 },
];

/// The panels of the exporter's sample dashboard, with a window that the test's traffic fills; how far its own answer may
/// be from httpmon's, as a share: Prometheus extrapolates from samples of different moments (the counts themselves are
/// compared for equality), and times differ by what the exporter can't see.
const PANELS: [(&str, &str, f64); 7] = [
    (
        "requests",
        r#"sum by (path) (increase(flask_http_request_duration_seconds_count{status="200"}[1m]))"#,
        0.1,
    ),
    ("errors", r#"sum(increase(flask_http_request_duration_seconds_count{status!="200"}[1m]))"#, 0.1),
    ("by status", "sum by (status) (increase(flask_http_request_total[1m]))", 0.1),
    (
        "average",
        r#"sum by (path) (rate(flask_http_request_duration_seconds_sum{status="200",path=~"/sleep.*"}[1m])) / sum by (path) (rate(flask_http_request_duration_seconds_count{status="200",path=~"/sleep.*"}[1m]))"#,
        0.15,
    ),
    (
        "p50",
        r#"histogram_quantile(0.5, sum by (path, le) (rate(flask_http_request_duration_seconds_bucket{status="200",path=~"/sleep.*"}[1m])))"#,
        0.15,
    ),
    (
        "p90",
        r#"histogram_quantile(0.9, sum by (path, le) (rate(flask_http_request_duration_seconds_bucket{status="200",path=~"/sleep.*"}[1m])))"#,
        0.15,
    ),
    (
        "under 250 ms",
        r#"sum by (path) (increase(flask_http_request_duration_seconds_bucket{status="200",le="0.25"}[1m])) / ignoring (le) sum by (path) (increase(flask_http_request_duration_seconds_count{status="200"}[1m]))"#,
        0.0,
    ),
];

/// The same expression for one job.
fn of_job(expression: &str, job: &str) -> String {
    let mut out = String::new();
    let mut rest = expression;
    while let Some(at) = rest.find("flask_http_").or_else(|| rest.find("process_resident")) {
        let name_end = rest[at..].find(|char: char| !char.is_ascii_alphanumeric() && char != '_');
        let end = at + name_end.unwrap_or(rest.len() - at);
        out.push_str(&rest[..end]);
        rest = &rest[end..];
        match rest.strip_prefix('{') {
            Some(labels) => {
                out.extend(["{job=\"", job, "\","]);
                rest = labels;
            }
            None => out.extend(["{job=\"", job, "\"}"]),
        }
    }
    out + rest
}

/// Values by path or status, in order.
fn answers(prometheus: &Prometheus, expression: &str) -> Vec<(String, f64)> {
    let series = prometheus.series(expression).unwrap_or_else(|why| panic!("{why}"));
    let mut answers: Vec<_> = series
        .iter()
        .map(|one| {
            let label =
                one["metric"]["path"].as_str().or(one["metric"]["status"].as_str()).unwrap_or_default();
            let value = one["value"][1].as_str().and_then(|value| value.parse().ok());
            (label.to_owned(), value.expect("a value is a number"))
        })
        .collect();
    answers.sort_by(|one, other| one.0.cmp(&other.0));
    answers
}

#[test]
fn the_exporters_dashboard_gets_the_exporters_answers() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(
        &tools,
        App::Exporter,
        &["--workers", "1", "--worker-class", "gthread", "--threads", "4"],
    );
    let agent = Agent::start(&[
        "--pid",
        &server.pid().to_string(),
        "--metrics",
        "otel,flask",
        "--route-mode",
        "path",
        "--ignore-path",
        "/metrics",
    ]);
    let (inside, outside) = (server.target().address().port(), agent.port());
    let prometheus = needs!(Prometheus::configured(
        &tools,
        &format!(
            "scrape_configs:\n\
             - job_name: inside\n  static_configs: [{{ targets: ['127.0.0.1:{inside}'] }}]\n\
             - job_name: outside\n  metrics_path: /metrics/flask\n  params: {{ service: [gunicorn] }}\n  static_configs: [{{ targets: ['127.0.0.1:{outside}'] }}]\n"
        ),
    ));
    let send = |requests| {
        let load = Load { target: server.target(), asks: &ASKS, requests, clients: 4, per_connection: 10 };
        assert_eq!(load.send().failed, 0);
    };
    // A series' first sample is no increase: let there be one before the traffic that is compared.
    send(10);
    let total = |job: &str| prometheus.value(&format!("sum(flask_http_request_total{{job=\"{job}\"}})"));
    for job in ["inside", "outside"] {
        eventually("Prometheus has what came first", || (total(job) == Some(10.0)).then_some(()));
    }
    send(400);
    for job in ["inside", "outside"] {
        eventually("Prometheus has it all", || (total(job) == Some(410.0)).then_some(()));
    }
    let counts = |job: &str| {
        let name = format!(
            "sum by (path, status) (flask_http_request_duration_seconds_count{{job=\"{job}\",status=\"200\"}})"
        );
        answers(&prometheus, &name)
    };
    assert_eq!(counts("inside"), counts("outside"));
    for (panel, expression, tolerance) in PANELS {
        let [inside, outside] =
            ["inside", "outside"].map(|job| answers(&prometheus, &of_job(expression, job)));
        assert!(!inside.is_empty(), "{panel}: the exporter says nothing");
        assert_eq!(inside.len(), outside.len(), "{panel}: {inside:?} and {outside:?}");
        for ((path, theirs), (other, ours)) in inside.iter().zip(&outside) {
            println!("{panel} {path}: the exporter says {theirs}, httpmon {ours}");
            assert_eq!(path, other);
            let most = (theirs * tolerance).max(1e-9);
            assert!((theirs - ours).abs() <= most, "{panel} {path}: {theirs} and {ours}");
        }
    }
    // The exporter tells of the process that answers alone, httpmon of all that the service has.
    let resident = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it uses memory");
        line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number of kB") * 1024.0
    };
    let all: f64 = server.workers().into_iter().chain([server.pid()]).map(resident).sum();
    let [inside, outside] = ["inside", "outside"].map(|job| {
        let memory = format!("process_resident_memory_bytes{{job=\"{job}\"}}");
        prometheus.value(&memory).expect("there is a value")
    });
    println!("memory: the exporter says {inside}, httpmon {outside}, the kernel {all}");
    assert!(inside < outside && (outside - all).abs() < 0.05 * all, "{inside}, {outside}, {all}");
    let cpu = prometheus.value("rate(process_cpu_seconds_total{job=\"outside\"}[1m])");
    assert!(cpu.is_some_and(|cpu| cpu > 0.0), "{cpu:?}");
}

#[test]
fn several_workers_are_one_service() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "3"]);
    let agent = Agent::start(&["--process-name", "gunicorn", "--metrics", "flask"]);
    let load =
        Load { target: server.target(), asks: &ASKS[3..4], requests: 60, clients: 6, per_connection: 1 };
    assert_eq!(load.send().failed, 0);
    eventually("all are counted", || {
        let labels = [("service_name", "gunicorn"), ("status", "500")];
        (agent.scrape().count("flask_http_request_exceptions_total", &labels) == 60).then_some(())
    });
    let page = agent.get("/metrics/flask?service=gunicorn");
    assert!(page.contains("flask_http_request_total{method=\"GET\",status=\"500\"} 60\n"), "{page}");
    assert!(page.contains("le=\"1.0\"") && !page.contains("service_name"), "{page}");
    let resident: f64 = page
        .lines()
        .find_map(|line| line.strip_prefix("process_resident_memory_bytes "))
        .and_then(|value| value.parse().ok())
        .expect("the memory is there");
    // A master and three workers, each with an interpreter.
    assert!(resident > 4.0 * 10e6, "{resident}");
    assert!(!agent.get("/metrics").contains("http_server_request"));
    assert_eq!(agent.ask("/metrics/flask?service=nginx").0, 404);
}
