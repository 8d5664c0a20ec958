//! `cargo xtask bench`: what httpmon costs, side by side in one run. It prints, and judges nothing.

use std::{fs, process::Command, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use end_to_end::{Agent, App, Server, Tools};

use crate::{needs, run};

/// A server under load.
struct Subject {
    name: &'static str,
    server: Server,
    selection: &'static str,
    url: String,
}

/// One measured stretch of load.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    requests: f64,
    seconds: f64,
    server_cpu: f64,
    agent_cpu: f64,
    agent_memory: f64,
    lost: f64,
    missing: f64,
}

/// The servers' core.
const SERVERS: &str = "0";
/// Everybody else's.
const OTHERS: &str = "1";

impl Subject {
    fn processes(&self) -> impl Iterator<Item = u32> {
        self.server.workers().into_iter().chain([self.server.pid()])
    }
}

/// Lets all threads of a process run on one core alone.
fn pin(pid: u32, core: &str) -> Result<()> {
    let mut command = Command::new("taskset");
    run::output(command.args(["--all-tasks", "--pid", "--cpu-list", core, &pid.to_string()])).map(|_| ())
}

/// Measures every subject without and with httpmon, in turn, `rounds` times.
pub(crate) fn bench(rounds: usize, seconds: u64) -> Result<()> {
    needs::install();
    run::build()?;
    let tools = Tools::find().map_err(|reason| anyhow!("the bench can't run here: {reason}"))?;
    let nginx = Server::nginx(&tools, "location / { return 200 'ok'; }").map_err(|reason| anyhow!(reason))?;
    let gunicorn = Server::gunicorn(
        &tools,
        App::Wsgi,
        &["--workers", "2", "--worker-class", "gthread", "--threads", "4"],
    );
    let subjects = [
        Subject {
            name: "Gunicorn + Flask",
            url: format!("http://{}/items/7", gunicorn.target().address()),
            server: gunicorn,
            selection: "gunicorn",
        },
        Subject {
            name: "nginx return 200",
            url: format!("http://{}/", nginx.target().address()),
            server: nginx,
            selection: "nginx",
        },
    ];
    for subject in &subjects {
        for pid in subject.processes() {
            pin(pid, SERVERS)?;
        }
    }
    println!("The servers have one core; the load and httpmon share another.");
    println!(
        "{rounds} rounds of {seconds} s each, wrk with 16 keep-alive connections, medians (lowest to highest)\n"
    );
    println!(
        "| load | requests/s without | requests/s with | ratio | server CPU added | agent CPU | agent memory | events lost | not counted |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for subject in &subjects {
        stretch(subject, 1, false)?;
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            without.push(stretch(subject, seconds, false)?);
            with.push(stretch(subject, seconds, true)?);
        }
        report(subject, &without, &with);
    }
    Ok(())
}

fn report(subject: &Subject, without: &[Stretch], with: &[Stretch]) {
    let rate = |one: &Stretch| one.requests / one.seconds;
    let each = |of: fn(&Stretch) -> f64| move |one: &Stretch| of(one) / one.requests * 1e6;
    let (server, agent) = (each(|one| one.server_cpu), each(|one| one.agent_cpu));
    let pairs = || without.iter().zip(with);
    println!(
        "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
        subject.name,
        spread(without.iter().map(rate), 0, ""),
        spread(with.iter().map(rate), 0, ""),
        spread(pairs().map(|(without, with)| rate(with) / rate(without)), 3, ""),
        spread(pairs().map(|(without, with)| server(with) - server(without)), 2, " µs a request"),
        spread(with.iter().map(agent), 2, " µs a request"),
        spread(with.iter().map(|one| one.agent_memory), 1, " MiB"),
        with.iter().map(|one| one.lost).sum::<f64>(),
        with.iter().map(|one| one.missing).sum::<f64>(),
    );
}

/// The median, and the lowest and highest value.
fn spread(values: impl Iterator<Item = f64>, digits: usize, unit: &str) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values[0], values[values.len() - 1]);
    format!("{:.digits$}{unit} ({low:.digits$} to {high:.digits$})", values[values.len() / 2])
}

fn stretch(subject: &Subject, seconds: u64, watched: bool) -> Result<Stretch> {
    let agent = watched.then(|| Agent::start(&["--process-name", subject.selection]));
    if let Some(agent) = &agent {
        pin(agent.pid(), OTHERS)?;
    }
    let server_before = subject.processes().map(cpu).sum::<Result<f64>>()?;
    let agent_before = agent.as_ref().map_or(Ok(0.0), |agent| cpu(agent.pid()))?;
    let output = run::output(Command::new("taskset").args(["--cpu-list", OTHERS, "wrk"]).args([
        "--threads=1",
        "--connections=16",
        &format!("--duration={seconds}s"),
        &subject.url,
    ]))?;
    let mut result = Stretch {
        requests: field(&output, " requests in ")?,
        server_cpu: subject.processes().map(cpu).sum::<Result<f64>>()? - server_before,
        ..Stretch::default()
    };
    result.seconds =
        result.requests / field(&output.replace("Requests/sec:", "Requests/sec: "), "Requests/sec:")?;
    if let Some(agent) = agent {
        // wrk leaves with requests under way: they end within moments.
        thread::sleep(Duration::from_millis(200));
        let metrics = agent.scrape();
        result.agent_cpu = cpu(agent.pid())? - agent_before;
        result.agent_memory = metrics.sum("process_resident_memory_bytes", &[]) / f64::from(1 << 20);
        result.lost = metrics.sum("httpmon_events_lost_total", &[]);
        for sample in metrics.of("httpmon_events_lost_total", &[]).filter(|sample| sample.value > 0.0) {
            println!("{}: {} events lost: {}", subject.name, sample.value, sample.labels["reason"]);
        }
        let counted = metrics.sum("http_server_request_duration_seconds_count", &[]);
        result.missing = (result.requests - counted).max(0.0);
    }
    Ok(result)
}

/// The number before or after a word of wrk's output.
fn field(output: &str, word: &str) -> Result<f64> {
    let missing = || format!("no {word:?} in wrk's output: {output}");
    let (before, after) = output.split_once(word).with_context(missing)?;
    let neighbour = if word.ends_with(':') {
        after.split_ascii_whitespace().next()
    } else {
        before.split_ascii_whitespace().last()
    };
    neighbour.and_then(|number| number.parse().ok()).with_context(missing)
}

/// Seconds of CPU that a process has used (`/proc/PID/stat`, fields 14 and 15, in hundredths).
fn cpu(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).context(path)?;
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / 100.0)
}
