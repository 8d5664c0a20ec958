//! The agent's own life: it may start late, be killed, and start again.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use end_to_end::{
    Agent, App, Objects, Server, Tools,
    client::{Connection, Load, MIX},
    eventually, free_port, needs,
    probes::{ALL, BEST, CALLS},
    run,
};
use nix::sys::signal::Signal;

const KEPT_ALIVE: [&str; 8] =
    ["--workers", "1", "--worker-class", "gthread", "--threads", "16", "--keep-alive", "60"];

/// Asks so many times on each connection, in turn.
fn ask(connections: &mut [Connection], times: usize) {
    for number in 0..times {
        for connection in &mut *connections {
            connection.ask("GET", &format!("/items/{number}"));
            assert_eq!(connection.response(Duration::ZERO).status, 200);
        }
    }
}

#[test]
fn connections_that_were_open_before_are_counted_from_their_next_request_on() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &KEPT_ALIVE);
    let mut connections: Vec<_> = (0..8).map(|_| Connection::open(server.target())).collect();
    ask(&mut connections, 5);
    // These are busy while the agent starts, and answered after: nothing is known of their requests.
    let mut busy: Vec<_> = (0..4).map(|_| Connection::open(server.target())).collect();
    for connection in &mut busy {
        connection.ask("GET", "/sleep/3000");
    }
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    ask(&mut connections, 20);
    for connection in &mut busy {
        assert_eq!(connection.response(Duration::ZERO).status, 200);
    }
    ask(&mut busy, 10);
    let metrics = agent.scrape_settled(200);
    let expected = [(("GET".to_owned(), "/items/{id}".to_owned(), 200), 200)];
    assert_eq!(metrics.finished(&[]), expected.into());
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 200);
    metrics.assert_nothing_lost();
    assert_eq!(metrics.count("http_server_open_connections", &[]), 12);
}

/// What is pinned, so that it would outlive its program.
fn pinned() -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir("/sys/fs/bpf").into_iter().flatten();
    entries.map(|entry| entry.expect("it can be listed").path()).collect()
}

/// At every age, from before its probes are there to after: the kernel is left as it was, whoever is watched doesn't
/// notice, and the next one counts on the connections that are open.
#[test]
fn a_hundred_killed_agents_leave_nothing_and_the_next_one_goes_on() {
    const TIMES: u32 = 100;
    const YOUNGEST: Duration = Duration::from_millis(10);
    let tools = needs!(Tools::find());
    needs!(tools.program("bpftool"));
    let (before, pins) = (Objects::now(), pinned());
    let server = Server::gunicorn(&tools, App::Wsgi, &KEPT_ALIVE);
    let mut kept: Vec<_> = (0..8).map(|_| Connection::open(server.target())).collect();
    let killed = AtomicBool::new(false);
    let (mut seen, mut attached) = (0, 0);
    let answered = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut answered = 0;
            while !killed.load(Ordering::Relaxed) {
                let load = Load {
                    target: server.target(),
                    asks: &MIX,
                    requests: 90,
                    clients: 2,
                    per_connection: 30,
                };
                let outcome = load.send();
                assert_eq!((outcome.total(), outcome.failed), (90, 0), "{}", server.log());
                answered += outcome.total();
            }
            answered
        });
        for time in 0..TIMES {
            let port = free_port();
            let mut command = Command::new(Agent::program());
            command.args(["--process-name", "gunicorn", "--listen", &format!("127.0.0.1:{port}")]);
            let mut agent = Agent::begin(command, port);
            if time % 4 == 0 {
                agent = agent.attached();
                let metrics = agent.scrape_until("it counts", |metrics| {
                    metrics.count("httpmon_requests_seen_total", &[]) > 0
                });
                assert!(Objects::now().beyond(&before) > 0, "bpftool shows no probe");
                seen += metrics.count("httpmon_requests_seen_total", &[]);
                attached += 1;
            } else {
                thread::sleep(YOUNGEST * time);
            }
            agent.signal(Signal::SIGKILL);
            assert_eq!(agent.wait(), None);
            if time % 10 == 0 {
                ask(&mut kept, 1);
                before.wait_for();
            }
        }
        killed.store(true, Ordering::Relaxed);
        load.join().expect("the service answers all the while")
    });
    println!(
        "{answered} requests were answered, of which {attached} agents saw {seen} before they were killed"
    );
    before.wait_for();
    assert_eq!(pinned(), pins);
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    ask(&mut kept, 5);
    let metrics = agent.scrape_settled(40);
    let expected = [(("GET".to_owned(), "/items/{id}".to_owned(), 200), 40)];
    assert_eq!(metrics.finished(&[]), expected.into());
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 40);
    metrics.assert_nothing_lost();
}

#[test]
fn signals_end_it_in_order() {
    needs!(Agent::possible());
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut agent = Agent::start(&["--process-name", "no-such-program"]);
        agent.signal(signal);
        assert_eq!(agent.wait(), Some(0), "{}", agent.log());
        assert!(agent.log().contains("stopped"));
    }
}

#[test]
fn the_kernel_sides_log_shows_when_asked_for() {
    let tools = needs!(Tools::find());
    let agent = Agent::start(&["--process-name", "gunicorn", "--log-level", "debug"]);
    let _server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
    eventually("a fork is logged by the kernel side", || agent.log().contains("was forked").then_some(()));
}

#[test]
fn what_is_printed_is_fresh() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &KEPT_ALIVE);
    let agent = Agent::start(&["--process-name", "gunicorn", "--print", "text"]);
    let mut connection = Connection::open(server.target());
    connection.ask("GET", "/items/7?secret=1");
    connection.response(Duration::ZERO);
    // Counted at once: no second request pushes it out.
    assert_eq!(agent.scrape_settled(1).count("http_server_request_duration_seconds_count", &[]), 1);
    let line = eventually("the request is printed", || agent.printed().lines().next().map(str::to_owned));
    let port = server.target().address().port();
    assert!(
        line.contains(&format!("127.0.0.1:{port} \"GET /items/7 HTTP/1.1\" 200 route=/items/{{id}} dur=")),
        "{line}"
    );
    assert!(!line.contains("secret"));
}

#[test]
fn check_tells_what_each_backend_has_and_goes_without() {
    needs!(Agent::possible());
    for (backend, expected) in [
        (
            "auto",
            ["socket backend (this kernel", "ok       feature socket_backend", "ok       feature io_uring"],
        ),
        (
            "socket",
            ["socket backend (as asked", "ok       feature socket_backend", "ok       feature io_uring"],
        ),
        (
            "syscall",
            ["syscall backend (as asked", "without  feature socket_backend", "without  feature io_uring"],
        ),
    ] {
        let output = run(Command::new(Agent::program()).args(["check", "--backend", backend]));
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(expected.iter().all(|part| said.contains(part)), "{backend}: {said}");
    }
}

/// Kernels go through a million instructions at most (`BPF_COMPLEXITY_LIMIT_INSNS`), and later ones through several times as
/// many of the same program as this one.
#[test]
fn the_programs_are_far_from_what_a_verifier_allows() {
    const MOST: u64 = 250_000;
    needs!(Agent::possible());
    let pid = std::process::id().to_string();
    for probes in ALL {
        let agent = Agent::start(&[&["--pid", pid.as_str()], probes].concat());
        let programs: Vec<u64> = fs::read_dir(format!("/proc/{}/fdinfo", agent.pid()))
            .expect("the agent runs")
            .filter_map(|entry| {
                let text = fs::read_to_string(entry.ok()?.path()).ok()?;
                let count = text.lines().find_map(|line| line.strip_prefix("verified_insns:"))?;
                count.trim().parse().ok()
            })
            .collect();
        println!("{probes:?}: instructions that the verifier went through: {programs:?}");
        assert!(programs.iter().any(|count| *count > 0), "{programs:?}");
        assert!(programs.iter().all(|count| *count < MOST), "{programs:?}");
    }
}

#[test]
fn the_log_and_the_metrics_tell_which_probes_run_and_why() {
    needs!(Agent::possible());
    let pid = std::process::id().to_string();
    for (probes, said, there) in [
        (BEST, "the socket backend (this kernel has what it needs)", 1),
        (CALLS, "the syscall backend (as asked for)", 0),
    ] {
        let agent = Agent::start(&[&["--pid", pid.as_str()], probes].concat());
        assert!(agent.log().contains(said), "{}", agent.log());
        let metrics = agent.scrape();
        let enabled = |feature| metrics.count("httpmon_feature_enabled", &[("feature", feature)]);
        assert_eq!((enabled("socket_backend"), enabled("io_uring")), (there, there));
        assert_eq!((enabled("queue_time"), enabled("skipped_runs")), (1, 1));
    }
}

#[test]
fn check_looks_for_what_the_classic_hooks_need() {
    needs!(Agent::possible());
    let check = "umount /sys/kernel/tracing 2>/dev/null; exec \"$0\" check --hooks tracepoint";
    let output = run(Command::new("unshare")
        .args(["--mount", "--propagation=private", "sh", "-c", check])
        .arg(Agent::program()));
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("missing  tracefs") && said.contains("mount -t tracefs"), "{said}");
}

#[test]
fn at_rest_it_takes_little_memory() {
    const MOST: u64 = 16 << 10;
    needs!(Agent::possible());
    let idle = end_to_end::Guard::start(Command::new("sleep").arg("600"));
    let agent = Agent::start(&["--pid", &idle.pid().to_string()]);
    eventually("the agent's resident memory is at most 16 MiB", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("it runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next());
        (resident?.parse::<u64>().ok()? <= MOST).then_some(())
    });
}
