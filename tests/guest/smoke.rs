//! What must hold on every kernel: counts equal to the client's, refusals with a reason, and nothing left behind.

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use end_to_end::{
    Agent, App, Guard, Metrics, Objects, Server, Tools,
    client::{Load, MIX, Outcome, Tally, Target, add},
    eventually, run,
    tls::Certificate,
};
use nix::sys::signal::Signal;

use crate::{
    agent::Way,
    keep_alive::{self, KeepAlive},
    leave,
};

/// Requests for each way, by TCP and by unix socket together.
const REQUESTS: usize = 360;
/// Requests to each server that speaks TLS.
const TLS: usize = 180;
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

    /// Has other workers serve: children of a process that is watched.
    fn renew(&self) {
        let before = self.server.workers();
        self.server.signal(Signal::SIGHUP);
        eventually("there are other workers", || {
            let now = self.server.workers();
            (now.len() == before.len() && now.iter().all(|pid| !before.contains(pid))).then_some(())
        });
    }

    /// Requests on connections that are kept, on others that aren't, and by the unix socket.
    fn load(&self) -> Outcome {
        let loads = [(self.server.target(), usize::MAX), (self.server.target(), 1), (&self.unix, 5)];
        let requests = REQUESTS / loads.len();
        let outcome = Load::send_all(loads.map(|(target, per_connection)| Load {
            target,
            asks: &MIX,
            requests,
            clients: 4,
            per_connection,
        }));
        assert_eq!(outcome.failed, 0, "{}", self.server.log());
        outcome
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
            "tls" => counts_of_tls(way, &tools, &before),
            "restart" => restart(way, &service, &before),
            "clock" => clock_is_set(way, &service),
            "processors" => processors_come_and_go(way, &service),
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
    service.renew();
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
    metrics.assert_finished(&[], answered);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), answered.values().sum::<u64>());
    assert_eq!(metrics.count("http_server_requests_unanswered_total", &[]), 0);
    metrics.assert_nothing_lost();
}

/// The same of TLS: where libraries read and write the socket, where they work in memory, and where it is in the program itself.
fn counts_of_tls(way: Way<'_>, tools: &Tools, before: &Objects) -> String {
    let certificate = Certificate::new(tools).expect("a certificate can be made");
    let gunicorn = |app, class: &str| {
        Server::gunicorn_tls(tools, &certificate, app, &["--workers", "2", "--worker-class", class])
    };
    let nginx = || {
        let directives = "location / { return 200 'read'; }";
        Server::nginx_tls(tools, &certificate, directives).expect("nginx is there")
    };
    let built = |variable: &str, http: Option<&str>, ciphers: Option<&str>| {
        let program = env::var_os(variable).expect("the host has built it");
        Server::other(|address| {
            let mut command = Command::new(program);
            command.arg(address.to_string()).args(http);
            command.arg(certificate.file()).arg(certificate.key()).args(ciphers);
            command
        })
        .over_tls()
    };
    let servers: [(&str, &dyn Fn() -> Server); 5] = [
        ("gunicorn", &|| gunicorn(App::Wsgi, "gthread")),
        ("gunicorn", &|| gunicorn(App::Asgi, "uvicorn_worker.UvicornWorker")),
        ("nginx", &nginx),
        ("go-server", &|| built("HTTPMON_GO_SERVER", None, None)),
        ("rustls-server", &|| built("HTTPMON_RUSTLS_SERVER", Some("1"), Some("ring"))),
    ];
    for (name, start) in servers {
        let server = start();
        let mut agent = way.start(name);
        let asks = if name == "gunicorn" { &MIX } else { &MIX[..1] };
        let half = TLS / 2;
        let load =
            Load { target: server.target(), asks, requests: half, clients: 4, per_connection: usize::MAX };
        let outcome = load.send_and_again(2);
        assert_eq!(outcome.failed, 0, "{}", server.log());
        let metrics = agent.scrape_settled(TLS as u64);
        assert_equal(&metrics, &outcome.answered);
        let secure = metrics.count("httpmon_requests_seen_total", &[("url_scheme", "https")]);
        assert_eq!(secure, TLS as u64, "not all of {name} came by TLS");
        agent.stop();
        before.wait_for();
    }
    format!("{TLS} of {TLS} each")
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

/// The time of day is set forward and back: durations don't notice, and times are told by the clock as it is.
fn clock_is_set(way: Way<'_>, service: &Service) -> String {
    let mut agent = way.start("gunicorn");
    let (begun, mut answered) = (Instant::now(), Tally::new());
    for by in ["+25 hours", "-50 hours", "+25 hours"] {
        let said = date(&["--set", by]);
        add(&mut answered, service.load().answered);
        let sent: u64 = answered.values().sum();
        agent.scrape_settled(sent);
        let last: serde_json::Value =
            serde_json::from_str(&agent.get("/api/requests?n=1")).expect("it is JSON");
        let told = last[0]["timestamp"].as_str().expect("it has a time").to_owned();
        let seconds = |arguments: &[&str]| date(arguments).parse::<i64>().expect("seconds");
        let off = seconds(&["+%s"]) - seconds(&["--date", &told, "+%s"]);
        assert!(
            (0..begun.elapsed().as_secs().cast_signed() + 2).contains(&off),
            "{said}, {told}: {off} seconds off"
        );
    }
    let metrics = agent.scrape();
    assert_equal(&metrics, &answered);
    let all_at_once = begun.elapsed().as_secs_f64() * 4.0;
    let durations = metrics.sum("http_server_request_duration_seconds_sum", &[]);
    assert!((0.0..all_at_once).contains(&durations), "{durations} seconds");
    agent.stop();
    "durations don't notice, and times are told by the clock as it is".to_owned()
}

fn date(arguments: &[&str]) -> String {
    let output = run(Command::new("date").args(arguments));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A processor is taken away and given back under load, and one comes that wasn't there when the agent started.
fn processors_come_and_go(way: Way<'_>, service: &Service) -> String {
    const TIMES: usize = 3;
    let mut all = 0;
    for is_there_before in [true, false] {
        set_processor(is_there_before);
        let mut agent = way.start("gunicorn");
        let done = AtomicBool::new(false);
        let answered = thread::scope(|scope| {
            let load = scope.spawn(|| {
                let mut answered = Tally::new();
                while !done.load(Ordering::Relaxed) {
                    add(&mut answered, service.load().answered);
                }
                answered
            });
            for _ in 0..TIMES {
                for is_there in [!is_there_before, is_there_before] {
                    set_processor(is_there);
                    let before = agent.scrape().count("httpmon_requests_seen_total", &[]);
                    agent.scrape_until("it counts on", |metrics| {
                        metrics.count("httpmon_requests_seen_total", &[]) > before + 20
                    });
                }
            }
            set_processor(true);
            done.store(true, Ordering::Relaxed);
            load.join().expect("the service answers all the while")
        });
        let sent = answered.values().sum();
        assert_equal(&agent.scrape_settled(sent), &answered);
        agent.stop();
        all += sent;
    }
    println!("{all} requests");
    "every request is counted".to_owned()
}

fn set_processor(is_there: bool) {
    let state = if is_there { "1" } else { "0" };
    fs::write("/sys/devices/system/cpu/cpu1/online", state).expect("the second processor can be set");
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
