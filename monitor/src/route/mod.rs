//! Routes: from a request's target to a name of bounded variety.
//!
//! In: the target as sent, and which targets the service answered. Out: the route, such as `/users/{id}`. Patterns that
//! the user gave come first, then segments that look like identifiers are folded, then positions that show too many
//! values. The query never counts. All of it is bounded, whatever clients ask for.

mod fold;
mod learn;
mod pattern;

use std::collections::HashMap;

use foldhash::fast::RandomState;
use globset::{Glob, GlobSet, GlobSetBuilder};
use rustc_hash::FxHashMap;

use self::{
    learn::{Position, Room},
    pattern::Pattern,
};
use crate::event::ServiceId;

pub use learn::MOST_VALUES;
pub use pattern::PatternError;

/// Routes longer than this are cut, at a character's start.
const LONGEST: usize = 200;
/// How many paths' names are remembered.
const MOST_REMEMBERED: usize = 4096;
/// Longer paths are not remembered.
const LONGEST_REMEMBERED: usize = 256;
/// How many positions of paths are followed, for all services together.
const MOST_POSITIONS: usize = 16_384;
/// The route of requests whose own would be one too many.
pub const OTHER: &str = "other";

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

/// Why rules were refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RuleError {
    /// A pattern that is none.
    #[error(transparent)]
    Pattern(#[from] PatternError),
    /// A glob that is none.
    #[error("--ignore-path {glob:?}: {reason}; a glob is a path with * and ?, such as /health*")]
    IgnorePath {
        /// As given.
        glob: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What the user said about routes.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    mode: Mode,
    patterns: Vec<Pattern>,
    ignored: GlobSet,
}

impl Rules {
    /// With these patterns, of which the first that fits wins, and paths to ignore, as globs.
    pub fn new(mode: Mode, patterns: &[String], ignored: &[String]) -> Result<Self, RuleError> {
        let mut globs = GlobSetBuilder::new();
        let refused = |glob: &str, error: &globset::Error| RuleError::IgnorePath {
            glob: glob.to_owned(),
            reason: error.kind().to_string(),
        };
        for glob in ignored {
            globs.add(Glob::new(glob).map_err(|error| refused(glob, &error))?);
        }
        Ok(Self {
            mode,
            patterns: patterns.iter().map(|pattern| Pattern::parse(pattern)).collect::<Result<_, _>>()?,
            ignored: globs.build().map_err(|error| refused("", &error))?,
        })
    }
}

/// A route, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId(u32);

/// What a path is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its route.
    pub route: RouteId,
    /// Whether it isn't counted.
    pub ignored: bool,
    /// Whether [`Router::answered`] wants to hear of its answer.
    pub unproven: bool,
    /// Where it is remembered.
    place: Option<Place>,
}

/// Where a path is remembered, as long as the era lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    era: u32,
    index: u32,
}

struct Remembered {
    named: Named,
    /// How often it was asked for since it is remembered.
    asked: u32,
}

/// Paths by text, whose hashes clients can't foresee.
type ByText<V> = HashMap<Box<str>, V, RandomState>;

/// Names routes.
pub struct Router {
    rules: Rules,
    learnt: FxHashMap<ServiceId, Position>,
    room: Room,
    remembered: FxHashMap<ServiceId, ByText<u32>>,
    places: Vec<Remembered>,
    /// Counts how often what was remembered became invalid.
    era: u32,
    ids: ByText<RouteId>,
    names: Vec<Box<str>>,
    most_names: usize,
}

impl Router {
    /// Tells at most so many routes apart; further ones are [`OTHER`].
    #[must_use]
    pub fn new(rules: Rules, most_names: usize) -> Self {
        Self {
            rules,
            learnt: FxHashMap::default(),
            room: Room(MOST_POSITIONS),
            remembered: FxHashMap::default(),
            places: Vec::new(),
            era: 0,
            ids: std::iter::once((OTHER.into(), Self::OTHER)).collect(),
            names: vec![OTHER.into()],
            most_names,
        }
    }

    /// [`OTHER`].
    pub const OTHER: RouteId = RouteId(0);

    /// Other rules from now on; what was learnt stays.
    pub fn replace(&mut self, rules: Rules) {
        self.forget();
        self.rules = rules;
    }

    /// What a path (as [`path`] gives it) of a service is called.
    pub fn name(&mut self, service: ServiceId, path: &str) -> Named {
        if let Some(&index) = self.remembered.get(&service).and_then(|paths| paths.get(path)) {
            let known = &mut self.places[index as usize];
            known.asked = known.asked.saturating_add(1);
            return known.named;
        }
        let ignored = self.rules.ignored.is_match(path);
        let (route, unproven) = match self.rules.mode {
            Mode::Off => (self.id("*"), false),
            Mode::Path => (self.id(cut(path, LONGEST)), false),
            Mode::Auto => {
                let fitting = self.rules.patterns.iter().find(|pattern| pattern.fits(path));
                match fitting.map(|pattern| pattern.name.clone()) {
                    Some(pattern) => (self.id(&pattern), false),
                    None if ignored => (self.id("*"), false),
                    None => self.learn(service, path),
                }
            }
        };
        if path.len() > LONGEST_REMEMBERED {
            return Named { route, ignored, unproven, place: None };
        }
        if self.places.len() >= MOST_REMEMBERED {
            self.forget();
        }
        let index = self.places.len() as u32;
        let named = Named { route, ignored, unproven, place: Some(Place { era: self.era, index }) };
        self.places.push(Remembered { named, asked: 0 });
        self.remembered.entry(service).or_default().insert(path.into(), index);
        named
    }

    /// Whether the same path of the same service would be called the same now. Where it is, it counts as asked for.
    pub fn again(&mut self, named: &Named) -> bool {
        let Some(place) = named.place.filter(|place| place.era == self.era) else { return false };
        let known = &mut self.places[place.index as usize];
        known.asked = known.asked.saturating_add(1);
        true
    }

    /// Names what processes ask others for: it has no route of theirs.
    pub fn elsewhere(&mut self) -> Named {
        Named { route: self.id("*"), ignored: false, unproven: false, place: None }
    }

    /// Names a path that could not be read.
    pub fn unknown(&mut self, name: &str) -> Named {
        let name = if self.rules.mode == Mode::Off { "*" } else { name };
        Named { route: self.id(name), ignored: false, unproven: false, place: None }
    }

    /// A service answered a path that was unproven.
    pub fn answered(&mut self, service: ServiceId, path: &str) {
        let Some(segments) = path.strip_prefix('/') else { return };
        self.prepare(service, segments);
        let Some(position) = self.learnt.get_mut(&service) else { return };
        if position.prove(segments, &mut self.room) {
            self.forget();
        } else if let Some(index) = self.remembered.get_mut(&service).and_then(|paths| paths.remove(path)) {
            // Its place stays empty until all are forgotten.
            self.era = self.era.wrapping_add(1);
            position.asked(segments, std::mem::take(&mut self.places[index as usize].asked));
        }
    }

    /// A route by its name.
    pub fn id(&mut self, name: &str) -> RouteId {
        if let Some(&known) = self.ids.get(name) {
            return known;
        }
        if self.names.len() >= self.most_names && name != OTHER {
            return self.id(OTHER);
        }
        let id = RouteId(self.names.len() as u32);
        self.names.push(name.into());
        self.ids.insert(name.into(), id);
        id
    }

    /// A route's name.
    #[must_use]
    pub fn name_of(&self, route: RouteId) -> &str {
        &self.names[route.0 as usize]
    }

    fn learn(&mut self, service: ServiceId, path: &str) -> (RouteId, bool) {
        let Some(segments) = path.strip_prefix('/') else { return (self.id(cut(path, LONGEST)), false) };
        let mut route = String::with_capacity(LONGEST);
        route.push('/');
        let learnt = self.learnt.entry(service).or_default().name(segments, &mut route, &mut self.room);
        if learnt.renamed {
            self.forget();
        }
        (self.id(cut(&route, LONGEST)), !learnt.proven)
    }

    /// Before values fold, it must be known how often each was asked for.
    fn prepare(&mut self, service: ServiceId, segments: &str) {
        if self.learnt.get(&service).is_some_and(|position| position.overflows(segments)) {
            self.forget();
        }
    }

    /// Forgets the remembered paths, but for how often they were asked for.
    fn forget(&mut self) {
        self.era = self.era.wrapping_add(1);
        for (service, paths) in self.remembered.drain() {
            let Some(position) = self.learnt.get_mut(&service) else { continue };
            for (path, index) in paths {
                position.asked(path.trim_start_matches('/'), self.places[index as usize].asked);
            }
        }
        self.places.clear();
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

/// A text's beginning of at most so many bytes.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVICE: ServiceId = ServiceId(1);

    fn router(mode: Mode, patterns: &[&str]) -> Router {
        let patterns: Vec<String> = patterns.iter().map(ToString::to_string).collect();
        Router::new(Rules::new(mode, &patterns, &[]).unwrap(), 1000)
    }

    fn route(router: &mut Router, path: &str) -> String {
        let named = router.name(SERVICE, path);
        router.name_of(named.route).to_owned()
    }

    fn auto(target: &str) -> String {
        route(&mut router(Mode::Auto, &[]), path(target))
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
            ("/log/2026-11", "/log/{date}"),
            ("/tx/0x52908400098527886E0F7030069857D2E4169EE7", "/tx/{hash}"),
            ("/u/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/u/{hash}"),
            ("/floor/-2", "/floor/{id}"),
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
        let mut router = router(Mode::Auto, &["/users/me", "/users/{name}", "/files/{*rest}", "/static/*"]);
        for (path, expected) in [
            ("/users/me", "/users/me"),
            ("/users/7", "/users/{name}"),
            ("/users/7/x", "/users/{id}/x"),
            ("/files/a/b", "/files/{*rest}"),
            ("/static/x.css", "/static/*"),
        ] {
            assert_eq!(route(&mut router, path), expected);
        }
    }

    #[test]
    fn bad_patterns_say_what_is_accepted() {
        for pattern in ["users", "/a{b}", "/{}", "/{*rest}/a", "/a?b"] {
            let error = Rules::new(Mode::Auto, &[pattern.to_owned()], &[]).unwrap_err();
            assert!(error.to_string().contains("/users/{id}"), "{error}");
        }
    }

    #[test]
    fn modes_take_the_path_or_nothing() {
        assert_eq!(route(&mut router(Mode::Path, &[]), "/users/7"), "/users/7");
        assert_eq!(route(&mut router(Mode::Off, &[]), "/users/7"), "*");
    }

    #[test]
    fn what_is_remembered_is_named_the_same() {
        let mut router = router(Mode::Auto, &[]);
        for number in 0..3 * MOST_REMEMBERED {
            assert_eq!(route(&mut router, &format!("/a/{number}/b")), "/a/{id}/b");
            assert_eq!(route(&mut router, "/a/1/b"), "/a/{id}/b");
            assert!(router.places.len() <= MOST_REMEMBERED);
        }
    }

    #[test]
    fn answers_prove_a_path_once() {
        let mut router = router(Mode::Auto, &[]);
        assert!(router.name(SERVICE, "/a/7").unproven);
        router.answered(SERVICE, "/a/7");
        assert!(!router.name(SERVICE, "/a/7").unproven && !router.name(SERVICE, "/a/8").unproven);
        assert!(router.name(ServiceId(2), "/a/7").unproven);
    }

    #[test]
    fn what_was_asked_often_keeps_its_name_when_it_was_remembered() {
        let mut router = router(Mode::Auto, &[]);
        let mut ask = |path: &str| {
            let named = router.name(SERVICE, path);
            if named.unproven {
                router.answered(SERVICE, path);
            }
            router.name_of(named.route).to_owned()
        };
        for _ in 0..100 {
            ask("/login");
        }
        for first in b'a'..=b'z' {
            for second in b'a'..=b'z' {
                ask(&format!("/{}{}", char::from(first), char::from(second)));
            }
        }
        assert_eq!((ask("/login"), ask("/zz")), ("/login".to_owned(), "/{var}".to_owned()));
    }

    #[test]
    fn the_same_requests_and_answers_make_the_same_routes() {
        let names = || {
            let mut router = router(Mode::Auto, &[]);
            let mut state = 1_u64;
            let mut number = |below: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 33) % below
            };
            (0..20_000)
                .map(|_| {
                    let (first, second) = (number(8), number(200));
                    let word = format!("w{}x", second * second / (1 + number(40)));
                    let path = format!("/area-{first}-x/{word}/page");
                    let named = router.name(SERVICE, &path);
                    if named.unproven && second % 3 > 0 {
                        router.answered(SERVICE, &path);
                    }
                    router.name_of(named.route).to_owned()
                })
                .collect::<Vec<_>>()
        };
        let once = names();
        assert!(once.iter().any(|name| name.contains("{var}")));
        assert_eq!(once, names());
    }

    #[test]
    fn other_rules_hold_from_then_on() {
        let mut router = router(Mode::Auto, &[]);
        assert_eq!(route(&mut router, "/users/ann"), "/users/ann");
        router.replace(Rules::new(Mode::Auto, &["/users/{name}".to_owned()], &["/h*".to_owned()]).unwrap());
        assert_eq!(route(&mut router, "/users/ann"), "/users/{name}");
        assert!(router.name(SERVICE, "/healthz").ignored);
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
