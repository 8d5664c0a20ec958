//! What the hyper servers answer: every path, with a length, or in chunks without one.

use std::convert::Infallible;

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

async fn answer(request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let bare = request.method() == Method::HEAD;
    let read = request.into_body().collect().await?.to_bytes().len();
    let mut status = StatusCode::OK;
    if path == "/missing" {
        status = StatusCode::NOT_FOUND;
    } else if path == "/boom" {
        status = StatusCode::INTERNAL_SERVER_ERROR;
    }
    let body = if bare {
        Full::default().boxed()
    } else if path.starts_with("/chunked") {
        Chunks(vec!["two\n", "one "]).boxed()
    } else if path.starts_with("/empty") {
        status = StatusCode::NO_CONTENT;
        Full::default().boxed()
    } else if let Some(len) = path.strip_prefix("/large/").and_then(|len| len.parse().ok()) {
        Full::from(vec![b'x'; len]).boxed()
    } else {
        Full::from(format!("read {read} bytes\n")).boxed()
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    Ok(response)
}

/// A body whose length isn't known before.
struct Chunks(Vec<&'static str>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::Poll::Ready(self.0.pop().map(|chunk| Ok(Frame::data(Bytes::from(chunk)))))
    }
}

/// Serves a connection, of HTTP/2 where that is said.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, second: bool) {
    let (stream, service) = (TokioIo::new(stream), service_fn(answer));
    // How a connection ends is the client's matter.
    let _ = if second {
        http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
    } else {
        let mut builder = http1::Builder::new();
        builder.half_close(true).pipeline_flush(true).serve_connection(stream, service).await
    };
}
