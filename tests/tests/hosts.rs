//! Hosts that hide processes or number them anew, and that are short of files and disk space: the agent says so, and what it can
//! count it counts.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use end_to_end::{
    Agent, App, Guard, Server, Tools,
    client::{Load, MIX, add},
    eventually, needs, run, run_and_hear,
    tls::Certificate,
};

const CAPABILITIES: &str = "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search";

/// Where an ordinary user can run it.
fn program_for_all(folder: &Path) -> PathBuf {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("permissions can be set");
    let program = folder.join("httpmon");
    fs::copy(Agent::program(), &program).expect("the program can be copied");
    program
}

/// Requests of nine kinds, and whether each was counted.
fn all_are_counted(server: &Server, agent: &Agent, requests: usize, per_connection: usize) {
    let load = Load { target: server.target(), asks: &MIX, requests, clients: 3, per_connection };
    let outcome = load.send();
    assert_eq!(outcome.failed, 0, "{}", server.log());
    let metrics = agent.scrape_settled(requests as u64);
    metrics.assert_finished(&[], &outcome.answered);
    metrics.assert_nothing_lost();
}

/// A command in a file system tree of its own, after some others there.
fn apart(before: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        &format!("set -e; {before}; exec \"$@\""),
        "sh",
    ]);
    command
}

#[test]
fn processes_that_proc_hides_are_found() {
    let tools = needs!(Tools::find());
    let setpriv = needs!(tools.program("setpriv"));
    let folder = tempfile::tempdir().expect("a directory can be made");
    let program = program_for_all(folder.path());
    let hide = "mount -t proc -o hidepid=2 proc /proc";
    let user = |held: &str| {
        let mut command = apart(hide);
        command.arg(&setpriv).args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args(["inh-caps", "ambient-caps", "bounding-set"].map(|set| format!("--{set}={held}")));
        command
    };
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
    // Who has no capability doesn't see it.
    let hidden = run(user("-all").arg("ls").arg(format!("/proc/{}", server.pid())));
    assert!(!hidden.status.success());
    let mut command = user(CAPABILITIES);
    command.arg(&program);
    let agent = Agent::start_by(command, &["--process-name", "gunicorn"]);
    all_are_counted(&server, &agent, 180, 7);
    // One that starts later.
    drop(server);
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
    let load = Load { target: server.target(), asks: &MIX, requests: 90, clients: 3, per_connection: 1 };
    assert_eq!(load.send().total(), 90);
    let metrics = agent.scrape_settled(270);
    assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), 270);
    assert_eq!(metrics.count("http_server_request_queue_duration_seconds_count", &[]), 270);
}

#[test]
fn a_disk_that_is_full_ends_the_recording_alone() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2", "--worker-class", "gthread"]);
    let folder = tempfile::tempdir().expect("a directory can be made");
    let recording = folder.path().join("events");
    let mut command = apart(&format!("mount -t tmpfs -o size=64k tmpfs {}", folder.path().display()));
    command.arg(Agent::program()).arg("--record").arg(&recording);
    let mut agent = Agent::start_by(command, &["--process-name", "gunicorn"]);
    all_are_counted(&server, &agent, 3_000, 100);
    let log = agent.log();
    let ends: Vec<_> = log.lines().filter(|line| line.contains("the recording ends here")).collect();
    assert!(matches!(ends[..], [line] if line.contains("No space left on device")), "{log}");
    // What was written is worth its while.
    let recorded = format!("/proc/{}/root{}", agent.pid(), recording.display());
    assert_eq!(fs::metadata(&recorded).expect("it is there").len(), 65_536);
    let copy = tempfile::NamedTempFile::new().expect("a file can be made");
    fs::copy(&recorded, copy.path()).expect("it can be copied");
    let replay = run(Command::new(Agent::program()).arg("replay").arg(copy.path()));
    let said = String::from_utf8_lossy(&replay.stderr);
    assert!(replay.status.success(), "{said}");
    let replayed = end_to_end::Metrics::parse(String::from_utf8_lossy(&replay.stdout).into_owned());
    let counted = replayed.count("httpmon_requests_seen_total", &[]);
    assert!((1..3_000).contains(&counted), "{counted} requests; {said}");
    agent.stop();
}

#[test]
fn few_files_leave_room_for_what_counts() {
    let tools = needs!(Tools::find());
    let prlimit = needs!(tools.program("prlimit"));
    let mut command = Command::new(prlimit);
    command.arg("--nofile=64").arg(Agent::program());
    let agent = Agent::start_by(command, &["--process-name", "gunicorn"]);
    eventually("it says what there is room for", || agent.log().contains("open files").then_some(()));
    // More clients than there are files, none of which says anything.
    let idle: Vec<_> = (0..100)
        .map(|_| std::net::TcpStream::connect(("127.0.0.1", agent.port())).expect("it listens"))
        .collect();
    let server =
        Server::gunicorn(&tools, App::Wsgi, &["--workers", "8", "--preload", "--max-requests", "20"]);
    let load = Load { target: server.target(), asks: &MIX, requests: 900, clients: 3, per_connection: 1 };
    let outcome = load.send();
    drop(idle);
    let metrics = agent.scrape_settled(900);
    metrics.assert_finished(&[], &outcome.answered);
    metrics.assert_nothing_lost();
}

/// A PID namespace with nothing but the process that keeps it, and a `/proc` for it.
struct Namespace {
    _keeper: Guard,
    /// The process that keeps it.
    pid: u32,
}

impl Namespace {
    fn new() -> Self {
        let unshare = ["--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "infinity"];
        let keeper = Guard::start(Command::new("unshare").args(unshare));
        let pid = eventually("the namespace is made", || {
            let child = keeper.child()?;
            let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
            (name == "sleep\n").then_some(child)
        });
        Self { _keeper: keeper, pid }
    }

    /// Runs a program there.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--pid", "--mount", "--target", &self.pid.to_string()]).arg(program);
        command
    }
}

/// As beside another container of a pod.
#[test]
fn an_agent_in_a_pid_namespace_sees_what_is_within() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    for hooks in [&["--hooks", "tp-btf"][..], &["--hooks", "tracepoint"], &["--backend", "syscall"]] {
        let namespace = Namespace::new();
        let gunicorn = |mut command: Command, options: &[&str], bind: &str| {
            command.args(["--workers", "2", "--bind", bind]).args(options);
            command.args(["--chdir", concat!(env!("CARGO_MANIFEST_DIR"), "/servers"), "app:app"]);
            command.env("PYTHONDONTWRITEBYTECODE", "1");
            command
        };
        let program = tools.python("gunicorn");
        let plain = Server::other_on_unix(|path| {
            gunicorn(namespace.command(&program), &[], &format!("unix:{}", path.display()))
        });
        // By the same name, and not seen from there.
        let outside = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
        let options = [&["--process-name", "gunicorn"], hooks].concat();
        let agent = Agent::start_by(namespace.command(&Agent::program()), &options);
        // And one that begins when the agent is there, with numbers of its own once more.
        let (file, key) = (certificate.file(), certificate.key());
        let within = Server::other(|address| {
            let mut command = namespace.command(Path::new("unshare"));
            command.args(["--pid", "--fork", "--kill-child"]).arg(&program);
            let [file, key] = [&file, &key].map(|path| path.to_str().expect("a path"));
            gunicorn(command, &["--certfile", file, "--keyfile", key], &address.to_string())
        })
        .over_tls();
        agent.scrape_until("they and their workers are there", |metrics| {
            metrics.count("httpmon_workers", &[]) == 6
        });
        let mut answered = BTreeMap::new();
        for (server, seen) in [(&plain, true), (&outside, false), (&within, true)] {
            let load =
                Load { target: server.target(), asks: &MIX, requests: 180, clients: 3, per_connection: 7 };
            let outcome = load.send();
            assert_eq!(outcome.failed, 0, "{}", server.log());
            if seen {
                add(&mut answered, outcome.answered);
            }
        }
        let metrics = agent.scrape_settled(360);
        metrics.assert_finished(&[], &answered);
        metrics.assert_nothing_lost();
        assert_eq!(metrics.count("http_server_request_queue_duration_seconds_count", &[]), 360);
    }
}

/// As in a container that was not given the host's.
#[test]
fn who_finds_no_process_in_a_pid_namespace_hears_of_it() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
    let namespace = Namespace::new();
    let selection = ["--process-name", "gunicorn"];
    let listed = |mut command: Command| run_and_hear(command.arg("processes").args(selection)).1;
    let seen = listed(Command::new(Agent::program()));
    assert!(seen.contains(&server.pid().to_string()) && !seen.contains("--pid=host"), "{seen}");
    let missed = listed(namespace.command(&Agent::program()));
    assert!(missed.contains("No process matches") && missed.contains("--pid=host"), "{missed}");
    let agent = Agent::start_by(namespace.command(&Agent::program()), &selection);
    eventually("it says why it may wait forever", || agent.log().contains("--pid=host").then_some(()));
}

/// Its numbers are not those that system calls take.
#[test]
fn a_proc_of_another_pid_namespace_is_told() {
    needs!(Agent::possible());
    let apart = |arguments: &[&str]| {
        let unshare = ["--pid", "--fork", "--kill-child"];
        run_and_hear(Command::new("unshare").args(unshare).arg(Agent::program()).args(arguments))
    };
    let (status, said) = apart(&["-n", "x", "--listen", "127.0.0.1:0"]);
    assert!(
        status.code() == Some(3) && said.contains("PID namespace") && said.contains("--mount-proc"),
        "{status:?}: {said}"
    );
    let (status, said) = apart(&["check"]);
    assert!(
        status.code() == Some(3) && said.contains("missing  PID namespace") && said.contains("--mount-proc"),
        "{status:?}: {said}"
    );
}
