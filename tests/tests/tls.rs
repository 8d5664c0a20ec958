//! TLS, read where the process's library is given clear text: every count is the client's, as without TLS.

use std::{collections::BTreeMap, path::Path, process::Command};

use end_to_end::{
    Agent, App, Guard, Metrics, Server, Tools,
    client::{Ask, Lasting, Load, MIX, add},
    http2, needs,
    probes::{BEST, CALLS, CLASSIC},
    put_files, run,
    tls::Certificate,
};

const REQUESTS: usize = 2_000;

fn node(tools: &Tools, certificate: &Certificate, script: &str) -> Result<Server, String> {
    let node = tools.program("node")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers").join(script);
    Ok(Server::other(|address| {
        let mut command = Command::new(node);
        command.arg(script).arg(address.ip().to_string()).arg(address.port().to_string());
        command.arg(certificate.file()).arg(certificate.key());
        command
    })
    .over_tls())
}

/// How a Go program is built.
type Build = fn(&Tools, &str, &Path, &[&str]) -> Result<(), String>;

/// By an old Go, and by a newer one.
const GO: [Build; 2] = [Tools::go, Tools::newer_go];

/// Go's net/http, with crypto/tls.
fn go(
    build: Build,
    tools: &Tools,
    certificate: &Certificate,
    source: &str,
    folder: &Path,
    options: &[&str],
) -> Result<Server, String> {
    let program = folder.join("go-server");
    build(tools, source, &program, options)?;
    Ok(running_go(Command::new(program), certificate))
}

fn running_go(mut program: Command, certificate: &Certificate) -> Server {
    Server::other(|address| {
        program.arg(address.to_string()).arg(certificate.file()).arg(certificate.key());
        program
    })
    .over_tls()
}

/// Nothing was left unread, and all that was read came through TLS.
fn all_is_read(metrics: &Metrics) {
    metrics.assert_nothing_lost();
    // asyncio wakes itself through a socket, whose bytes are no HTTP.
    for reason in ["tls", "desync", "http2"] {
        assert_eq!(metrics.count("httpmon_bytes_unparsed_total", &[("reason", reason)]), 0, "{reason}");
    }
    assert_eq!(metrics.count("http_server_requests_unanswered_total", &[]), 0);
    let finished =
        |labels: &[(&str, &str)]| metrics.count("http_server_request_duration_seconds_count", labels);
    assert_eq!(finished(&[("url_scheme", "https")]), finished(&[]));
}

/// Of a load that is the agent's first.
fn all_is_counted(server: &Server, agent: &Agent, load: &Load<'_>) {
    let outcome = load.send();
    assert_eq!(outcome.failed, 0, "{}", server.log());
    let metrics = agent.scrape_settled(load.requests as u64);
    metrics.assert_finished(&[], &outcome.answered);
    all_is_read(&metrics);
}

/// Half of the requests by keep-alive, half by closing clients.
fn exact(server: &Server, asks: &[Ask], probes: &[&str]) {
    let agent = Agent::start(&[&["--pid", &server.pid().to_string()], probes].concat());
    let half = REQUESTS / 2;
    let load = Load { target: server.target(), asks, requests: half, clients: 4, per_connection: usize::MAX };
    let outcome = load.send_and_again(1);
    assert_eq!(outcome.failed, 0, "{}", server.log());
    let metrics = agent.scrape_settled(REQUESTS as u64);
    metrics.assert_finished(&[], &outcome.answered);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), REQUESTS as u64);
    if metrics.count("httpmon_feature_enabled", &[("feature", "queue_time")]) == 1 {
        let queued = metrics.count("http_server_request_queue_duration_seconds_count", &[]);
        assert_eq!(queued, REQUESTS as u64);
    }
    all_is_read(&metrics);
}

macro_rules! gunicorns {
    ($($name:ident: $app:expr, $options:expr;)+) => {
        $(#[test]
        fn $name() {
            let tools = needs!(Tools::find());
            let certificate = needs!(Certificate::new(&tools));
            for probes in [BEST, CLASSIC, CALLS] {
                let server = Server::gunicorn_tls(&tools, &certificate, $app, &$options);
                exact(&server, &MIX, probes);
            }
        })+
    };
}

gunicorns! {
    gunicorn_sync: App::Wsgi, ["--workers", "2", "--worker-class", "sync"];
    gunicorn_gthread: App::Wsgi, ["--workers", "2", "--worker-class", "gthread", "--threads", "4"];
    // asyncio hands bytes to the library in memory.
    gunicorn_uvicorn: App::Asgi, ["--workers", "2", "--worker-class", "uvicorn_worker.UvicornWorker"];
}

const NGINX: &str = "location / { return 200 'read'; } location /missing { return 404; } location /boom { return 500; }\n\
                     location /empty { return 204; }";

const SHORT: [Ask; 4] = [
    Ask { method: "GET", path: "/echo", route: "/echo", body: 0 },
    Ask { method: "POST", path: "/echo", route: "/echo", body: 3000 },
    Ask { method: "GET", path: "/empty", route: "/empty", body: 0 },
    Ask { method: "HEAD", path: "/echo", route: "/echo", body: 0 },
];

#[test]
fn nginx_and_node() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    exact(&needs!(Server::nginx_tls(&tools, &certificate, NGINX)), &SHORT, BEST);
    // OpenSSL is in its own program.
    exact(&needs!(node(&tools, &certificate, "server.js")), &SHORT, BEST);
}

#[test]
fn gnutls() {
    let tools = needs!(Tools::find());
    let program = needs!(tools.program("gnutls-serv"));
    let certificate = needs!(Certificate::new(&tools));
    let server = Server::other(|address| {
        let mut command = Command::new(program);
        command.args(["--http", "--quiet", "--port", &address.port().to_string(), "--x509certfile"]);
        command.arg(certificate.file()).arg("--x509keyfile").arg(certificate.key());
        command
    })
    .over_tls();
    for probes in [BEST, CALLS] {
        let agent = Agent::start(&[&["--pid", &server.pid().to_string()], probes].concat());
        // It closes each connection, and doesn't say so before.
        let load =
            Load { target: server.target(), asks: &SHORT[..1], requests: 500, clients: 4, per_connection: 1 };
        all_is_counted(&server, &agent, &load);
    }
}

/// A server that is built with what these options say.
fn sealed(tools: &Tools, options: &[&str]) -> Result<(), String> {
    let certificate = Certificate::new(tools)?;
    let folder = tempfile::tempdir().expect("a directory can be made");
    let program = folder.path().join("sealed");
    tools.c("sealed.c", &program, options)?;
    let server = Server::other(|address| {
        let mut command = Command::new(program);
        command.arg(address.port().to_string()).arg(certificate.file()).arg(certificate.key());
        command
    })
    .over_tls();
    for probes in [BEST, CALLS] {
        exact(&server, &SHORT, probes);
    }
    Ok(())
}

/// The same, with libraries of a folder, where they may be under any names.
fn sealed_by(tools: &Tools, libraries: &Path, options: &[&str]) -> Result<(), String> {
    let named = |name: &str| {
        let mut files = std::fs::read_dir(libraries).expect("the libraries are there").flatten();
        let file = files.find(|file| file.file_name().to_string_lossy().starts_with(name));
        file.expect("the library is there").path().display().to_string()
    };
    let path = format!("-Wl,--disable-new-dtags,--allow-shlib-undefined,-rpath,{}", libraries.display());
    let (ssl, crypto) = (named("libssl"), named("libcrypto"));
    sealed(tools, &[options, &[&ssl, &crypto, &path]].concat())
}

#[test]
fn boringssl() {
    let tools = needs!(Tools::find());
    let libraries = Path::new("/usr/lib/x86_64-linux-gnu/android");
    needs!(sealed_by(&tools, libraries, &["-I/usr/include/android"]));
}

#[test]
fn openssl_1_1() {
    let tools = needs!(Tools::find());
    let libraries = needs!(tools.libraries("psycopg2_binary"));
    // What the server uses is the same in OpenSSL 3, whose headers are there.
    needs!(sealed_by(&tools, &libraries, &[]));
}

/// Where the library is part of the program, its functions are not for others, and named in the program's own symbols alone.
#[test]
fn openssl_within_a_program() {
    let tools = needs!(Tools::find());
    needs!(sealed(&tools, &["-Wl,-Bstatic", "-lssl", "-lcrypto", "-Wl,-Bdynamic"]));
}

/// lighttpd can have any of many libraries.
#[test]
fn mbed_tls_and_wolfssl() {
    const ASKS: [Ask; 3] = [
        Ask { method: "GET", path: "/echo", route: "/echo", body: 0 },
        Ask { method: "HEAD", path: "/echo", route: "/echo", body: 0 },
        Ask { method: "GET", path: "/missing", route: "/missing", body: 0 },
    ];
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    for (library, probes) in [("mbedtls", BEST), ("wolfssl", CALLS)] {
        exact(&needs!(Server::lighttpd_tls(&tools, &certificate, library)), &ASKS, probes);
    }
}

/// Where a program has its table of functions, and what that tells, is another from age to age and from linker to linker.
fn go_in_every_form(build: Build) {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let folder = tempfile::tempdir().expect("a directory can be made");
    for (options, probes) in [
        (&[][..], BEST),
        // As containers' images often have them, and where the program may lie anywhere.
        (&["-ldflags", "-s -w"][..], CLASSIC),
        (&["-buildmode", "pie"][..], CALLS),
        // As programs have them that use C's libraries.
        (&["-ldflags", "-s -w -linkmode=external"][..], BEST),
        (&["-buildmode", "pie", "-ldflags", "-s -w -linkmode=external"][..], BEST),
        // As it is built for debuggers, where nothing is inlined.
        (&["-gcflags", "all=-N -l"][..], BEST),
    ] {
        let server = needs!(go(build, &tools, &certificate, "server.go", folder.path(), options));
        exact(&server, &SHORT, probes);
    }
}

#[test]
fn go_with_and_without_symbols() {
    go_in_every_form(GO[0]);
}

#[test]
fn newer_go_with_and_without_symbols() {
    go_in_every_form(GO[1]);
}

/// Far more connections at once than the server has threads.
fn many_connections_at_once(server: &Server) {
    const CLIENTS: usize = 300;
    let agent = Agent::start(&["--pid", &server.pid().to_string()]);
    let requests = 60 * CLIENTS;
    let load = Load { target: server.target(), asks: &SHORT, requests, clients: CLIENTS, per_connection: 20 };
    all_is_counted(server, &agent, &load);
}

/// Most goroutines go on where others began.
#[test]
fn go_with_many_connections_at_once() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let folder = tempfile::tempdir().expect("a directory can be made");
    for build in GO {
        many_connections_at_once(&needs!(go(build, &tools, &certificate, "server.go", folder.path(), &[])));
    }
}

/// A function that finds its stack too small begins once more on a larger one: what it writes is told once.
#[test]
fn go_whose_stacks_grow_as_it_writes() {
    const DEPTHS: usize = 512;
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let folder = tempfile::tempdir().expect("a directory can be made");
    for build in GO {
        let server = needs!(go(build, &tools, &certificate, "deep.go", folder.path(), &[]));
        let agent = Agent::start(&["--pid", &server.pid().to_string()]);
        let requests = 4 * DEPTHS;
        let asks = [SHORT[0]];
        let load =
            Load { target: server.target(), asks: &asks, requests, clients: 2, per_connection: DEPTHS };
        all_is_counted(&server, &agent, &load);
        let written = agent.scrape().count("http_server_response_body_size_bytes_sum", &[]);
        assert_eq!(written, 2 * requests as u64);
    }
}

/// Connections that have asked once wait when the agent comes; then each asks so often, all at once, while what `meanwhile`
/// starts goes on.
fn read_where_they_wait<T>(server: &Server, connections: u64, each: u64, meanwhile: impl FnOnce() -> T) {
    let waiting: Vec<_> = (0..connections).map(|_| Lasting::open(server.target())).collect();
    let ask = |connection: &Lasting| assert_eq!(connection.ask("GET", "/echo"), 200, "{}", server.log());
    waiting.iter().for_each(ask);
    let agent = Agent::start(&["--pid", &server.pid().to_string()]);
    let _meanwhile = meanwhile();
    std::thread::scope(|scope| {
        for connection in waiting {
            scope.spawn(move || (0..each).for_each(|_| ask(&connection)));
        }
    });
    let requests = connections * each;
    let metrics = agent.scrape_settled(requests);
    let https = [("url_scheme", "https")];
    assert_eq!(metrics.count("http_server_request_duration_seconds_count", &https), requests);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), requests);
    all_is_read(&metrics);
}

/// Goroutines that wait for a request when the agent comes had begun to read before, and nothing tells with which session:
/// what they then received from does.
#[test]
fn go_is_read_where_it_waits_already() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let folder = tempfile::tempdir().expect("a directory can be made");
    for build in GO {
        let server = needs!(go(build, &tools, &certificate, "server.go", folder.path(), &[]));
        read_where_they_wait(&server, 40, 20, || ());
    }
}

/// The thread on which a goroutine received may find that all others are allowed (GOMAXPROCS) run something else when the call
/// ends: then another thread goes on with it. Here one is allowed, which is always busy, and every call takes long.
#[test]
fn go_is_read_where_another_thread_goes_on() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let strace = needs!(tools.program("strace"));
    let folder = tempfile::tempdir().expect("a directory can be made");
    for build in GO {
        let program = folder.path().join("go-server");
        needs!(build(&tools, "server.go", &program, &[]));
        let mut command = Command::new(program);
        command.env("GOMAXPROCS", "1");
        let server = running_go(command, &certificate);
        assert_eq!(Lasting::open(server.target()).ask("GET", "/busy"), 200, "{}", server.log());
        let slow = ["-e", "trace=read", "-e", "inject=read:delay_exit=30000", "-o", "/dev/null"];
        read_where_they_wait(&server, 8, 3, || Guard::strace(&strace, slow, server.pid()));
    }
}

/// hyper over rustls, in this version of HTTP, with these ciphers, and in this version of TLS where one is given.
fn hyper(certificate: &Certificate, http: &str, ciphers: &str, tls: Option<&str>) -> Server {
    let program = Tools::rustls();
    Server::other(|address| {
        let mut command = Command::new(program);
        command.arg(address.to_string()).arg(http).arg(certificate.file()).arg(certificate.key());
        command.arg(ciphers).args(tls);
        command
    })
    .over_tls()
}

#[test]
fn rustls() {
    const CHUNKED: Ask = Ask { method: "GET", path: "/chunked", route: "/chunked", body: 0 };
    const LARGE: Ask = Ask { method: "POST", path: "/large/100000", route: "/large/{id}", body: 50_000 };
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let asks = [&SHORT[..], &[CHUNKED, LARGE]].concat();
    for (ciphers, tls, probes) in [
        ("ring", None, BEST),
        ("ring", Some("1.2"), CLASSIC),
        ("aws-lc", None, CALLS),
        // These leave clear text behind the nonce.
        ("aws-lc", Some("1.2"), BEST),
    ] {
        exact(&hyper(&certificate, "1", ciphers, tls), &asks, probes);
    }
}

/// Threads take turns with connections.
#[test]
fn rustls_with_many_connections_at_once() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    many_connections_at_once(&hyper(&certificate, "1", "ring", None));
}

/// This test's own process is the client. Its first request is the first that its cipher enciphers.
#[test]
fn rustls_in_a_client() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let server = needs!(Server::nginx_tls(&tools, &certificate, NGINX));
    let agent = Agent::start(&["--pid", &std::process::id().to_string(), "--role", "client"]);
    let port = server.target().address().port().to_string();
    let here = [("server_port", port.as_str()), ("url_scheme", "https")];
    let mut answered = BTreeMap::new();
    for per_connection in [1, 20] {
        let load =
            Load { target: server.target(), asks: &SHORT, requests: REQUESTS, clients: 4, per_connection };
        let outcome = load.send();
        assert_eq!(outcome.failed, 0, "{}", server.log());
        add(&mut answered, outcome.answered);
    }
    let count = "http_client_request_duration_seconds_count";
    let metrics = agent
        .scrape_until("every call is counted", |metrics| metrics.count(count, &here) == 2 * REQUESTS as u64);
    let mut got: BTreeMap<_, u64> = BTreeMap::new();
    for ((method, _, status), count) in answered {
        *got.entry((method, status)).or_default() += count;
    }
    for ((method, status), requests) in got {
        let status = status.to_string();
        let of_these = [("http_request_method", method.as_str()), ("http_response_status_code", &status)];
        assert_eq!(metrics.count(count, &[&here[..], &of_these].concat()), requests, "{method} {status}");
    }
    metrics.assert_nothing_lost();
}

#[test]
fn http2_on_any_number_of_streams() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let folder = tempfile::tempdir().expect("a directory can be made");
    put_files(folder.path());
    for server in [
        needs!(Server::nginx_tls(&tools, &certificate, NGINX)),
        needs!(node(&tools, &certificate, "server2.js")),
        needs!(go(Tools::go, &tools, &certificate, "server2.go", folder.path(), &[])),
        hyper(&certificate, "2", "aws-lc", None),
        needs!(Server::apache(&tools, Some(&certificate), folder.path())),
        needs!(Server::haproxy(&tools, Some(&certificate), needs!(Server::nginx(&tools, NGINX)))),
    ] {
        let agent = Agent::start(&["--pid", &server.pid().to_string()]);
        let (mut answered, mut bodies, mut sent) = (BTreeMap::new(), 0, 0);
        for streams in [1, 2, 10, 100] {
            let outcome = http2::Connection::open(server.target()).send(&http2::MIX, 400, streams);
            sent += 400;
            add(&mut answered, outcome.answered);
            bodies += outcome.bodies.1;
            let metrics = agent.scrape_settled(sent);
            assert_eq!(metrics.finished(&[("network_protocol_version", "2")]), answered, "{streams}");
            assert_eq!(metrics.count("http_server_response_body_size_bytes_sum", &[]), bodies, "{streams}");
            all_is_read(&metrics);
        }
        drop(agent);
    }
}

#[test]
fn large_bodies_have_their_lengths() {
    const LARGE: usize = 10 << 20;
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let folder = tempfile::tempdir().expect("a directory can be made");
    let (upload, got) = (folder.path().join("upload"), folder.path().join("got"));
    std::fs::write(&upload, vec![b'x'; LARGE]).expect("a file can be written");
    for (app, class) in
        [(App::Wsgi, "gthread"), (App::Wsgi, "sync"), (App::Asgi, "uvicorn_worker.UvicornWorker")]
    {
        let server = Server::gunicorn_tls(&tools, &certificate, app, &["--worker-class", class]);
        let agent = Agent::start(&["--pid", &server.pid().to_string()]);
        let url = |path: &str| format!("https://{}{path}", server.target().address());
        let curl = |arguments: &[&str]| {
            let done = run(Command::new("curl")
                .args(["--silent", "--insecure", "--http1.1", "--fail"])
                .args(arguments));
            assert!(done.status.success(), "{done:?}");
        };
        curl(&[&url("/big"), "--output", got.to_str().expect("a path")]);
        assert_eq!(std::fs::metadata(&got).expect("a file").len(), LARGE as u64);
        let data = format!("@{}", upload.display());
        curl(&[&url("/echo"), "--request", "POST", "--data-binary", &data]);
        let metrics = agent.scrape_settled(2);
        let sum = |which: &str, route: &str| {
            metrics.count(&format!("http_server_{which}_body_size_bytes_sum"), &[("http_route", route)])
        };
        assert_eq!(sum("response", "/big"), LARGE as u64, "{class}");
        assert_eq!(sum("request", "/echo"), LARGE as u64, "{class}");
        all_is_read(&metrics);
    }
}

/// Each write of Go's is a frame, each of Node's many. What is received is copied whole, faster than a busy machine may get to
/// read it.
#[test]
fn large_bodies_of_http2_have_their_lengths() {
    const LARGE: u64 = 10 << 20;
    let tools = needs!(Tools::find());
    let curl = needs!(tools.program("curl"));
    let certificate = needs!(Certificate::new(&tools));
    let folder = tempfile::tempdir().expect("a directory can be made");
    let upload = folder.path().join("upload");
    std::fs::write(&upload, vec![b'x'; LARGE as usize]).expect("a file can be written");
    for server in [
        needs!(go(Tools::go, &tools, &certificate, "server2.go", folder.path(), &[])),
        needs!(node(&tools, &certificate, "server2.js")),
        hyper(&certificate, "2", "ring", None),
    ] {
        let room = ["--room", "events=67108864"];
        let agent = Agent::start(&[&["--pid", &server.pid().to_string()], &room[..]].concat());
        let ask = |options: &[&str], path: &str| {
            let mut command = Command::new(&curl);
            command.args([
                "--http2",
                "--insecure",
                "--silent",
                "--show-error",
                "--fail",
                "--output",
                "/dev/null",
            ]);
            command.args(["--write-out", "%{http_version}"]).args(options);
            let asked = run(command.arg(format!("https://{}{path}", server.target().address())));
            assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
            assert_eq!(asked.stdout, b"2");
        };
        for _ in 0..3 {
            ask(&[], &format!("/large/{LARGE}"));
            ask(&["--data-binary", &format!("@{}", upload.display())], "/empty");
        }
        let metrics = agent.scrape_settled(6);
        assert_eq!(metrics.count("http_server_response_body_size_bytes_sum", &[]), 3 * LARGE);
        assert_eq!(metrics.count("http_server_request_body_size_bytes_sum", &[]), 3 * LARGE);
        assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), 6);
        all_is_read(&metrics);
    }
}

/// What a handler that sleeps takes, and the wait for it, lies between what the handler sleeps and what the client waits.
#[test]
fn times_are_those_of_the_requests() {
    const SLEEP: f64 = 0.02;
    const COUNT: usize = 60;
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let ask = Ask { method: "GET", path: "/sleep/20", route: "/sleep/{id}", body: 0 };
    for (app, class) in [(App::Wsgi, "sync"), (App::Asgi, "uvicorn_worker.UvicornWorker")] {
        for per_connection in [usize::MAX, 1] {
            let server = Server::gunicorn_tls(&tools, &certificate, app, &["--worker-class", class]);
            let agent = Agent::start(&["--pid", &server.pid().to_string()]);
            let load = Load {
                target: server.target(),
                asks: &[ask],
                requests: COUNT,
                // Gunicorn's sync worker closes each connection, so that others wait.
                clients: 2,
                per_connection,
            };
            let outcome = load.send();
            assert_eq!((outcome.total(), outcome.failed), (COUNT as u64, 0));
            let metrics = agent.scrape_settled(COUNT as u64);
            let sum = |what: &str| metrics.sum(&format!("http_server_request_{what}_seconds_sum"), &[]);
            let (duration, queue) = (sum("duration"), sum("queue_duration"));
            let waited: f64 = outcome.times.iter().map(|(_, whole)| whole).sum();
            assert!(duration >= SLEEP * COUNT as f64, "{class}: {duration}");
            assert!(duration + queue <= waited, "{class}: {duration} + {queue} of {waited}");
            all_is_read(&metrics);
        }
    }
}

#[test]
fn a_connection_from_before_the_agent_is_read_from_its_next_request_on() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    for server in [
        Server::gunicorn_tls(
            &tools,
            &certificate,
            App::Wsgi,
            &["--worker-class", "gthread", "--keep-alive", "60"],
        ),
        Server::gunicorn_tls(
            &tools,
            &certificate,
            App::Asgi,
            &["--worker-class", "uvicorn_worker.UvicornWorker"],
        ),
        needs!(node(&tools, &certificate, "server.js")),
        hyper(&certificate, "1", "ring", None),
    ] {
        let connection = Lasting::open(server.target());
        assert_eq!(connection.ask("GET", "/echo"), 200, "{}", server.log());
        let agent = Agent::start(&["--pid", &server.pid().to_string()]);
        for _ in 0..20 {
            assert_eq!(connection.ask("GET", "/echo"), 200);
        }
        let metrics = agent.scrape_settled(20);
        assert_eq!(metrics.count("httpmon_requests_seen_total", &[("url_scheme", "https")]), 20);
        all_is_read(&metrics);
    }
}

/// Workers are born all the time, each for 50 requests. A child has what its parent has from its first instruction on.
#[test]
fn shared_probes_miss_nothing_of_children() {
    let tools = needs!(Tools::find());
    let certificate = needs!(Certificate::new(&tools));
    let server =
        Server::gunicorn_tls(&tools, &certificate, App::Wsgi, &["--workers", "2", "--max-requests", "50"]);
    exact(&server, &MIX, &["--tls", "shared"]);
}
