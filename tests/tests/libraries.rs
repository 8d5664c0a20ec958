//! Probes in libraries: where they are, where they aren't, and that nobody is the worse for them.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
};

use end_to_end::{
    Agent, App, Container, Guard, Server, Tools,
    client::{Ask, Load},
    eventually, needs, run,
    tls::Certificate,
};
use nix::sys::signal::Signal;

/// A function that is watched at its begin, and last: others are within, or where they go on to.
const WATCHED: &str = "SSL_free";

const ASK: Ask = Ask { method: "GET", path: "/echo", route: "/echo", body: 0 };

fn servers(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("servers").join(name)
}

/// A server that maps its TLS library when it is told to, and then serves.
fn late(tools: &Tools, certificate: &Certificate, library: Option<&Path>) -> (Guard, u16) {
    let port = end_to_end::free_port();
    let mut command = Command::new(tools.python("python3"));
    command.arg(servers("late_tls.py")).arg(port.to_string()).arg(certificate.file()).arg(certificate.key());
    if let Some(folder) = library {
        command.env("LD_LIBRARY_PATH", folder);
    }
    (Guard::start(&mut command), port)
}

fn has_mapped(pid: u32, what: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains(what))
}

/// Sends so many requests, each on a connection of its own, and has them all answered.
fn ask(address: std::net::SocketAddr, requests: usize) {
    let target = end_to_end::client::Target::Tls(address);
    let load = Load { target: &target, asks: &[ASK], requests, clients: 2, per_connection: 1 };
    let outcome = load.send();
    assert_eq!((outcome.total(), outcome.failed), (requests as u64, 0));
}

fn counted(agent: &Agent, requests: u64) {
    let metrics = agent.scrape_settled(requests);
    assert_eq!(
        metrics.count("http_server_request_duration_seconds_count", &[("url_scheme", "https")]),
        requests
    );
    assert_eq!(metrics.count("httpmon_bytes_unparsed_total", &[("reason", "tls")]), 0);
    metrics.assert_nothing_lost();
}

#[test]
fn a_library_that_is_mapped_late_is_watched() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let library = needs!(library(&tools));
    let (server, port) = late(&tools, &certificate, None);
    eventually("it waits", || server.blocks(Signal::SIGUSR2).then_some(()));
    assert!(!has_mapped(server.pid(), "libssl"));
    let agent = Agent::start(&["--pid", &server.pid().to_string()]);
    server.signal(Signal::SIGUSR1);
    let address = ([127, 0, 0, 1], port).into();
    eventually("it listens", || std::net::TcpStream::connect(address).is_ok().then_some(()));
    eventually("it is watched", || breakpoint(server.pid(), &library, WATCHED).then_some(()));
    ask(address, 50);
    counted(&agent, 50);
}

/// A library is replaced while it is mapped. A child that is born after that has the old one.
#[test]
fn a_library_that_was_replaced_is_watched_in_children() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let folder = tempfile::tempdir().expect("a directory can be made");
    let original = needs!(library(&tools));
    let copy = folder.path().join("libssl.so.3");
    fs::copy(&original, &copy).expect("a library can be copied");
    let (server, port) = late(&tools, &certificate, Some(folder.path()));
    eventually("it waits", || server.blocks(Signal::SIGUSR2).then_some(()));
    let agent = Agent::start(&["--pid", &server.pid().to_string()]);
    server.signal(Signal::SIGUSR1);
    let address = ([127, 0, 0, 1], port).into();
    eventually("it listens", || std::net::TcpStream::connect(address).is_ok().then_some(()));
    assert!(has_mapped(server.pid(), copy.to_str().expect("a path")));
    eventually("it is watched", || breakpoint(server.pid(), &copy, WATCHED).then_some(()));
    ask(address, 20);
    counted(&agent, 20);
    let new = folder.path().join("new");
    fs::copy(&original, &new).expect("a library can be copied");
    fs::rename(&new, &copy).expect("a library can be replaced");
    assert!(has_mapped(server.pid(), "libssl.so.3 (deleted)"));
    // It serves in a child from here on.
    server.signal(Signal::SIGUSR2);
    let child = eventually("there is a child", || {
        let pid = server.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_ascii_whitespace().next()?.parse().ok()
    });
    eventually("the child is watched", || breakpoint(child, &copy, WATCHED).then_some(()));
    ask(address, 20);
    counted(&agent, 40);
}

#[test]
fn a_library_in_a_container_is_watched() {
    const PORT: &str = "8443";
    let tools = needs!(Tools::find());
    let curl = needs!(tools.program("curl"));
    let certificate = needs!(Certificate::new(&tools));
    let (file, key) = (certificate.file(), certificate.key());
    let name = |path: &Path| format!("/srv/{}", path.file_name().expect("a name").display());
    let original = needs!(library(&tools));
    let arguments = ["/srv/late_tls.py", PORT, &name(&file), &name(&key), "now"];
    let files = [servers("late_tls.py"), file.clone(), key.clone(), original];
    let files: Vec<&Path> = files.iter().map(PathBuf::as_path).collect();
    let before = Container::start(&files, &arguments, PORT);
    let agent = Agent::start(&["--process-name", "late_tls"]);
    let after = Container::start(&files, &arguments, PORT);
    for container in [&before, &after] {
        let copy = container.folder().join("libssl.so.3");
        assert!(has_mapped(container.pid(), "/srv/libssl.so.3"));
        eventually("it is watched", || breakpoint(container.pid(), &copy, WATCHED).then_some(()));
        container.ask(&curl, &format!("https://127.0.0.1:{PORT}/echo?[1-50]"));
    }
    counted(&agent, 100);
}

/// The library that Python's `ssl` uses.
fn library(tools: &Tools) -> Result<PathBuf, String> {
    let code = "import ssl; print([l.split()[-1] for l in open('/proc/self/maps') if 'libssl' in l][0])";
    let said = run(Command::new(tools.python("python3")).args(["-c", code]));
    let path = PathBuf::from(String::from_utf8_lossy(&said.stdout).trim());
    if path.exists() { Ok(path) } else { Err("Python has no libssl of its own".to_owned()) }
}

/// Whether a breakpoint stands at a function in a process that has mapped its file.
fn breakpoint(pid: u32, library: &Path, function: &str) -> bool {
    #[cfg(target_arch = "x86_64")]
    const BREAKPOINT: &[u8] = &[0xcc];
    #[cfg(target_arch = "aarch64")]
    const BREAKPOINT: &[u8] = &[0xa0, 0x00, 0x20, 0xd4];
    let symbols = run(Command::new("nm").args(["--dynamic", "--defined-only"]).arg(library));
    let symbols = String::from_utf8_lossy(&symbols.stdout).into_owned();
    let line = symbols.lines().find(|line| {
        line.split_whitespace().nth(2).is_some_and(|name| name.split('@').next() == Some(function))
    });
    let address = line.expect("the library has the function").split_whitespace().next().expect("an address");
    let address = u64::from_str_radix(address, 16).expect("a number");
    // The first mapping of the file is where its addresses begin.
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process is there");
    let path = library.to_str().expect("a path");
    let first = maps.lines().find(|line| line.contains(path)).expect("it is mapped");
    let begin = u64::from_str_radix(first.split('-').next().expect("a range"), 16).expect("a number");
    let mut bytes = vec![0; BREAKPOINT.len()];
    let memory = File::open(format!("/proc/{pid}/mem")).expect("a process of the test's own");
    memory.read_exact_at(&mut bytes, begin + address).expect("it is mapped");
    bytes == BREAKPOINT
}

fn gunicorn(tools: &Tools, certificate: &Certificate) -> Server {
    Server::gunicorn_tls(tools, certificate, App::Wsgi, &["--workers", "2"])
}

#[test]
fn others_that_have_mapped_the_library_are_left_alone_and_nothing_outlives_the_agent() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let library = needs!(library(&tools));
    let (selected, other) = (gunicorn(&tools, &certificate), gunicorn(&tools, &certificate));
    let processes = |server: &Server| [vec![server.pid()], server.workers()].concat();
    let are_watched = |server: &Server| -> Vec<bool> {
        [WATCHED, "SSL_do_handshake", "SSL_accept"]
            .iter()
            .flat_map(|function| processes(server).into_iter().map(|pid| breakpoint(pid, &library, function)))
            .collect()
    };
    let mut agent = Agent::start(&["--pid", &selected.pid().to_string()]);
    // A worker may just have been born.
    eventually("all are watched", || are_watched(&selected).iter().all(|watched| *watched).then_some(()));
    assert!(!are_watched(&other).iter().any(|watched| *watched));
    ask(selected.target().address(), 50);
    counted(&agent, 50);
    agent.signal(Signal::SIGKILL);
    agent.wait();
    let gone = || !are_watched(&selected).iter().any(|watched| *watched);
    eventually("the kernel has taken the probes off", || gone().then_some(()));
    for server in [&selected, &other] {
        ask(server.target().address(), 50);
    }
    // A new agent finds them as the first one did; one that ends in order takes the probes off itself.
    let mut agent = Agent::start(&["--pid", &selected.pid().to_string()]);
    ask(selected.target().address(), 50);
    counted(&agent, 50);
    agent.stop();
    assert!(gone());
}

/// Ends the load, when the test fails, too.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The selection changes all the time, under load: every request is answered.
#[test]
fn probes_come_and_go_and_every_request_is_answered() {
    const ROUNDS: usize = 1_000;
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let library = needs!(library(&tools));
    let server = gunicorn(&tools, &certificate);
    let folder = tempfile::tempdir().expect("a directory can be made");
    let file = folder.path().join("httpmon.toml");
    let select = |pid: u32| fs::write(&file, format!("pid = [{pid}]\n")).expect("a file can be written");
    select(server.pid());
    let agent = Agent::start(&["--config", file.to_str().expect("a path")]);
    let worker = server.workers()[0];
    let nobody = Guard::start(Command::new("sleep").arg("600"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = Ends(&done);
        let load = scope.spawn(|| {
            let mut sent = 0;
            while !done.load(Ordering::Relaxed) {
                ask(server.target().address(), 20);
                sent += 20;
            }
            sent
        });
        for _ in 0..ROUNDS {
            for (pid, watched) in [(nobody.pid(), false), (server.pid(), true)] {
                select(pid);
                agent.signal(Signal::SIGHUP);
                eventually(if watched { "the probes are there" } else { "the probes are gone" }, || {
                    (breakpoint(worker, &library, WATCHED) == watched).then_some(())
                });
            }
        }
        drop(ends);
        println!("{ROUNDS} rounds, {} requests", load.join().expect("every request is answered"));
    });
}
