//! Where the running kernel keeps what: a reader of its type information, as far as structures' fields go.
//!
//! In: the bytes of `/sys/kernel/btf/vmlinux`. Out: byte offsets. Format: Documentation/bpf/btf.rst (Linux 6.18).

use std::collections::HashMap;

/// Why a field wasn't found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not type information, or cut short.
    #[error("the kernel's type information is damaged at byte {0}")]
    Damaged(usize),
    /// The running kernel has no such structure.
    #[error("the kernel has no struct {0}")]
    NoStruct(String),
    /// The structure has no such field.
    #[error("the kernel's struct {0} has no field {1}")]
    NoField(String, String),
    /// The field doesn't start at a byte.
    #[error("the kernel's field {0} is a bit field")]
    BitField(String),
}

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;

/// A kernel's structures.
pub(super) struct Types<'a> {
    section: &'a [u8],
    strings: &'a [u8],
    /// Where each type starts, by its number less one.
    starts: Vec<u32>,
    /// Named structures, by name.
    structs: HashMap<&'a [u8], u32>,
}

impl<'a> Types<'a> {
    /// Indexes the types; of the structures those whose names are given.
    pub(super) fn parse(bytes: &'a [u8], names: &[&str]) -> Result<Self, BtfError> {
        if bytes.get(..2).is_none_or(|magic| magic != MAGIC.to_ne_bytes()) {
            return Err(BtfError::Damaged(0));
        }
        let header_len = word(bytes, 4)? as usize;
        let section = |at: usize| -> Result<&'a [u8], BtfError> {
            let (start, len) = (header_len + word(bytes, at)? as usize, word(bytes, at + 4)? as usize);
            bytes.get(start..start + len).ok_or(BtfError::Damaged(start))
        };
        let (types, strings) = (section(8)?, section(16)?);
        let mut this = Self { section: types, strings, starts: Vec::new(), structs: HashMap::new() };
        let mut at = 0;
        while at < types.len() {
            this.starts.push(at as u32);
            let (name, info) = (word(types, at)?, word(types, at + 4)?);
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            if kind == STRUCT {
                let name = this.string(name);
                if names.iter().any(|wanted| wanted.as_bytes() == name) {
                    this.structs.entry(name).or_insert(this.starts.len() as u32);
                }
            }
            // What follows the 12 bytes that every type has, by kind.
            at += 12
                + match kind {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    STRUCT | UNION | 15 | 19 => count * 12,
                    6 | 13 => count * 8,
                    _ => 0,
                };
        }
        Ok(this)
    }

    /// The byte offset of a field, named as in C: `sock.__sk_common.skc_family`. Anonymous members are looked through.
    pub(super) fn offset(&self, path: &str) -> Result<u64, BtfError> {
        let mut names = path.split('.');
        let first = names.next().unwrap_or_default();
        let mut holder =
            *self.structs.get(first.as_bytes()).ok_or_else(|| BtfError::NoStruct(first.to_owned()))?;
        let mut bits = 0;
        for name in names {
            let (offset, member) = self
                .member(holder, name.as_bytes(), 0)?
                .ok_or_else(|| BtfError::NoField(first.to_owned(), name.to_owned()))?;
            bits += offset;
            holder = member;
        }
        if bits % 8 == 0 { Ok(u64::from(bits / 8)) } else { Err(BtfError::BitField(path.to_owned())) }
    }

    /// A member's offset in bits, and its type.
    fn member(&self, id: u32, name: &[u8], depth: u32) -> Result<Option<(u32, u32)>, BtfError> {
        let Some(&start) = id.checked_sub(1).and_then(|index| self.starts.get(index as usize)) else {
            return Ok(None);
        };
        let start = start as usize;
        let info = word(self.section, start + 4)?;
        let (kind, count, has_bit_fields) = ((info >> 24) & 0x1f, (info & 0xffff) as usize, info >> 31 == 1);
        if !matches!(kind, STRUCT | UNION) || depth > 8 {
            return Ok(None);
        }
        for index in 0..count {
            let at = start + 12 + index * 12;
            let (member_name, member, offset) =
                (word(self.section, at)?, word(self.section, at + 4)?, word(self.section, at + 8)?);
            let offset = if has_bit_fields { offset & 0x00ff_ffff } else { offset };
            let found = self.string(member_name);
            if found == name {
                return Ok(Some((offset, member)));
            }
            if found.is_empty()
                && let Some((inner, of)) = self.member(member, name, depth + 1)?
            {
                return Ok(Some((offset + inner, of)));
            }
        }
        Ok(None)
    }

    fn string(&self, at: u32) -> &'a [u8] {
        let rest = self.strings.get(at as usize..).unwrap_or_default();
        &rest[..rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len())]
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32, BtfError> {
    let word = bytes.get(at..at + 4).ok_or(BtfError::Damaged(at))?;
    Ok(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A type information of `struct outer { int a; struct { int b; int c; }; }` (types: 1 int, 2 the anonymous one, 3 outer).
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0outer\0a\0b\0c\0";
        let words: &[u32] = &[
            1,
            1 << 24,
            4,
            32, // int
            0,
            (STRUCT << 24) | 2,
            8,
            13,
            1,
            0,
            15,
            1,
            32, // anonymous
            5,
            (STRUCT << 24) | 2,
            12,
            11,
            1,
            0,
            0,
            2,
            32, // outer
        ];
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_ne_bytes());
        bytes.extend([1, 0]);
        for word in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn a_field_is_found_through_an_anonymous_member() {
        let bytes = sample();
        let types = Types::parse(&bytes, &["outer"]).unwrap();
        assert_eq!(types.offset("outer.a"), Ok(0));
        assert_eq!(types.offset("outer.c"), Ok(8));
    }

    #[test]
    fn what_is_missing_is_named() {
        let bytes = sample();
        let types = Types::parse(&bytes, &["outer"]).unwrap();
        assert_eq!(types.offset("inner.a"), Err(BtfError::NoStruct("inner".into())));
        assert_eq!(types.offset("outer.d"), Err(BtfError::NoField("outer".into(), "d".into())));
    }

    #[test]
    fn damage_is_an_error_at_every_length() {
        let bytes = sample();
        for len in 0..bytes.len() {
            if let Ok(types) = Types::parse(&bytes[..len], &["outer"]) {
                let _ = types.offset("outer.c");
            }
        }
        assert!(Types::parse(&bytes[..30], &["outer"]).is_err());
    }

    #[test]
    fn the_running_kernel_has_what_the_probes_read() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
        let offsets = super::super::offsets::resolve(&bytes).unwrap();
        assert!(offsets.sock_family > 0 && offsets.sock_num < 64);
    }
}
