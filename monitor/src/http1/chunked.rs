//! The chunked transfer coding (RFC 9112, section 7.1), decoded as far as its end goes: data is only counted.

/// The end of a chunked body, where it can be told from an operation's last bytes alone.
pub(super) const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// How far a chunked body has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Chunked {
    /// At a chunk's size, of which the value so far and the number of digits are known.
    #[default]
    Start,
    Size {
        value: u64,
        digits: u8,
    },
    /// In a chunk extension, up to the end of its line.
    Extension {
        value: u64,
    },
    /// In data, of which so many octets are left.
    Data {
        left: u64,
    },
    /// In the line end after data.
    DataEnd,
    /// In the trailer section: whether the current line is still empty.
    Trailer {
        empty: bool,
    },
    /// Past the end.
    Done,
    /// Not chunked.
    Invalid,
}

impl Chunked {
    /// Reads on; how many bytes were read (all, unless the end came) and how many of them were data.
    pub(super) fn read(&mut self, bytes: &[u8]) -> (usize, u64) {
        let (mut at, mut data) = (0, 0);
        while at < bytes.len() && !matches!(self, Self::Done | Self::Invalid) {
            if let Self::Data { left } = *self {
                let taken = left.min((bytes.len() - at) as u64);
                at += taken as usize;
                data += taken;
                *self = if left == taken { Self::DataEnd } else { Self::Data { left: left - taken } };
            } else {
                *self = self.step(bytes[at]);
                at += 1;
            }
        }
        (at, data)
    }

    /// Passes over bytes that weren't captured; false where more than data was among them.
    pub(super) fn skip(&mut self, count: u64) -> bool {
        match self {
            Self::Data { left } if *left >= count => {
                *self = if *left == count { Self::DataEnd } else { Self::Data { left: *left - count } };
                true
            }
            _ => count == 0,
        }
    }

    fn step(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Start, _) => Self::Size { value: 0, digits: 0 }.step(byte),
            (Self::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 16 => {
                let digit = (byte as char).to_digit(16).unwrap_or_default();
                Self::Size { value: (value << 4) | u64::from(digit), digits: digits + 1 }
            }
            (Self::Size { value, digits: 1.. }, b';' | b' ' | b'\t' | b'\r') => Self::Extension { value },
            (Self::Size { value, digits: 1.. } | Self::Extension { value }, b'\n') => match value {
                0 => Self::Trailer { empty: true },
                left => Self::Data { left },
            },
            (Self::Extension { value }, _) => Self::Extension { value },
            (Self::DataEnd, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Start,
            (Self::Trailer { empty: true }, b'\n') => Self::Done,
            (Self::Trailer { .. }, b'\n') => Self::Trailer { empty: true },
            (Self::Trailer { empty }, b'\r') => Self::Trailer { empty },
            (Self::Trailer { .. }, _) => Self::Trailer { empty: false },
            _ => Self::Invalid,
        }
    }
}

/// A chunked body whose data is to be overwritten, its framing not.
#[derive(Debug, Default)]
pub struct Chunks {
    state: Chunked,
    lost: bool,
}

impl Chunks {
    /// Overwrites data, extensions and trailers.
    pub fn overwrite(&mut self, bytes: &mut [u8], filler: u8) {
        if self.lost {
            let kept = if bytes.ends_with(LAST_CHUNK) { LAST_CHUNK.len() } else { 0 };
            let end = bytes.len() - kept;
            bytes[..end].fill(filler);
            return;
        }
        for byte in bytes {
            let inside = matches!(
                self.state,
                Chunked::Data { .. } | Chunked::Extension { .. } | Chunked::Trailer { .. } | Chunked::Invalid
            );
            let data = matches!(self.state, Chunked::Data { .. });
            let original = *byte;
            if inside && (data || !matches!(original, b'\r' | b'\n')) {
                *byte = filler;
            }
            self.state.read(&[original]);
        }
    }

    /// Passes over bytes that weren't captured.
    pub fn skip(&mut self, count: u64) {
        self.lost |= !self.state.skip(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] =
        b"4;name=value\r\nWiki\r\n6\r\npedia \r\nE\r\nin \r\n\r\nchunks.\r\n0\r\nTrailer: 0\r\n\r\n";

    #[test]
    fn a_body_cut_anywhere_ends_where_it_ends() {
        for first in 0..=BODY.len() {
            for second in first..=BODY.len() {
                let mut body = Chunked::default();
                let mut data = 0;
                for piece in [&BODY[..first], &BODY[first..second], &BODY[second..]] {
                    assert!(body != Chunked::Done || piece.is_empty());
                    let (read, counted) = body.read(piece);
                    assert_eq!(read, piece.len());
                    data += counted;
                }
                assert_eq!((body, data), (Chunked::Done, 24));
            }
        }
    }

    #[test]
    fn what_follows_the_end_is_left() {
        assert_eq!(Chunked::default().read(b"0\r\n\r\nGET /"), (5, 0));
    }

    #[test]
    fn data_can_be_passed_over_and_no_more_than_data() {
        let mut body = Chunked::default();
        body.read(b"10\r\nab");
        assert!(body.skip(14));
        assert_eq!(body, Chunked::DataEnd);
        assert!(!body.skip(1));
    }

    #[test]
    fn what_is_not_chunked_is_invalid() {
        for bytes in [&b"xyz"[..], b"\r\n", b"11111111111111111\r\n", b"1\r\nabc"] {
            let mut body = Chunked::default();
            body.read(bytes);
            assert_eq!(body, Chunked::Invalid, "{bytes:?}");
        }
    }
}
