//! Patterns that the user gave, such as `/users/{id}` and `/files/{*rest}`.

use super::{LONGEST, cut};

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

#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) name: String,
    segments: Vec<Segment>,
    /// Whether more segments may follow.
    open: bool,
}

#[derive(Clone, Debug)]
enum Segment {
    Literal(String),
    Any,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
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
        Ok(Self { name: cut(text, LONGEST).to_owned(), segments, open })
    }

    pub(super) fn fits(&self, path: &str) -> bool {
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
