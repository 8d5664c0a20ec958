//! Routes: from a request's target to a name of bounded variety.
//!
//! In: the target as sent. Out: the route, such as `/users/{id}`. Patterns that the user gave come first, then
//! segments that look like identifiers are folded. The query never counts.

/// Routes longer than this are cut, at a character's start.
const LONGEST: usize = 200;

/// How targets become routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Patterns, then identifiers folded.
    #[default]
    Auto,
    /// The path as sent.
    Path,
    /// One route, `*`.
    Off,
}

/// Why a pattern was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "--route {pattern:?}: {problem}; a pattern is a path whose segments are literal or {{name}}, such as /users/{{id}}, and may end in /{{*rest}} or /*"
)]
pub struct PatternError {
    /// As given.
    pub pattern: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// Names routes.
#[derive(Clone, Debug, Default)]
pub struct Router {
    mode: Mode,
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    name: String,
    segments: Vec<Segment>,
    /// Whether more segments may follow.
    open: bool,
}

#[derive(Clone, Debug)]
enum Segment {
    Literal(String),
    Any,
}

impl Router {
    /// With these patterns, of which the first that fits wins.
    pub fn new(mode: Mode, patterns: &[String]) -> Result<Self, PatternError> {
        Ok(Self {
            mode,
            patterns: patterns.iter().map(|pattern| Pattern::parse(pattern)).collect::<Result<_, _>>()?,
        })
    }

    /// The route of a path (as [`path`] gives it).
    #[must_use]
    pub fn route(&self, path: &str) -> String {
        match self.mode {
            Mode::Off => "*".to_owned(),
            Mode::Path => cut(path).to_owned(),
            Mode::Auto => match self.patterns.iter().find(|pattern| pattern.fits(path)) {
                Some(pattern) => pattern.name.clone(),
                None => fold(path),
            },
        }
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        let error = |problem| PatternError { pattern: text.to_owned(), problem };
        let rest = text.strip_prefix('/').ok_or_else(|| error("it must begin with /"))?;
        let mut names: Vec<&str> = rest.split('/').collect();
        let open =
            names.last().is_some_and(|last| *last == "*" || (last.starts_with("{*") && last.ends_with('}')));
        if open {
            names.pop();
        }
        let segments = names
            .into_iter()
            .map(|name| match (name.strip_prefix('{'), name.strip_suffix('}')) {
                (Some("}"), _) => Err(error("a name is empty")),
                (Some(inner), Some(_)) if inner.starts_with('*') => Err(error("{*rest} can only be last")),
                (Some(_), Some(_)) => Ok(Segment::Any),
                (None, None) if !name.contains(['{', '}', '?', '#']) => Ok(Segment::Literal(name.to_owned())),
                _ => Err(error("braces enclose whole segments, and ? and # are no part of a path")),
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { name: cut(text).to_owned(), segments, open })
    }

    fn fits(&self, path: &str) -> bool {
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/');
        for segment in &self.segments {
            match (segment, parts.next()) {
                (Segment::Any, Some(part)) if !part.is_empty() => {}
                (Segment::Literal(literal), Some(part)) if literal == part => {}
                _ => return false,
            }
        }
        self.open || parts.next().is_none()
    }
}

/// The path of a request target (RFC 9112, section 3.2): without query, and of an absolute form without scheme and
/// authority. `*` stands for itself and for an authority form, which has no path.
#[must_use]
pub fn path(target: &str) -> &str {
    let target = target.split(['?', '#']).next().unwrap_or_default();
    if target.starts_with('/') {
        return target;
    }
    match target.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
        None => "*",
    }
}

/// Folds the segments that look like identifiers.
fn fold(path: &str) -> String {
    let mut route = String::with_capacity(path.len().min(LONGEST));
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            route.push('/');
        }
        route.push_str(kind(segment).unwrap_or(segment));
        if route.len() > LONGEST {
            return cut(&route).to_owned();
        }
    }
    route
}

/// What an identifier is folded to.
fn kind(segment: &str) -> Option<&'static str> {
    let bytes = segment.as_bytes();
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return is_email(segment).then_some("{email}");
    }
    if digits == bytes.len() {
        return Some("{id}");
    }
    if is_uuid(bytes) {
        return Some("{uuid}");
    }
    if is_date(bytes) {
        return Some("{date}");
    }
    if bytes.len() >= 8 && bytes.iter().all(u8::is_ascii_hexdigit) {
        return Some("{hash}");
    }
    if is_base64(bytes) {
        return Some("{hash}");
    }
    is_email(segment).then_some("{email}")
}

fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// `2026-11-22`, perhaps with a time after `T`.
fn is_date(bytes: &[u8]) -> bool {
    let date = bytes.iter().take(10).enumerate().all(|(index, byte)| match index {
        4 | 7 => *byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    date && (bytes.len() == 10 || (bytes.len() > 10 && bytes[10] == b'T'))
}

/// 20 characters or more of base64's alphabets, upper and lower case and digits among them, and no words: a slug has
/// hyphens, or one case alone.
fn is_base64(bytes: &[u8]) -> bool {
    bytes.len() >= 20
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_=+".contains(byte))
        && bytes.iter().any(u8::is_ascii_uppercase)
        && bytes.iter().any(u8::is_ascii_lowercase)
}

fn is_email(segment: &str) -> bool {
    let parts = segment.split_once('@').or_else(|| segment.split_once("%40"));
    parts.is_some_and(|(user, host)| !user.is_empty() && host.contains('.') && !host.starts_with('.'))
}

fn cut(route: &str) -> &str {
    match route.char_indices().map(|(at, _)| at).take_while(|&at| at <= LONGEST).last() {
        Some(at) if route.len() > LONGEST => &route[..at],
        _ => route,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn auto(target: &str) -> String {
        Router::default().route(path(target))
    }

    #[test]
    fn identifiers_fold_and_words_stay() {
        for (target, route) in [
            ("/", "/"),
            ("/users/7", "/users/{id}"),
            ("/users/7/", "/users/{id}/"),
            ("/users/7?x=1", "/users/{id}"),
            ("/u/3f2504e0-4f89-11d3-9a0c-0305e82c3301/x", "/u/{uuid}/x"),
            ("/commit/8843d7f92416211de9ebb963ff4ce28125932878", "/commit/{hash}"),
            ("/t/dGhpc0lzQVRva2VuMTIz", "/t/{hash}"),
            ("/log/2026-11-22", "/log/{date}"),
            ("/m/ann@example.org", "/m/{email}"),
            ("/m/ann%40example.org", "/m/{email}"),
            ("/api/v2/items", "/api/v2/items"),
            ("/a-long-slug-of-many-words-in-2026", "/a-long-slug-of-many-words-in-2026"),
            ("/deadbeef/facade", "/deadbeef/facade"),
            ("*", "*"),
            ("http://h.example/a/1?b", "/a/{id}"),
            ("http://h.example", "/"),
            ("h.example:443", "*"),
        ] {
            assert_eq!(auto(target), route, "{target}");
        }
    }

    #[test]
    fn patterns_come_first_and_in_order() {
        let patterns = ["/users/me", "/users/{name}", "/files/{*rest}", "/static/*"].map(String::from);
        let router = Router::new(Mode::Auto, &patterns).unwrap();
        for (path, route) in [
            ("/users/me", "/users/me"),
            ("/users/7", "/users/{name}"),
            ("/users/7/x", "/users/{id}/x"),
            ("/files/a/b", "/files/{*rest}"),
            ("/static/x.css", "/static/*"),
        ] {
            assert_eq!(router.route(path), route);
        }
    }

    #[test]
    fn bad_patterns_say_what_is_accepted() {
        for pattern in ["users", "/a{b}", "/{}", "/{*rest}/a", "/a?b"] {
            let error = Router::new(Mode::Auto, &[pattern.to_owned()]).unwrap_err();
            assert!(error.to_string().contains("/users/{id}"), "{error}");
        }
    }

    #[test]
    fn modes_take_the_path_or_nothing() {
        assert_eq!(Router::new(Mode::Path, &[]).unwrap().route("/users/7"), "/users/7");
        assert_eq!(Router::new(Mode::Off, &[]).unwrap().route("/users/7"), "*");
    }

    proptest! {
        #[test]
        fn any_target_has_a_bounded_route(target in "\\PC{0,400}") {
            let route = auto(&target);
            prop_assert!(route.len() <= LONGEST);
            if route.starts_with('/') && route.len() < LONGEST {
                prop_assert_eq!(auto(&route), route.clone());
            }
        }
    }
}
