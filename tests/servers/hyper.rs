//! A hyper server, of HTTP/2 where `2` is asked for.

#[path = "hyper/service.rs"]
mod service;

use std::net::SocketAddr;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address: SocketAddr = std::env::args().nth(1).and_then(|word| word.parse().ok()).expect("an address");
    let second = std::env::args().nth(2).as_deref() == Some("2");
    let listener = tokio::net::TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(service::serve(stream, second));
    }
}
