//! From what a file says of TLS to what rustls does.

use std::{path::PathBuf, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme,
    SupportedCipherSuite, SupportedProtocolVersion,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, SupportedKxGroup, WebPkiSupportedAlgorithms, ring},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::{TLS12, TLS13},
};

use super::file::{ClientAuth, Curve, Tls, Version};

/// What is spoken within TLS (RFC 7301).
const PROTOCOL: &[u8] = b"http/1.1";

/// Go's names of the suites of TLS 1.2 that rustls doesn't have: forward secrecy or authenticated encryption is missing.
const OUTDATED: [&str; 8] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
];

/// What rustls is to do, and what of the file it can't.
pub(super) fn server(tls: &Tls) -> Result<(Arc<ServerConfig>, Vec<String>), String> {
    let mut notes = Vec::new();
    let mut provider = ring::default_provider();
    let versions = versions(tls, &mut notes)?;
    suites(tls, &versions, &mut provider.cipher_suites, &mut notes)?;
    curves(tls, &mut provider.kx_groups, &mut notes)?;
    let provider = Arc::new(provider);
    let verifier = verifier(tls, &provider)?;

    let (chain_field, chain) = pem_of("cert", tls.cert.as_deref(), "cert_file", tls.cert_file.as_ref())?;
    let chain = certificates(&chain_field, &chain)?;
    let (key_field, key) = pem_of("key", tls.key.as_deref(), "key_file", tls.key_file.as_ref())?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| match error {
        pem::Error::NoItemsFound => format!("{key_field}: there is no private key in it"),
        error => format!("{key_field}: {error}"),
    })?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .map_err(|error| format!("min_version, max_version and cipher_suites: {error}"))?;
    let mut server = builder
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| format!("{chain_field} and {key_field}: {error}"))?;
    server.alpn_protocols = vec![PROTOCOL.to_vec()];
    server.ignore_client_order = tls.prefer_server_cipher_suites.unwrap_or(true);
    Ok((Arc::new(server), notes))
}

fn versions(tls: &Tls, notes: &mut Vec<String>) -> Result<Vec<&'static SupportedProtocolVersion>, String> {
    let least = tls.min_version.unwrap_or(Version::Tls12);
    let most = tls.max_version.unwrap_or(Version::Tls13);
    if most < Version::Tls12 {
        return Err("max_version: there is no TLS before 1.2 here; TLS12 and TLS13 are accepted".to_owned());
    }
    if least > most {
        return Err("min_version is above max_version".to_owned());
    }
    if least < Version::Tls12 {
        notes.push("min_version: there is no TLS before 1.2 here, so that TLS12 is the least".to_owned());
    }
    let all = [(Version::Tls13, &TLS13), (Version::Tls12, &TLS12)];
    Ok(all
        .iter()
        .filter(|(version, _)| (least..=most).contains(version))
        .map(|(_, version)| *version)
        .collect())
}

/// As in Go, the list is about TLS 1.2 alone; the suites of 1.3 are always there.
fn suites(
    tls: &Tls,
    versions: &[&SupportedProtocolVersion],
    all: &mut Vec<SupportedCipherSuite>,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    if tls.cipher_suites.is_empty() {
        return Ok(());
    }
    // rustls calls those of 1.3 TLS13_X where Go has TLS_X, and knows the ChaCha suites without the hash that Go may add.
    let name = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
    let mut chosen: Vec<SupportedCipherSuite> = Vec::new();
    for wanted in &tls.cipher_suites {
        match all.iter().find(|suite| name(suite) == *wanted) {
            Some(suite) => chosen.push(*suite),
            None if OUTDATED.contains(&&**wanted) => {
                notes.push(format!("cipher_suites: {wanted} is outdated and not offered"));
            }
            None => {
                let names = all.iter().map(name).collect::<Vec<_>>().join(", ");
                return Err(format!("cipher_suites: {wanted:?} is unknown; there are {names}"));
            }
        }
    }
    let is_of_12 = |suite: &SupportedCipherSuite| suite.tls13().is_none();
    if versions.iter().all(|version| version.version == TLS12.version) && !chosen.iter().any(is_of_12) {
        return Err(
            "cipher_suites: none of them can be used with TLS 1.2, which max_version asks for".to_owned()
        );
    }
    chosen.retain(is_of_12);
    all.retain(|suite| !is_of_12(suite));
    all.extend(chosen);
    Ok(())
}

fn curves(
    tls: &Tls,
    groups: &mut Vec<&'static dyn SupportedKxGroup>,
    notes: &mut Vec<String>,
) -> Result<(), String> {
    if tls.curve_preferences.is_empty() {
        return Ok(());
    }
    groups.clear();
    for curve in &tls.curve_preferences {
        groups.push(match curve {
            Curve::X25519 => ring::kx_group::X25519,
            Curve::CurveP256 => ring::kx_group::SECP256R1,
            Curve::CurveP384 => ring::kx_group::SECP384R1,
            Curve::CurveP521 => {
                notes.push("curve_preferences: CurveP521 is not offered".to_owned());
                continue;
            }
        });
    }
    if groups.is_empty() {
        return Err(
            "curve_preferences: CurveP521 alone is not enough; add X25519, CurveP256 or CurveP384".to_owned()
        );
    }
    Ok(())
}

fn verifier(tls: &Tls, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    if !tls.client_allowed_sans.is_empty() {
        return Err("client_allowed_sans: httpmon can't restrict clients by name, and doesn't ignore that it should; \
                    let client_ca_file sign for those alone who may connect"
            .to_owned());
    }
    let has_authority = tls.client_ca.is_some() || tls.client_ca_file.is_some();
    let any =
        |mandatory| AnyCertificate { mandatory, algorithms: provider.signature_verification_algorithms };
    Ok(match tls.client_auth_type {
        ClientAuth::NoClientCert if has_authority => {
            return Err("client_ca_file is of use with client_auth_type: RequireAndVerifyClientCert, or \
                        VerifyClientCertIfGiven"
                .to_owned());
        }
        ClientAuth::NoClientCert => WebPkiClientVerifier::no_client_auth(),
        ClientAuth::RequestClientCert => Arc::new(any(false)),
        ClientAuth::RequireAnyClientCert => Arc::new(any(true)),
        wanted @ (ClientAuth::VerifyClientCertIfGiven | ClientAuth::RequireAndVerifyClientCert) => {
            let (field, bytes) =
                pem_of("client_ca", tls.client_ca.as_deref(), "client_ca_file", tls.client_ca_file.as_ref())?;
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&field, &bytes)? {
                roots.add(certificate).map_err(|error| format!("{field}: {error}"))?;
            }
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
            let builder = if wanted == ClientAuth::VerifyClientCertIfGiven {
                builder.allow_unauthenticated()
            } else {
                builder
            };
            builder.build().map_err(|error| format!("{field}: {error}"))?
        }
    })
}

/// What is written in the file or in another one, and how to call that; the other one counts where both are there.
fn pem_of(
    text_field: &str,
    text: Option<&str>,
    file_field: &str,
    file: Option<&PathBuf>,
) -> Result<(String, Vec<u8>), String> {
    match (file, text) {
        (Some(path), _) => {
            let field = format!("{file_field} {}", path.display());
            let bytes = std::fs::read(path).map_err(|error| format!("{field}: {error}"))?;
            Ok((field, bytes))
        }
        (None, Some(text)) => Ok((text_field.to_owned(), text.as_bytes().to_vec())),
        (None, None) => Err(format!("tls_server_config: one of {file_field} and {text_field} is needed")),
    }
}

fn certificates(field: &str, bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| format!("{field}: {error}"))?;
    if found.is_empty() { Err(format!("{field}: there is no certificate in it")) } else { Ok(found) }
}

/// Takes any certificate whose key the client has.
#[derive(Debug)]
struct AnyCertificate {
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
