//! What users type wrongly, hosts lack, and clients send against the rules.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    process::Command,
};

use end_to_end::{
    Agent, App, Server, Tools,
    client::{Connection, Load, MIX},
    eventually, needs, run_and_hear,
};

/// Runs a command to its end: its exit code and what it said.
fn ended(command: &mut Command) -> (Option<i32>, String) {
    let (status, said) = run_and_hear(command);
    (status.code(), said)
}

fn httpmon(arguments: &[&str]) -> (Option<i32>, String) {
    ended(Command::new(Agent::program()).args(arguments))
}

fn assert_refused(arguments: &[&str], code: i32, words: &[&str]) {
    let (found, said) = httpmon(arguments);
    assert_eq!(found, Some(code), "{arguments:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{arguments:?}: no {word:?} in: {said}");
    }
    assert!(!said.contains("panicked") && !said.contains("RUST_BACKTRACE"), "{said}");
}

#[test]
fn bad_usage_names_the_option_the_value_and_what_is_accepted() {
    assert_refused(&[], 2, &["--process-name", "gunicorn"]);
    assert_refused(&["--process-name", "["], 2, &["--process-name", "\"[\"", "gunicorn*"]);
    assert_refused(&["-n", "x", "--exclude-process-name", "{"], 2, &["--exclude-process-name", "\"{\""]);
    assert_refused(&["-n", "x", "--listen", "localhost"], 2, &["--listen", "'localhost'", "ADDR:PORT"]);
    assert_refused(&["-n", "x", "--listen", "127.0.0.1:99999"], 2, &["--listen", "99999"]);
    assert_refused(&["-n", "x", "--port", "0"], 2, &["--port"]);
    assert_refused(&["-n", "x", "--pid", "x"], 2, &["--pid"]);
    assert_refused(&["-n", "x", "--buckets", "3,2,1"], 2, &["--buckets", "3.0", "0.01,0.1,1"]);
    assert_refused(&["-n", "x", "--route", "users"], 2, &["--route", "\"users\"", "/users/{id}"]);
    assert_refused(&["-n", "x", "--ignore-path", "["], 2, &["--ignore-path", "\"[\""]);
    assert_refused(&["-n", "x", "--max-series", "0"], 2, &["--max-series"]);
    assert_refused(&["-n", "x", "--room", "events=5000"], 2, &["--room", "5000", "power of two", "4096"]);
    assert_refused(
        &["-n", "x", "--room", "sockets=9"],
        2,
        &["--room", "sockets=9", "TABLE=N", "connections"],
    );
    assert_refused(&["-n", "x", "--print", "xml"], 2, &["--print", "text", "json"]);
    assert_refused(&["processes"], 2, &["--process-name"]);
    assert_refused(&["no-such-command"], 2, &["no-such-command"]);
}

#[test]
fn a_taken_port_is_named_with_the_way_out() {
    needs!(Agent::possible());
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    assert_refused(&["-n", "x", "--listen", &address], 1, &["--listen", &address, "in use", "ss -ltnp"]);
    assert_refused(
        &["-n", "x", "--listen", "192.0.2.1:9464"],
        1,
        &["--listen", "192.0.2.1:9464", "ip address"],
    );
}

#[test]
fn a_host_without_type_information_is_told_what_is_missing() {
    needs!(Agent::possible());
    let options = ["-n", "x", "--btf", "/nowhere/vmlinux", "--listen", "127.0.0.1:0"];
    assert_refused(&options, 3, &["/nowhere/vmlinux", "CONFIG_DEBUG_INFO_BTF", "httpmon check"]);
    assert_refused(&["check", "--btf", "/nowhere/vmlinux"], 3, &["missing", "BTF", "to fix"]);
    let folder = tempfile::tempdir().expect("a directory can be made");
    let broken = folder.path().join("vmlinux");
    fs::write(&broken, b"no type information").expect("a file can be written");
    let broken = broken.display().to_string();
    assert_refused(&["-n", "x", "--btf", &broken, "--listen", "127.0.0.1:0"], 3, &[&broken]);
}

#[test]
fn a_user_without_privileges_is_told_which_are_missing() {
    needs!(Agent::possible());
    let folder = tempfile::tempdir().expect("a directory can be made");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions can be set");
    let program = folder.path().join("httpmon");
    fs::copy(Agent::program(), &program).expect("the program can be copied");
    let nobody = |arguments: &[&str]| {
        ended(Command::new(&program).args(arguments).uid(65_534).gid(65_534).current_dir("/"))
    };
    let (code, said) = nobody(&["-n", "x", "--listen", "127.0.0.1:0"]);
    assert!(code == Some(3) && said.contains("CAP_BPF") && said.contains("root"), "{code:?}: {said}");
    let (code, said) = nobody(&["check"]);
    assert!(
        code == Some(3) && said.contains("missing  CAP_BPF") && said.contains("sudo"),
        "{code:?}: {said}"
    );
}

#[test]
fn check_is_content_here_and_processes_explains() {
    let tools = needs!(Tools::find());
    let (code, said) = httpmon(&["check"]);
    assert!(code == Some(0) && !said.contains("missing") && said.contains("probes load"), "{said}");
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
    // It answers as soon as one of them does.
    let workers =
        eventually("both workers run", || Some(server.workers()).filter(|workers| workers.len() == 2));
    let (code, said) = httpmon(&["processes", "--process-name", "gunicorn"]);
    assert_eq!(code, Some(0));
    for pid in workers.into_iter().chain([server.pid()]) {
        let line = said.lines().find(|line| line.trim_start().starts_with(&format!("{pid} ")));
        assert!(
            line.is_some_and(|line| line.contains("gunicorn") && line.contains("process-name")),
            "{said}"
        );
    }
    let (code, said) = httpmon(&["processes", "--process-name", "no-such-program"]);
    assert!(code == Some(0) && said.contains("No process matches"), "{said}");
}

/// Bytes that look like noise, the same ones each time.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(length)
    .collect()
}

#[test]
fn garbage_and_half_requests_harm_nothing() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(
        &tools,
        App::Wsgi,
        &["--workers", "2", "--worker-class", "gthread", "--threads", "8"],
    );
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    let mut hostile: Vec<Vec<u8>> =
        (0..100).map(|seed| noise(seed, 1 + (seed as usize * 97) % 5000)).collect();
    hostile.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    hostile.push(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec());
    hostile.push(b"GET / HTTP/9.9\r\n\r\n".to_vec());
    hostile.push([b"GET /".as_slice(), &vec![b'a'; 100_000]].concat());
    hostile.push([b"GET / HTTP/1.1\r\n".as_slice(), &b"x: y\r\n".repeat(20_000)].concat());
    let half = b"GET /items/1 HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n";
    hostile.extend((1..half.len() - 35).map(|length| half[..length].to_vec()));
    for bytes in &hostile {
        let mut connection = Connection::open(server.target());
        let sent = connection.try_send(bytes);
        connection.end();
        if sent {
            // Whatever the server says to it, until it closes.
            let mut buffer = [0; 4096];
            while connection.read(&mut buffer) > 0 {}
        }
    }
    let load = Load { target: server.target(), asks: &MIX, requests: 900, clients: 4, per_connection: 30 };
    let outcome = load.send();
    assert_eq!(outcome.failed, 0);
    let metrics = agent.scrape_settled(900);
    let unparsed = metrics.count("httpmon_bytes_unparsed_total", &[("reason", "not_http")]);
    assert!(unparsed > 10_000, "{unparsed}");
    assert!(metrics.count("httpmon_bytes_unparsed_total", &[("reason", "tls")]) > 0);
    assert!(metrics.count("httpmon_bytes_unparsed_total", &[("reason", "http2")]) > 0);
    let mut finished = metrics.finished(&[]);
    // Two of them have a whole request line, and were answered.
    finished.retain(|key, _| outcome.answered.contains_key(key));
    assert_eq!(finished, outcome.answered);
    metrics.assert_nothing_lost();
    assert!(agent.log().lines().all(|line| !line.contains("panicked")), "{}", agent.log());
    agent.scrape_until("the connections are gone", |metrics| {
        metrics.count("http_server_open_connections", &[]) == 0
    });
}
