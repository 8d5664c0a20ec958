//! Processes of a test: they end with it.

use std::{
    ffi::OsStr,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Output},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

/// How long anything may take that a test waits for: half a minute, or the seconds in `HTTPMON_TEST_PATIENCE`, which slow
/// machines set.
pub fn patience() -> Duration {
    let seconds = std::env::var("HTTPMON_TEST_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// A child process with all that it starts, killed when dropped.
#[derive(Debug)]
pub struct Guard {
    child: Child,
}

impl Guard {
    /// Starts a command in a process group of its own; it dies with the test's process, too.
    pub fn start(command: &mut Command) -> Self {
        command.process_group(0);
        let child = command.spawn().unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
        Self { child }
    }

    /// Starts `strace` with these options on a process; from here on it traces each of its threads.
    pub fn strace(strace: &Path, options: impl IntoIterator<Item: AsRef<OsStr>>, pid: u32) -> Self {
        let tracer =
            Self::start(Command::new(strace).args(["-f", "-q"]).args(options).args(["-p", &pid.to_string()]));
        let traced = format!("TracerPid:\t{}", tracer.pid());
        eventually("all threads are traced", || {
            let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
            threads
                .all(|thread| {
                    let status = thread.expect("it can be listed").path().join("status");
                    // None where the thread has just ended.
                    std::fs::read_to_string(status)
                        .map_or(true, |status| status.lines().any(|line| line == traced))
                })
                .then_some(())
        });
        tracer
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its child's, where it has exactly one.
    pub fn child(&self) -> Option<u32> {
        let of = self.pid();
        let children = std::fs::read_to_string(format!("/proc/{of}/task/{of}/children")).ok()?;
        children.trim().parse().ok()
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("the process is there");
    }

    /// Whether it has blocked a signal.
    pub fn blocks(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t"));
        let blocked = blocked.and_then(|mask| u64::from_str_radix(mask, 16).ok()).unwrap_or(0);
        blocked & (1 << (signal as u32 - 1)) != 0
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", || self.ended())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().cast_signed());
        // It may be gone already.
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// Waits for a condition.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < patience(), "{what}: not within {:?}", patience());
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a command to its end: how that was, and what it said, on its output first.
pub fn run_and_hear(command: &mut Command) -> (ExitStatus, String) {
    let Output { status, stdout, stderr } = run(command);
    (status, String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned())
}

/// Runs a command to its end, for at most as long as anything may take.
pub fn run(command: &mut Command) -> Output {
    use std::process::Stdio;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("can't start {command:?}: {error}"));
    let pid = Pid::from_raw(child.id().cast_signed());
    let (done, finished) = std::sync::mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        if finished.recv_timeout(patience() * 4).is_err() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().expect("a child can be waited for");
    let _ = done.send(());
    watchdog.join().expect("the watchdog ends");
    output
}

/// A TCP port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
