//! Services side by side, and others that are none of httpmon's business.

use std::process::Command;

use end_to_end::{
    Agent, App, Guard, Server, Tools,
    client::{Ask, Load, MIX, Target},
    eventually, free_port, needs,
};

#[test]
fn nginx_in_front_of_gunicorn_each_under_its_own_name() {
    let tools = needs!(Tools::find());
    let gunicorn = Server::gunicorn_unix(&tools, App::Wsgi, &["--workers", "2", "--worker-class", "sync"]);
    let Target::Unix(path) = gunicorn.target() else { unreachable!("it was asked to be one") };
    let directives = format!(
        "location / {{ proxy_pass http://unix:{}:; }} location /static {{ return 200 'here'; }}",
        path.display()
    );
    let nginx = needs!(Server::nginx(&tools, &directives));
    let agent = Agent::start(&["--process-name", "gunicorn", "--process-name", "nginx"]);
    let mut asks = MIX.to_vec();
    asks.push(Ask { method: "GET", path: "/static", route: "/static", body: 0 });
    let load = Load { target: nginx.target(), asks: &asks, requests: 5_000, clients: 6, per_connection: 50 };
    let outcome = load.send();
    assert_eq!(outcome.failed, 0);
    let behind: u64 =
        outcome.answered.iter().filter(|(key, _)| key.1 != "/static").map(|(_, count)| count).sum();
    let metrics = agent.scrape_settled(5_000 + behind);
    let at_nginx = [("service_name", "nginx")];
    metrics.assert_finished(&at_nginx, &outcome.answered);
    let mut expected = outcome.answered.clone();
    expected.retain(|key, _| key.1 != "/static");
    metrics.assert_finished(&[("service_name", "gunicorn")], &expected);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 5_000 + behind);
    assert_eq!(metrics.count("http_server_requests_unanswered_total", &[]), 0);
    metrics.assert_nothing_lost();
}

#[test]
fn what_is_not_selected_leaves_no_trace() {
    let tools = needs!(Tools::find());
    let gunicorn = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2", "--worker-class", "sync"]);
    let nginx = needs!(Server::nginx(&tools, "return 200 'here';"));
    let agent = Agent::start(&[
        "--process-name",
        "gunicorn",
        "--process-name",
        "nginx",
        "--print",
        "text",
        "--log-level",
        "debug",
    ]);
    // One that runs before, and one that starts after the others.
    let port = free_port();
    let folder = tempfile::tempdir().expect("a directory can be made");
    let mut command = Command::new(needs!(tools.program("python3")));
    command.args(["-m", "http.server", "--bind", "127.0.0.1", &port.to_string()]).current_dir(folder.path());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let third = Guard::start(&mut command);
    let target = Target::Tcp(([127, 0, 0, 1], port).into());
    eventually("the third listens", || std::net::TcpStream::connect(target.address()).is_ok().then_some(()));

    let unseen = Ask { method: "GET", path: "/private", route: "/private", body: 0 };
    let item = MIX[0];
    let here = Ask { method: "GET", path: "/here", route: "/here", body: 0 };
    for (target, ask) in [(gunicorn.target(), item), (nginx.target(), here), (&target, unseen)] {
        let outcome = Load { target, asks: &[ask], requests: 200, clients: 2, per_connection: 1 }.send();
        assert_eq!((outcome.total(), outcome.failed), (200, 0));
    }
    let metrics = agent.scrape_settled(400);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), 400);
    for service in ["gunicorn", "nginx"] {
        let labels = [("service_name", service)];
        assert_eq!(metrics.count("http_server_request_duration_seconds_count", &labels), 200);
    }
    eventually("all is printed", || (agent.printed().lines().count() == 400).then_some(()));
    for text in [&metrics.text, &agent.printed(), &agent.log()] {
        for trace in ["private", &format!(":{port}"), &format!("\"{port}\""), &format!("pid={}", third.pid())]
        {
            assert!(!text.contains(trace), "{trace} in {text}");
        }
    }
}

#[test]
fn ports_numbers_and_exclusions_select() {
    let tools = needs!(Tools::find());
    let server = Server::gunicorn(&tools, App::Wsgi, &["--workers", "2", "--worker-class", "sync"]);
    let other = Server::gunicorn(&tools, App::Wsgi, &["--workers", "1", "--worker-class", "sync"]);
    let port = server.target().address().port().to_string();
    let pid = server.pid().to_string();
    let mut request_counts = Vec::new();
    for options in [
        vec!["--port", &port],
        vec!["--pid", &pid],
        vec!["--process-name", "gun*", "--exclude-process-name", "gunicorn"],
    ] {
        let agent = Agent::start(&options);
        for target in [server.target(), other.target()] {
            Load { target, asks: &MIX, requests: 90, clients: 2, per_connection: 1 }.send();
        }
        // What is excluded would have been counted by now: a scrape takes all that has happened.
        let expected = if options.len() == 2 { 90 } else { 0 };
        request_counts.push(agent.scrape_settled(expected).count("httpmon_requests_seen_total", &[]));
    }
    assert_eq!(request_counts, [90, 90, 0]);
}
