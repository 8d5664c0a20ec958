//! Servers × scenarios: whatever a client does, and however a server answers, the counts are the client's.
//!
//! A server is one entry of [`servers`], a scenario one of [`SCENARIOS`]. What holds is written to `tests/CONFORMANCE.md`,
//! with `HTTPMON_TABLE=1`; without it, the committed table must be the true one.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path, process::Command};

use end_to_end::{
    Agent, App, Metrics, Script, Server, Tools, needs,
    probes::{BEST, CALLS},
};

/// A server's name, and how it is started.
type Entry = (&'static str, fn(&Tools, &Path) -> Result<Server, String>);

fn servers() -> Vec<Entry> {
    vec![
        ("Gunicorn sync", |tools, _| Ok(gunicorn(tools, &["--worker-class", "sync"]))),
        ("Gunicorn gthread", |tools, _| {
            Ok(gunicorn(tools, &["--worker-class", "gthread", "--threads", "4"]))
        }),
        ("Gunicorn gevent", |tools, _| Ok(gunicorn(tools, &["--worker-class", "gevent"]))),
        ("uvicorn h11", |tools, _| Ok(uvicorn(tools, "h11"))),
        ("uvicorn httptools", |tools, _| Ok(uvicorn(tools, "httptools"))),
        ("nginx static", |tools, folder| {
            for name in ["echo", "chunked", "empty"] {
                fs::write(folder.join(name), name.repeat(10_000)).expect("a file can be written");
            }
            Server::nginx(tools, &format!("root {}; sendfile on;", folder.display()))
        }),
        ("nginx return", |tools, _| {
            Server::nginx(tools, "location / { return 200 'here'; } location /empty { return 204; }")
        }),
        ("Node http", |tools, _| {
            let node = tools.program("node")?;
            Ok(Server::other(|address| {
                let mut command = Command::new(node);
                let (ip, port) = (address.ip().to_string(), address.port().to_string());
                command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/server.js")).args([ip, port]);
                command
            }))
        }),
        ("Go net/http", |tools, folder| {
            let program = folder.join("go-server");
            tools.go("server.go", &program, &[])?;
            Ok(Server::other(|address| {
                let mut command = Command::new(program);
                command.arg(address.to_string());
                command
            }))
        }),
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
    ]
}

fn hyper() -> Server {
    Server::other(|address| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hyper-server"));
        command.arg(address.to_string());
        command
    })
}

fn gunicorn(tools: &Tools, options: &[&str]) -> Server {
    Server::gunicorn(tools, App::Wsgi, &[&["--workers", "2", "--keep-alive", "5"], options].concat())
}

fn uvicorn(tools: &Tools, http: &str) -> Server {
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
            for (key, count) in script.answered {
                *answered.entry(key).or_insert(0) += count;
            }
            for (key, count) in script.sent {
                *seen.entry(key).or_insert(0) += count;
            }
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

#[test]
fn every_count_is_the_clients_on_every_server() {
    let tools = needs!(Tools::find());
    let mut table = String::from(
        "# What holds\n\nEach scenario was played against each server by a client that knows every byte that it sent and got; the\nagent's counts by method, route and status, and those of requests seen, are the client's: with probes at the sockets, and again with probes at system calls. Made by `cargo xtask test`.\n\n| scenario |",
    );
    let mut columns = Vec::new();
    for (name, start) in servers() {
        let folder = tempfile::tempdir().expect("a directory can be made");
        let server = needs!(start(&tools, folder.path()));
        eprintln!("{name}:");
        let (best, calls) = (play(&server, BEST), play(&server, CALLS));
        columns.push(best.iter().zip(calls).map(|(best, calls)| *best && calls).collect::<Vec<_>>());
        let _ = write!(table, " {name} |");
    }
    let _ = write!(table, "\n|---|{}\n", "---|".repeat(columns.len()));
    for (row, (name, _)) in SCENARIOS.iter().enumerate() {
        let cells: String =
            columns.iter().map(|column| if column[row] { " exact |" } else { " **not** |" }).collect();
        let _ = writeln!(table, "| {name} |{cells}");
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/CONFORMANCE.md");
    if std::env::var_os("HTTPMON_TABLE").is_some() {
        fs::write(file, &table).expect("the table can be written");
    }
    assert!(columns.iter().flatten().all(|right| *right), "{table}");
    assert_eq!(table, fs::read_to_string(file).unwrap_or_default(), "the committed table is another one");
}
