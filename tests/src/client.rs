//! Clients that know exactly what they sent and got.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl Target {
    /// The TCP address.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Tcp(address) => *address,
            Self::Unix(path) => panic!("{} is no TCP address", path.display()),
        }
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    /// The method.
    pub method: &'static str,
    /// The path; `#` stands for a number that changes.
    pub path: &'static str,
    /// What the agent should call it.
    pub route: &'static str,
    /// The body's length.
    pub body: usize,
}

/// Routes, methods and statuses of the test application: 200, 201, 204, 301, 404, 500.
pub const MIX: [Ask; 9] = [
    Ask { method: "GET", path: "/items/#", route: "/items/{id}", body: 0 },
    Ask { method: "POST", path: "/items", route: "/items", body: 300 },
    Ask { method: "PUT", path: "/items/#", route: "/items/{id}", body: 20_000 },
    Ask { method: "DELETE", path: "/items/#", route: "/items/{id}", body: 0 },
    Ask { method: "GET", path: "/old?from=#", route: "/old", body: 0 },
    Ask { method: "GET", path: "/nothing", route: "/nothing", body: 0 },
    Ask { method: "GET", path: "/boom", route: "/boom", body: 0 },
    Ask { method: "HEAD", path: "/items/#", route: "/items/{id}", body: 0 },
    Ask { method: "OPTIONS", path: "/items", route: "/items", body: 0 },
];

/// Responses by method, route and status.
pub type Tally = BTreeMap<(String, String, u16), u64>;

/// What a load came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Whole responses.
    pub answered: Tally,
    /// Requests without a whole response.
    pub failed: u64,
    /// Seconds from before the request was sent to the first, and to the last byte of its response.
    pub times: Vec<(f64, f64)>,
}

impl Outcome {
    /// How many whole responses there were.
    pub fn total(&self) -> u64 {
        self.answered.values().sum()
    }

    fn add(&mut self, other: Self) {
        for (key, count) in other.answered {
            *self.answered.entry(key).or_default() += count;
        }
        self.failed += other.failed;
        self.times.extend(other.times);
    }
}

/// A load.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// Where to.
    pub target: &'a Target,
    /// What, in turn.
    pub asks: &'a [Ask],
    /// How many in all.
    pub requests: usize,
    /// How many at once.
    pub clients: usize,
    /// How many on one connection, unless the server closes it before.
    pub per_connection: usize,
}

impl Load<'_> {
    /// Sends them all.
    pub fn send(&self) -> Outcome {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime can be made").block_on(self.run())
    }

    async fn run(&self) -> Outcome {
        let next = Arc::new(AtomicUsize::new(0));
        let clients: Vec<_> = (0..self.clients)
            .map(|_| {
                let client = Client {
                    target: self.target.clone(),
                    asks: self.asks.to_vec(),
                    requests: self.requests,
                    per_connection: self.per_connection,
                    next: Arc::clone(&next),
                };
                tokio::spawn(client.run())
            })
            .collect();
        let mut outcome = Outcome::default();
        for client in clients {
            outcome.add(client.await.expect("a client ends in order"));
        }
        outcome
    }
}

struct Client {
    target: Target,
    asks: Vec<Ask>,
    requests: usize,
    per_connection: usize,
    next: Arc<AtomicUsize>,
}

impl Client {
    async fn run(self) -> Outcome {
        let mut outcome = Outcome::default();
        let mut connection: Option<(SendRequest<Full<Bytes>>, usize)> = None;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.requests {
                return outcome;
            }
            let ask = self.asks[number % self.asks.len()];
            let (mut sender, used) = match connection.take() {
                Some(open) => open,
                None => (connect(&self.target).await, 0),
            };
            let last = used + 1 >= self.per_connection;
            let begun = Instant::now();
            match exchange(&mut sender, ask, number, last).await {
                Ok((status, closes, first)) => {
                    let key = (ask.method.to_owned(), ask.route.to_owned(), status);
                    *outcome.answered.entry(key).or_default() += 1;
                    outcome
                        .times
                        .push((first.duration_since(begun).as_secs_f64(), begun.elapsed().as_secs_f64()));
                    if !last && !closes {
                        connection = Some((sender, used + 1));
                    }
                }
                Err(_) => outcome.failed += 1,
            }
        }
    }
}

async fn exchange(
    sender: &mut SendRequest<Full<Bytes>>,
    ask: Ask,
    number: usize,
    last: bool,
) -> Result<(u16, bool, Instant), hyper::Error> {
    let mut request = Request::builder()
        .method(ask.method)
        .uri(ask.path.replace('#', &number.to_string()))
        .header("host", "test");
    if last {
        request = request.header("connection", "close");
    }
    let body = Full::new(Bytes::from(vec![b'G'; ask.body]));
    let response = sender.send_request(request.body(body).expect("a request can be made")).await?;
    let first = Instant::now();
    let closes = response
        .headers()
        .get("connection")
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok((status, closes, first))
}

async fn connect(target: &Target) -> SendRequest<Full<Bytes>> {
    // A full listen backlog refuses on a unix socket, for a while.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let connected = match target {
            Target::Tcp(address) => match TcpStream::connect(address).await {
                Ok(stream) => shake(stream).await,
                Err(error) => Err(error.to_string()),
            },
            Target::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => shake(stream).await,
                Err(error) => Err(error.to_string()),
            },
        };
        match connected {
            Ok(sender) => return sender,
            Err(error) => assert!(Instant::now() < deadline, "can't connect to {target:?}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn shake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}
