//! A hyper server over rustls, with either of its usual providers of ciphers: `ADDRESS 1|2 CERTIFICATE KEY ring|aws-lc [1.2]`.

#[path = "../hyper/service.rs"]
mod service;

use std::{net::SocketAddr, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::{aws_lc_rs, ring},
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    },
};

/// What rustls needs to be the server of this certificate, in this version of TLS alone where one is given.
fn acceptor(
    protocol: &str,
    certificate: &str,
    key: &str,
    ciphers: &str,
    version: Option<&str>,
) -> TlsAcceptor {
    let provider = if ciphers == "ring" { ring::default_provider() } else { aws_lc_rs::default_provider() };
    let versions = match version {
        Some("1.2") => vec![&rustls::version::TLS12],
        _ => rustls::ALL_VERSIONS.to_vec(),
    };
    let certificates = CertificateDer::pem_file_iter(certificate).expect("a certificate").flatten().collect();
    let mut config = ServerConfig::builder_with_provider(provider.into())
        .with_protocol_versions(&versions)
        .expect("the provider has what the versions need")
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file(key).expect("a key"))
        .expect("the key is the certificate's");
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, http, certificate, key, ciphers, version @ ..] = &arguments[..] else {
        panic!("not so many arguments")
    };
    let address: SocketAddr = address.parse().expect("an address");
    let second = http == "2";
    let protocol = if second { "h2" } else { "http/1.1" };
    let version = version.first().map(String::as_str);
    let tls = acceptor(protocol, certificate, key, ciphers, version);
    let listener = tokio::net::TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let accepted = tls.accept(stream);
        tokio::spawn(async move {
            if let Ok(stream) = accepted.await {
                service::serve(stream, second).await;
            }
        });
    }
}
