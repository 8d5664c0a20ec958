//! `--web-config`: TLS and basic authentication for the exporter, in the format of Prometheus' exporters.
//!
//! The file, and the certificates that it names, are looked at again with each connection and request, and read again
//! where they changed. What is wrong then changes nothing, and is said once.

mod file;
mod tls;
mod users;

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use rustls::ServerConfig;
use tokio::time::Instant;

use self::{
    file::{File, RateLimit},
    users::Users,
};
use super::Following;

/// What clients are asked for (RFC 7617).
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"httpmon\", charset=\"UTF-8\"");

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
#[error("--web-config {path}: {reason}", path = path.display())]
pub struct WebError {
    path: PathBuf,
    reason: String,
}

/// A file that is followed.
pub struct Web {
    path: PathBuf,
    state: Mutex<Followed>,
}

struct Followed {
    seen: Vec<Stamp>,
    loaded: Arc<Loaded>,
    bucket: Bucket,
}

/// What a file said.
pub(super) struct Loaded {
    /// Without it, plain HTTP is spoken.
    pub(super) tls: Option<Arc<ServerConfig>>,
    users: Users,
    headers: HeaderMap,
    limit: RateLimit,
    /// All files that had a say.
    files: Vec<PathBuf>,
    /// What is asked for in the file, and isn't done.
    notes: Vec<String>,
}

/// What tells one content of a file from the next.
type Stamp = Option<(u64, u64, i64, i64, u64)>;

fn stamp(path: &Path) -> Stamp {
    let file = fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.size()))
}

impl Web {
    /// Reads a file, and all that it names.
    pub fn open(path: &Path) -> Result<Self, WebError> {
        let failed = |reason| WebError { path: path.to_owned(), reason };
        // Before it is read: a change in between is seen later.
        let before = stamp(path);
        let loaded = Loaded::read(path).map_err(failed)?;
        for note in &loaded.notes {
            tracing::warn!("--web-config {}: {note}", path.display());
        }
        let seen = [before].into_iter().chain(loaded.files.iter().skip(1).map(|file| stamp(file))).collect();
        let bucket = Bucket::full(loaded.limit);
        Ok(Self {
            path: path.to_owned(),
            state: Mutex::new(Followed { seen, loaded: Arc::new(loaded), bucket }),
        })
    }

    /// Whether the exporter speaks TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.state().loaded.tls.is_some()
    }

    /// What the file says now.
    pub(super) fn now(&self) -> Arc<Loaded> {
        let mut state = self.state();
        let seen: Vec<Stamp> = state.loaded.files.iter().map(|file| stamp(file)).collect();
        if seen != state.seen {
            state.seen = seen;
            match Loaded::read(&self.path).and_then(|next| next.instead_of(&state.loaded)) {
                Ok(next) => {
                    tracing::info!("read {} and its certificates again", self.path.display());
                    if next.limit != state.loaded.limit {
                        state.bucket = Bucket::full(next.limit);
                    }
                    state.seen = next.files.iter().map(|file| stamp(file)).collect();
                    state.loaded = Arc::new(next);
                }
                Err(reason) => {
                    tracing::error!("--web-config {}: {reason}; it stays as it was", self.path.display());
                }
            }
        }
        Arc::clone(&state.loaded)
    }

    /// What it said when it was looked at last.
    pub(super) fn before(&self) -> Arc<Loaded> {
        Arc::clone(&self.state().loaded)
    }

    fn state(&self) -> MutexGuard<'_, Followed> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is no need to wait before the next answer.
    fn has_room(&self) -> bool {
        let mut state = self.state();
        let limit = state.loaded.limit;
        state.bucket.take(limit, Instant::now())
    }
}

impl Loaded {
    fn read(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path)
            .map_err(|error| format!("{error}; name a YAML file that httpmon can read"))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let File { tls_server_config, http_server_config, basic_auth_users, rate_limit } =
            File::parse(&text, folder)?;
        let mut notes = Vec::new();
        let mut tls = None;
        if tls_server_config.is_enabled() {
            let (server, said) = tls::server(&tls_server_config)?;
            tls = Some(server);
            notes = said;
            if http_server_config.http2 == Some(true) {
                notes.push("http2: the exporter speaks HTTP/1.1 alone".to_owned());
            }
        } else if !basic_auth_users.is_empty() {
            notes.push("basic_auth_users without TLS: passwords can be read on the way".to_owned());
        }
        Ok(Self {
            tls,
            users: Users::new(basic_auth_users)?,
            headers: http_server_config.headers.0,
            limit: rate_limit,
            files: [path].into_iter().chain(tls_server_config.files()).map(Path::to_owned).collect(),
            notes,
        })
    }

    /// A file that was cut short, or is just being written, must not open a door that was closed.
    fn instead_of(self, before: &Self) -> Result<Self, String> {
        if before.tls.is_some() && self.tls.is_none() {
            return Err("TLS is turned off by a restart alone".to_owned());
        }
        if !before.users.is_empty() && self.users.is_empty() {
            return Err("basic_auth_users are turned off by a restart alone".to_owned());
        }
        Ok(self)
    }
}

/// So many requests at once, and one more for each interval that passes.
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn full(limit: RateLimit) -> Self {
        Self { tokens: limit.burst.into(), filled: Instant::now() }
    }

    fn take(&mut self, limit: RateLimit, now: Instant) -> bool {
        if limit.interval == Duration::ZERO {
            return true;
        }
        let passed = now.duration_since(self.filled).as_secs_f64() / limit.interval.as_secs_f64();
        self.tokens = (self.tokens + passed).min(limit.burst.into());
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// Lets a request through to what answers it, or not.
pub(super) async fn guard(State(following): State<Following>, request: Request, next: Next) -> Response {
    let loaded = following.now().await;
    let mut response = if following.web.has_room() {
        let authorization = request.headers().get(header::AUTHORIZATION);
        let authorization = authorization.map(HeaderValue::as_bytes).unwrap_or_default().to_vec();
        if loaded.users.is_empty() || loaded.users.know(&authorization).await {
            next.run(request).await
        } else {
            (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, CHALLENGE)], "Unauthorized\n")
                .into_response()
        }
    } else {
        (StatusCode::TOO_MANY_REQUESTS, "Too Many Requests\n").into_response()
    };
    for (name, value) in &loaded.headers {
        // What an answer says of itself is stricter.
        response.headers_mut().entry(name).or_insert_with(|| value.clone());
    }
    response
}
