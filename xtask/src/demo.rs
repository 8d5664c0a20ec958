//! `cargo xtask demo`: a real service, some traffic, and httpmon on it.

use std::{
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
use nix::sys::signal::Signal;

use crate::{
    needs,
    run::{self, Command},
    signals,
};

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

/// Runs until Ctrl-C, or for so many seconds.
pub(crate) fn demo(seconds: Option<u64>) -> Result<()> {
    needs::python()?;
    run::build()?;
    let stop = Arc::new(AtomicBool::new(false));
    signals::note()?;
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
    let top = || {
        let mut command = Command::new(Agent::program());
        command.args(["top", "--url", &format!("http://127.0.0.1:{}/metrics", agent.port())]);
        command
    };
    if std::io::stdout().is_terminal() {
        watch(&mut top(), deadline)?;
    } else {
        while !is_over(deadline) {
            thread::sleep(MOMENT);
        }
    }
    print!("{}", run::output(top().args(["--once", "--sort", "total"]))?);
    stop.store(true, Ordering::Relaxed);
    traffic.join().map_err(|_| anyhow!("the traffic failed"))?;
    println!("{}", summary(&agent.scrape()));
    Ok(())
}

/// How soon the end is noticed.
const MOMENT: Duration = Duration::from_millis(20);

/// Shows the live table until its user has seen enough, or time is over.
fn watch(top: &mut Command, deadline: Option<Instant>) -> Result<()> {
    let mut top = top.spawn()?;
    while top.try_wait()?.is_none() {
        if is_over(deadline) {
            // It puts the terminal in order before it goes.
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(top.id().cast_signed()), Signal::SIGTERM)?;
            top.wait()?;
        }
        thread::sleep(MOMENT);
    }
    Ok(())
}

fn is_over(deadline: Option<Instant>) -> bool {
    signals::stopped() || deadline.is_some_and(|deadline| Instant::now() >= deadline)
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

/// Whether all of it is there, and what it took.
fn summary(metrics: &Metrics) -> String {
    let total = |name: &str| metrics.sum(name, &[]);
    format!(
        "requests seen {}, finished {}, in flight {}, unanswered {}; events lost {}; workers {}; agent's memory {:.1} MiB",
        total("httpmon_requests_seen_total"),
        total("http_server_request_duration_seconds_count"),
        total("http_server_active_requests"),
        total("http_server_requests_unanswered_total"),
        total("httpmon_events_lost_total"),
        total("httpmon_workers"),
        total("process_resident_memory_bytes") / f64::from(1 << 20),
    )
}
