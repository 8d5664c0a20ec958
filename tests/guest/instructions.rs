//! How many instructions a request takes, on a machine of one processor whose clock counts them as nanoseconds.
//!
//! The time from the first request to the last response is that of client, server and kernel, but for what a watching
//! program used meanwhile, which works in batches. Its own share is taken apart, until it has caught up.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use end_to_end::{Agent, Guard, Server, Tools, eventually};
use nix::sys::signal::Signal;

use crate::{
    keep_alive::{self, KeepAlive},
    leave,
};

const REQUESTS: u32 = 2_000;
const RUNS: usize = 5;
/// Within which the agent has read everything (it looks every 50 ms).
const CATCHING_UP: Duration = Duration::from_millis(200);

/// Who watches while requests are made.
enum Watcher {
    Nobody,
    /// The agent, and how many requests it must have counted.
    Agent(Agent, u64),
    Script(Guard),
}

/// What a run took, in instructions.
#[derive(Clone, Copy)]
struct Taken {
    /// Client, server and kernel.
    serving: u64,
    /// The watcher.
    watching: u64,
}

/// Measures nginx under each of these: `none`, `another` for the agent that watches none of its processes, `calls`, or the
/// agent's options, joined by commas.
pub(super) fn measure(watchers: &[String]) {
    let tools = Tools::anywhere().expect("what the tests need is there");
    let server = keep_alive::nginx(&tools);
    let mut connection = KeepAlive::open(&server);
    settle(&mut connection);
    let mut figures = Vec::new();
    for name in watchers {
        let mut watcher = Watcher::start(name, &server);
        // The first run after a change finds caches cold.
        run(&mut connection, &watcher);
        let runs: Vec<Taken> = (0..RUNS).map(|_| run(&mut connection, &watcher)).collect();
        watcher.stop();
        for Taken { serving, watching } in runs {
            figures.push(format!("{name} {REQUESTS} {serving} {watching}"));
        }
    }
    leave("instructions", &figures);
}

/// A machine that has just started does more than it is asked for. Waits until two runs take the same, to 0.1 %.
fn settle(connection: &mut KeepAlive) {
    let mut before = u64::MAX;
    eventually("the machine comes to rest", || {
        let now = run(connection, &Watcher::Nobody).serving;
        let same = now.abs_diff(before) < now / 1000;
        before = now;
        same.then_some(())
    });
}

impl Watcher {
    fn start(name: &str, server: &Server) -> Self {
        match name {
            "none" => Self::Nobody,
            "another" => Self::Agent(Agent::start(&["--process-name", "another"]), 0),
            "calls" => Self::Script(per_call(server)),
            options => {
                let options: Vec<&str> = options.split(',').collect();
                let agent = Agent::start(&[&["--process-name", "nginx"], options.as_slice()].concat());
                Self::Agent(agent, (RUNS as u64 + 1) * u64::from(REQUESTS))
            }
        }
    }

    /// Ends it; the agent must have counted everything.
    fn stop(&mut self) {
        match self {
            Self::Nobody => {}
            Self::Agent(agent, expected) => {
                let metrics = agent.scrape_settled(*expected);
                assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), *expected);
                metrics.assert_nothing_lost();
                agent.stop();
            }
            Self::Script(script) => {
                script.signal(Signal::SIGINT);
                script.wait();
            }
        }
    }

    /// Nanoseconds that its threads have run (`/proc/PID/task/TID/schedstat`, Documentation/scheduler/sched-stats.rst).
    fn ran(&self) -> u64 {
        let pid = match self {
            Self::Nobody => return 0,
            Self::Agent(agent, _) => agent.pid(),
            Self::Script(script) => script.pid(),
        };
        let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("the watcher runs");
        threads
            .map(|thread| {
                let path = thread.expect("threads can be listed").path().join("schedstat");
                let text = fs::read_to_string(path).expect("the thread runs");
                let first = text.split(' ').next().and_then(|first| first.parse::<u64>().ok());
                first.expect("the first is a number")
            })
            .sum()
    }
}

/// The system calls that carry data in and out of sockets.
const CALLS: [&str; 8] = ["read", "readv", "recvfrom", "recvmsg", "write", "writev", "sendto", "sendmsg"];

/// A simple tracer that looks at both ends of these system calls: at the beginning of a selected process's call its
/// buffer is kept; at the end that is looked up, its first bytes are read and summed up. Nothing is sent to user space.
fn per_call(server: &Server) -> Guard {
    let points = |end: &str| CALLS.map(|call| format!("tracepoint:syscalls:sys_{end}_{call}")).join(",");
    let workers: Vec<String> = server.workers().iter().map(|pid| format!("pid == {pid}")).collect();
    // All of these calls have the buffer or the vector as their second argument, 24 bytes into the record.
    let program = format!(
        "BEGIN {{ printf(\"attached\\n\"); }}\n\
         {} / {} / {{ @given[tid] = *(uint64 *)((uint64)args + 24); }}\n\
         {} / @given[tid] / {{ @bytes += *(uint64 *)uptr(@given[tid]); delete(@given[tid]); }}\n",
        points("enter"),
        workers.join(" || "),
        points("exit"),
    );
    let folder = tempfile::tempdir().expect("a directory can be made");
    let log = folder.path().join("log");
    let file = fs::File::create(&log).expect("a log can be made");
    let mut command = Command::new("bpftrace");
    command.args(["-e", &program]).stdin(Stdio::null());
    command.stdout(file.try_clone().expect("a log can be shared")).stderr(file);
    let mut script = Guard::start(&mut command);
    eventually("bpftrace attaches", || {
        let said = fs::read_to_string(&log).expect("the log is there");
        assert!(script.ended().is_none(), "bpftrace ended: {said}");
        said.contains("attached").then_some(())
    });
    script
}

/// All requests of a run, one after the other on one connection.
fn run(connection: &mut KeepAlive, watcher: &Watcher) -> Taken {
    let ran = watcher.ran();
    let begun = Instant::now();
    for _ in 0..REQUESTS {
        connection.ask();
    }
    let elapsed = u64::try_from(begun.elapsed().as_nanos()).expect("a run takes less than centuries");
    let meanwhile = watcher.ran() - ran;
    thread::sleep(CATCHING_UP);
    Taken { serving: elapsed - meanwhile, watching: watcher.ran() - ran }
}
