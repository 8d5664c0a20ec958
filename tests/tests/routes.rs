//! Whatever clients ask for, the routes that a service has keep their series, and memory stays bounded.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
};

use end_to_end::{
    Agent, App, Server, Tools,
    client::{Ask, Load},
    needs,
};

/// A client that asks for paths, Host values and methods that nobody asked for before, pipelined.
struct Scanner {
    out: TcpStream,
    input: BufReader<TcpStream>,
    name: char,
    asked: usize,
}

impl Scanner {
    fn new(address: SocketAddr, name: char) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        let out = stream.try_clone().expect("a stream can be shared");
        Self { out, input: BufReader::with_capacity(1 << 16, stream), name, asked: 0 }
    }

    /// Asks so often, and reads all answers.
    fn ask(&mut self, requests: usize) {
        const AT_ONCE: usize = 100;
        const METHODS: [&str; 4] = ["GET", "POST", "BREW", "PROPFIND"];
        let mut line = Vec::new();
        let mut answered = self.asked;
        let end = self.asked + requests;
        while self.asked < end {
            let mut text = String::new();
            for number in self.asked..self.asked + AT_ONCE {
                let method = METHODS[number % METHODS.len()];
                let word: String =
                    (0..8).map(|digit| char::from(b'a' + (number >> (digit * 4) & 0xf) as u8)).collect();
                let path = format!("/{word}-{}x/y{number}y", self.name);
                text.extend([method, " ", &path, " HTTP/1.1\r\nHost: ", &word]);
                text.push_str(".example\r\nContent-Length: 0\r\n\r\n");
            }
            self.out.write_all(text.as_bytes()).expect("the server reads");
            self.asked += AT_ONCE;
            while answered < self.asked {
                line.clear();
                let len = self.input.read_until(b'\n', &mut line).expect("the server answers");
                assert!(len > 0, "the server closed after {answered}");
                answered += usize::from(line.starts_with(b"HTTP/1.1 "));
            }
        }
    }
}

const REAL: [Ask; 3] = [
    Ask { method: "GET", path: "/items/#", route: "/items/{id}", body: 0 },
    Ask { method: "GET", path: "/health", route: "/health", body: 0 },
    Ask { method: "POST", path: "/orders", route: "/orders", body: 100 },
];

/// A million strange requests between two loads of real ones.
fn a_million_strange_requests(configuration: &str, strange_status: u16) {
    const STRANGE: usize = 1_000_000;
    const ROUND: usize = 4000;
    const ROUTES: usize = 2000;
    let tools = needs!(Tools::find());
    let server = needs!(Server::nginx(&tools, configuration));
    let agent = Agent::start(&["--process-name", "nginx"]);
    let address = server.target().address();
    let send = || {
        let load =
            Load { target: server.target(), asks: &REAL, requests: 3000, clients: 2, per_connection: 100 };
        let outcome = load.send();
        assert_eq!((outcome.total(), outcome.failed), (3000, 0));
    };
    send();
    // As much at once as the agent surely has room for: how fast it is on this machine is another matter.
    let mut scanners = ['a', 'b'].map(|name| Scanner::new(address, name));
    for round in 1..=STRANGE / ROUND {
        for scanner in &mut scanners {
            scanner.ask(ROUND / 2);
        }
        agent.scrape_until("the round is seen", |metrics| {
            metrics.count("httpmon_requests_seen_total", &[]) >= (3000 + round * ROUND) as u64
        });
    }
    send();

    let metrics = agent.scrape_settled(STRANGE as u64 + 6000);
    metrics.assert_nothing_lost();
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), STRANGE as u64 + 6000);
    for Ask { method, route, .. } in REAL {
        let name = "http_server_request_duration_seconds_count";
        let labels =
            [("http_route", route), ("http_request_method", method), ("http_response_status_code", "200")];
        assert_eq!(metrics.count(name, &labels), 2000, "{route}");
    }
    let strange = metrics.count(
        "http_server_request_duration_seconds_count",
        &[("http_response_status_code", &strange_status.to_string())],
    );
    assert_eq!(strange, STRANGE as u64 + if strange_status == 200 { 6000 } else { 0 });
    let series = metrics.of("httpmon_requests_seen_total", &[]).count();
    let resident = metrics.sum("process_resident_memory_bytes", &[]) / f64::from(1 << 20);
    println!("{series} label sets, {resident:.1} MiB");
    assert!(series <= ROUTES, "{series} label sets");
    assert!(resident <= 64.0, "{resident} MiB");
    assert!(metrics.of("httpmon_requests_seen_total", &[("http_request_method", "_OTHER")]).count() > 0);
    assert_eq!(metrics.of("httpmon_requests_seen_total", &[("http_request_method", "BREW")]).count(), 0);
}

#[test]
fn a_scanner_leaves_real_routes_alone() {
    a_million_strange_requests(
        "location / { return 404; } location /items/ { return 200 'item'; } location = /health { return 200 'ok'; } location = /orders { return 200 'done'; }",
        404,
    );
}

#[test]
fn a_server_that_answers_everything_keeps_its_busy_routes() {
    a_million_strange_requests("location / { return 200 'yes\\n'; }", 200);
}

#[test]
fn values_fold_and_named_routes_stay() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1"]);
    let agent =
        Agent::start(&["-n", "gunicorn", "--route", "/echo/pattern/{name}", "--ignore-path", "/old*"]);
    let word = |number: usize| -> String {
        number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'a')).collect()
    };
    let mut stream = TcpStream::connect(server.target().address()).expect("the server listens");
    let mut ask = |path: &str| {
        use std::io::Read as _;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the server reads");
        stream.read_to_string(&mut String::new()).expect("the server answers");
        stream = TcpStream::connect(server.target().address()).expect("the server listens");
    };
    for number in 0..100 {
        ask(&format!("/echo/users/{}", word(number)));
        ask(&format!("/echo/pattern/{}", word(number)));
    }
    ask("/echo/2026-11-24/ann@example.org/7/3f2504e0-4f89-11d3-9a0c-0305e82c3301");
    ask("/old");
    let metrics = agent.scrape_settled(202);
    let count = |route: &str| metrics.count("httpmon_requests_seen_total", &[("http_route", route)]);
    assert_eq!(count("/echo/pattern/{name}"), 100);
    assert_eq!((count("/echo/users/{var}"), count("/echo/users/a")), (50, 1));
    assert_eq!(count("/echo/{date}/{email}/{id}/{uuid}"), 1);
    assert_eq!(metrics.count("httpmon_requests_ignored_total", &[]), 1);
}
