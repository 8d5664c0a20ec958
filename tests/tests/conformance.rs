//! Servers × scenarios: whatever a client does, and however a server answers, the counts are the client's.
//!
//! A server is one entry of [`servers`] or [`sealed_servers`], a scenario one of [`SCENARIOS`]. What holds is written to
//! `tests/CONFORMANCE.md`, with `HTTPMON_TABLE=1`; without it, the committed tables must be the true ones.

use std::{collections::BTreeMap, fmt::Write as _, fs, net::SocketAddr, path::Path, process::Command};

use end_to_end::{
    Agent, App, Metrics, Script, Server, Tools,
    client::add,
    needs,
    probes::{BEST, CALLS},
    put_files,
    tls::Certificate,
};

/// A server's name, and how it is started.
type Entry = (&'static str, fn(&Tools, &Path) -> Result<Server, String>);

/// The same for one that speaks TLS.
type SealedEntry = (&'static str, fn(&Tools, &Path, &Certificate) -> Result<Server, String>);

fn servers() -> Vec<Entry> {
    vec![
        ("Gunicorn sync", |tools, _| Ok(gunicorn(tools, SYNC, None))),
        ("Gunicorn gthread", |tools, _| Ok(gunicorn(tools, THREADS, None))),
        ("Gunicorn gevent", |tools, _| Ok(gunicorn(tools, &["--worker-class", "gevent"], None))),
        ("uvicorn h11", |tools, _| Ok(uvicorn(tools, "h11", None))),
        ("uvicorn httptools", |tools, _| Ok(uvicorn(tools, "httptools", None))),
        ("nginx static", |tools, folder| Server::nginx(tools, &files(folder))),
        ("nginx return", |tools, _| Server::nginx(tools, RETURN)),
        ("Node http", |tools, _| Ok(Server::other(node(tools, None)?))),
        ("Go net/http", |tools, folder| Ok(Server::other(go(tools, folder, None)?))),
        ("Python http.server", |tools, folder| {
            let python = tools.python("python3");
            fs::write(folder.join("echo"), "here\n").expect("a file can be written");
            Ok(Server::other(|address| {
                let mut command = Command::new(python);
                command
                    .args(["-m", "http.server", "--bind", "127.0.0.1", &address.port().to_string()])
                    .current_dir(folder);
                command
            }))
        }),
        ("nginx proxy", |tools, _| {
            let behind = hyper();
            let upstream = format!("location / {{ proxy_pass http://{}; }}", behind.target().address());
            Ok(Server::nginx(tools, &upstream)?.in_front_of(behind))
        }),
        ("Rust hyper", |_, _| Ok(hyper())),
        ("Apache event", |tools, folder| apache(tools, None, folder)),
        ("HAProxy", |tools, _| Server::haproxy(tools, None, hyper())),
        ("Puma", |tools, _| Ok(Server::other(puma(tools, None)?))),
    ]
}

fn sealed_servers() -> Vec<SealedEntry> {
    vec![
        ("Gunicorn sync", |tools, _, certificate| Ok(gunicorn(tools, SYNC, Some(certificate)))),
        ("Gunicorn gthread", |tools, _, certificate| Ok(gunicorn(tools, THREADS, Some(certificate)))),
        ("uvicorn h11", |tools, _, certificate| Ok(uvicorn(tools, "h11", Some(certificate)).over_tls())),
        ("uvicorn httptools", |tools, _, certificate| {
            Ok(uvicorn(tools, "httptools", Some(certificate)).over_tls())
        }),
        ("nginx static", |tools, folder, certificate| Server::nginx_tls(tools, certificate, &files(folder))),
        ("nginx return", |tools, _, certificate| Server::nginx_tls(tools, certificate, RETURN)),
        ("Node https", |tools, _, certificate| Ok(Server::other(node(tools, Some(certificate))?).over_tls())),
        ("Go net/http", |tools, folder, certificate| {
            Ok(Server::other(go(tools, folder, Some(certificate))?).over_tls())
        }),
        ("Apache event", |tools, folder, certificate| apache(tools, Some(certificate), folder)),
        ("HAProxy", |tools, _, certificate| Server::haproxy(tools, Some(certificate), hyper())),
        ("Puma", |tools, _, certificate| Ok(Server::other(puma(tools, Some(certificate))?).over_tls())),
    ]
}

/// Gunicorn's workers that answer one request at a time.
const SYNC: &[&str] = &["--worker-class", "sync"];
/// And those that answer four.
const THREADS: &[&str] = &["--worker-class", "gthread", "--threads", "4"];

const RETURN: &str = "location / { return 200 'here'; } location /empty { return 204; }";

/// A folder's files, as nginx has them.
fn files(folder: &Path) -> String {
    put_files(folder);
    format!("root {}; sendfile on;", folder.display())
}

fn apache(tools: &Tools, certificate: Option<&Certificate>, folder: &Path) -> Result<Server, String> {
    put_files(folder);
    Server::apache(tools, certificate, folder)
}

fn node(
    tools: &Tools,
    certificate: Option<&Certificate>,
) -> Result<impl FnOnce(SocketAddr) -> Command, String> {
    let mut command = Command::new(tools.program("node")?);
    let files = certificate.map(|certificate| [certificate.file(), certificate.key()]);
    Ok(move |address: SocketAddr| {
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/server.js"));
        command.args([address.ip().to_string(), address.port().to_string()]).args(files.iter().flatten());
        command
    })
}

fn go(
    tools: &Tools,
    folder: &Path,
    certificate: Option<&Certificate>,
) -> Result<impl FnOnce(SocketAddr) -> Command, String> {
    let program = folder.join("go-server");
    tools.go("server.go", &program, &[])?;
    let files = certificate.map(|certificate| [certificate.file(), certificate.key()]);
    Ok(move |address: SocketAddr| {
        let mut command = Command::new(program);
        command.arg(address.to_string()).args(files.iter().flatten());
        command
    })
}

fn puma(
    tools: &Tools,
    certificate: Option<&Certificate>,
) -> Result<impl FnOnce(SocketAddr) -> Command, String> {
    let mut command = Command::new(tools.program("puma")?);
    let sealed = certificate.map(|certificate| {
        format!("?cert={}&key={}", certificate.file().display(), certificate.key().display())
    });
    Ok(move |address: SocketAddr| {
        let address = match sealed {
            Some(sealed) => format!("ssl://{address}{sealed}"),
            None => format!("tcp://{address}"),
        };
        command.args(["--quiet", "--workers", "2", "--threads", "4:4", "--bind", &address]);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/app.ru"));
        command
    })
}

fn hyper() -> Server {
    Server::other(|address| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyper-server"));
        command.arg(address.to_string());
        command
    })
}

fn gunicorn(tools: &Tools, options: &[&str], certificate: Option<&Certificate>) -> Server {
    let options = [&["--workers", "2", "--keep-alive", "5"], options].concat();
    match certificate {
        Some(certificate) => Server::gunicorn_tls(tools, certificate, App::Wsgi, &options),
        None => Server::gunicorn(tools, App::Wsgi, &options),
    }
}

fn uvicorn(tools: &Tools, http: &str, certificate: Option<&Certificate>) -> Server {
    Server::other(|address| {
        let mut command = Command::new(tools.python("uvicorn"));
        command.args([
            "app:asgi",
            "--http",
            http,
            "--log-level",
            "warning",
            "--port",
            &address.port().to_string(),
        ]);
        if let Some(certificate) = certificate {
            command.arg("--ssl-certfile").arg(certificate.file());
            command.arg("--ssl-keyfile").arg(certificate.key());
        }
        command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/servers"));
        command
    })
}

/// A scenario's name, and what the client does.
type Scenario = (&'static str, fn(&mut Script<'_>));

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}

const SCENARIOS: [Scenario; 20] = [
    ("keep-alive", |script| {
        for _ in 0..10 {
            script.request("GET", "/echo").send(get("/echo")).answers();
        }
    }),
    ("a connection each", |script| {
        for _ in 0..5 {
            script.request("GET", "/echo").send(get("/echo")).answers().close();
        }
    }),
    ("pipelined", |script| {
        let all: String = ["/echo", "/chunked", "/echo", "/empty", "/echo"]
            .map(|path| {
                script.request("GET", path);
                get(path)
            })
            .concat();
        script.send(all).answers();
    }),
    ("head byte by byte", |script| {
        script.request("GET", "/echo").connect();
        for byte in get("/echo").bytes() {
            script.send([byte]);
        }
        script.answers();
    }),
    ("head in two pieces, paused", |script| {
        script
            .request("GET", "/echo")
            .send("GET /echo HTTP/1.1\r\nho")
            .pause(30)
            .send("st: test\r\n\r\n")
            .answers();
    }),
    ("long head", |script| {
        let head = format!("GET /echo HTTP/1.1\r\nhost: test\r\ncookie: {}\r\n\r\n", "c".repeat(6000));
        script.request("GET", "/echo").send(head).answers();
    }),
    ("body like a request", |script| {
        let body = get("/echo");
        let head = format!("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", body.len());
        script.request("POST", "/echo").send(head.clone() + &body).answers();
        script.request("POST", "/echo").send(head).pause(20).send(body).answers();
    }),
    ("long body of requests", |script| {
        let body = get("/echo").repeat(2000);
        let head = format!("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", body.len());
        script.request("POST", "/echo").send(head + &body).answers();
    }),
    ("chunked request", |script| {
        let head = "POST /echo HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n";
        script
            .request("POST", "/echo")
            .send(head)
            .send("5\r\nhello\r\n")
            .pause(10)
            .send("0\r\n\r\n")
            .answers();
    }),
    ("HEAD", |script| {
        for path in ["/echo", "/chunked"] {
            let head = format!("HEAD {path} HTTP/1.1\r\nhost: test\r\n\r\n");
            script.request("HEAD", path).send(head).answers();
        }
        script.request("GET", "/echo").send(get("/echo")).answers();
    }),
    ("no content", |script| {
        script.request("GET", "/empty").send(get("/empty")).answers();
        script.request("GET", "/echo").send(get("/echo")).answers();
    }),
    ("chunked response", |script| {
        script.request("GET", "/chunked").send(get("/chunked")).answers();
        script.request("GET", "/echo").send(get("/echo")).answers();
    }),
    ("100-continue", |script| {
        let head = "POST /echo HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        script.request("POST", "/echo").send(head).interim().send("hello").answers();
    }),
    ("HTTP/1.0, ended by the close", |script| {
        for path in ["/echo", "/chunked"] {
            script.request("GET", path).send(format!("GET {path} HTTP/1.0\r\n\r\n")).answers().close();
        }
    }),
    ("absolute form", |script| {
        script
            .request("GET", "/echo")
            .send("GET http://test/echo?x=1 HTTP/1.1\r\nhost: test\r\n\r\n")
            .answers();
    }),
    ("other methods", |script| {
        for (method, label) in [("OPTIONS", "OPTIONS"), ("PROPFIND", "_OTHER"), ("PATCH", "PATCH")] {
            let head = format!("{method} /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n");
            script.request(label, "/echo").send(head).answers().close();
        }
    }),
    ("preconnected, idle before", |script| {
        script.connect().pause(300).request("GET", "/echo").send(get("/echo")).answers();
    }),
    ("slow body", |script| {
        script
            .request("POST", "/echo")
            .send("POST /echo HTTP/1.1\r\nhost: test\r\ncontent-length: 6\r\n\r\n");
        for byte in "slowly".bytes() {
            script.pause(10).send([byte]);
        }
        script.answers();
    }),
    ("nothing after a connection", |script| {
        script.connect().pause(20).close();
        script.request("GET", "/echo").send(get("/echo")).answers();
    }),
    ("half a request", |script| {
        script.send("GET /echo HTTP/1.1\r\nhost").pause(20).close();
        script.request("GET", "/echo").send(get("/echo")).answers();
    }),
];

/// Plays every scenario against one server; which counts were the client's.
fn play(server: &Server, probes: &[&str]) -> Vec<bool> {
    let agent = Agent::start(&[&["--pid", &server.pid().to_string()], probes].concat());
    let (mut answered, mut seen) = (BTreeMap::new(), BTreeMap::new());
    let mut requests = 0;
    SCENARIOS
        .iter()
        .map(|(name, scenario)| {
            let mut script = Script::new(server.target());
            scenario(&mut script);
            script.close();
            requests += script.sent.values().sum::<u64>();
            add(&mut answered, script.answered);
            add(&mut seen, script.sent);
            let metrics = agent.scrape_settled(requests);
            metrics.assert_nothing_lost();
            let right = metrics.finished(&[]) == answered && heads(&metrics) == seen;
            if !right {
                eprintln!(
                    "{name}: the client got {answered:?} for {seen:?}, the agent counted {:?} for {:?}",
                    metrics.finished(&[]),
                    heads(&metrics)
                );
            }
            right
        })
        .collect()
}

/// Requests seen, by method and route.
fn heads(metrics: &Metrics) -> BTreeMap<(String, String), u64> {
    let mut heads = BTreeMap::new();
    for sample in metrics.of("httpmon_requests_seen_total", &[]) {
        let label = |name: &str| sample.labels[name].clone();
        let key = (label("http_request_method"), label("http_route"));
        let labels = [("http_request_method", key.0.as_str()), ("http_route", key.1.as_str())];
        let count = metrics.count("httpmon_requests_seen_total", &labels);
        heads.insert(key, count);
    }
    heads
}

/// A table of what held on each server.
struct Table {
    names: Vec<&'static str>,
    columns: Vec<Vec<bool>>,
}

impl Table {
    fn new() -> Self {
        Self { names: Vec::new(), columns: Vec::new() }
    }

    fn add(&mut self, name: &'static str, server: &Server) {
        eprintln!("{name}:");
        let (best, calls) = (play(server, BEST), play(server, CALLS));
        self.names.push(name);
        self.columns.push(best.iter().zip(calls).map(|(best, calls)| *best && calls).collect());
    }

    /// The table must hold, and be what is committed under a title.
    fn check(&self, title: &str) {
        let mut table = format!("## {title}\n\n| scenario | {} |\n", self.names.join(" | "));
        let _ = writeln!(table, "|---|{}", "---|".repeat(self.columns.len()));
        for (row, (name, _)) in SCENARIOS.iter().enumerate() {
            let cells: String = self
                .columns
                .iter()
                .map(|column| if column[row] { " exact |" } else { " **not** |" })
                .collect();
            let _ = writeln!(table, "| {name} |{cells}");
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/CONFORMANCE.md");
        let committed = fs::read_to_string(file).expect("the tables are there");
        let begin = committed.find(&format!("## {title}\n")).expect("the title is there");
        let end = committed[begin + 1..].find("\n## ").map_or(committed.len(), |end| begin + 1 + end + 1);
        if std::env::var_os("HTTPMON_TABLE").is_some() {
            let next = if end < committed.len() { "\n" } else { "" };
            let all = [&committed[..begin], &table, next, &committed[end..]].concat();
            return fs::write(file, all).expect("the tables can be written");
        }
        assert!(self.columns.iter().flatten().all(|right| *right), "{table}");
        assert_eq!(table.trim_end(), committed[begin..end].trim_end(), "the committed table is another one");
    }
}

#[test]
fn every_count_is_the_clients_on_every_server() {
    let tools = needs!(Tools::find());
    let mut table = Table::new();
    for (name, start) in servers() {
        let folder = tempfile::tempdir().expect("a directory can be made");
        table.add(name, &needs!(start(&tools, folder.path())));
    }
    table.check("HTTP/1.1 and HTTP/1.0");
}

#[test]
fn every_count_is_the_clients_on_every_server_over_tls() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let mut table = Table::new();
    for (name, start) in sealed_servers() {
        let folder = tempfile::tempdir().expect("a directory can be made");
        table.add(name, &needs!(start(&tools, folder.path(), &certificate)));
    }
    table.check("The same over TLS");
}
