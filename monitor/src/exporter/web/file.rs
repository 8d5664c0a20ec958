//! The file that `--web-config` names, as Prometheus' exporters have it: docs/web-configuration.md of their
//! exporter-toolkit tells the format. In: YAML. Out: what it says, checked as far as that goes without other files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr as _,
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Deserializer, de::Error as _};

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) tls_server_config: Tls,
    pub(super) http_server_config: Http,
    pub(super) basic_auth_users: BTreeMap<String, Hash>,
    pub(super) rate_limit: RateLimit,
}

/// Who may speak, and how.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
    pub(super) client_ca: Option<String>,
    pub(super) cert_file: Option<PathBuf>,
    pub(super) key_file: Option<PathBuf>,
    pub(super) client_ca_file: Option<PathBuf>,
    pub(super) client_auth_type: ClientAuth,
    pub(super) client_allowed_sans: Vec<String>,
    pub(super) min_version: Option<Version>,
    pub(super) max_version: Option<Version>,
    pub(super) cipher_suites: Vec<String>,
    pub(super) prefer_server_cipher_suites: Option<bool>,
    pub(super) curve_preferences: Vec<Curve>,
}

/// What is asked of clients, by the names that Go's crypto/tls has for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum ClientAuth {
    #[default]
    #[serde(alias = "")]
    NoClientCert,
    RequestClientCert,
    #[serde(alias = "RequireClientCert")]
    RequireAnyClientCert,
    VerifyClientCertIfGiven,
    RequireAndVerifyClientCert,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Version {
    Tls10,
    Tls11,
    Tls12,
    Tls13,
}

/// A group for the key exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) enum Curve {
    CurveP256,
    CurveP384,
    CurveP521,
    X25519,
}

/// What is said beside the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Http {
    pub(super) http2: Option<bool>,
    pub(super) headers: Headers,
}

/// Response headers, of those that may be configured.
#[derive(Debug, Default)]
pub(super) struct Headers(pub(super) HeaderMap);

/// Header names, and the values that they may have; none where all are accepted.
const HEADERS: [(&str, &[&str]); 5] = [
    ("Content-Security-Policy", &[]),
    ("Strict-Transport-Security", &[]),
    ("X-Content-Type-Options", &["nosniff"]),
    ("X-Frame-Options", &["deny", "sameorigin"]),
    ("X-XSS-Protection", &[]),
];

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in BTreeMap::<String, String>::deserialize(deserializer)? {
            let known = HEADERS.iter().find(|(known, _)| *known == name);
            let (known, values) = known.ok_or_else(|| {
                let names = HEADERS.map(|(name, _)| name).join(", ");
                D::Error::custom(format!(
                    "the header {name:?} can't be configured; those that can are {names}"
                ))
            })?;
            if !values.is_empty() && !values.contains(&&*value) {
                let values = values.join(" or ");
                return Err(D::Error::custom(format!("{known}: {value:?} is not accepted; it is {values}")));
            }
            if value.is_empty() {
                continue;
            }
            let value = HeaderValue::from_str(&value)
                .map_err(|_| D::Error::custom(format!("{known}: {value:?} can't stand in a header")))?;
            headers.insert(HeaderName::from_str(known).map_err(D::Error::custom)?, value);
        }
        Ok(Self(headers))
    }
}

/// A bcrypt hash that can be compared with.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Hash(pub(super) String);

impl std::fmt::Debug for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(a hash)")
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // Whatever was written there may be a password: it isn't repeated.
        bcrypt::HashParts::from_str(&text).map_err(|_| {
            D::Error::custom(
                "not a bcrypt hash, such as `htpasswd -nBC 10 \"\"` prints: $2y$10$ and 53 characters",
            )
        })?;
        Ok(Self(text))
    }
}

/// How often requests are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RateLimit {
    #[serde(deserialize_with = "interval")]
    pub(super) interval: Duration,
    pub(super) burst: u32,
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(&text)
        .map_err(|error| D::Error::custom(format!("{text:?} is no duration, such as 1s or 100ms: {error}")))
}

impl File {
    /// Reads the text of a file in this directory.
    pub(super) fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        let nothing = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'));
        if nothing {
            return Ok(Self::default());
        }
        let read = |deserializer: serde_saphyr::Deserializer<'_, '_>| {
            serde_path_to_error::deserialize::<_, Self>(deserializer).map_err(|error| {
                let field = error.path().to_string();
                let inner = error.into_inner();
                let said = inner.without_snippet().to_string();
                serde_saphyr::Error::custom(if field == "." { said } else { format!("{field}: {said}") })
            })
        };
        let mut file: Self = serde_saphyr::with_deserializer_from_str(text, read).map_err(|error| {
            let said = error.without_snippet().to_string();
            said.lines().map(str::trim).collect::<Vec<_>>().join(" ")
        })?;
        let tls = &mut file.tls_server_config;
        for path in [&mut tls.cert_file, &mut tls.key_file, &mut tls.client_ca_file] {
            // As there, an empty name is none.
            *path = path.take().filter(|path| !path.as_os_str().is_empty()).map(|path| folder.join(path));
        }
        for text in [&mut tls.cert, &mut tls.key, &mut tls.client_ca] {
            *text = text.take().filter(|text| !text.is_empty());
        }
        Ok(file)
    }
}

impl Tls {
    /// Whether TLS is asked for.
    pub(super) fn is_enabled(&self) -> bool {
        let Self { cert, key, client_ca, cert_file, key_file, client_ca_file, .. } = self;
        [cert, key, client_ca].iter().any(|text| text.is_some())
            || [cert_file, key_file, client_ca_file].iter().any(|path| path.is_some())
            || self.client_auth_type != ClientAuth::NoClientCert
    }

    /// The files that it names.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.cert_file, &self.key_file, &self.client_ca_file].into_iter().flatten().map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        File::parse(text, Path::new("/etc")).unwrap_err()
    }

    #[test]
    fn every_field_is_read() {
        let text = "\
tls_server_config:
  cert_file: server.crt
  key_file: /keys/server.key
  client_ca: |
    -----BEGIN CERTIFICATE-----
  client_auth_type: RequireClientCert
  client_allowed_sans: [one]
  min_version: TLS12
  max_version: TLS13
  cipher_suites:
    - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
  prefer_server_cipher_suites: false
  curve_preferences: [X25519, CurveP521]
http_server_config:
  http2: false
  headers:
    X-Frame-Options: deny
    X-XSS-Protection: ''
basic_auth_users:
  alice: $2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG
rate_limit:
  interval: 1s
  burst: 5
";
        let file = File::parse(text, Path::new("/etc")).unwrap();
        let tls = &file.tls_server_config;
        assert_eq!(
            tls.files().collect::<Vec<_>>(),
            [Path::new("/etc/server.crt"), Path::new("/keys/server.key")]
        );
        assert_eq!(tls.client_auth_type, ClientAuth::RequireAnyClientCert);
        assert_eq!((tls.min_version, tls.max_version), (Some(Version::Tls12), Some(Version::Tls13)));
        assert_eq!(tls.curve_preferences, [Curve::X25519, Curve::CurveP521]);
        assert_eq!((tls.cipher_suites.len(), tls.prefer_server_cipher_suites), (1, Some(false)));
        assert_eq!(file.http_server_config.headers.0.len(), 1);
        assert_eq!(file.rate_limit, RateLimit { interval: Duration::from_secs(1), burst: 5 });
        assert!(!format!("{file:?}").contains("$2y$"), "{file:?}");
    }

    #[test]
    fn an_empty_file_asks_for_nothing() {
        for text in [
            "",
            "\n# nothing\n",
            "tls_server_config: {}\n",
            "tls_server_config: {cert_file: ''}\n",
            "tls_server_config: {cert_file: }\nbasic_auth_users:\n",
        ] {
            let file = File::parse(text, Path::new("/")).unwrap();
            assert!(!file.tls_server_config.is_enabled() && file.basic_auth_users.is_empty(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_what_is_accepted() {
        for (text, said) in [
            ("tls_config: {}", ["tls_config", "tls_server_config"]),
            ("tls_server_config:\n  cert: x\n  certfile: x", ["line 3", "certfile"]),
            ("tls_server_config: {client_auth_type: Sometimes}", ["Sometimes", "RequireAndVerifyClientCert"]),
            ("tls_server_config: {min_version: TLS14}", ["TLS14", "TLS13"]),
            ("tls_server_config: {curve_preferences: [CurveP1]}", ["CurveP1", "X25519"]),
            ("http_server_config: {headers: {Server: x}}", ["Server", "X-Frame-Options"]),
            ("http_server_config: {headers: {X-Frame-Options: allow}}", ["allow", "sameorigin"]),
            ("basic_auth_users: {alice: secret}", ["basic_auth_users.alice", "$2y$10$"]),
            ("rate_limit: {interval: often}", ["often", "1s"]),
            ("rate_limit: {burst: -1}", ["line 1", "burst"]),
            ("- a list", ["line 1", "mapping"]),
            ("a: [", ["line 1", ""]),
        ] {
            let message = refused(text);
            assert!(said.iter().all(|word| message.contains(word)), "{text}: {message}");
            assert!(!message.contains("secret") && !message.contains('\n'), "{message}");
        }
    }
}
