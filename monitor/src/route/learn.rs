//! Which segments are names and which are values, learnt for each service from the paths that its clients ask for.
//!
//! A tree of positions: a position follows a prefix and has one branch for each value that was seen there. A position
//! that was shown more values than [`MOST_VALUES`] calls further ones `{var}`. What the service answered with anything
//! but a client error is proven to be there: values that are not (what scanners and typing errors ask for) are forgotten
//! first, and never crowd out one that is. When the proven ones alone are too many, only those stay that were asked for
//! far more often than their siblings.
//!
//! The tree depends on the order of requests and answers alone, so that a replay learns the same.

use std::collections::HashMap;

use super::fold;

/// How many values a position shows before they fold.
pub const MOST_VALUES: usize = 50;
/// How much more often than its siblings' median a value is asked for, to keep its name when the others fold.
const STANDS_OUT: u32 = 8;
/// Longer segments are values.
const LONGEST_SEGMENT: usize = 100;
/// Deeper segments are not told apart.
const DEEPEST: usize = 32;
/// What a value folds to.
const VAR: &str = "{var}";
/// What ends a route where no more positions are followed.
const REST: &str = "{*rest}";

/// How many positions may be followed, in all trees together.
#[derive(Debug)]
pub(super) struct Room(pub(super) usize);

/// A position: what came after a prefix.
#[derive(Debug, Default)]
pub(super) struct Position {
    values: HashMap<Box<str>, Value>,
    /// Whether a value that isn't among those known is `{var}`.
    full: bool,
    /// Whether no more values are taken up.
    closed: bool,
}

#[derive(Debug, Default)]
struct Value {
    next: Position,
    asked: u32,
    proven: bool,
    /// Whether it stands for many: an identifier of a kind, or [`VAR`].
    folded: bool,
}

/// What a path taught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Learnt {
    /// Every value on the way is proven, or can't be.
    pub(super) proven: bool,
    /// Other paths may have other names than before.
    pub(super) renamed: bool,
}

impl Position {
    /// Adds the names of a path's segments to `route`, and learns from them.
    pub(super) fn name(&mut self, path: &str, route: &mut String, room: &mut Room) -> Learnt {
        let mut learnt = Learnt { proven: true, renamed: false };
        let mut position = self;
        for (depth, segment) in path.split('/').enumerate() {
            if depth > 0 {
                route.push('/');
            }
            let kind = fold::kind(segment);
            if kind.is_none() {
                learnt.renamed |= position.show(segment, room);
            }
            let name = position.name_of(kind, segment);
            if name == VAR && !position.closed {
                learnt.proven = false;
            }
            if depth >= DEEPEST || !position.make(name, kind.is_some() || name == VAR, room) {
                route.push_str(REST);
                break;
            }
            route.push_str(name);
            let Some(value) = position.values.get_mut(name) else { break };
            value.asked = value.asked.saturating_add(1);
            learnt.proven &= value.proven || value.folded;
            position = &mut value.next;
        }
        learnt
    }

    /// Whether a path shows a position one value too many: what was asked for how often decides then.
    pub(super) fn overflows(&self, path: &str) -> bool {
        let mut position = self;
        for segment in path.split('/') {
            let kind = fold::kind(segment);
            let name = position.name_of(kind, segment);
            if name == VAR && kind.is_none() && !position.closed && position.names() >= MOST_VALUES {
                return true;
            }
            let Some(value) = position.values.get(name) else { return false };
            position = &value.next;
        }
        false
    }

    /// The service answered a path; whether that gave paths other names.
    pub(super) fn prove(&mut self, path: &str, room: &mut Room) -> bool {
        let mut renamed = false;
        let mut position = self;
        for segment in path.split('/') {
            let kind = fold::kind(segment);
            if kind.is_none() && segment.len() <= LONGEST_SEGMENT && position.full && !position.closed {
                renamed |= position.admit(segment, room);
            }
            let name = position.name_of(kind, segment);
            let Some(value) = position.values.get_mut(name) else { break };
            value.proven |= !value.folded;
            position = &mut value.next;
        }
        renamed
    }

    /// A path was asked for so many times more.
    pub(super) fn asked(&mut self, path: &str, times: u32) {
        let mut position = self;
        for segment in path.split('/') {
            let name = position.name_of(fold::kind(segment), segment);
            let Some(value) = position.values.get_mut(name) else { return };
            value.asked = value.asked.saturating_add(times);
            position = &mut value.next;
        }
    }

    /// What a segment is called here.
    fn name_of<'a>(&self, kind: Option<&'static str>, segment: &'a str) -> &'a str {
        match kind {
            Some(kind) => kind,
            None if self.values.contains_key(segment) => segment,
            None => VAR,
        }
    }

    /// Shows a value to the position, which takes it up if it may; whether that gave others another name.
    fn show(&mut self, segment: &str, room: &mut Room) -> bool {
        if self.full || segment.len() > LONGEST_SEGMENT || self.values.contains_key(segment) {
            return false;
        }
        if self.names() < MOST_VALUES {
            self.make(segment, false, room);
            return false;
        }
        self.full = true;
        self.forget(room, |value| value.proven);
        true
    }

    /// Takes up a proven value; whether that gave paths another name.
    fn admit(&mut self, segment: &str, room: &mut Room) -> bool {
        if self.values.contains_key(segment) {
            return false;
        }
        if self.names() >= MOST_VALUES {
            self.close(room);
            return true;
        }
        self.make(segment, false, room)
    }

    /// Only values that stand out keep their names.
    fn close(&mut self, room: &mut Room) {
        self.closed = true;
        let mut asked: Vec<u32> =
            self.values.values().filter(|value| !value.folded).map(|value| value.asked).collect();
        asked.sort_unstable();
        let median = asked.get(asked.len() / 2).copied().unwrap_or(0).max(1);
        self.forget(room, |value| value.asked >= median.saturating_mul(STANDS_OUT));
    }

    /// How many values have names of their own.
    fn names(&self) -> usize {
        self.values.values().filter(|value| !value.folded).count()
    }

    fn forget(&mut self, room: &mut Room, keep: impl Fn(&Value) -> bool) {
        self.values.retain(|_, value| {
            let kept = value.folded || keep(value);
            if !kept {
                room.0 += 1 + value.next.size();
            }
            kept
        });
    }

    /// How many positions lie below.
    fn size(&self) -> usize {
        self.values.values().map(|value| 1 + value.next.size()).sum()
    }

    /// Makes a branch if there is none; whether there is one.
    fn make(&mut self, name: &str, folded: bool, room: &mut Room) -> bool {
        if self.values.contains_key(name) {
            return true;
        }
        if room.0 == 0 {
            return false;
        }
        room.0 -= 1;
        self.values.insert(name.into(), Value { folded, ..Value::default() });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Tree {
        root: Position,
        room: Room,
    }

    impl Tree {
        fn new() -> Self {
            Self { root: Position::default(), room: Room(10_000) }
        }

        fn ask(&mut self, path: &str) -> String {
            let mut route = "/".to_owned();
            self.root.name(path.trim_start_matches('/'), &mut route, &mut self.room);
            route
        }

        fn ask_and_answer(&mut self, path: &str) -> String {
            let route = self.ask(path);
            self.root.prove(path.trim_start_matches('/'), &mut self.room);
            route
        }
    }

    /// A word without digits for each number.
    fn word(number: usize) -> String {
        number.to_string().bytes().map(|digit| char::from(digit - b'0' + b'k')).collect()
    }

    #[test]
    fn a_position_with_many_values_folds() {
        let mut tree = Tree::new();
        for number in 0..MOST_VALUES {
            let path = format!("/users/{}/posts", word(number));
            assert_eq!(tree.ask_and_answer(&path), path);
        }
        for number in (0..200).rev() {
            assert_eq!(tree.ask_and_answer(&format!("/users/{}/posts", word(number))), "/users/{var}/posts");
        }
        assert_eq!(tree.ask("/users/kkk/friends"), "/users/{var}/friends");
        assert_eq!(tree.ask("/groups/kkk"), "/groups/kkk");
    }

    #[test]
    fn what_is_not_there_crowds_out_nothing() {
        let mut tree = Tree::new();
        assert_eq!(tree.ask_and_answer("/items/7"), "/items/{id}");
        for number in 0..1000 {
            tree.ask(&format!("/{}.php", word(number)));
        }
        assert_eq!(tree.ask("/kkk.php"), "/{var}");
        assert_eq!(tree.ask("/items/7"), "/items/{id}");
        // A page that came later is named once it was answered.
        assert_eq!(tree.ask_and_answer("/new/page"), "/{var}/page");
        assert_eq!(tree.ask("/new/page"), "/new/page");
    }

    #[test]
    fn what_is_not_there_folds_nothing_where_all_values_are_proven() {
        let mut tree = Tree::new();
        for number in 0..MOST_VALUES {
            tree.ask_and_answer(&format!("/{}", word(number)));
        }
        assert_eq!(tree.ask("/x.php"), "/{var}");
        assert_eq!(tree.ask("/kx"), "/{var}");
        assert_eq!(tree.ask(&format!("/{}", word(7))), format!("/{}", word(7)));
        assert_eq!(tree.ask_and_answer("/one-more"), "/{var}");
        assert_eq!(tree.ask(&format!("/{}", word(7))), "/{var}");
    }

    #[test]
    fn what_stands_out_keeps_its_name() {
        let mut tree = Tree::new();
        for _ in 0..20 {
            tree.ask_and_answer("/login");
        }
        for number in 0..1000 {
            tree.ask_and_answer(&format!("/{}", word(number)));
        }
        assert_eq!(tree.ask("/login"), "/login");
        assert_eq!(tree.ask("/klm"), "/{var}");
    }

    #[test]
    fn the_room_is_bounded_and_given_back() {
        let mut tree = Tree::new();
        for number in 0..20_000 {
            let path = (0..4).map(|part| word(number * 7 + part)).collect::<Vec<_>>().join("/");
            assert!(tree.ask_and_answer(&path).len() < 100);
        }
        assert_eq!(tree.room.0 + tree.root.size(), 10_000);
        let deep = "a/".repeat(1000);
        assert!(tree.ask(&deep).ends_with("/{*rest}"));
        let mut full = Tree { root: Position::default(), room: Room(0) };
        assert_eq!(full.ask("/brand/new"), "/{*rest}");
    }

    #[test]
    fn a_long_segment_is_a_value() {
        assert_eq!(Tree::new().ask(&format!("/{}/x", "a".repeat(101))), "/{var}/x");
    }
}
