//! The exporter: TLS, users, unix sockets, sockets from systemd, and clients that behave badly.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use end_to_end::{
    Agent, App, Metrics, Prometheus, Server, Tools,
    client::{Ask, Load, MIX, Target},
    eventually, free_port, needs, run,
};
use nix::sys::signal::Signal;

/// Of alice, whose password is "fox".
const USERS: &str = "basic_auth_users:\n  alice: ";

/// Keys, certificates and a file for `--web-config`.
struct Web {
    folder: tempfile::TempDir,
}

impl Web {
    /// With an authority, and a certificate of the server's address.
    fn new() -> Self {
        let web = Self { folder: tempfile::tempdir().expect("a directory can be made") };
        for authority in ["authority", "stranger"] {
            web.openssl(&format!(
                "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN={authority} \
                 -keyout {authority}.key -out {authority}.pem"
            ));
        }
        web.sign("server", "authority");
        web
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn openssl(&self, arguments: &str) {
        let arguments = arguments.split(' ').filter(|word| !word.is_empty());
        let output = run(Command::new("openssl").args(arguments).current_dir(self.folder.path()));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes a key and a certificate of this name, over what was there.
    fn sign(&self, name: &str, authority: &str) {
        fs::write(self.path("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n")
            .expect("it can be written");
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key.new -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA {authority}.pem -CAkey {authority}.key -CAcreateserial -days 2 \
             -extfile names -out {name}.pem.new"
        ));
        for kind in ["key", "pem"] {
            let made = self.path(&format!("{name}.{kind}"));
            fs::rename(self.path(&format!("{name}.{kind}.new")), made).expect("it can be renamed");
        }
    }

    /// Writes the file; its path.
    fn file(&self, text: &str) -> String {
        let path = self.path("web.yml");
        fs::write(self.path("web.yml.new"), text).expect("it can be written");
        fs::rename(self.path("web.yml.new"), &path).expect("it can be renamed");
        path.to_str().expect("it is UTF-8").to_owned()
    }

    /// The same with TLS, and more of its section.
    fn tls(&self, more: &str, rest: &str) -> String {
        self.file(&format!(
            "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n{more}{rest}"
        ))
    }

    /// Asks over TLS; curl's exit code, the status, and what was answered.
    fn ask(&self, agent: &Agent, arguments: &str) -> (Option<i32>, u16, String) {
        curl(
            Command::new("curl").arg("--cacert").arg(self.path("authority.pem")),
            agent.port(),
            "https",
            arguments,
        )
    }
}

/// "fox", hashed.
fn hash() -> String {
    let output = run(Command::new("htpasswd").args(["-nbBC", "6", "", "fox"]));
    let hash = String::from_utf8_lossy(&output.stdout).trim().trim_start_matches(':').to_owned();
    assert!(hash.starts_with("$2y$06$"), "{hash}");
    hash
}

fn curl(command: &mut Command, port: u16, scheme: &str, arguments: &str) -> (Option<i32>, u16, String) {
    let arguments = arguments.split(' ').filter(|word| !word.is_empty());
    let output = run(command
        .args(["--silent", "--write-out", "\n%{http_code}"])
        .args(arguments)
        .arg(format!("{scheme}://127.0.0.1:{port}/metrics")));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = said.rsplit_once('\n').expect("curl writes the status");
    (output.status.code(), status.parse().expect("it is a number"), body.to_owned())
}

const IDLE: [&str; 2] = ["--process-name", "no-such-program"];

#[test]
fn prometheus_scrapes_over_tls_with_a_password() {
    let tools = needs!(Tools::find());
    for program in ["openssl", "htpasswd"] {
        needs!(tools.program(program));
    }
    let web = Web::new();
    let config = web.tls("", &format!("{USERS}{}\n", hash()));
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
    let agent = Agent::start(&["--process-name", "gunicorn", "--web-config", &config]);
    let job = format!(
        "scrape_configs:\n- job_name: httpmon\n  scheme: https\n  basic_auth: {{ username: alice, password: fox }}\n  \
         tls_config: {{ ca_file: '{}' }}\n  static_configs:\n  - targets: ['127.0.0.1:{}']\n",
        web.path("authority.pem").display(),
        agent.port()
    );
    let prometheus = needs!(Prometheus::configured(&tools, &job));
    let load = Load { target: server.target(), asks: &MIX, requests: 90, clients: 2, per_connection: 1 };
    assert_eq!(load.send().total(), 90);
    let seen = || prometheus.value("sum(httpmon_requests_seen_total)");
    eventually("Prometheus has all requests", || (seen() == Some(90.0)).then_some(()));
    assert_eq!(prometheus.value("up"), Some(1.0));
}

#[test]
fn who_has_no_right_password_is_refused() {
    let tools = needs!(Tools::find());
    for program in ["openssl", "htpasswd", "curl"] {
        needs!(tools.program(program));
    }
    let web = Web::new();
    let headers = "http_server_config:\n  headers:\n    X-Frame-Options: deny\n";
    let config = web.tls("", &format!("{headers}{USERS}{}\n", hash()));
    let agent = Agent::start(&[&IDLE[..], &["--web-config", &config]].concat());
    for (arguments, expected) in [
        ("", 401),
        ("--user alice:", 401),
        ("--user alice:dog", 401),
        ("--user bob:fox", 401),
        ("--oauth2-bearer fox", 401),
        ("--user alice:fox", 200),
        ("--user alice:fox", 200),
        ("--user alice:dog", 401),
        ("--user alice:fox --tlsv1.2 --tls-max 1.2", 200),
        ("--user alice:fox --tlsv1.3", 200),
    ] {
        let (_, status, body) = web.ask(&agent, arguments);
        assert_eq!(status, expected, "{arguments}: {body}");
        assert_eq!(body.contains("httpmon_build_info"), expected == 200, "{arguments}: {body}");
    }
    let (_, _, head) = web.ask(&agent, "--include");
    let head = head.to_lowercase();
    assert!(
        head.contains("www-authenticate: basic realm") && head.contains("x-frame-options: deny"),
        "{head}"
    );
    // Nothing without TLS, nor with a stranger's word for who this is.
    assert_eq!(curl(&mut Command::new("curl"), agent.port(), "http", "--user alice:fox").1, 0);
    let mut stranger = Command::new("curl");
    stranger.arg("--cacert").arg(web.path("stranger.pem"));
    assert_eq!(curl(&mut stranger, agent.port(), "https", "--user alice:fox").1, 0);
    // The clear-text password stands nowhere.
    assert!(!agent.log().contains("fox"), "{}", agent.log());
}

#[test]
fn versions_and_client_certificates_are_asked_for() {
    let tools = needs!(Tools::find());
    for program in ["openssl", "curl"] {
        needs!(tools.program(program));
    }
    let web = Web::new();
    web.sign("client", "authority");
    web.sign("other", "stranger");
    let with = |name: &str| {
        format!(
            "--cert {} --key {}",
            web.path(&format!("{name}.pem")).display(),
            web.path(&format!("{name}.key")).display()
        )
    };
    let (client, other) = (with("client"), with("other"));
    // Status 0: the handshake failed.
    for (wanted, none, own, stranger) in [
        ("NoClientCert", 200, 200, 200),
        ("RequestClientCert", 200, 200, 200),
        ("RequireAnyClientCert", 0, 200, 200),
        ("VerifyClientCertIfGiven", 200, 200, 0),
        ("RequireAndVerifyClientCert", 0, 200, 0),
    ] {
        let authority = if wanted.contains("Verify") { "  client_ca_file: authority.pem\n" } else { "" };
        let config = web.tls(&format!("  client_auth_type: {wanted}\n{authority}"), "");
        let agent = Agent::start(&[&IDLE[..], &["--web-config", &config]].concat());
        for (arguments, expected) in [("", none), (&client, own), (&other, stranger)] {
            for version in ["--tlsv1.2 --tls-max 1.2", "--tlsv1.3"] {
                let (_, status, _) = web.ask(&agent, &format!("{version} {arguments}"));
                assert_eq!(status, expected, "{wanted}, {version}, {arguments}");
            }
        }
    }
    let agent =
        Agent::start(&[&IDLE[..], &["--web-config", &web.tls("  min_version: TLS13\n", "")]].concat());
    assert_eq!(web.ask(&agent, "--tls-max 1.2").1, 0);
    assert_eq!(web.ask(&agent, "").1, 200);
}

#[test]
fn what_changed_is_read_again_and_what_is_wrong_changes_nothing() {
    let tools = needs!(Tools::find());
    for program in ["openssl", "htpasswd", "curl"] {
        needs!(tools.program(program));
    }
    let web = Web::new();
    let users = format!("{USERS}{}\n", hash());
    let config = web.tls("", &users);
    let agent = Agent::start(&[&IDLE[..], &["--web-config", &config]].concat());
    assert_eq!(web.ask(&agent, "--user alice:fox").1, 200);
    // Signed by somebody else from now on.
    web.sign("server", "stranger");
    let stranger = || {
        let mut command = Command::new("curl");
        command.arg("--cacert").arg(web.path("stranger.pem"));
        curl(&mut command, agent.port(), "https", "--user alice:fox").1
    };
    assert_eq!((web.ask(&agent, "--user alice:fox").1, stranger()), (0, 200));
    // A file that is cut short opens no door.
    for wrong in ["", "tls_server_config: {cert_file: nowhere.pem, key_file: server.key}", "nonsense: 1"] {
        web.file(wrong);
        assert_eq!(stranger(), 200, "{wrong}");
        assert_eq!(curl(&mut Command::new("curl"), agent.port(), "https", "--insecure").1, 401, "{wrong}");
    }
    let complaints = |word: &str| agent.log().lines().filter(|line| line.contains(word)).count();
    assert_eq!(complaints("it stays as it was"), 3, "{}", agent.log());
    assert_eq!(
        (complaints("TLS is turned off"), complaints("nowhere.pem"), complaints("nonsense")),
        (1, 1, 1)
    );
    // Another user instead.
    web.tls("", &users.replace("alice", "bob"));
    assert_eq!(stranger(), 401);
    agent.signal(Signal::SIGHUP);
    eventually("the configuration is read again", || {
        agent.log().contains("read the configuration again").then_some(())
    });
    assert_eq!(stranger(), 401);
}

#[test]
fn a_wrong_file_is_named_with_what_is_accepted() {
    let tools = needs!(Tools::find());
    needs!(tools.program("openssl"));
    let web = Web::new();
    let check = |config: &str| {
        let mut command = Command::new(Agent::program());
        let output = run(command.args(["-n", "x", "--check-config", "--web-config", config]));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let ciphers =
        "  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]\n";
    assert_eq!(check(&web.tls(ciphers, "")).0, Some(0));
    assert_eq!(check(&web.tls("  min_version: TLS10\n", "http_server_config: { http2: true }\n")).0, Some(0));
    for (section, said) in [
        ("  min_version: TLS9\n", ["tls_server_config.min_version", "TLS13"]),
        ("  cipher_suites: [ROT13]\n", ["cipher_suites: \"ROT13\"", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]),
        ("  client_ca_file: authority.pem\n", ["client_ca_file", "RequireAndVerifyClientCert"]),
        ("  client_auth_type: RequireAndVerifyClientCert\n", ["client_ca_file", "is needed"]),
        ("  client_allowed_sans: [x]\n", ["client_allowed_sans", "can't restrict"]),
        ("  max_version: TLS11\n", ["max_version", "TLS12"]),
    ] {
        let config = web.tls(section, "");
        let (code, message) = check(&config);
        assert_eq!(code, Some(2), "{message}");
        assert!(message.contains(&config) && said.iter().all(|word| message.contains(word)), "{message}");
    }
    for (text, said) in [
        ("tls_server_config: {key_file: server.key}", "cert_file"),
        ("tls_server_config: {cert_file: server.pem, key_file: authority.key}", "authority.key"),
        ("tls_server_config: {cert_file: server.key, key_file: server.key}", "there is no certificate in it"),
        ("tls_server_config: {cert_file: server.pem, key_file: server.pem}", "there is no private key in it"),
        ("basic_auth_users: {alice: fox}", "basic_auth_users.alice"),
    ] {
        let (code, message) = check(&web.file(text));
        assert_eq!(code, Some(2), "{message}");
        assert!(message.contains(said) && !message.contains("fox"), "{message}");
    }
    assert!(check("/nowhere.yml").1.contains("--web-config /nowhere.yml"));
}

fn over_unix(socket: &Path) -> Metrics {
    let mut command = Command::new("curl");
    let Output { stdout, .. } =
        run(command.arg("--silent").arg("--unix-socket").arg(socket).arg("http://x/metrics"));
    Metrics::parse(String::from_utf8_lossy(&stdout).into_owned())
}

#[test]
fn a_unix_socket_is_for_its_owner_and_group() {
    let tools = needs!(Tools::find());
    needs!(tools.program("curl"));
    let folder = tempfile::tempdir().expect("a directory can be made");
    let socket = folder.path().join("metrics.sock");
    // The second finds what the first left behind.
    for _ in 0..2 {
        let mut command = Command::new(Agent::program());
        command.args(IDLE).arg("--listen").arg(format!("unix:{}", socket.display()));
        let mut agent = Agent::begin(command, 0).attached();
        let mode = fs::metadata(&socket).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert_eq!(over_unix(&socket).count("httpmon_build_info", &[]), 1);
        agent.stop();
    }
}

#[test]
fn systemd_hands_sockets_over() {
    let tools = needs!(Tools::find());
    let activate = needs!(tools.program("systemd-socket-activate"));
    needs!(tools.program("curl"));
    let folder = tempfile::tempdir().expect("a directory can be made");
    let (port, socket) = (free_port(), folder.path().join("metrics.sock"));
    let mut command = Command::new(activate);
    command.arg(format!("--listen=127.0.0.1:{port}")).arg("--listen").arg(&socket);
    command.arg(Agent::program()).args(IDLE);
    let agent = Agent::begin(command, port);
    // It starts with the first connection, and answers that, too.
    let first = eventually("the socket is there", || TcpStream::connect(("127.0.0.1", port)).ok());
    let mut first = first;
    first.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").expect("the socket takes it");
    let mut answer = String::new();
    first.read_to_string(&mut answer).expect("the agent answers");
    assert!(answer.ends_with("ok\n"), "{answer}");
    let mut agent = agent.attached();
    assert_eq!(over_unix(&socket).count("httpmon_build_info", &[]), 1);
    assert_eq!(agent.scrape().count("httpmon_build_info", &[]), 1);
    let log = agent.log();
    assert!(
        log.contains(&format!("http://127.0.0.1:{port}/metrics, http+unix:{}", socket.display())),
        "{log}"
    );
    agent.stop();
}

#[test]
fn slow_clients_and_a_thousand_scrapes_at_once_cost_no_event() {
    let tools = needs!(Tools::find());
    let nginx = needs!(Server::nginx(&tools, "return 200 'here';"));
    let agent = Agent::start(&["--process-name", "nginx"]);
    let exporter = Target::Tcp(([127, 0, 0, 1], agent.port()).into());
    // Some say nothing, some begin a head and never end it, some never read what they asked for.
    let idle: Vec<_> = (0..300)
        .map(|number| {
            let mut stream = TcpStream::connect(exporter.address()).expect("the exporter listens");
            let said: &[u8] = match number % 3 {
                0 => b"",
                1 => b"GET /metrics HTTP/1.1\r\nx: y",
                _ => b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n",
            };
            stream.write_all(said).expect("the exporter's host takes it");
            stream
        })
        .collect();
    let here = Ask { method: "GET", path: "/here", route: "/here", body: 0 };
    let metrics = Ask { method: "GET", path: "/metrics", route: "/metrics", body: 0 };
    let (served, scraped) = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            Load { target: nginx.target(), asks: &[here], requests: 30_000, clients: 4, per_connection: 1000 }
                .send()
        });
        let scrapes =
            Load { target: &exporter, asks: &[metrics], requests: 1000, clients: 1000, per_connection: 1 };
        let scraped = scrapes.send();
        (load.join().expect("the load ends in order"), scraped)
    });
    assert_eq!((served.total(), served.failed), (30_000, 0));
    assert_eq!((scraped.total(), scraped.failed), (1000, 0));
    assert!(scraped.answered.keys().all(|(_, _, status)| *status == 200), "{:?}", scraped.answered);
    let metrics = agent.scrape_settled(30_000);
    metrics.assert_finished(&[], &served.answered);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 30_000);
    metrics.assert_nothing_lost();
    drop(idle);
}
