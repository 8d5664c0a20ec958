//! Gunicorn's requests, counted exactly: every worker class, over TCP and over a unix socket.

use end_to_end::{
    Agent, App, Server, Tools,
    client::{Load, MIX},
    needs,
    probes::{BEST, CALLS, CALLS_CLASSIC, CLASSIC},
};

const REQUESTS: usize = 20_000;

/// Half of the requests by keep-alive, half by closing clients: what the agent counted is what the client got.
fn exact(app: App, options: &[&str], unix: bool, probes: &[&str]) {
    let tools = needs!(Tools::find());
    let options = [&["--workers", "4"], options].concat();
    let server = Server::gunicorn_on(unix, &tools, app, &options);
    let agent = Agent::start(&[&["--process-name", "gunicorn"], probes].concat());
    let half = REQUESTS / 2;
    let load =
        Load { target: server.target(), asks: &MIX, requests: half, clients: 8, per_connection: usize::MAX };
    let outcome = load.send_and_again(1);
    assert_eq!(outcome.failed, 0, "{}", server.log());
    let metrics = agent.scrape_settled(REQUESTS as u64);
    metrics.assert_finished(&[("service_name", "gunicorn")], &outcome.answered);
    assert_eq!(metrics.count("httpmon_requests_seen_total", &[]), REQUESTS as u64);
    assert_eq!(metrics.count("http_server_requests_unanswered_total", &[]), 0);
    metrics.assert_nothing_lost();
    let expected = match server.target() {
        end_to_end::client::Target::Tcp(address) | end_to_end::client::Target::Tls(address) => {
            ("127.0.0.1".to_owned(), address.port().to_string())
        }
        end_to_end::client::Target::Unix(path) => (format!("unix:{}", path.display()), String::new()),
        end_to_end::client::Target::Abstract(name) => (format!("unix:@{name}"), String::new()),
    };
    for sample in metrics.of("http_server_request_duration_seconds_count", &[]) {
        let place = (sample.labels["server_address"].clone(), sample.labels["server_port"].clone());
        assert_eq!(place, expected);
    }
}

macro_rules! worker_classes {
    ($($name:ident: $app:expr, $options:expr;)+) => {
        $(mod $name {
            use super::*;

            #[test]
            fn over_tcp() {
                exact($app, &$options, false, BEST);
            }

            #[test]
            fn over_a_unix_socket() {
                exact($app, &$options, true, BEST);
            }

            #[test]
            fn over_tcp_by_system_calls() {
                exact($app, &$options, false, CALLS);
            }

            #[test]
            fn over_a_unix_socket_by_system_calls() {
                exact($app, &$options, true, CALLS);
            }
        })+
    };
}

worker_classes! {
    sync: App::Wsgi, ["--worker-class", "sync"];
    gthread: App::Wsgi, ["--worker-class", "gthread", "--threads", "4"];
    gevent: App::Wsgi, ["--worker-class", "gevent"];
    uvicorn: App::Asgi, ["--worker-class", "uvicorn_worker.UvicornWorker"];
}

mod classic_tracepoints {
    use super::*;

    #[test]
    fn over_tcp() {
        exact(App::Wsgi, &["--worker-class", "gthread", "--threads", "4"], false, CLASSIC);
    }

    #[test]
    fn over_a_unix_socket() {
        exact(App::Wsgi, &["--worker-class", "sync"], true, CLASSIC);
    }

    #[test]
    fn over_tcp_by_system_calls() {
        exact(App::Wsgi, &["--worker-class", "gthread", "--threads", "4"], false, CALLS_CLASSIC);
    }

    #[test]
    fn over_a_unix_socket_by_system_calls() {
        exact(App::Wsgi, &["--worker-class", "sync"], true, CALLS_CLASSIC);
    }
}
