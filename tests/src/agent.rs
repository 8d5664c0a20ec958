//! The agent under test: the built program, as a user runs it.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{Guard, Metrics, eventually, free_port, patience};

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    process: Guard,
    port: u16,
    folder: tempfile::TempDir,
}

impl Agent {
    /// The program.
    pub fn program() -> PathBuf {
        let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/httpmon");
        let program = std::env::var_os("HTTPMON").map_or_else(|| PathBuf::from(built), PathBuf::from);
        assert!(program.exists(), "{} is missing: run `cargo build --release`", program.display());
        program
    }

    /// Whether one can run here.
    pub fn possible() -> Result<(), String> {
        let check = crate::run(Command::new(Self::program()).arg("check"));
        if check.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&check.stdout).replace('\n', " | "))
        }
    }

    /// Starts one with these options, and waits until its probes are attached.
    pub fn start(options: &[&str]) -> Self {
        Self::start_by(Command::new(Self::program()), options)
    }

    /// The same, by a command that runs it with the arguments that follow.
    pub fn start_by(command: Command, options: &[&str]) -> Self {
        Self::start_with(command, free_port(), options)
    }

    /// The same, with the exporter on this port.
    pub fn start_at(port: u16, options: &[&str]) -> Self {
        Self::start_with(Command::new(Self::program()), port, options)
    }

    fn start_with(mut command: Command, port: u16, options: &[&str]) -> Self {
        command.args(options).arg("--listen").arg(format!("127.0.0.1:{port}"));
        Self::begin(command, port).attached()
    }

    /// Starts a command that becomes one, now or later.
    pub fn begin(mut command: Command, port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let log = |name: &str| File::create(folder.path().join(name)).expect("a log can be made");
        command.stdout(log("out")).stderr(log("err"));
        Self { process: Guard::start(&mut command), port, folder }
    }

    /// Waits until its probes are attached.
    #[must_use]
    pub fn attached(mut self) -> Self {
        let agent = &mut self;
        eventually("the agent attaches", || {
            let log = agent.log();
            assert!(agent.process.ended().is_none(), "the agent ended: {log}");
            log.contains("attached").then_some(())
        });
        self
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The exporter's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("err")).expect("the log is there")
    }

    /// What it printed.
    pub fn printed(&self) -> String {
        fs::read_to_string(self.folder.path().join("out")).expect("the output is there")
    }

    /// One scrape.
    pub fn scrape(&self) -> Metrics {
        Metrics::parse(self.get("/metrics"))
    }

    /// What its exporter answers with status 200.
    pub fn get(&self, path: &str) -> String {
        let (status, body) = self.ask(path);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// How many octets its exporter answers, which are read and not kept.
    pub fn octets(&self, path: &str) -> u64 {
        let mut reader = BufReader::with_capacity(1 << 16, self.asked(path));
        io::copy(&mut reader, &mut io::sink()).expect("the exporter answers")
    }

    /// What its exporter answers.
    pub fn ask(&self, path: &str) -> (u16, String) {
        let mut answer = String::new();
        self.asked(path).read_to_string(&mut answer).expect("the exporter answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a response has a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.expect("a response has a status"), body.to_owned())
    }

    /// A connection on which its exporter answers.
    fn asked(&self, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the exporter listens");
        stream.set_read_timeout(Some(patience())).expect("a timeout can be set");
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("the exporter reads");
        stream
    }

    /// Scrapes until a condition holds; the books balance at every one of them.
    pub fn scrape_until(&self, what: &str, condition: impl Fn(&Metrics) -> bool) -> Metrics {
        let mut last = Metrics::default();
        eventually_or(
            what,
            || {
                last = self.scrape();
                last.assert_books_balance();
                condition(&last)
            },
            || format!("{}\n{}", self.scrape().brief(), self.log()),
        );
        last
    }

    /// Scrapes when so many requests have been seen and none is in flight.
    pub fn scrape_settled(&self, requests: u64) -> Metrics {
        self.scrape_until(&format!("{requests} requests are seen and done"), |metrics| {
            metrics.count("httpmon_requests_seen_total", &[]) >= requests
                && metrics.count("http_server_active_requests", &[]) == 0
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits for its end; the exit code, none where a signal killed it.
    pub fn wait(&mut self) -> Option<i32> {
        self.process.wait().code()
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(self.wait(), Some(0), "{}", self.log());
    }
}

fn eventually_or(what: &str, mut condition: impl FnMut() -> bool, describe: impl Fn() -> String) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < patience(), "{what}: not in time:\n{}", describe());
        std::thread::sleep(Duration::from_millis(10));
    }
}
