//! Frame headers (RFC 9113, section 4.1), and what the kinds of frames may look like (section 6).

/// How long a frame's header is.
pub(super) const LEN: usize = 9;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS: the stream's last frame. Of SETTINGS and PING, the same bit is an acknowledgement.
pub(super) const END_STREAM: u8 = 0x1;
pub(super) const ACK: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
pub(super) const PADDED: u8 = 0x8;
pub(super) const HAS_PRIORITY: u8 = 0x20;

/// A frame's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) len: u32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// The bit that is to be 0.
    pub(super) reserved: bool,
}

impl Header {
    pub(super) fn read(bytes: &[u8; LEN]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = *bytes;
        let stream = u32::from_be_bytes(stream);
        Self {
            len: u32::from_be_bytes([0, a, b, c]),
            kind,
            flags,
            stream: stream & !(1 << 31),
            reserved: stream >> 31 != 0,
        }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Whether a peer could accept it: the stream and the length are such as the kind has.
    pub(super) fn is_possible(&self) -> bool {
        let (of_a_stream, len) = (self.stream != 0, self.len);
        match self.kind {
            DATA | HEADERS | CONTINUATION => of_a_stream,
            PRIORITY => of_a_stream && len == 5,
            RST_STREAM => of_a_stream && len == 4,
            SETTINGS => !of_a_stream && len % 6 == 0 && (len == 0 || !self.has(ACK)),
            PUSH_PROMISE => of_a_stream && len >= 4,
            PING => !of_a_stream && len == 8,
            GOAWAY => !of_a_stream && len >= 8,
            WINDOW_UPDATE => len == 4,
            _ => true,
        }
    }
}
