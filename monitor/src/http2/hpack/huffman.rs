//! The Huffman code of string literals (RFC 7541, section 5.2).
//!
//! The code is canonical: the lengths alone tell every symbol's bits.

/// How many bits each octet has, and after them the end of a string (RFC 7541, appendix B).
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

/// The end of a string: never within one.
const END: u16 = 256;
/// The longest symbol's bits.
const LONGEST: usize = 30;
/// The shortest symbol's.
const SHORTEST: usize = 5;
/// Symbols of so many bits are looked up at once.
const SHORT: u8 = 8;

/// The code, laid out for reading.
struct Code {
    /// All symbols, in the order of their bits.
    symbols: [u16; 257],
    /// For each length, the first bits that belong to a longer symbol, aligned to the left of 32.
    limits: [u64; LONGEST + 1],
    /// For each length, what leads from a symbol's bits to its place in `symbols`.
    places: [u64; LONGEST + 1],
    /// The symbol that begins with such bits, and its length; 0 where it is longer.
    short: [(u16, u8); 1 << SHORT],
}

static CODE: Code = Code::new();

impl Code {
    const fn new() -> Self {
        let mut code = Self {
            symbols: [0; 257],
            limits: [0; LONGEST + 1],
            places: [0; LONGEST + 1],
            short: [(0, 0); 1 << SHORT],
        };
        let (mut bits, mut place, mut len) = (0_u64, 0_usize, 1_usize);
        while len <= LONGEST {
            bits <<= 1;
            code.places[len] = (place as u64).wrapping_sub(bits);
            let mut symbol = 0;
            while symbol < LENGTHS.len() {
                if LENGTHS[symbol] as usize == len {
                    code.symbols[place] = symbol as u16;
                    if len <= SHORT as usize {
                        let spare = SHORT as usize - len;
                        let mut rest = 0;
                        while rest < 1 << spare {
                            code.short[(bits as usize) << spare | rest] = (symbol as u16, len as u8);
                            rest += 1;
                        }
                    }
                    bits += 1;
                    place += 1;
                }
                symbol += 1;
            }
            code.limits[len] = bits << (32 - len);
            len += 1;
        }
        code
    }

    /// The symbol that 32 bits begin with, and its length.
    fn symbol(&self, bits: u32) -> (u16, u8) {
        let (symbol, len) = self.short[(bits >> (32 - SHORT)) as usize];
        if len > 0 {
            return (symbol, len);
        }
        let longer = usize::from(SHORT) + 1..=LONGEST;
        let len = longer.into_iter().find(|&len| u64::from(bits) < self.limits[len]).unwrap_or(LONGEST);
        let place = u64::from(bits >> (32 - len)).wrapping_add(self.places[len]);
        (self.symbols.get(place as usize).copied().unwrap_or(END), len as u8)
    }
}

/// Appends what the bytes stand for; false where they are no such string.
pub(super) fn decode(bytes: &[u8], to: &mut Vec<u8>) -> bool {
    let (mut bits, mut have) = (0_u64, 0_u8);
    let mut bytes = bytes.iter();
    loop {
        while have <= 32
            && let Some(byte) = bytes.next()
        {
            bits |= u64::from(*byte) << (56 - have);
            have += 8;
        }
        // Ones follow the last bits, as padding has it.
        let next = (bits >> 32) as u32 | u32::MAX.checked_shr(have.into()).unwrap_or(0);
        let (symbol, len) = CODE.symbol(next);
        if len > have {
            let padding = bits >> (64 - u32::from(have.max(1)));
            return have == 0 || (have < 8 && padding == (1 << have) - 1);
        }
        if symbol == END {
            return false;
        }
        to.push(symbol as u8);
        bits <<= len;
        have -= len;
    }
}

/// Bits, as they are written.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// How many of the last byte's are written.
    have: u8,
}

impl Bits {
    fn put(&mut self, value: u64, len: u8) {
        for bit in (0..len).rev() {
            if self.have == 0 {
                self.bytes.push(u8::MAX);
            }
            if value >> bit & 1 == 0
                && let Some(last) = self.bytes.last_mut()
            {
                *last &= !(0x80 >> self.have);
            }
            self.have = (self.have + 1) % 8;
        }
    }

    fn len(&self) -> usize {
        self.bytes.len() * 8 - usize::from((8 - self.have) % 8)
    }

    /// The symbol that is at this place among all.
    fn put_symbol(&mut self, place: usize) {
        let len = LENGTHS[usize::from(CODE.symbols[place])];
        self.put((place as u64).wrapping_sub(CODE.places[usize::from(len)]), len);
    }
}

/// So many bytes for as many octets as the text has: its first ones, and then others that tell nothing of its own. The
/// text's own code has that length.
pub(super) fn hide(text: &[u8], keep: usize, len: usize) -> Vec<u8> {
    let mut bits = Bits::default();
    for octet in &text[..keep] {
        let place = CODE.symbols.iter().position(|symbol| *symbol == u16::from(*octet));
        bits.put_symbol(place.unwrap_or_default());
    }
    let hidden = text.len() - keep;
    let mut spare = (len * 8).saturating_sub(bits.len() + hidden * SHORTEST);
    for left in (1..=hidden).rev() {
        // Symbols are sorted by length. The longest that leaves as much for each of the others.
        let share = spare.div_ceil(left);
        let fits = |symbol: &u16| usize::from(LENGTHS[usize::from(*symbol)]) - SHORTEST <= share;
        let longest = CODE.symbols[..256].partition_point(fits) - 1;
        let most = LENGTHS[usize::from(CODE.symbols[longest])];
        let first = CODE.symbols.partition_point(|symbol| LENGTHS[usize::from(*symbol)] < most);
        bits.put_symbol(first);
        spare -= usize::from(most) - SHORTEST;
    }
    bits.bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same code, written: nothing of it is hidden.
    fn encode(text: &[u8]) -> Vec<u8> {
        hide(text, text.len(), 0)
    }

    fn decoded(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        decode(bytes, &mut text).then_some(text)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        assert_eq!(decoded(b"\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff").unwrap(), b"www.example.com");
        assert_eq!(decoded(b"\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf").unwrap(), b"custom-value");
    }

    #[test]
    fn wrong_padding_and_the_end_symbol_are_refused() {
        // The octet 0 of five zero bits and three that aren't ones; a whole octet of ones; the end symbol.
        for bytes in [&b"\x00"[..], b"\x1f\xff", b"\xff\xff\xff\xff"] {
            assert_eq!(decoded(bytes), None, "{bytes:?}");
        }
        assert_eq!(decoded(b""), Some(Vec::new()));
        assert_eq!(decoded(b"\x07"), Some(b"0".to_vec()));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(text in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decoded(&encode(&text)), Some(text));
        }

        #[test]
        fn what_is_hidden_is_as_long(
            text in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                prop::collection::vec(b' '..b'~', 0..60),
            ],
            keep in any::<prop::sample::Index>(),
        ) {
            let keep = keep.index(text.len() + 1);
            let code = encode(&text);
            let hidden = hide(&text, keep, code.len());
            prop_assert_eq!(hidden.len(), code.len());
            let read = decoded(&hidden).expect("it is a code");
            prop_assert_eq!((read.len(), &read[..keep]), (text.len(), &text[..keep]));
            // Of any other text of these lengths it would be the same.
            let mut other = text.clone();
            other[keep..].reverse();
            prop_assert_eq!(hide(&other, keep, code.len()), hidden);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = decoded(&bytes);
        }
    }
}
