//! Serves the metrics over HTTP.
//!
//! In: a function that renders them. Whatever clients do, they hold no more than their connection: the number of
//! connections, the size of heads and the time that a peer may stand still are limited, and one scrape at a time is
//! rendered, beside the event path.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_io_timeout::TimeoutStream;

/// How many connections are served at once; others wait in the listen backlog.
const MOST_CONNECTIONS: usize = 64;
/// The longest request head that is read.
const LONGEST_HEAD: usize = 16 << 10;
/// How long a connection may idle between requests. Longer than usual scrape intervals.
const LONGEST_IDLE: Duration = Duration::from_secs(120);
/// How long a reader may stand still.
const LONGEST_STALL: Duration = Duration::from_secs(20);

/// Prometheus' text format, version 0.0.4.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders the metrics as they are now; may take a while.
pub type Render = dyn Fn() -> Result<String, String> + Send + Sync;

/// Why the exporter can't listen.
#[derive(Debug, thiserror::Error)]
#[error("--listen {address}: {source}; {}", advice(.source))]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there (`ss -ltnp` tells which): stop it, or give --listen another port"
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this host has that address (`ip address` lists them)"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need root: give --listen a higher one",
        _ => "give --listen another address, such as 127.0.0.1:9464",
    }
}

/// Begins to listen.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, render: Arc<Render>) {
    let app = router(render);
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("the exporter can't take a connection: {error}");
                // Out of file descriptors, most likely; they come back when others close.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let app = app.clone();
        tokio::spawn(async move {
            let mut stream = TimeoutStream::new(stream);
            stream.set_read_timeout(Some(LONGEST_IDLE));
            stream.set_write_timeout(Some(LONGEST_STALL));
            let connection = hyper::server::conn::http1::Builder::new()
                .max_buf_size(LONGEST_HEAD)
                .half_close(true)
                .serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(app));
            if let Err(error) = connection.await {
                tracing::debug!("a connection to the exporter ended: {error}");
            }
            drop(slot);
        });
    }
}

#[derive(Clone)]
struct App {
    render: Arc<Render>,
    /// One scrape at a time.
    turn: Arc<Semaphore>,
}

fn router(render: Arc<Render>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/", get(|| async { Html(INDEX) }))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found; there are /, /metrics and /healthz\n") })
        .with_state(App { render, turn: Arc::new(Semaphore::new(1)) })
}

async fn metrics(State(app): State<App>) -> Response {
    let failed = |why: String| {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("the metrics can't be had: {why}\n")).into_response()
    };
    let Ok(_turn) = app.turn.acquire().await else { return failed("the exporter is stopping".to_owned()) };
    match tokio::task::spawn_blocking(move || (app.render)()).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Ok(Err(why)) => failed(why),
        Err(error) => failed(error.to_string()),
    }
}

const INDEX: &str = concat!(
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>httpmon</title></head>\n<body>\n",
    "<h1>httpmon ",
    env!("CARGO_PKG_VERSION"),
    "</h1>\n<p>HTTP metrics of running services, from eBPF probes.</p>\n<ul>\n",
    "<li><a href=\"/metrics\">/metrics</a>: for Prometheus</li>\n",
    "<li><a href=\"/healthz\">/healthz</a>: answers while the agent runs</li>\n",
    "</ul>\n</body>\n</html>\n"
);

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use super::*;

    /// Runs an exporter for as long as `with` takes.
    fn exporter(with: impl FnOnce(SocketAddr) + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(serve(listener, Arc::new(|| Ok("up 1\n".to_owned()))));
            tokio::task::spawn_blocking(move || with(address)).await.unwrap();
            server.abort();
        });
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(address: SocketAddr, path: &str) -> String {
        ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"))
    }

    #[test]
    fn pages_are_what_they_should_be() {
        exporter(|address| {
            let metrics = get(address, "/metrics");
            assert!(
                metrics.contains("text/plain; version=0.0.4") && metrics.ends_with("up 1\n"),
                "{metrics}"
            );
            assert!(get(address, "/healthz").ends_with("ok\n"));
            assert!(get(address, "/").contains("text/html"));
            assert!(get(address, "/nowhere").starts_with("HTTP/1.1 404"));
            let post = ask(
                address,
                "POST /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            );
            assert!(post.starts_with("HTTP/1.1 405"), "{post}");
        });
    }

    #[test]
    fn a_head_without_end_is_refused() {
        exporter(|address| {
            let answer = ask(address, &format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(LONGEST_HEAD)));
            assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        });
    }

    #[test]
    fn clients_that_stand_still_leave_room_for_others() {
        exporter(|address| {
            let _silent: Vec<_> =
                (0..MOST_CONNECTIONS - 1).map(|_| TcpStream::connect(address).unwrap()).collect();
            assert!(get(address, "/metrics").ends_with("up 1\n"));
        });
    }

    #[test]
    fn a_taken_port_says_what_to_do() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let message = runtime.block_on(listen(address)).unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("--listen {address}")) && message.contains("ss -ltnp"),
            "{message}"
        );
    }
}
