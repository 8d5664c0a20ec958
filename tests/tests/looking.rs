//! What people look at: the table in the terminal, the page in the browser, the last requests.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZero,
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

use end_to_end::{
    Agent, App, Guard, Server, Tools,
    client::{Load, MIX},
    eventually, needs, run,
};
use nix::{
    libc,
    pty::{Winsize, openpty},
};

/// A program in a terminal, and what the terminal shows.
struct Terminal {
    program: Guard,
    keys: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(command: &mut Command, width: u16, height: u16) -> Self {
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a terminal can be had");
        let slave = || pty.slave.try_clone().expect("a terminal can be shared");
        command
            .stdin(slave())
            .stdout(slave())
            .stderr(slave())
            .env("TERM", "xterm-256color")
            .env("LC_ALL", "C.UTF-8");
        let program = Guard::start(command);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(height), cells(width), 0)));
        let mut output = File::from(pty.master.try_clone().expect("a terminal can be shared"));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Reading fails when the terminal is closed.
            while let Ok(len) = output.read(&mut bytes) {
                shown.lock().expect("nobody panics with it").process(&bytes[..len]);
            }
        });
        Self { program, keys: File::from(pty.master), screen }
    }

    fn text(&self) -> String {
        self.screen.lock().expect("nobody panics with it").screen().contents()
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    fn resize(&mut self, width: u16, height: u16) {
        self.screen.lock().expect("nobody panics with it").screen_mut().set_size(cells(height), cells(width));
        let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the descriptor is a terminal's, and the size outlives the call.
        let result = unsafe {
            libc::ioctl(std::os::fd::AsRawFd::as_raw_fd(&self.keys), libc::TIOCSWINSZ, &raw const size)
        };
        assert_eq!(result, 0);
        self.program.signal(nix::sys::signal::Signal::SIGWINCH);
    }

    fn shows(&self, what: &str, condition: impl Fn(&str) -> bool) -> String {
        eventually(what, || {
            let text = self.text();
            condition(&text).then_some(text)
        })
    }
}

fn cells(number: u16) -> NonZero<u16> {
    NonZero::new(number).expect("a terminal has a size")
}

/// The line of a route.
fn line<'a>(text: &'a str, route: &str) -> Option<&'a str> {
    text.lines().find(|line| line.split_whitespace().any(|word| word == route))
}

fn traffic(server: &Server, requests: usize) {
    let load = Load { target: server.target(), asks: &MIX, requests, clients: 2, per_connection: 5 };
    assert_eq!(load.send().failed, 0);
}

#[test]
fn top_shows_sorts_filters_and_resizes() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    let mut command = Command::new(Agent::program());
    command.args([
        "top",
        "--interval",
        "0.2",
        "--url",
        &format!("http://127.0.0.1:{}/metrics", agent.port()),
    ]);
    let mut top = Terminal::start(&mut command, 80, 24);
    top.shows("the empty table says what to do", |text| text.contains("No request yet"));
    traffic(&server, 90);
    let more = Load { target: server.target(), asks: &MIX[..1], requests: 10, clients: 1, per_connection: 5 };
    assert_eq!(more.send().failed, 0);
    let text = top.shows("the routes show", |text| {
        let routes = ["/items/{id}", "/items", "/old", "/nothing", "/boom"];
        text.contains("seen 100 = finished 100") && routes.iter().all(|route| line(text, route).is_some())
    });
    assert!(text.contains("q quit") && text.contains("gunicorn: 3 processes"), "{text}");
    top.press("/boom\r");
    top.shows("the filter leaves one", |text| line(text, "/boom").is_some() && line(text, "/old").is_none());
    top.press("\x1b");
    top.shows("Esc clears it", |text| line(text, "/old").is_some());
    top.resize(140, 12);
    top.shows("a wide terminal has more columns", |text| text.contains("TREND") && text.contains("TOTAL"));
    top.press("?");
    top.shows("the help shows", |text| text.contains("Any key closes this"));
    top.press("x");
    // From the rate over P50, P99, the errors, the queue, OUT and IN to the total.
    top.press("\x1b[C\x1b[C\x1b[C\x1b[C\x1b[C\x1b[C\x1b[C");
    let text = top.shows("it is sorted by the total", |text| text.contains("TOTALv"));
    let first = text.lines().skip_while(|line| !line.contains("TOTALv")).nth(1).unwrap_or_default();
    assert!(first.contains("/items/{id}") && first.contains(" 20 "), "{text}");
    top.press("q");
    assert_eq!(top.program.wait().code(), Some(0));
}

#[test]
fn top_has_probes_of_its_own() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1"]);
    let mut command = Command::new(Agent::program());
    command.args(["top", "--interval", "0.2", "--pid", &server.pid().to_string()]).env("NO_COLOR", "1");
    let mut top = Terminal::start(&mut command, 100, 30);
    top.shows("it is there", |text| text.contains("own probes") && text.contains("No request yet"));
    traffic(&server, 45);
    top.shows("all are counted", |text| text.contains("seen 45 = finished 45"));
    let colours = top.screen.lock().expect("nobody panics with it").screen().contents_formatted();
    let coloured = colours.contains("\x1b[31m");
    assert!(!coloured, "NO_COLOR was not honoured");
    top.program.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(top.program.wait().code(), Some(0));
}

#[test]
fn top_says_what_is_wrong_and_prints_one_table_elsewhere() {
    needs!(Agent::possible());
    let address = format!("127.0.0.1:{}", end_to_end::free_port());
    let output = run(Command::new(Agent::program()).args(["top", "--url", &address]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("is httpmon running"), "{said}");
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1"]);
    let agent = Agent::start(&["--pid", &server.pid().to_string()]);
    traffic(&server, 45);
    agent.scrape_settled(45);
    let address = format!("127.0.0.1:{}", agent.port());
    let output = run(Command::new(Agent::program()).args([
        "top",
        "--interval",
        "0.2",
        "--url",
        &address,
        "--sort",
        "total",
    ]));
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && line(&table, "/boom").is_some_and(|line| line.ends_with(" 5")),
        "{table}"
    );
}

#[test]
fn a_replay_shows_how_far_it_is() {
    let folder = tempfile::tempdir().expect("a directory can be made");
    let file = folder.path().join("events");
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).expect("a pipe can be made");
    let mut command = Command::new(Agent::program());
    command.arg("replay").arg(&file);
    let mut terminal = Terminal::start(&mut command, 100, 40);
    let mut writer = File::options().write(true).open(&file).expect("the replay reads");
    let recording =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/recordings/nginx.httpmon")).expect("it is there");
    let (first, rest) = recording.split_at(recording.len() / 2);
    writer.write_all(first).expect("the replay reads");
    terminal.shows("the progress shows", |text| text.contains("replaying") && text.contains(" of "));
    writer.write_all(rest).expect("the replay reads");
    drop(writer);
    terminal.shows("the metrics show", |text| text.contains("httpmon_") && !text.contains("replaying"));
    assert_eq!(terminal.program.wait().code(), Some(0));
}

#[test]
fn the_last_requests_are_told() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1"]);
    let agent = Agent::start(&["--pid", &server.pid().to_string()]);
    traffic(&server, 45);
    agent.scrape_settled(45);
    let all: serde_json::Value = serde_json::from_str(&agent.get("/api/requests?n=100")).expect("it is JSON");
    let all = all.as_array().expect("it is a list");
    assert_eq!(all.len(), 45);
    let boom = all.iter().filter(|request| request["url.path"] == "/boom");
    assert!(
        boom.clone().count() == 5 && boom.clone().all(|request| request["http.response.status_code"] == 500)
    );
    let some: serde_json::Value = serde_json::from_str(&agent.get("/api/requests?n=3")).expect("it is JSON");
    assert_eq!(some.as_array().map(Vec::as_slice), Some(&all[..3]));
    let summary: serde_json::Value = serde_json::from_str(&agent.get("/api/summary")).expect("it is JSON");
    assert_eq!(summary["books"]["finished"], 45);
}

#[test]
fn the_page_shows_in_a_browser() {
    let tools = needs!(Tools::find());
    let driver = needs!(tools.program("chromedriver"));
    let browser = needs!(tools.program("chromium"));
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2"]);
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    traffic(&server, 90);
    agent.scrape_settled(90);
    let folder = tempfile::tempdir().expect("a directory can be made");
    let output = run(Command::new(tools.python("python3"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/browser.py"))
        .args([format!("http://127.0.0.1:{}/", agent.port())])
        .args([&driver, &browser])
        .arg(folder.path()));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let page: serde_json::Value = serde_json::from_slice(&output.stdout).expect("the browser tells JSON");
    assert_eq!(page["errors"], serde_json::json!([]), "{page}");
    let mut total = 0;
    for row in page["rows"].as_array().expect("there are rows") {
        assert_eq!(row["service"], "gunicorn");
        total += row["total"].as_u64().expect("a total is a number");
    }
    assert_eq!(total, 90);
    for (name, width) in [("light", 1280), ("dark", 1280), ("phone", 390)] {
        assert!(page["widths"][name].as_u64().is_some_and(|found| found <= width), "{name}: {page}");
        assert!(folder.path().join(format!("{name}.png")).exists());
    }
    assert_ne!(page["backgrounds"]["light"], page["backgrounds"]["dark"]);
    let kept = std::env::var_os("HTTPMON_SCREENSHOTS");
    if let Some(kept) = kept {
        for name in ["light", "dark", "phone"] {
            let name = format!("{name}.png");
            std::fs::copy(folder.path().join(&name), std::path::Path::new(&kept).join(&name))
                .expect("it can be kept");
        }
    }
}
