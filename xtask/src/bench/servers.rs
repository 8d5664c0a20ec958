//! The servers under load, each on the servers' core.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, Result};
use end_to_end::{Server, Tools, client::Target, tls::Certificate};

use super::{
    load::{self, Load},
    machine::{self, SERVERS},
    peers::{Python, sources},
    sink::Sink,
};
use crate::run::{self, Command};

/// A server, and what lives as long.
#[derive(Debug)]
pub(super) struct Subject {
    server: Server,
    path: &'static str,
    /// Where it is asked by HTTP/2, how many requests at a time there are on each connection.
    streams: Option<usize>,
    /// What its peer reports to.
    pub(super) sink: Option<Sink>,
    /// Directories that it uses.
    pub(super) folders: Vec<tempfile::TempDir>,
}

impl Subject {
    /// A server, and the path that is asked for.
    pub(super) fn new(server: Server, path: &'static str) -> Self {
        Self { server, path, streams: None, sink: None, folders: Vec::new() }
    }

    /// Its main process.
    pub(super) fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// All its processes.
    pub(super) fn processes(&self) -> Vec<u32> {
        machine::tree(self.server.pid())
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.server.target().address()
    }

    /// What is asked for.
    pub(super) fn url(&self) -> String {
        self.url_of(self.path)
    }

    /// Another path of it.
    pub(super) fn url_of(&self, path: &str) -> String {
        let scheme = if matches!(self.server.target(), Target::Tls(_)) { "https" } else { "http" };
        format!("{scheme}://{}{path}", self.address())
    }

    /// Asks it as fast as answers come, for so many seconds.
    pub(super) fn load(&self, connections: usize, seconds: u64) -> Result<Load> {
        match self.streams {
            None => load::wrk(&self.url(), connections, seconds, None),
            Some(streams) => load::streams(&self.url(), connections, streams, seconds),
        }
    }

    /// The same, asked by HTTP/2 with so many requests at a time on each connection.
    pub(super) fn with_streams(self, streams: usize) -> Self {
        Self { streams: Some(streams), ..self }
    }

    /// How many requests it has answered, by its own account (nginx's `stub_status`), this question included.
    pub(super) fn own_count(&self) -> Result<u64> {
        let text = run::output(Command::new("curl").args(["--silent", "--fail", &self.url_of("/status")]))?;
        let numbers = text.lines().nth(2).and_then(|line| line.split_ascii_whitespace().nth(2));
        numbers.and_then(|number| number.parse().ok()).with_context(|| format!("nginx said {text}"))
    }
}

/// How connections come to nginx's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Whoever is first takes the next.
    Shared,
    /// Each has a queue of its own: so connections are spread evenly.
    Own,
}

/// nginx with one worker that answers each request with two bytes.
pub(super) fn nginx() -> Result<Subject> {
    nginx_with(1, Queue::Shared, 19_000)
}

/// The same with so many workers, each with room for so many connections.
pub(super) fn nginx_with(workers: usize, queue: Queue, connections: usize) -> Result<Subject> {
    let how = if queue == Queue::Own { "reuseport" } else { "" };
    nginx_listening(workers, how, connections, "")
}

/// The same with one worker that speaks HTTP/2.
pub(super) fn nginx_http2() -> Result<Subject> {
    nginx_listening(1, "http2", 19_000, "")
}

/// The same with one worker that speaks TLS, and HTTP/1.1 or HTTP/2, as is wanted.
pub(super) fn nginx_tls(certificate: &Certificate) -> Result<Subject> {
    let (file, key) = (certificate.file(), certificate.key());
    let directives = format!("ssl_certificate {}; ssl_certificate_key {};", file.display(), key.display());
    let mut subject = nginx_listening(1, "ssl http2", 19_000, &directives)?;
    subject.server = subject.server.over_tls();
    Ok(subject)
}

fn nginx_listening(workers: usize, how: &str, connections: usize, directives: &str) -> Result<Subject> {
    let folder = tempfile::tempdir()?;
    let place = folder.path().display().to_string();
    let path = folder.path().join("nginx.conf");
    let mut written = Ok(());
    let server = Server::other(|address| {
        let configuration = format!(
            "daemon off; pid {place}/pid; error_log {place}/log; worker_processes {workers}; user root;\n\
             events {{ worker_connections {connections}; }}\n\
             http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;\n\
             client_body_temp_path {place}/b; proxy_temp_path {place}/p; fastcgi_temp_path {place}/f;\n\
             uwsgi_temp_path {place}/u; scgi_temp_path {place}/s;\n\
             server {{ listen {address} {how} backlog=4096; {directives} location / {{ return 200 'ok'; }}\n\
             location /status {{ stub_status; }} }} }}\n"
        );
        written = fs::write(&path, configuration);
        let mut command = machine::on_core(SERVERS, "nginx");
        command.arg("-e").arg(folder.path().join("log")).arg("-c").arg(&path);
        command
    });
    written?;
    let mut subject = Subject::new(server, "/");
    subject.folders.push(folder);
    Ok(subject)
}

/// A server that is nothing but a port and so many processes.
pub(super) fn prefork(processes: usize) -> Subject {
    let server = Server::other(|address| {
        let mut command = machine::on_core(SERVERS, "python3");
        command.arg(sources().join("prefork.py")).arg(address.port().to_string());
        command.arg(processes.to_string());
        command
    });
    Subject::new(server, "/")
}

/// uvicorn with an ASGI application of a few lines.
pub(super) fn uvicorn(python: &Python, certificate: Option<&Certificate>) -> Subject {
    let server = Server::other(|address| {
        let mut command = python.command("uvicorn");
        command.args(["asgi:app", "--http=httptools", "--log-level=warning", "--no-access-log"]);
        command.arg(format!("--port={}", address.port()));
        if let Some(certificate) = certificate {
            command.arg("--ssl-certfile").arg(certificate.file());
            command.arg("--ssl-keyfile").arg(certificate.key());
        }
        command
    });
    let server = if certificate.is_some() { server.over_tls() } else { server };
    Subject::new(server, "/items/7")
}

/// hyper over rustls, in this version of HTTP.
pub(super) fn rustls(certificate: &Certificate, http: &str) -> Subject {
    let program = Tools::rustls();
    let server = Server::other(|address| {
        let mut command = machine::on_core(SERVERS, &program);
        command.arg(address.to_string()).arg(http).arg(certificate.file()).arg(certificate.key()).arg("ring");
        command
    });
    Subject::new(server.over_tls(), "/items/7")
}

/// Go's net/http.
pub(super) fn go(certificate: Option<&Certificate>) -> Result<Subject> {
    let program = run::root().join("target/bench-go-server");
    let source = run::root().join("tests/servers/server.go");
    run::check(Command::new("go").args(["build", "-o"]).arg(&program).arg(source))?;
    let server = Server::other(|address| {
        let mut command = machine::on_core(SERVERS, &program);
        command.arg(address.to_string()).env("GOMAXPROCS", "1");
        command.args(certificate.into_iter().flat_map(|certificate| [certificate.file(), certificate.key()]));
        command
    });
    let server = if certificate.is_some() { server.over_tls() } else { server };
    Ok(Subject::new(server, "/items/7"))
}
