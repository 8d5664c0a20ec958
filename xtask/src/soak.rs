//! `cargo xtask soak`: httpmon on servers that are busy for long, whose workers and connections come and go. After each
//! minute every server's counts are compared with its clients', and what the agent holds is written down.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use end_to_end::{
    Agent, App, Metrics, Server, Tools,
    client::{Ask, Load, MIX, Tally, Target},
    tls::Certificate,
};

use crate::{
    machine, needs,
    report::{self, Report, Table},
    run, signals,
};

/// How long the servers are busy before all are compared.
const ROUND: Duration = Duration::from_secs(60);
/// How much more memory the last rounds may take than the first ones.
const GROWTH: f64 = 1.05;
const HERE: Ask = Ask { method: "GET", path: "/here", route: "/here", body: 0 };
const FORKING: Ask = Ask { method: "GET", path: "/", route: "/", body: 0 };

/// A server, and what its clients do.
struct Service {
    name: &'static str,
    server: Server,
    asks: &'static [Ask],
    clients: usize,
    per_connection: usize,
    /// Requests at a time: clients end, and others come.
    batch: usize,
    sent: Tally,
}

impl Service {
    /// Keeps it busy for a round.
    fn load(&mut self, until: Instant) -> Result<()> {
        while Instant::now() < until {
            signals::go_on()?;
            let load = Load {
                target: self.server.target(),
                asks: self.asks,
                requests: self.batch,
                clients: self.clients,
                per_connection: self.per_connection,
            };
            let outcome = load.send();
            ensure!(outcome.failed == 0, "{}: {} requests failed", self.name, outcome.failed);
            for (key, count) in outcome.answered {
                *self.sent.entry(key).or_default() += count;
            }
        }
        Ok(())
    }

    fn total(&self) -> u64 {
        self.sent.values().sum()
    }
}

/// For how long nothing must have come or gone for what an agent holds to count as what it holds at rest.
const STILL: Duration = Duration::from_secs(1);

/// What an agent holds.
struct Held {
    resident: f64,
    files: usize,
    maps: usize,
    /// Bytes of kernel memory.
    locked: u64,
}

impl Held {
    /// Once the probes of the processes that have just ended are gone.
    fn at_rest(agent: &Agent) -> Result<Self> {
        let (mut held, mut since) = (Self::by(agent)?, Instant::now());
        while since.elapsed() < STILL {
            signals::go_on()?;
            std::thread::sleep(STILL / 10);
            let now = Self::by(agent)?;
            if (now.files, now.maps) != (held.files, held.maps) {
                since = Instant::now();
            }
            held = now;
        }
        Ok(held)
    }

    fn by(agent: &Agent) -> Result<Self> {
        let folder = format!("/proc/{}/fdinfo", agent.pid());
        let (mut files, mut maps, mut locked) = (0, 0, 0);
        for entry in fs::read_dir(&folder).context(folder)? {
            files += 1;
            let text = fs::read_to_string(entry?.path()).unwrap_or_default();
            if text.lines().any(|line| line.starts_with("map_id:")) {
                maps += 1;
                let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
                locked += bytes.and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Ok(Self { resident: machine::resident(agent.pid())?, files, maps, locked })
    }
}

fn services(tools: &Tools, certificate: &Certificate) -> Result<Vec<Service>> {
    let missing = |reason: String| anyhow!(reason);
    let churning = ["--workers", "2", "--worker-class", "sync", "--preload", "--max-requests", "100"];
    let threads = ["--workers", "2", "--worker-class", "gthread", "--threads", "4"];
    let forking = Server::other(|address| {
        let mut command = Command::new(tools.python("python3"));
        command
            .arg(run::root().join("tests/servers/forking.py"))
            .args([address.port().to_string(), "4".to_owned()]);
        command
    });
    let service = |name, server, asks, clients, per_connection, batch| Service {
        name,
        server,
        asks,
        clients,
        per_connection,
        batch,
        sent: Tally::new(),
    };
    let nginx = Server::nginx(tools, "return 200 'here';").map_err(missing)?;
    let secure = Server::nginx_tls(tools, certificate, "return 200 'here';").map_err(missing)?;
    Ok(vec![
        service("nginx, keep-alive", nginx, &[HERE], 4, 1_000, 20_000),
        service("nginx, TLS", secure, &[HERE], 2, 50, 2_000),
        service(
            "Gunicorn, workers of 100 requests",
            Server::gunicorn(tools, App::Wsgi, &churning),
            &MIX,
            2,
            1,
            1_000,
        ),
        service(
            "Gunicorn, threads, unix socket",
            Server::gunicorn_unix(tools, App::Wsgi, &threads),
            &MIX,
            4,
            20,
            1_000,
        ),
        service("workers of 10 requests", forking, &[FORKING], 2, 1, 1_000),
    ])
}

/// Compares each service's counts with its clients'.
fn compare(services: &[Service], metrics: &Metrics) -> Result<()> {
    for Service { name, server, sent, .. } in services {
        let counted = match server.target() {
            Target::Tcp(address) | Target::Tls(address) => {
                metrics.finished(&[("server_port", &address.port().to_string())])
            }
            Target::Unix(path) => {
                metrics.finished(&[("server_address", &format!("unix:{}", path.display()))])
            }
            Target::Abstract(name) => metrics.finished(&[("server_address", &format!("unix:@{name}"))]),
        };
        ensure!(counted == *sent, "{name}: its clients have {sent:?}, httpmon has {counted:?}");
    }
    Ok(())
}

/// The mean of some rounds' memory.
fn mean(rounds: &[Held]) -> f64 {
    rounds.iter().map(|held| held.resident).sum::<f64>() / rounds.len() as f64
}

/// So many rounds; `write` puts the figures into the documentation.
pub(crate) fn soak(minutes: u64, write: bool) -> Result<()> {
    needs::install();
    run::build()?;
    signals::note()?;
    let missing = |reason: String| anyhow!(reason);
    let tools = Tools::find().map_err(missing)?;
    let certificate = Certificate::new(&tools).map_err(missing)?;
    let mut services = services(&tools, &certificate)?;
    let pids: Vec<String> =
        services.iter().flat_map(|service| ["--pid".to_owned(), service.server.pid().to_string()]).collect();
    let agent = Agent::start(&pids.iter().map(String::as_str).collect::<Vec<_>>());
    let mut report = Report::default();
    report.say(&machine::describe()?);
    let names: Vec<_> = services.iter().map(|service| service.name).collect();
    report.say(&format!("Services: {}.", names.join("; ")));
    let mut table = Table::new(&[
        "minute",
        "requests",
        "httpmon's count",
        "births",
        "events lost",
        "requests lost",
        "memory, MiB",
        "descriptors",
        "maps",
        "their memory, MiB",
        "agent's CPU, s",
    ]);
    let mut rounds = Vec::new();
    for minute in 1..=minutes {
        let until = Instant::now() + ROUND;
        std::thread::scope(|scope| {
            let loads: Vec<_> =
                services.iter_mut().map(|service| scope.spawn(move || service.load(until))).collect();
            loads.into_iter().try_for_each(|load| load.join().map_err(|_| anyhow!("a load panicked"))?)
        })?;
        let sent = services.iter().map(Service::total).sum();
        let metrics = agent.scrape_settled(sent);
        compare(&services, &metrics)?;
        metrics.assert_books_balance();
        metrics.assert_nothing_lost();
        let held = Held::at_rest(&agent)?;
        let mebibytes = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
        table.row(&[
            &minute,
            &sent,
            &metrics.count("http_server_request_duration_seconds_count", &[]),
            &metrics.count("httpmon_worker_births_total", &[]),
            &metrics.count("httpmon_events_lost_total", &[]),
            &metrics.count("httpmon_requests_lost_total", &[]),
            &mebibytes(held.resident),
            &held.files,
            &held.maps,
            &mebibytes(held.locked as f64),
            &format!("{:.1}", machine::cpu(agent.pid())?),
        ]);
        println!("{}", table.text().lines().last().unwrap_or_default());
        rounds.push(held);
    }
    report.say(table.text());
    // The first round meets everything for the first time.
    let later = rounds.get(1..).unwrap_or_default();
    if let [first, .., last] = later {
        let quarter = later.len().div_ceil(4);
        let (before, after) = (mean(&later[..quarter]), mean(&later[later.len() - quarter..]));
        ensure!(after <= before * GROWTH, "memory grows: {before:.0} bytes, then {after:.0}");
        ensure!(
            (first.files, first.maps) == (last.files, last.maps),
            "descriptors grow: {}, then {}; maps: {}, then {}",
            first.files,
            last.files,
            first.maps,
            last.maps
        );
    }
    if write { report::write("robustness.md", "soak", report.text()) } else { Ok(()) }
}
