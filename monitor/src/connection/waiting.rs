//! Requests of a connection that wait for their responses, in order.

use std::collections::VecDeque;

use super::http1::Pending;

/// A queue whose first place is its own. Few clients pipeline: nearly always one request waits at most, and then
/// nothing is allocated. Memory for more is given back once none waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// `None` only where none waits at all.
    first: Option<Pending>,
    others: VecDeque<Pending>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }

    /// In the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Pending> + Clone {
        self.first.iter().chain(&self.others)
    }

    pub(super) fn first_mut(&mut self) -> Option<&mut Pending> {
        self.first.as_mut()
    }

    pub(super) fn last(&self) -> Option<&Pending> {
        self.others.back().or(self.first.as_ref())
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Pending> {
        self.others.back_mut().or(self.first.as_mut())
    }

    pub(super) fn push(&mut self, pending: Pending) {
        if self.first.is_none() {
            self.first = Some(pending);
        } else {
            self.others.push_back(pending);
        }
    }

    pub(super) fn pop_first(&mut self) -> Option<Pending> {
        let first = std::mem::replace(&mut self.first, self.others.pop_front());
        if self.first.is_none() && self.others.capacity() > 0 {
            self.others = VecDeque::new();
        }
        first
    }

    pub(super) fn pop_last(&mut self) -> Option<Pending> {
        self.others.pop_back().or_else(|| self.first.take())
    }

    /// All of them; none waits any more.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Pending> + use<> {
        let Self { first, others } = std::mem::take(self);
        first.into_iter().chain(others)
    }
}
