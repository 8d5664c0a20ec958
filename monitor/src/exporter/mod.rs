//! Serves the metrics over HTTP.
//!
//! In: a [`Source`] of them. Whatever clients do, they hold no more than their connection: the number of
//! connections, the size of heads and the time that a peer may stand still are limited, and one scrape at a time is
//! rendered, beside the event path.

mod format;

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http_body::Frame;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use prometheus::proto::MetricFamily;
use serde::Deserialize;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_io_timeout::TimeoutStream;

pub use self::format::{Format, Pieces};
use crate::{
    metrics::{Exemplar, Gathered},
    summary::Summary,
};

/// How many connections are served at once; others wait in the listen backlog.
const MOST_CONNECTIONS: usize = 64;
/// The longest request head that is read.
const LONGEST_HEAD: usize = 16 << 10;
/// How long a connection may idle between requests. Longer than usual scrape intervals.
const LONGEST_IDLE: Duration = Duration::from_secs(120);
/// How long a reader may stand still.
const LONGEST_STALL: Duration = Duration::from_secs(20);

/// How many of the last requests are told where it isn't said.
const SOME_REQUESTS: usize = 100;

/// The page for people.
const PAGE: &str = include_str!("page.html");
/// What the page may do: nothing but ask its own server.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:";

/// Where the exporter has it from, as it is now; may take a while.
pub trait Source: Send + Sync {
    /// All metrics.
    fn metrics(&self) -> Gathered;
    /// The last request of a trace in each of the histograms, with times since the Unix epoch.
    fn exemplars(&self) -> Vec<Exemplar> {
        Vec::new()
    }
    /// What the in-process exporter for Flask would have told of a service.
    fn flask(&self, service: Option<&str>) -> Result<Vec<MetricFamily>, NoFlask>;
    /// What people look at.
    fn summary(&self) -> Summary;
    /// The last requests that ended, the latest first, each as a JSON object.
    fn requests(&self, most: usize) -> Vec<serde_json::Value>;
}

/// Why there are no metrics of a service for Flask's dashboards.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoFlask {
    /// They aren't kept.
    #[error("these metrics aren't kept: start httpmon with --metrics otel,flask")]
    Off,
    /// It isn't said which service.
    #[error("say which service: /metrics/flask?service=NAME; there are: {}", list(.0))]
    Which(Vec<String>),
    /// There is none of that name.
    #[error("there is no service {name:?}; there are: {}", list(.services))]
    Unknown {
        /// As asked for.
        name: String,
        /// Those that there are.
        services: Vec<String>,
    },
}

fn list(services: &[String]) -> String {
    if services.is_empty() { "none yet".to_owned() } else { services.join(", ") }
}

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
pub async fn serve(listener: TcpListener, source: Arc<dyn Source>) {
    let app = router(source);
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
    source: Arc<dyn Source>,
    /// One answer at a time is made.
    turn: Arc<Semaphore>,
}

fn router(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/metrics/flask", get(flask))
        .route("/api/summary", get(summary))
        .route("/api/requests", get(requests))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async {
            let there = "not found; there are /, /metrics, /metrics/flask, /api/summary, /api/requests and /healthz\n";
            (StatusCode::NOT_FOUND, there)
        })
        .with_state(App { source, turn: Arc::new(Semaphore::new(1)) })
}

impl App {
    /// Makes an answer, beside the event loop.
    async fn answer<T: IntoResponse + Send + 'static>(
        self,
        make: impl FnOnce(&dyn Source) -> Result<T, (StatusCode, String)> + Send + 'static,
    ) -> Response {
        // The semaphore is never closed.
        let Ok(_turn) = self.turn.acquire().await else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        match tokio::task::spawn_blocking(move || make(&*self.source)).await {
            Ok(Ok(answer)) => answer.into_response(),
            Ok(Err((status, why))) => (status, why + "\n").into_response(),
            Err(error) => {
                (StatusCode::INTERNAL_SERVER_ERROR, format!("it can't be told: {error}\n")).into_response()
            }
        }
    }
}

async fn page() -> Response {
    ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(PAGE)).into_response()
}

async fn metrics(State(app): State<App>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = Format::accepted(accept);
    app.answer(move |source| {
        let pieces = format.write(source.metrics());
        let exemplars = if format == Format::OpenMetrics { source.exemplars() } else { Vec::new() };
        let pieces = Body::new(Pieced(pieces.with(&exemplars)));
        Ok(([(header::CONTENT_TYPE, format.content_type())], pieces))
    })
    .await
}

/// A body that is written as its reader takes it.
struct Pieced(Pieces);

impl HttpBody for Pieced {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        Poll::Ready(self.0.next().map(|piece| piece.map(|text| Frame::data(text.into()))))
    }
}

#[derive(Deserialize)]
struct OfService {
    service: Option<String>,
}

async fn flask(State(app): State<App>, Query(OfService { service }): Query<OfService>) -> Response {
    app.answer(move |source| {
        let families = source.flask(service.as_deref()).map_err(|error| {
            let status = match error {
                NoFlask::Which(_) => StatusCode::BAD_REQUEST,
                NoFlask::Off | NoFlask::Unknown { .. } => StatusCode::NOT_FOUND,
            };
            (status, error.to_string())
        })?;
        let text = Format::Text.encode(&families).map_err(internal)?;
        Ok(([(header::CONTENT_TYPE, Format::Text.content_type())], format::floats(&text)))
    })
    .await
}

async fn summary(State(app): State<App>) -> Response {
    app.answer(|source| json(&source.summary())).await
}

#[derive(Deserialize)]
struct HowMany {
    n: Option<usize>,
}

async fn requests(State(app): State<App>, Query(HowMany { n }): Query<HowMany>) -> Response {
    app.answer(move |source| json(&source.requests(n.unwrap_or(SOME_REQUESTS)))).await
}

fn json<T: serde::Serialize>(value: &T) -> Result<impl IntoResponse + use<T>, (StatusCode, String)> {
    let text = serde_json::to_string(value).map_err(|error| internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text))
}

fn internal(why: String) -> (StatusCode, String) {
    (StatusCode::INTERNAL_SERVER_ERROR, why)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::TcpStream,
    };

    use super::*;

    /// A source with one request of one service.
    struct One;

    fn families() -> Vec<MetricFamily> {
        use prometheus::core::Collector as _;
        let up = prometheus::IntCounter::new("up_total", "Up.").unwrap();
        up.inc();
        up.collect()
    }

    impl Source for One {
        fn metrics(&self) -> Gathered {
            Gathered { families: families(), ..Gathered::default() }
        }
        fn flask(&self, service: Option<&str>) -> Result<Vec<MetricFamily>, NoFlask> {
            let services = vec!["web".to_owned()];
            match service {
                Some("web") => Ok(families()),
                Some(name) => Err(NoFlask::Unknown { name: name.to_owned(), services }),
                None => Err(NoFlask::Which(services)),
            }
        }
        fn summary(&self) -> Summary {
            Summary::new(&families(), 1.5)
        }
        fn requests(&self, most: usize) -> Vec<serde_json::Value> {
            vec![serde_json::json!({"url.path": "/"}); most.min(2)]
        }
    }

    /// Runs an exporter for as long as `with` takes.
    fn exporter(with: impl FnOnce(SocketAddr) + Send + 'static) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = listen(([127, 0, 0, 1], 0).into()).await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(serve(listener, Arc::new(One)));
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
                metrics.contains("text/plain; version=0.0.4") && metrics.contains("\nup_total 1\n"),
                "{metrics}"
            );
            assert!(get(address, "/healthz").ends_with("ok\n"));
            assert!(get(address, "/").contains("text/html"));
            assert!(get(address, "/api/summary").contains("\"time\":1.5"));
            assert!(get(address, "/api/requests?n=1").ends_with("[{\"url.path\":\"/\"}]"));
            assert!(get(address, "/api/requests?n=x").starts_with("HTTP/1.1 400"));
            assert!(get(address, "/metrics/flask?service=web").ends_with("up_total 1\n"));
            assert!(get(address, "/metrics/flask?service=x").contains("there are: web"));
            assert!(get(address, "/metrics/flask").starts_with("HTTP/1.1 400"));
            let accept = "accept: application/openmetrics-text\r\nconnection: close\r\n\r\n";
            let open = ask(address, &format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{accept}"));
            assert!(open.contains("\nup_total 1\n") && open.contains("# EOF\n"), "{open}");
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
            assert!(get(address, "/metrics").contains("\nup_total 1\n"));
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
