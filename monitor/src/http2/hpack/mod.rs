//! Header blocks (HPACK, RFC 7541), decoded by one who may have missed their beginning.
//!
//! In: whole header blocks of one direction, in order. Out: their fields. The decoders that are published as crates take
//! an index that they don't have for an error and give up; here a connection may have been joined midway, or a block
//! may have been lost, and then an index to what was never seen is a field that is [`Field::Unknown`]. That is never a
//! guess: indices count from the newest entry, so that all entries since then are known by their place, whatever
//! lies beyond them. Of fields that nobody asks for only the size is kept.

mod fixed;
mod huffman;
mod redact;
mod table;

pub use table::Beyond;
use table::{Entry, Table};

/// The size that a dynamic table has at first (RFC 9113, section 6.5.2).
const FIRST_SIZE: u32 = 4096;

/// A header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// Its name and its value.
    Known(&'a [u8], &'a [u8]),
    /// One that refers to what was never seen.
    Unknown,
}

/// What a block is made of.
enum Item<'a> {
    Field(Field<'a>),
    /// Before its field: a value that is said here, of `len` bytes, after which so many are left of the block.
    Literal {
        name: Option<&'a [u8]>,
        value: &'a [u8],
        coded: bool,
        len: usize,
        left: usize,
    },
}

/// Why a block can't be read to its end.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("a header block that is cut or that no encoder makes")]
pub struct Broken;

/// The decoder of one direction.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// The largest size that the other side has allowed; none where that isn't known.
    allowed: Option<u32>,
    /// Whether anybody asks for fields of this name.
    keep: fn(&[u8]) -> bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Decoder {
    /// `beyond` tells whether the direction is read from its first block on.
    #[must_use]
    pub fn new(beyond: Beyond, keep: fn(&[u8]) -> bool) -> Self {
        let allowed = (beyond == Beyond::Nothing).then_some(FIRST_SIZE);
        Self { table: Table::new(FIRST_SIZE, beyond), allowed, keep, name: Vec::new(), value: Vec::new() }
    }

    /// The other side's `SETTINGS_HEADER_TABLE_SIZE`: what the encoder may use. It says itself what it uses.
    pub fn allow(&mut self, size: u32) {
        // A smaller one counts only when it was acknowledged; what an encoder used before is no error.
        self.allowed = self.allowed.map(|allowed| allowed.max(size));
    }

    /// A block was lost: nothing is known of the table.
    pub fn forget(&mut self) {
        self.table.forget();
        self.allowed = None;
    }

    /// Tells the fields of a block. After an error nothing is known of the table.
    pub fn decode(&mut self, block: &[u8], mut tell: impl FnMut(Field<'_>)) -> Result<(), Broken> {
        self.walk(block, &mut |item| {
            if let Item::Field(field) = item {
                tell(field);
            }
        })
    }

    fn walk(&mut self, block: &[u8], tell: &mut impl FnMut(Item<'_>)) -> Result<(), Broken> {
        let result = self.items(&mut Reader(block), tell);
        if result.is_err() {
            self.forget();
        }
        result
    }

    fn items(&mut self, block: &mut Reader<'_>, tell: &mut impl FnMut(Item<'_>)) -> Result<(), Broken> {
        while let Some(&first) = block.0.first() {
            match first {
                0x80.. => match self.table.get(block.integer(7)?)? {
                    Entry::Field(name, value) if (self.keep)(name) => {
                        tell(Item::Field(Field::Known(name, value)));
                    }
                    Entry::Field(..) | Entry::Unasked => {}
                    Entry::Unknown => tell(Item::Field(Field::Unknown)),
                },
                0x40..=0x7f => self.literal(block, 6, true, tell)?,
                0x20..=0x3f => {
                    let size = u32::try_from(block.integer(5)?).map_err(|_| Broken)?;
                    if self.allowed.is_some_and(|allowed| size > allowed) {
                        return Err(Broken);
                    }
                    self.table.resize(size);
                }
                0x00..=0x1f => self.literal(block, 4, false, tell)?,
            }
        }
        Ok(())
    }

    /// A field whose value is said, and perhaps its name (RFC 7541, section 6.2).
    fn literal(
        &mut self,
        block: &mut Reader<'_>,
        bits: u8,
        insert: bool,
        tell: &mut impl FnMut(Item<'_>),
    ) -> Result<(), Broken> {
        /// Where the name is.
        enum Named {
            Here,
            Unasked(usize),
            Unknown,
        }
        self.name.clear();
        self.value.clear();
        let index = block.integer(bits)?;
        let named = if index == 0 {
            block.string(&mut self.name)?;
            Named::Here
        } else {
            match self.table.get(index)? {
                Entry::Field(name, _) => {
                    self.name.extend_from_slice(name);
                    Named::Here
                }
                Entry::Unasked => Named::Unasked(self.table.name_len(index)),
                Entry::Unknown => Named::Unknown,
            }
        };
        let (coded, len) = block.string(&mut self.value)?;
        let name = if let Named::Here = named { Some(&self.name[..]) } else { None };
        tell(Item::Literal { name, value: &self.value, coded, len, left: block.0.len() });
        let asked = (self.keep)(&self.name);
        match named {
            Named::Here if asked => tell(Item::Field(Field::Known(&self.name, &self.value))),
            Named::Here | Named::Unasked(_) => {}
            Named::Unknown => tell(Item::Field(Field::Unknown)),
        }
        if insert {
            match named {
                Named::Here if asked => self.table.insert(&self.name, &self.value),
                Named::Here => self.table.insert_unasked(self.name.len(), self.value.len()),
                Named::Unasked(len) => self.table.insert_unasked(len, self.value.len()),
                Named::Unknown => self.table.insert_unknown(self.value.len()),
            }
        }
        Ok(())
    }
}

/// What is left of a block.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Broken> {
        let (&byte, rest) = self.0.split_first().ok_or(Broken)?;
        self.0 = rest;
        Ok(byte)
    }

    /// A number in the last bits of a byte, and in the bytes after it where it is larger (RFC 7541, section 5.1).
    fn integer(&mut self, bits: u8) -> Result<u64, Broken> {
        let most = (1_u64 << bits) - 1;
        let mut number = u64::from(self.byte()?) & most;
        if number < most {
            return Ok(number);
        }
        for shift in (0..=28).step_by(7) {
            let byte = self.byte()?;
            number += u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Broken)
    }

    /// RFC 7541, section 5.2. Whether it is coded, and how many bytes it takes.
    fn string(&mut self, to: &mut Vec<u8>) -> Result<(bool, usize), Broken> {
        let coded = self.0.first().is_some_and(|byte| byte & 0x80 != 0);
        let len = usize::try_from(self.integer(7)?).map_err(|_| Broken)?;
        let (string, rest): (&'a [u8], _) = self.0.split_at_checked(len).ok_or(Broken)?;
        self.0 = rest;
        if !coded {
            to.extend_from_slice(string);
            return Ok((false, len));
        }
        if huffman::decode(string, to) { Ok((true, len)) } else { Err(Broken) }
    }
}

#[cfg(test)]
mod tests;
