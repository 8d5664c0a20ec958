//! A client of HTTP/2 by prior knowledge that knows exactly what it sent and got.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::runtime::Runtime;

use crate::{
    client::{Tally, Target, add, connect_tcp},
    tls::secure,
};

/// What is asked for: method, path, and the body's length.
pub type Ask = (&'static str, &'static str, usize);

/// Every path that the servers know, with short bodies.
pub const MIX: [Ask; 8] = [
    ("GET", "/echo", 0),
    ("POST", "/echo", 30),
    ("GET", "/chunked", 0),
    ("GET", "/missing", 0),
    ("PUT", "/echo", 100),
    ("GET", "/boom", 0),
    ("HEAD", "/echo", 0),
    ("DELETE", "/empty", 0),
];

/// A connection that stays open.
#[derive(Debug)]
pub struct Connection {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
}

/// What a load came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Whole responses by method, path and status.
    pub answered: Tally,
    /// Octets of all bodies: of requests, of responses.
    pub bodies: (u64, u64),
}

impl Connection {
    /// Connects, by prior knowledge in clear text, or by ALPN over TLS.
    pub fn open(target: &Target) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let sender = runtime.block_on(async {
            let stream = connect_tcp(&target.address()).await.expect("the server listens");
            match target {
                Target::Tls(_) => shake(secure(stream, &["h2"]).await.expect("the server speaks TLS")).await,
                _ => shake(stream).await,
            }
        });
        Self { runtime, sender }
    }

    /// Asks so often in all, for each in turn, on so many streams at once.
    pub fn send(&self, asks: &[Ask], requests: usize, streams: usize) -> Outcome {
        let next = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..streams)
            .map(|_| {
                let (sender, asks, next) = (self.sender.clone(), asks.to_vec(), Arc::clone(&next));
                self.runtime.spawn(async move {
                    let mut outcome = Outcome::default();
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= requests {
                            return outcome;
                        }
                        exchange(sender.clone(), asks[number % asks.len()], &mut outcome).await;
                    }
                })
            })
            .collect();
        let mut all = Outcome::default();
        for task in tasks {
            let outcome = self.runtime.block_on(task).expect("a client ends in order");
            add(&mut all.answered, outcome.answered);
            all.bodies.0 += outcome.bodies.0;
            all.bodies.1 += outcome.bodies.1;
        }
        all
    }

    /// Asks, and takes it back before it is answered.
    pub fn cancel(&self, path: &'static str, meanwhile: impl FnOnce()) {
        let mut sender = self.sender.clone();
        let task = self.runtime.spawn(async move {
            let request = Request::get(format!("http://test{path}")).body(Full::default());
            let _ = sender.send_request(request.expect("a request can be made")).await;
        });
        meanwhile();
        task.abort();
    }
}

async fn shake<S>(stream: S) -> SendRequest<Full<Bytes>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = shaken.expect("the server speaks HTTP/2");
    tokio::spawn(connection);
    sender
}

async fn exchange(mut sender: SendRequest<Full<Bytes>>, (method, path, body): Ask, outcome: &mut Outcome) {
    let request = Request::builder().method(method).uri(format!("http://test{path}"));
    let request = request.body(Full::new(Bytes::from(vec![b'G'; body]))).expect("a request can be made");
    sender.ready().await.expect("the connection is open");
    let response = sender.send_request(request).await.expect("the server answers");
    let status = response.status().as_u16();
    let answer = response.into_body().collect().await.expect("the answer is whole").to_bytes();
    *outcome.answered.entry((method.to_owned(), path.to_owned(), status)).or_default() += 1;
    outcome.bodies.0 += body as u64;
    outcome.bodies.1 += answer.len() as u64;
}
