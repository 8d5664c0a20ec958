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
use tokio_rustls::{
    client::TlsStream,
    rustls::{ClientConnection, StreamOwned},
};

use crate::tls::{secure, secure_waiting};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TCP.
    Tcp(SocketAddr),
    /// TLS over TCP.
    Tls(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
    /// A unix socket of this abstract name.
    Abstract(String),
}

impl Target {
    /// The TCP address.
    pub fn address(&self) -> SocketAddr {
        match self {
            Self::Tcp(address) | Self::Tls(address) => *address,
            other => panic!("{other:?} is no TCP address"),
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

/// Adds counts to others, key by key.
pub fn add<K: Ord>(all: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (key, count) in more {
        *all.entry(key).or_default() += count;
    }
}

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
        add(&mut self.answered, other.answered);
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
    /// Sends some, one after the other.
    pub fn send_all<'a>(loads: impl IntoIterator<Item = Load<'a>>) -> Outcome {
        let mut all = Outcome::default();
        loads.into_iter().for_each(|load| all.add(load.send()));
        all
    }

    /// Sends them all, and then as many again, so many on one connection.
    pub fn send_and_again(&self, per_connection: usize) -> Outcome {
        Self::send_all([self.clone(), Load { per_connection, ..self.clone() }])
    }

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
    let deadline = Instant::now() + crate::patience();
    loop {
        let connected = match target {
            Target::Tcp(address) => match connect_tcp(address).await {
                Ok(stream) => shake(stream).await,
                Err(error) => Err(error.to_string()),
            },
            Target::Tls(address) => match connect_tls(address).await {
                Ok(stream) => shake(stream).await,
                Err(error) => Err(error.to_string()),
            },
            Target::Unix(_) | Target::Abstract(_) => match connect_unix(target).and_then(nonblocking) {
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

/// Connects as clients do: small pieces go out at once, rather than when the one before is acknowledged.
pub(crate) async fn connect_tcp(address: &SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn connect_tls(address: &SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    secure(connect_tcp(address).await?, &["http/1.1"]).await
}

fn connect_unix(target: &Target) -> std::io::Result<std::os::unix::net::UnixStream> {
    use std::os::{linux::net::SocketAddrExt as _, unix::net};
    let address = match target {
        Target::Unix(path) => net::SocketAddr::from_pathname(path)?,
        Target::Abstract(name) => net::SocketAddr::from_abstract_name(name)?,
        Target::Tcp(address) | Target::Tls(address) => panic!("{address} is no unix socket"),
    };
    net::UnixStream::connect_addr(&address)
}

fn nonblocking(stream: std::os::unix::net::UnixStream) -> std::io::Result<UnixStream> {
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
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

/// A connection that stays open, for one request after the other.
#[derive(Debug)]
pub struct Lasting {
    runtime: tokio::runtime::Runtime,
    sender: std::cell::RefCell<SendRequest<Full<Bytes>>>,
}

impl Lasting {
    /// Connects.
    pub fn open(target: &Target) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let sender = runtime.block_on(connect(target)).into();
        Self { runtime, sender }
    }

    /// Asks without a body; the status of the answer.
    pub fn ask(&self, method: &'static str, path: &'static str) -> u16 {
        let ask = Ask { method, path, route: path, body: 0 };
        let mut sender = self.sender.borrow_mut();
        let answered = self.runtime.block_on(async {
            sender.ready().await?;
            exchange(&mut sender, ask, 0, false).await
        });
        answered.expect("the server answers").0
    }
}

/// One connection, on which a test says every byte itself.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Tcp(std::net::TcpStream),
    Tls(Box<StreamOwned<ClientConnection, std::net::TcpStream>>),
    Unix(std::os::unix::net::UnixStream),
}

/// A response as its bytes came.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status line's code.
    pub status: u16,
    /// The body's length.
    pub body: usize,
    /// When the first byte came.
    pub first: Instant,
    /// When the last byte came.
    pub last: Instant,
}

impl Connection {
    /// Connects.
    pub fn open(target: &Target) -> Self {
        let patience = Some(crate::patience());
        let stream = match target {
            Target::Tcp(address) | Target::Tls(address) => {
                let stream = std::net::TcpStream::connect(address).expect("the server listens");
                stream.set_nodelay(true).expect("an option can be set");
                stream.set_read_timeout(patience).expect("a timeout can be set");
                if matches!(target, Target::Tls(_)) {
                    let stream = secure_waiting(stream, &["http/1.1"]).expect("the server speaks TLS");
                    Stream::Tls(Box::new(stream))
                } else {
                    Stream::Tcp(stream)
                }
            }
            Target::Unix(_) | Target::Abstract(_) => {
                let stream = connect_unix(target).expect("the server listens");
                stream.set_read_timeout(patience).expect("a timeout can be set");
                Stream::Unix(stream)
            }
        };
        Self { stream }
    }

    /// How long a read may take.
    pub fn patience(&self, time: Duration) {
        match &self.stream {
            Stream::Tcp(stream) => stream.set_read_timeout(Some(time)),
            Stream::Tls(stream) => stream.sock.set_read_timeout(Some(time)),
            Stream::Unix(stream) => stream.set_read_timeout(Some(time)),
        }
        .expect("a timeout can be set");
    }

    /// Sends bytes; whether the server took them.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        use std::io::Write as _;
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
        .is_ok()
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes), "the server doesn't read");
    }

    /// Sends a request without a body.
    pub fn ask(&mut self, method: &str, path: &str) {
        self.send(format!("{method} {path} HTTP/1.1\r\nhost: test\r\n\r\n").as_bytes());
    }

    /// Ends the sending direction.
    pub fn end(&mut self) {
        let ended = match &mut self.stream {
            Stream::Tcp(stream) => stream.shutdown(std::net::Shutdown::Write),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.conn.complete_io(&mut stream.sock).map(drop)
            }
            Stream::Unix(stream) => stream.shutdown(std::net::Shutdown::Write),
        };
        // The server may have closed already.
        let _ = ended;
    }

    /// What comes next, up to so many bytes; none at the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        use std::io::Read as _;
        match &mut self.stream {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
        }
        // A reset is an end as well.
        .unwrap_or(0)
    }

    /// Reads one response to a request that wasn't `HEAD`, after `pause` seconds of not reading once its first byte came.
    pub fn response(&mut self, pause: Duration) -> Response {
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; 1 << 18]);
        let mut first = None;
        loop {
            let read = self.read(&mut buffer);
            let now = Instant::now();
            assert!(read > 0, "the response ended early: {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&buffer[..read]);
            if first.is_none() {
                first = Some(now);
                std::thread::sleep(pause);
            }
            if let (Some((status, body)), Some(first)) = (whole_response(&bytes), first) {
                return Response { status, body, first, last: now };
            }
        }
    }
}

/// Status and body length, if the response is whole.
fn whole_response(bytes: &[u8]) -> Option<(u16, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = &bytes[end..];
    let length =
        head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
    match length {
        Some(length) => (body.len() >= length).then_some((status, length)),
        None if head.contains("transfer-encoding: chunked") => {
            body.ends_with(b"0\r\n\r\n").then_some((status, body.len()))
        }
        None => Some((status, 0)),
    }
}
