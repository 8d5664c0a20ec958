//! What must hold on every kernel: counts equal to the client's, refusals with a reason, and nothing left behind.

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use end_to_end::{
    Agent, App, Guard, Metrics, Server, Tools,
    client::{Load, MIX, Outcome, Tally, Target},
    eventually, run,
};
use nix::sys::signal::Signal;

use crate::{
    agent::Way,
    keep_alive::{self, KeepAlive},
    leave,
    objects::Objects,
};

/// Requests for each way, by TCP and by unix socket together.
const REQUESTS: usize = 360;
/// Requests in each round of a crowded machine.
const CROWDED: usize = 2_000;
/// The threads that make them.
const CLIENTS: usize = 8;
/// Threads that do nothing but run, beside servers and clients.
const BUSY: usize = 4;

/// A Gunicorn with two workers, a TCP and a unix socket.
struct Service {
    server: Server,
    unix: Target,
    _folder: tempfile::TempDir,
}

impl Service {
    fn start(tools: &Tools) -> Self {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let path = folder.path().join("unix.sock");
        let bind = format!("unix:{}", path.display());
        let options = ["--workers", "2", "--worker-class", "gthread", "--threads", "4", "--bind", &bind];
        let server = Server::gunicorn(tools, App::Wsgi, &options);
        Self { server, unix: Target::Unix(path), _folder: folder }
    }

    /// Requests on connections that are kept, on others that aren't, and by the unix socket.
    fn load(&self) -> Outcome {
        let mut all = Outcome::default();
        let loads = [(self.server.target(), usize::MAX), (self.server.target(), 1), (&self.unix, 5)];
        for (target, per_connection) in loads {
            let load =
                Load { target, asks: &MIX, requests: REQUESTS / loads.len(), clients: 4, per_connection };
            let outcome = load.send();
            assert_eq!(outcome.failed, 0, "{}", self.server.log());
            add(&mut all.answered, outcome.answered);
        }
        all
    }
}

fn add(all: &mut Tally, more: Tally) {
    for (key, count) in more {
        *all.entry(key).or_default() += count;
    }
}

/// Every check that the host asks for, as NAME:OPTIONS.
pub(super) fn smoke(wanted: &[String]) {
    let tools = Tools::anywhere().expect("what the tests need is there");
    let before = Objects::now();
    let service = LazyLock::new(|| Service::start(&tools));
    let mut checks = Checks::default();
    for wanted in wanted {
        let (name, options) = wanted.split_once(':').expect("a check has a name and options");
        let way = Way(options);
        checks.run(wanted, || match name {
            "equal" => counts(way, &service, &before),
            "refused" => way.refusal(),
            "restart" => restart(way, &service, &before),
            "crowd" => crowd_loses_nothing(way, &tools),
            "loses" => crowd_loss_is_counted(way, &tools),
            "no-btf" => without_btf(way),
            "lockdown" => locked(way),
            other => panic!("nothing is called {other}"),
        });
    }
    checks.finish();
}

/// On a kernel that lets no probe read memory.
fn locked(way: Way<'_>) -> String {
    let reason = way.refusal();
    assert!(reason.contains("lockdown"), "it doesn't name the lockdown: {reason}");
    let check = run(Command::new(Agent::program()).arg("check"));
    assert_eq!(check.status.code(), Some(3));
    let said = String::from_utf8_lossy(&check.stdout);
    let line = said.lines().find(|line| line.contains("kernel lockdown"));
    assert!(line.is_some_and(|line| line.starts_with("missing") && line.contains("to fix")), "{said}");
    reason
}

/// Checks one after the other; one that fails doesn't keep the others from being made.
#[derive(Default)]
struct Checks {
    held: Vec<String>,
    failed: usize,
}

impl Checks {
    fn run(&mut self, name: &str, check: impl FnOnce() -> String + Send) {
        let shown = name.strip_suffix(':').unwrap_or(name).replacen(':', " ", 1);
        if let Ok(found) = thread::scope(|scope| scope.spawn(check).join()) {
            println!("{shown}: {found}");
            self.held.push(format!("{name} {found}"));
        } else {
            // It has said why.
            println!("{shown}: FAILED");
            self.failed += 1;
        }
    }

    fn finish(self) {
        leave("held", &self.held);
        assert_eq!(self.failed, 0, "checks failed");
    }
}

/// What the agent counts is what the client got; then it ends in order, and leaves nothing.
fn counts(way: Way<'_>, service: &Service, before: &Objects) -> String {
    let mut agent = way.start("gunicorn");
    assert!(Objects::now().beyond(before) > 0, "bpftool shows no probe");
    let outcome = service.load();
    let metrics = agent.scrape_settled(REQUESTS as u64);
    assert_equal(&metrics, &outcome.answered);
    let by_unix: f64 = metrics
        .of("http_server_request_duration_seconds_count", &[])
        .filter(|sample| sample.labels["server_address"].starts_with("unix:"))
        .map(|sample| sample.value)
        .sum();
    assert!((by_unix - REQUESTS as f64 / 3.0).abs() < f64::EPSILON, "{by_unix} came by the unix socket");
    agent.stop();
    before.wait_for();
    format!("{REQUESTS} of {REQUESTS}{}", missing(&metrics))
}

fn assert_equal(metrics: &Metrics, answered: &Tally) {
    assert_eq!(metrics.finished(&[]), *answered);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), answered.values().sum::<u64>());
    assert_eq!(metrics.count("http_server_requests_unanswered_total", &[]), 0);
    metrics.assert_nothing_lost();
}

/// What goes without, as the agent tells it.
fn missing(metrics: &Metrics) -> String {
    let off = metrics.of("httpmon_feature_enabled", &[]).filter(|sample| sample.value == 0.0);
    let names: Vec<&str> = off.map(|sample| sample.labels["feature"].as_str()).collect();
    if names.is_empty() { String::new() } else { format!("; without {}", names.join(", ")) }
}

/// Stopped and started anew, and killed under load: the service doesn't notice, the kernel is left as it was, and the next
/// agent counts everything.
fn restart(way: Way<'_>, service: &Service, before: &Objects) -> String {
    let mut agent = way.start("gunicorn");
    agent.stop();
    before.wait_for();

    let mut agent = way.start("gunicorn");
    let killed = AtomicBool::new(false);
    thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut rounds = 0;
            while !killed.load(Ordering::Relaxed) {
                service.load();
                rounds += 1;
            }
            rounds
        });
        agent.scrape_until("it counts", |metrics| metrics.count("httpmon_requests_seen_total", &[]) > 20);
        agent.signal(Signal::SIGKILL);
        assert_eq!(agent.wait(), None);
        before.wait_for();
        killed.store(true, Ordering::Relaxed);
        assert!(load.join().expect("the service answers all the while") > 0);
    });

    let mut agent = way.start("gunicorn");
    let outcome = service.load();
    let metrics = agent.scrape_settled(REQUESTS as u64);
    assert_equal(&metrics, &outcome.answered);
    agent.stop();
    before.wait_for();
    "nothing is left by SIGTERM, nor by SIGKILL".to_owned()
}

/// A kernel that was built without type information has no such folder.
fn without_btf(way: Way<'_>) -> String {
    let place = "/sys/kernel/btf";
    let succeeds = |command: &mut Command| assert!(run(command).status.success(), "{command:?}");
    succeeds(Command::new("mount").args(["-t", "tmpfs", "none", place]));
    assert!(!Path::new(place).join("vmlinux").exists());
    let reason = way.refusal();
    succeeds(Command::new("umount").arg(place));
    assert!(reason.contains("CONFIG_DEBUG_INFO_BTF"), "{reason}");
    reason
}

/// nginx with more busy threads than processors, so that programs are preempted.
struct Crowd {
    server: Server,
    _busy: Vec<Guard>,
}

impl Crowd {
    fn gather(tools: &Tools) -> Self {
        let server = keep_alive::nginx(tools);
        let busy =
            || Guard::start(Command::new("sh").args(["-c", "while :; do :; done"]).stdin(Stdio::null()));
        Self { server, _busy: (0..BUSY).map(|_| busy()).collect() }
    }

    /// Some threads make requests at once, each on a connection of its own; how many.
    fn load(&self) -> u64 {
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| {
                    let mut connection = KeepAlive::open(&self.server);
                    (0..CROWDED / CLIENTS).for_each(|_| connection.ask());
                });
            }
        });
        CROWDED as u64
    }
}

/// Preempted or not, every run of the programs counts.
fn crowd_loses_nothing(way: Way<'_>, tools: &Tools) -> String {
    let crowd = Crowd::gather(tools);
    let mut agent = way.start("nginx");
    let asked = crowd.load();
    let metrics = agent.scrape_settled(asked);
    let answered = BTreeMap::from([(("GET".to_owned(), "/".to_owned(), 200), asked)]);
    assert_equal(&metrics, &answered);
    agent.stop();
    format!("{asked} of {asked}")
}

/// This form of the hooks loses runs on this kernel: they are counted.
fn crowd_loss_is_counted(way: Way<'_>, tools: &Tools) -> String {
    let crowd = Crowd::gather(tools);
    let mut agent = way.start("nginx");
    let mut asked = 0;
    let lost = eventually("runs are skipped, and counted", || {
        asked += crowd.load();
        let lost = agent.scrape().count("httpmon_events_lost_total", &[("reason", "preempted")]);
        (lost > 0).then_some(lost)
    });
    agent.stop();
    println!("{lost} skipped runs were counted, with {asked} requests");
    "skipped runs are counted".to_owned()
}
