//! What the agent records, it counts again, without privileges: the same metrics every time.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use end_to_end::{
    Agent, App, Metrics, Server, Tools,
    client::{Ask, Load, MIX, Outcome},
    needs, run,
};

/// What a replay prints, or says.
fn replay(arguments: &[&str], user: u32) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().expect("a directory can be made");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions can be set");
    let program = folder.path().join("httpmon");
    fs::copy(Agent::program(), &program).expect("the program can be copied");
    let output =
        run(Command::new(program).arg("replay").args(arguments).uid(user).gid(user).current_dir("/"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Records a load, and tells what the agent and the clients counted.
fn record(
    server: &Server,
    selection: &str,
    file: &Path,
    asks: &[Ask],
    requests: usize,
) -> (Metrics, Outcome) {
    let path = file.display().to_string();
    let mut agent = Agent::start(&["--process-name", selection, "--record", &path]);
    let load = Load { target: server.target(), asks, requests, clients: 3, per_connection: 7 };
    let outcome = load.send();
    assert_eq!(outcome.failed, 0);
    let metrics = agent.scrape_settled(requests as u64);
    agent.stop();
    (metrics, outcome)
}

#[test]
fn a_replay_counts_what_the_agent_counted() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(
        &tools,
        App::Wsgi,
        &["--workers", "2", "--worker-class", "gthread", "--threads", "2"],
    );
    let folder = tempfile::tempdir().expect("a directory can be made");
    let file = folder.path().join("events.httpmon");
    let mut asks = MIX.to_vec();
    asks.push(Ask { method: "GET", path: "/stream?password=SECRET", route: "/stream", body: 0 });
    let (live, outcome) = record(&server, "gunicorn", &file, &asks, 400);
    let recorded = fs::read(&file).expect("it was recorded");
    assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
    for secret in [&b"SECRET"[..], b"GGGGGGGG"] {
        assert!(!recorded.windows(secret.len()).any(|window| window == secret), "a secret was recorded");
    }

    // Nobody may read it, and can replay it then.
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions can be set");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("permissions can be set");
    let path = file.display().to_string();
    let (code, first, said) = replay(&[&path], 65_534);
    assert!(code == Some(0) && said.is_empty(), "{said}");
    let (_, second, _) = replay(&[&path], 65_534);
    assert_eq!(first, second);
    let replayed = Metrics::parse(first);
    replayed.assert_books_balance();
    assert_eq!(replayed.finished(&[]), outcome.answered);
    for name in ["http_server_request_duration_seconds_sum", "http_server_response_body_size_bytes_sum"] {
        let (replayed, live) = (replayed.sum(name, &[]), live.sum(name, &[]));
        assert!((replayed - live).abs() < 1e-9 * live, "{name}: {replayed} and {live}");
    }
    let (_, lines, _) = replay(&[&path, "--print", "json"], 65_534);
    assert_eq!(lines.lines().count(), 400);
    let (_, off, _) = replay(&[&path, "--route-mode", "off"], 65_534);
    let routes = Metrics::parse(off);
    assert!(
        routes
            .of("http_server_request_duration_seconds_count", &[])
            .all(|one| one.labels["http_route"] == "*")
    );
}

/// HTTP/2's header fields are compressed: h2load writes them in Huffman's code, and by reference.
#[test]
fn a_replay_of_http2_counts_the_same_and_its_recording_holds_no_secrets() {
    let tools = needs!(Tools::find());
    let h2load = needs!(tools.program("h2load"));
    let directives = "location / { return 200 'read'; } location /gone/ { return 404; }";
    let server = needs!(Server::nginx_http2(&tools, directives));
    let folder = tempfile::tempdir().expect("a directory can be made");
    let file = folder.path().join("events.httpmon");
    let path = file.display().to_string();
    let mut agent = Agent::start(&["--pid", &server.pid().to_string(), "--record", &path]);
    let url = format!("http://{}", server.target().address());
    for path in ["/gone/7", "/here"] {
        let mut command = Command::new(&h2load);
        command.args(["-n", "10", "-c", "2", "-m", "3", "-H", "cookie: id=hidden-hidden-hidden"]);
        command.args(["-H", "authorization: Bearer hidden-hidden-hidden"]);
        command.arg(format!("{url}{path}?token=hidden-hidden-hidden"));
        assert!(run(&mut command).status.success());
    }
    let live = agent.scrape_settled(20);
    agent.stop();

    let recorded = fs::read(&file).expect("it was recorded");
    // As it is, and as Huffman's code has it (RFC 7541, appendix B): beginning at any bit of a byte.
    let code = "1001110011010010010010000101101010";
    let bits: String = recorded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| if byte >> bit & 1 == 1 { '1' } else { '0' }))
        .collect();
    assert!(!bits.contains(code), "a secret was recorded");
    assert!(!recorded.windows(6).any(|window| window == b"hidden"), "a secret was recorded");

    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions can be set");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("permissions can be set");
    let (code, replayed, said) = replay(&[&path], 65_534);
    assert!(code == Some(0) && said.is_empty(), "{said}");
    let replayed = Metrics::parse(replayed);
    let finished = live.finished(&[("network_protocol_version", "2")]);
    assert_eq!(finished[&("GET".to_owned(), "/gone/{id}".to_owned(), 404)], 10);
    assert_eq!(finished[&("GET".to_owned(), "/here".to_owned(), 200)], 10);
    assert_eq!(replayed.finished(&[]), finished);
    for name in ["http_server_request_duration_seconds_sum", "http_server_response_body_size_bytes_sum"] {
        assert_eq!(replayed.sum(name, &[]).to_bits(), live.sum(name, &[]).to_bits(), "{name}");
    }
}

#[test]
fn what_is_no_recording_is_refused() {
    let (code, _, said) = replay(&["/nowhere/events.httpmon"], 65_534);
    assert!(code == Some(1) && said.contains("/nowhere/events.httpmon"), "{said}");
    let (code, _, said) = replay(&["/etc/passwd"], 65_534);
    assert!(code == Some(1) && said.contains("/etc/passwd") && said.contains("--record"), "{said}");
    let (code, _, said) = replay(&[], 65_534);
    assert!(code == Some(2) && said.contains("<FILE>"), "{said}");
    needs!(Agent::possible());
    let refused = run(Command::new(Agent::program()).args([
        "-n",
        "x",
        "--listen",
        "127.0.0.1:0",
        "--record",
        "/nowhere/x",
    ]));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(1) && said.contains("--record /nowhere/x"), "{said}");
}

/// The committed recordings of real servers: what they make is what they made when they were reviewed. With
/// `UPDATE_RECORDINGS=1` they are made anew.
#[test]
fn committed_recordings_make_the_committed_metrics() {
    let place = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/recordings"));
    if std::env::var_os("UPDATE_RECORDINGS").is_some() {
        let tools = Tools::find().expect("servers are there");
        let gunicorn = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1", "--worker-class", "sync"]);
        let asks = [MIX[0], MIX[1], MIX[3], MIX[5], MIX[7]];
        record(&gunicorn, "gunicorn", &place.join("gunicorn-sync.httpmon"), &asks, 15);
        let nginx = Server::nginx(&tools, "location /here { return 200 'here'; }").expect("nginx is there");
        let here = Ask { method: "GET", path: "/here", route: "/here", body: 0 };
        let gone = Ask { method: "GET", path: "/gone/#", route: "/gone/{id}", body: 0 };
        record(&nginx, "nginx", &place.join("nginx.httpmon"), &[here, gone], 20);
    }
    let mut found = 0;
    for entry in fs::read_dir(&place).expect("there are recordings") {
        let path = entry.expect("the directory can be read").path();
        if path.extension().is_none_or(|extension| extension != "httpmon") {
            continue;
        }
        found += 1;
        let output =
            run(Command::new(Agent::program()).args(["replay", "--buckets", "0.001,0.01"]).arg(&path));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made = String::from_utf8(output.stdout).expect("metrics are text");
        let golden = path.with_extension("prom");
        if std::env::var_os("UPDATE_RECORDINGS").is_some() {
            fs::write(&golden, &made).expect("it can be written");
        }
        let reviewed = fs::read_to_string(&golden).expect("its metrics are committed");
        assert_eq!(made, reviewed, "{}", path.display());
        Metrics::parse(made).assert_books_balance();
    }
    assert!(found >= 2, "{found} recordings");
}
