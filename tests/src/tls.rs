//! TLS: a certificate for the servers, and how the clients connect.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::ring,
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use crate::{Tools, run};

/// A certificate of its own, for an hour's work.
#[derive(Debug)]
pub struct Certificate {
    folder: tempfile::TempDir,
}

impl Certificate {
    /// Has openssl make one.
    pub fn new(tools: &Tools) -> Result<Self, String> {
        Ok(Self::by(&tools.program("openssl")?))
    }

    /// Has this openssl make one.
    pub fn by(openssl: &Path) -> Self {
        let own = Self { folder: tempfile::tempdir().expect("a directory can be made") };
        let made = run(Command::new(openssl)
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "1",
            ])
            .args(["-subj", "/CN=localhost", "-keyout"])
            .arg(own.key())
            .arg("-out")
            .arg(own.file()));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        own
    }

    /// The certificate's file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("certificate")
    }

    /// Its key's.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key")
    }
}

/// Begins TLS with a server whatever its certificate is, for one of these protocols.
pub(crate) async fn secure(stream: TcpStream, protocols: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    TlsConnector::from(config(protocols)).connect(name(), stream).await
}

/// The same for a client that waits for each byte.
pub(crate) fn secure_waiting(
    mut stream: std::net::TcpStream,
    protocols: &[&str],
) -> std::io::Result<StreamOwned<ClientConnection, std::net::TcpStream>> {
    let mut session = ClientConnection::new(config(protocols), name()).expect("the configuration is whole");
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(session, stream))
}

fn name() -> ServerName<'static> {
    ServerName::try_from("localhost").expect("a name")
}

fn config(protocols: &[&str]) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider has what the versions need")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Takes every server for the right one.
#[derive(Debug)]
struct Anybody(Arc<tokio_rustls::rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
