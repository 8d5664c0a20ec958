//! A hyper server, of HTTP/2 where `2` is asked for, and over rustls where there is a certificate: every path answers, with a
//! length, or in chunks without one.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Bytes, Frame, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

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

async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, second: bool) {
    let (stream, service) = (TokioIo::new(stream), service_fn(answer));
    // How a connection ends is the client's matter.
    let _ = if second {
        http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
    } else {
        let mut builder = http1::Builder::new();
        builder.half_close(true).pipeline_flush(true).serve_connection(stream, service).await
    };
}

/// What rustls needs to be the server of this certificate, in this version of TLS alone where one is given.
fn acceptor(certificate: &str, key: &str, version: Option<&str>, protocol: &str) -> TlsAcceptor {
    let versions = match version {
        Some("1.2") => vec![&rustls::version::TLS12],
        _ => rustls::ALL_VERSIONS.to_vec(),
    };
    let certificates = CertificateDer::pem_file_iter(certificate).expect("a certificate").flatten().collect();
    let mut config = ServerConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_protocol_versions(&versions)
        .expect("the provider has what the versions need")
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file(key).expect("a key"))
        .expect("the key is the certificate's");
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// `ADDRESS [1|2 [CERTIFICATE KEY [1.2]]]`
fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let address: SocketAddr = arguments.first().and_then(|word| word.parse().ok()).expect("an address");
    let second = arguments.get(1) == Some(&"2");
    let protocol = if second { "h2" } else { "http/1.1" };
    let tls = match arguments[..] {
        [_, _, certificate, key, ..] => Some(acceptor(certificate, key, arguments.get(4).copied(), protocol)),
        _ => None,
    };
    // Over TLS, threads take turns with connections.
    let mut runtime = match tls {
        Some(_) => tokio::runtime::Builder::new_multi_thread(),
        None => tokio::runtime::Builder::new_current_thread(),
    };
    runtime.enable_all().build()?.block_on(async {
        let listener = tokio::net::TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let Some(tls) = &tls else {
                tokio::spawn(serve(stream, second));
                continue;
            };
            let accepted = tls.accept(stream);
            tokio::spawn(async move {
                if let Ok(stream) = accepted.await {
                    serve(stream, second).await;
                }
            });
        }
    })
}
