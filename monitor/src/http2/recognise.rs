//! Whether an operation begins with frames: where a connection was joined midway, or its framing lost.
//!
//! It errs towards no: what isn't recognised in this operation is in a later one.

use super::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HAS_PRIORITY, HEADERS, Header, LEN, PADDED,
    PING, PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};

use crate::event::Place;

/// A frame's longest payload, unless the peers agree on more (RFC 9113, section 6.5.2).
const LONGEST: u32 = 1 << 14;
/// RFC 9218, section 7.1.
const PRIORITY_UPDATE: u8 = 0x10;
/// How many whole frames in a row are enough.
const ENOUGH: usize = 3;

/// Whether an operation of `len` bytes, the first of which are `bytes`, surely begins with a frame: all of it is
/// whole frames one after another, or many of them are at its beginning.
#[must_use]
pub fn recognise(bytes: &[u8], len: u32) -> bool {
    // Nearly everything else ends here.
    if bytes.first() != Some(&0) {
        return false;
    }
    let (mut at, mut frames) = (0_u64, 0);
    // The stream whose header block goes on.
    let mut open = None;
    loop {
        if at == u64::from(len) {
            return frames > 0;
        }
        let rest = bytes.get(at as usize..).unwrap_or_default();
        let Some(header) = rest.first_chunk::<LEN>() else { return frames >= ENOUGH };
        let header = Header::read(header);
        let continues = header.kind == CONTINUATION && (frames == 0 || open == Some(header.stream));
        if !is_usual(&header, &rest[LEN..]) || continues != (open.is_some() || header.kind == CONTINUATION) {
            return false;
        }
        let block = matches!(header.kind, HEADERS | PUSH_PROMISE | CONTINUATION);
        open = (block && !header.has(END_HEADERS)).then_some(header.stream);
        at += u64::from(header.len) + LEN as u64;
        if at > u64::from(len) {
            return frames >= ENOUGH;
        }
        frames += 1;
    }
}

/// How many bytes of a record of frames that begins at `place` lay next to each other.
#[must_use]
pub fn contiguous(place: Place, bytes: &[u8]) -> usize {
    let Some((mut at, 0)) = place.rest().map(|(held, out)| (held as usize, out)) else { return 0 };
    while let Some(header) = bytes.get(at..).and_then(<[u8]>::first_chunk::<LEN>) {
        let header = Header::read(header);
        at += LEN;
        if header.kind == DATA && header.len > 0 {
            return bytes.len().min(at + usize::from(header.has(PADDED)));
        }
        at += header.len as usize;
    }
    bytes.len()
}

/// A frame's header that was an operation of its own, as of programs that read a frame in two. It is one where the next
/// operation is as long as it says.
#[derive(Clone, Copy, Debug)]
pub struct Scout {
    pub(super) header: Header,
    /// How many bytes the direction has carried with it.
    end: u64,
}

impl Scout {
    /// Looks at an operation, after which the direction has carried `end` bytes.
    #[must_use]
    pub fn of(bytes: &[u8], len: u32, end: u64) -> Option<Self> {
        let header = Header::read(bytes.first_chunk()?);
        let alone = len as usize == LEN && header.len > 0 && is_usual(&header, &[]);
        alone.then_some(Self { header, end })
    }

    /// Whether it is a header, by the operation of `len` bytes that ended at `end`.
    #[must_use]
    pub fn is_followed(&self, len: u32, end: u64) -> bool {
        len == self.header.len && end == self.end + u64::from(len)
    }
}

/// Whether an operation begins with the frame that a server sends first: its settings.
#[must_use]
pub fn settles(bytes: &[u8], len: u32) -> bool {
    let first = bytes.first_chunk::<LEN>().map(Header::read);
    first.is_some_and(|header| header.kind == SETTINGS && !header.has(ACK)) && recognise(bytes, len)
}

/// Whether a header is one that peers send, as far as its payload is here, without anything unusual.
fn is_usual(header: &Header, payload: &[u8]) -> bool {
    let flags = match header.kind {
        DATA => END_STREAM | PADDED,
        HEADERS => END_STREAM | END_HEADERS | PADDED | HAS_PRIORITY,
        PUSH_PROMISE => END_HEADERS | PADDED,
        CONTINUATION => END_HEADERS,
        SETTINGS | PING => ACK,
        PRIORITY | RST_STREAM | GOAWAY | WINDOW_UPDATE | PRIORITY_UPDATE => 0,
        _ => return false,
    };
    // Clients' streams are odd; servers push no more.
    let stream = header.stream == 0 || header.stream % 2 == 1;
    let word =
        |at: usize| payload.get(at..).and_then(<[u8]>::first_chunk).map(|bytes| u32::from_be_bytes(*bytes));
    let payload = match header.kind {
        WINDOW_UPDATE => word(0).is_none_or(|increment| increment > 0 && increment >> 31 == 0),
        RST_STREAM => word(0).is_none_or(|code| code <= 0xd),
        GOAWAY => word(0).is_none_or(|stream| stream >> 31 == 0) && word(4).is_none_or(|code| code <= 0xd),
        PRIORITY_UPDATE => header.stream == 0 && header.len >= 4,
        SETTINGS => payload
            .chunks_exact(6)
            .take(header.len as usize / 6)
            .all(|one| matches!(one[..2], [0, 1..=9] | [0x0a..=0xfa, _])),
        HEADERS => header.len > 0,
        _ => true,
    };
    header.flags & !flags == 0
        && !header.reserved
        && header.len <= LONGEST
        && stream
        && payload
        && header.is_possible()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
        let mut bytes = vec![0, (len >> 8) as u8, len as u8, kind, flags];
        bytes.extend(stream.to_be_bytes());
        bytes.extend(vec![1; len]);
        bytes
    }

    fn whole(bytes: &[u8]) -> bool {
        recognise(bytes, bytes.len() as u32)
    }

    #[test]
    fn whole_frames_are_recognised_and_no_part_of_one() {
        let frames = [frame(8, PING, 0, 0), frame(4, WINDOW_UPDATE, 0, 3), frame(20, HEADERS, 5, 5)].concat();
        assert!(whole(&frames));
        for from in 1..frames.len() {
            let starts = [17, 30].contains(&from);
            assert_eq!(whole(&frames[from..]), starts, "{from}");
        }
        for to in 1..frames.len() {
            assert_eq!(whole(&frames[..to]), [17, 30].contains(&to), "{to}");
        }
    }

    #[test]
    fn a_long_operation_is_recognised_by_its_first_frames() {
        let frames = [frame(8, PING, 0, 0), frame(8, PING, ACK, 0), frame(9, DATA, 0, 1)].concat();
        assert!(recognise(&frames, 70_000));
        assert!(!recognise(&frames[..34], 70_000));
    }

    #[test]
    fn other_protocols_are_not() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
            // Kafka's length, key and version; PostgreSQL's startup; zeros.
            b"\x00\x00\x00\x10\x00\x12\x00\x03\x00\x00\x00\x01\x00\x04test\x00\x00",
            b"\x00\x00\x00\x09\x00\x03\x00\x00\x00",
            &[0; 64],
            &[0; 9],
        ] {
            assert!(!whole(bytes), "{bytes:?}");
        }
        // A stream's error that there is none of, a window that doesn't grow, a setting that nobody has.
        for bytes in [
            [&frame(0, RST_STREAM, 0, 1)[..5], &[0, 0, 0, 1, 0, 0, 0, 99]].concat(),
            [&b"\0\0\x04\x08\0\0\0\0\0"[..], &[0; 4]].concat(),
            [&b"\0\0\x06\x04\0\0\0\0\0"[..], &[0, 77, 0, 0, 0, 0]].concat(),
        ] {
            assert!(!whole(&bytes), "{bytes:?}");
        }
    }
}
