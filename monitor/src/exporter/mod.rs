//! Serves the metrics over HTTP.
//!
//! In: a [`Source`] of them. Whatever clients do, they hold no more than their connection: the number of
//! connections, the size of heads and the time that a peer may stand still are limited, and one scrape at a time is
//! rendered, beside the event path.
//!
//! The thread that it runs on needs nothing but its connections: what takes files or processes it has done [`Elsewhere`].

mod address;
mod connections;
mod format;
mod web;

use std::{
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
    middleware::from_fn_with_state,
    response::{Html, IntoResponse, Response},
    routing::get,
};
use http_body::Frame;
use hyper::service::{Service as _, service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use nix::sys::resource::{Resource, getrlimit};
use prometheus::proto::MetricFamily;
use serde::Deserialize;
use tokio::{
    runtime::Handle,
    sync::Semaphore,
    task::{JoinError, JoinSet, spawn_blocking},
    time::timeout,
};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tower_http::{CompressionLevel, compression::CompressionLayer};

use self::{
    address::Io,
    connections::{Connections, Seat},
    web::{Loaded, guard},
};
pub use self::{
    address::{Address, ListenError, Listener, listen},
    format::{Format, Pieces},
    web::{Web, WebError},
};
use crate::{
    metrics::{Exemplar, Gathered},
    summary::Summary,
};

/// How many connections are served at once; others wait in the listen backlog, until one that is idle gives way.
const MOST_CONNECTIONS: usize = 64;
/// How many files the agent may have open for a moment, as it looks at processes, and of the configuration.
const LOOKS: usize = 16;
/// The longest request head that is read.
const LONGEST_HEAD: usize = 16 << 10;
/// How long a TLS handshake may take.
const LONGEST_HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a request's head may take from the end of the request before it, or the connection's beginning. Longer than
/// usual scrape intervals.
const LONGEST_WAIT: Duration = Duration::from_secs(90);
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

/// An event loop whose threads may look at files and processes.
#[derive(Clone, Debug)]
pub struct Elsewhere(Handle);

impl Elsewhere {
    /// The one that this is called on.
    #[must_use]
    pub fn here() -> Self {
        Self(Handle::current())
    }

    /// Has it done there. Threads may do what the one may that starts them: that is left to the event loop's own.
    async fn run<T: Send + 'static>(
        &self,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        self.0.spawn(async { spawn_blocking(what).await }).await.and_then(|done| done)
    }
}

/// `--web-config`, where it can be looked at again.
#[derive(Clone)]
struct Following {
    web: Arc<Web>,
    elsewhere: Elsewhere,
}

impl Following {
    /// What it says now.
    async fn now(&self) -> Arc<Loaded> {
        let web = Arc::clone(&self.web);
        // Where it can't be looked at any more, nobody is about to be answered.
        self.elsewhere.run(move || web.now()).await.unwrap_or_else(|_| self.web.before())
    }
}

/// Serves so many connections at once, until it is dropped.
pub async fn serve(
    listeners: Vec<Listener>,
    web: Option<Arc<Web>>,
    source: Arc<dyn Source>,
    elsewhere: Elsewhere,
    places: usize,
) {
    let connections = Connections::new(places);
    let following = web.map(|web| Following { web, elsewhere: elsewhere.clone() });
    let mut app = router(source, elsewhere);
    if let Some(following) = &following {
        app = app.layer(from_fn_with_state(following.clone(), guard));
    }
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, Arc::clone(&connections), following.clone(), app.clone()));
    }
    // None of them ends.
    while accepting.join_next().await.is_some() {}
}

/// How many connections there is room for: fewer where the limit of open files leaves no more, so that the agent can still
/// look at processes.
#[must_use]
pub fn places() -> usize {
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return MOST_CONNECTIONS };
    let places = places_of(limit, open);
    if places < MOST_CONNECTIONS {
        let enough = open + LOOKS + MOST_CONNECTIONS;
        tracing::warn!(
            "the limit of {limit} open files leaves room for {places} of {MOST_CONNECTIONS} connections to the exporter: \
             raise it to {enough} or more (`ulimit -n`, or LimitNOFILE= of the systemd unit)"
        );
    }
    places
}

/// The same, with so many files open of so many.
fn places_of(limit: u64, open: usize) -> usize {
    let left = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(open + LOOKS);
    left.clamp(1, MOST_CONNECTIONS)
}

async fn accept(
    listener: Listener,
    connections: Arc<Connections>,
    following: Option<Following>,
    app: Router,
) {
    let mut open = JoinSet::new();
    let mut fails = false;
    loop {
        let seat = connections.seat().await;
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                if !fails {
                    tracing::warn!(
                        "the exporter can't take a connection: {error}; it tries again until it can (said once)"
                    );
                }
                fails = true;
                // Out of file descriptors, most likely; they come back when others close.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if std::mem::take(&mut fails) {
            tracing::info!("the exporter takes connections again");
        }
        seat.waits();
        let number = seat.number();
        let tls = match &following {
            Some(following) => following.now().await.tls.clone(),
            None => None,
        };
        let task = open.spawn(converse(stream, tls, app.clone(), seat));
        connections.runs(number, task);
        while open.try_join_next().is_some() {}
    }
}

/// Answers on a connection, until it ends.
async fn converse(stream: Box<dyn Io>, tls: Option<Arc<ServerConfig>>, app: Router, seat: Seat) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(LONGEST_STALL));
    let stream = Box::pin(stream);
    let stream: Box<dyn Io> = match tls {
        None => Box::new(stream),
        Some(tls) => match timeout(LONGEST_HANDSHAKE, TlsAcceptor::from(tls).accept(stream)).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => return tracing::debug!("no TLS with a client of the exporter: {error}"),
            Err(_) => return tracing::debug!("a client of the exporter is too slow for TLS"),
        },
    };
    let app = TowerToHyperService::new(app);
    let seat = &seat;
    let answer = service_fn(|request| {
        seat.is_answered();
        let answer = app.call(request);
        async move {
            let answer = answer.await;
            seat.waits();
            answer
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(LONGEST_WAIT)
        .max_buf_size(LONGEST_HEAD)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answer);
    if let Err(error) = connection.await {
        tracing::debug!("a connection to the exporter ended: {error}");
    }
}

#[derive(Clone)]
struct App {
    source: Arc<dyn Source>,
    elsewhere: Elsewhere,
    /// One answer at a time is made.
    turn: Arc<Semaphore>,
}

fn router(source: Arc<dyn Source>, elsewhere: Elsewhere) -> Router {
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
        // With the least effort a fortieth is left, since lines say nearly the same.
        .layer(CompressionLayer::new().gzip(true).quality(CompressionLevel::Fastest))
        .with_state(App { source, elsewhere, turn: Arc::new(Semaphore::new(1)) })
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
        match self.elsewhere.run(move || make(&*self.source)).await {
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
        net::{SocketAddr, TcpStream},
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
            let listeners = listen(&Address::Tcp(([127, 0, 0, 1], 0).into())).unwrap();
            let Some(Address::Tcp(address)) = listeners[0].address() else { panic!("{listeners:?}") };
            let server =
                tokio::spawn(serve(listeners, None, Arc::new(One), Elsewhere::here(), MOST_CONNECTIONS));
            tokio::task::spawn_blocking(move || with(address)).await.unwrap();
            server.abort();
        });
    }

    fn octets(address: SocketAddr, request: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    fn ask(address: SocketAddr, request: &str) -> String {
        String::from_utf8(octets(address, request)).unwrap()
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
    fn who_takes_gzip_is_answered_the_same_in_it() {
        exporter(|address| {
            // By HTTP/1.0 without chunks.
            let ask = |path: &str, accepted: &str| {
                let request = format!("GET {path} HTTP/1.0\r\naccept-encoding: {accepted}\r\n\r\n");
                let answer = octets(address, &request);
                let head = memchr::memmem::find(&answer, b"\r\n\r\n").unwrap() + 4;
                let body = answer[head..].to_vec();
                (String::from_utf8(answer[..head].to_vec()).unwrap().to_lowercase(), body)
            };
            for path in ["/metrics", "/metrics/flask?service=web", "/", "/api/summary"] {
                let (plain, text) = ask(path, "gzip;q=0, identity");
                assert!(!plain.contains("content-encoding"), "{plain}");
                let (packed, octets) = ask(path, "deflate, gzip;q=0.5");
                assert!(packed.contains("\r\ncontent-encoding: gzip\r\n"), "{path}: {packed}");
                assert!(packed.contains("\r\nvary: accept-encoding\r\n"), "{path}: {packed}");
                let mut unpacked = Vec::new();
                flate2::read::GzDecoder::new(&octets[..]).read_to_end(&mut unpacked).unwrap();
                assert_eq!(unpacked, text, "{path}");
            }
        });
    }

    #[test]
    fn few_files_are_shared_with_who_looks_at_processes() {
        let places = [(1024, 41), (121, 41), (100, 41), (58, 41), (57, 41), (40, 41), (u64::MAX, 41)]
            .map(|(limit, open)| places_of(limit, open));
        assert_eq!(places, [64, 64, 43, 1, 1, 1, 64]);
    }

    #[test]
    fn a_head_without_end_is_refused() {
        exporter(|address| {
            let answer = ask(address, &format!("GET / HTTP/1.1\r\nx: {}", "a".repeat(LONGEST_HEAD)));
            assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        });
    }

    #[test]
    fn clients_that_stand_still_give_way_to_others() {
        exporter(|address| {
            let _silent: Vec<_> =
                (0..MOST_CONNECTIONS * 2).map(|_| TcpStream::connect(address).unwrap()).collect();
            assert!(get(address, "/metrics").contains("\nup_total 1\n"));
        });
    }
}
