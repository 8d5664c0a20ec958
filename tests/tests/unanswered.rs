//! Requests that get no complete response, by what ended them.

use end_to_end::{Agent, App, Server, Tools, client::Connection, needs};

const UNANSWERED: &str = "http_server_requests_unanswered_total";

/// One request by `path` to a Gunicorn with these options, after which `then` happens; the one reason it must be counted under.
fn unanswered(options: &[&str], unix: bool, path: &str, then: fn(Connection), reason: &str) {
    let tools = needs!(Tools::find());
    let options = [&["--workers", "1"], options].concat();
    let server = Server::gunicorn_on(unix, &tools, App::Wsgi, &options);
    let agent = Agent::start(&["--process-name", "gunicorn"]);
    let mut connection = Connection::open(server.target());
    connection.ask("GET", path);
    then(connection);
    let metrics = agent
        .scrape_until("the request is known to be unanswered", |metrics| metrics.count(UNANSWERED, &[]) == 1);
    assert_eq!(metrics.count(UNANSWERED, &[("reason", reason)]), 1, "{}", metrics.text);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 1);
    assert_eq!(metrics.count("http_server_request_duration_seconds_count", &[]), 0);
    metrics.assert_nothing_lost();
}

/// Reads a little, and closes with the rest unread.
fn leave(mut connection: Connection) {
    assert!(connection.read(&mut [0; 1000]) > 0);
}

/// Reads until the server closes.
fn wait(mut connection: Connection) {
    let mut buffer = [0; 1000];
    while connection.read(&mut buffer) > 0 {}
}

#[test]
fn a_client_that_leaves_within_the_response() {
    for class in ["sync", "gthread", "gevent"] {
        unanswered(&["--worker-class", class], false, "/big", leave, "client_closed");
    }
}

#[test]
fn a_client_that_leaves_a_unix_socket_within_the_response() {
    unanswered(&["--worker-class", "sync"], true, "/big", leave, "client_closed");
}

#[test]
fn a_worker_that_is_killed_by_its_timeout() {
    unanswered(&["--worker-class", "sync", "--timeout", "1"], false, "/stuck", wait, "process_exited");
}

#[test]
fn a_server_that_closes_without_a_reply() {
    unanswered(&["--worker-class", "sync"], false, "/drop", wait, "server_closed");
}
