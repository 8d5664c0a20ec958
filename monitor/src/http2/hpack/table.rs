//! The tables that indices refer to (RFC 7541, section 2.3).

use std::collections::VecDeque;

use super::{Broken, fixed::STATIC};

/// What an entry costs beside its text (RFC 7541, section 4.1).
const OVERHEAD: usize = 32;
/// How much of a dynamic table is kept, whatever size the peers agree on; what lies beyond is unknown.
const MOST: usize = 64 << 10;

/// What lies beyond the entries that are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beyond {
    /// Nothing: all entries were seen.
    Nothing,
    /// Perhaps entries that were never seen.
    Unknown,
}

/// What an index refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// A name and a value.
    Field(&'a [u8], &'a [u8]),
    /// A field that nobody asks for.
    Unasked,
    /// What was never seen.
    Unknown,
}

#[derive(Debug)]
struct Dynamic {
    kept: Kept,
    /// Octets of its name, 0 where that is unknown.
    name: usize,
    value: usize,
}

#[derive(Debug)]
enum Kept {
    Field(Box<[u8]>, Box<[u8]>),
    Unasked,
    Unknown,
}

impl Dynamic {
    fn size(&self) -> usize {
        self.name + self.value + OVERHEAD
    }
}

/// The static and the dynamic table.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Dynamic>,
    size: usize,
    limit: usize,
    beyond: Beyond,
}

impl Table {
    pub(super) fn new(limit: u32, beyond: Beyond) -> Self {
        Self { entries: VecDeque::new(), size: 0, limit: limit as usize, beyond }
    }

    pub(super) fn forget(&mut self) {
        self.entries = VecDeque::new();
        self.size = 0;
        self.beyond = Beyond::Unknown;
    }

    pub(super) fn resize(&mut self, limit: u32) {
        self.limit = limit as usize;
        self.evict();
    }

    pub(super) fn get(&self, index: u64) -> Result<Entry<'_>, Broken> {
        let index = usize::try_from(index).ok().and_then(|index| index.checked_sub(1)).ok_or(Broken)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Ok(Entry::Field(name.as_bytes(), value.as_bytes()));
        }
        match self.entries.get(index - STATIC.len()) {
            Some(entry) => Ok(match &entry.kept {
                Kept::Field(name, value) => Entry::Field(name, value),
                Kept::Unasked => Entry::Unasked,
                Kept::Unknown => Entry::Unknown,
            }),
            None if self.beyond == Beyond::Unknown => Ok(Entry::Unknown),
            None => Err(Broken),
        }
    }

    /// How long the name of a dynamic entry is.
    pub(super) fn name_len(&self, index: u64) -> usize {
        let entry = (index as usize).checked_sub(STATIC.len() + 1).and_then(|index| self.entries.get(index));
        entry.map_or(0, |entry| entry.name)
    }

    pub(super) fn insert(&mut self, name: &[u8], value: &[u8]) {
        self.push(Kept::Field(name.into(), value.into()), name.len(), value.len());
    }

    pub(super) fn insert_unasked(&mut self, name: usize, value: usize) {
        self.push(Kept::Unasked, name, value);
    }

    pub(super) fn insert_unknown(&mut self, value: usize) {
        self.push(Kept::Unknown, 0, value);
    }

    fn push(&mut self, kept: Kept, name: usize, value: usize) {
        let entry = Dynamic { kept, name, value };
        self.size += entry.size();
        self.entries.push_front(entry);
        self.evict();
    }

    /// RFC 7541, section 4.3 and 4.4. Where something is unknown, so may be the size: entries stay as long as there is
    /// room for them, since no encoder refers to one that it dropped.
    fn evict(&mut self) {
        let limit = match self.beyond {
            Beyond::Nothing => self.limit,
            Beyond::Unknown => MOST,
        };
        if limit > MOST && self.size > MOST {
            self.beyond = Beyond::Unknown;
        }
        while self.size > limit.min(MOST)
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.size();
        }
    }

    #[cfg(test)]
    pub(super) fn texts(&self) -> (Vec<(String, String)>, usize) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let entries = self.entries.iter().map(|entry| match &entry.kept {
            Kept::Field(name, value) => (text(name), text(value)),
            Kept::Unasked | Kept::Unknown => (String::new(), String::new()),
        });
        (entries.collect(), self.size)
    }
}
