//! The Grafana dashboard and the rules for Prometheus: every expression has an answer from a real Prometheus.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use end_to_end::{
    Agent, App, Prometheus, Server, Tools,
    client::{Ask, Load, MIX},
    dashboard::{expressions, names},
    eventually, needs, run, run_and_hear,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const DROP: Ask = Ask { method: "GET", path: "/drop", route: "/drop", body: 0 };

fn printed(command: &str) -> String {
    let output = run(Command::new(Agent::program()).arg(command));
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("it is text")
}

#[test]
fn promtool_accepts_the_rules() {
    let tools = needs!(Tools::find());
    let promtool = needs!(tools.program("promtool"));
    let folder = tempfile::tempdir().expect("a directory can be made");
    let file = folder.path().join("httpmon.rules.yml");
    fs::write(&file, printed("alerts")).expect("it can be written");
    let tests = concat!(env!("CARGO_MANIFEST_DIR"), "/rules/httpmon_test.yml");
    for arguments in [["check", "rules", &file.display().to_string()], ["test", "rules", tests]] {
        let (status, said) = run_and_hear(Command::new(&promtool).args(arguments));
        assert!(status.success(), "{arguments:?}: {said}");
    }
}

#[test]
fn every_expression_has_an_answer() {
    let tools = needs!(Tools::find());
    let behind = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
    let proxied = format!("location / {{ proxy_pass http://{}; }}", behind.target().address());
    let server = needs!(Server::nginx(&tools, &proxied));
    let selection = [&server, &behind].map(|server| server.pid().to_string());
    let agent = Agent::start(&[
        "--pid",
        &selection[0],
        "--pid",
        &selection[1],
        "--role",
        "all",
        "--ignore-path",
        "/old*",
    ]);
    let folder = tempfile::tempdir().expect("a directory can be made");
    let rules = folder.path().join("httpmon.rules.yml");
    fs::write(&rules, printed("alerts")).expect("it can be written");
    let prometheus = needs!(Prometheus::configured(
        &tools,
        &format!(
            "rule_files: ['{}']\nscrape_configs:\n- job_name: httpmon\n  static_configs: [{{ targets: ['127.0.0.1:{}'] }}]\n",
            rules.display(),
            agent.port()
        ),
    ));
    let mut asks = MIX.to_vec();
    asks.push(DROP);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let load = Load {
                    target: server.target(),
                    asks: &asks,
                    requests: 50,
                    clients: 2,
                    per_connection: 5,
                };
                load.send();
            }
        });
        // The traffic ends when the test does, however that is.
        let _end = Done(&done);
        kill(Pid::from_raw(behind.workers()[0].cast_signed()), Signal::SIGKILL).expect("the worker runs");

        let dashboard = serde_json::from_str(&printed("dashboard")).expect("the dashboard is JSON");
        for (title, expression) in expressions(&dashboard) {
            let mut last = Err(String::new());
            eventually(&format!("{title}: {expression}"), || {
                last = prometheus.series(&expression);
                last.as_ref().is_ok_and(|series| !series.is_empty()).then_some(())
            });
        }
        let groups = eventually("the rules were evaluated", || {
            let answer = prometheus.api("rules", &[])?;
            let groups = answer["data"]["groups"].as_array()?.clone();
            let rules = || groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
            rules().all(|rule| rule["health"] != "unknown").then_some(groups.clone())
        });
        let mut count = 0;
        for rule in groups.iter().filter_map(|group| group["rules"].as_array()).flatten() {
            assert_eq!(rule["health"], "ok", "{rule}");
            let query = rule["query"].as_str().expect("a rule has an expression");
            let name = rule["name"].as_str().expect("a rule has a name");
            count += 1;
            let answered = if rule["type"] == "recording" { BTreeSet::from([name]) } else { names(query) };
            for name in answered {
                eventually(&format!("{name} of {query}"), || {
                    prometheus.series(name).is_ok_and(|series| !series.is_empty()).then_some(())
                });
            }
        }
        assert!(count > 20, "{count} rules");
    });
}

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
