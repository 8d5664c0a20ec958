//! `cargo xtask demo`: a real service, some traffic, and httpmon on it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{IsTerminal as _, Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use end_to_end::{Agent, App, Metrics, Server, Tools};

use crate::{needs, run};

/// What the traffic asks for: mostly fast, some slow, some wrong.
const PATHS: [(&str, &str); 8] = [
    ("GET", "/items/1"),
    ("GET", "/items/2"),
    ("POST", "/items"),
    ("DELETE", "/items/3"),
    ("GET", "/old"),
    ("GET", "/nothing-here"),
    ("GET", "/boom"),
    ("GET", "/sleep/30"),
];

/// How often the table is drawn.
const FRAME: Duration = Duration::from_secs(1);

/// Runs until Ctrl-C, or for so many seconds.
pub(crate) fn demo(seconds: Option<u64>) -> Result<()> {
    needs::python()?;
    run::build()?;
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signals()?;
    let tools = Tools::find().map_err(|reason| anyhow!("the demo can't run here: {reason}"))?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("demo.sock");
    let unix = format!("unix:{}", socket.display());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "4", "--bind", &unix]);
    let agent = Agent::start_at(9464, &["--pid", &server.pid().to_string()]);
    let address = server.target().address();
    println!("Gunicorn with 4 workers serves a Flask application on http://{address} and {unix}");
    println!("httpmon watches it from outside: curl http://127.0.0.1:{}/metrics", agent.port());

    let traffic = {
        let (stop, socket) = (Arc::clone(&stop), socket.clone());
        thread::spawn(move || {
            for (number, (method, path)) in PATHS.into_iter().cycle().enumerate() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let request = format!(
                    "{method} {path} HTTP/1.1\r\nhost: demo\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                );
                // A request that fails shows in the table, as it would in real life.
                let _ =
                    if number % 3 == 0 { over_unix(&socket, &request) } else { over_tcp(address, &request) };
                thread::sleep(Duration::from_millis(15));
            }
        })
    };

    let deadline = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let live = std::io::stdout().is_terminal();
    while !stopped() && deadline.is_none_or(|deadline| Instant::now() < deadline) {
        let left =
            deadline.map_or(FRAME, |deadline| deadline.saturating_duration_since(Instant::now()).min(FRAME));
        sleep_until_stopped(left);
        if live {
            let table = table(&agent.scrape());
            println!("\x1b[2J\x1b[H{table}Ctrl-C stops. Metrics: http://127.0.0.1:{}/metrics", agent.port());
        }
    }
    stop.store(true, Ordering::Relaxed);
    traffic.join().map_err(|_| anyhow!("the traffic failed"))?;
    println!("{}", table(&agent.scrape()));
    Ok(())
}

static STOPPED: AtomicBool = AtomicBool::new(false);

fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

fn sleep_until_stopped(time: Duration) {
    let end = Instant::now() + time;
    while !stopped() && Instant::now() < end {
        thread::sleep(Duration::from_millis(20).min(time));
    }
}

/// Ctrl-C ends the demo in order: the service and the agent go with it.
fn stop_on_signals() -> Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
    extern "C" fn note(_: i32) {
        STOPPED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::empty(), SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler does nothing but store to an atomic.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

fn over_tcp(address: std::net::SocketAddr, request: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(request.as_bytes())?;
    stream.read_to_end(&mut Vec::new()).map(|_| ())
}

fn over_unix(path: &Path, request: &str) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(path)?;
    stream.write_all(request.as_bytes())?;
    stream.read_to_end(&mut Vec::new()).map(|_| ())
}

/// What was counted, route by route.
fn table(metrics: &Metrics) -> String {
    let mut rows: BTreeMap<[String; 4], (f64, f64)> = BTreeMap::new();
    for (part, name) in ["count", "sum"]
        .into_iter()
        .zip(["http_server_request_duration_seconds_count", "http_server_request_duration_seconds_sum"])
    {
        for sample in metrics.of(name, &[]) {
            let label = |name: &str| sample.labels.get(name).cloned().unwrap_or_default();
            let port = label("server_port");
            let place = if port.is_empty() { "unix socket".to_owned() } else { format!("port {port}") };
            let key = [
                place,
                label("http_request_method"),
                label("http_route"),
                label("http_response_status_code"),
            ];
            let row = rows.entry(key).or_default();
            *(if part == "count" { &mut row.0 } else { &mut row.1 }) += sample.value;
        }
    }
    let mut text = format!(
        "{:12} {:8} {:16} {:>6} {:>9} {:>10}\n",
        "WHERE", "METHOD", "ROUTE", "STATUS", "REQUESTS", "MEAN"
    );
    for ([place, method, route, status], (count, sum)) in &rows {
        let _ = writeln!(
            text,
            "{place:12} {method:8} {route:16} {status:>6} {count:>9} {:>7.2} ms",
            sum / count * 1e3
        );
    }
    let total = |name: &str| metrics.sum(name, &[]);
    let _ = writeln!(
        text,
        "requests seen {}, finished {}, in flight {}, unanswered {}; events lost {}; workers {}; agent's memory {:.1} MiB",
        total("httpmon_requests_seen_total"),
        total("http_server_request_duration_seconds_count"),
        total("http_server_active_requests"),
        total("http_server_requests_unanswered_total"),
        total("httpmon_events_lost_total"),
        total("httpmon_workers"),
        total("process_resident_memory_bytes") / f64::from(1 << 20),
    );
    text
}
