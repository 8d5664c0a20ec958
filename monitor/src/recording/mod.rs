//! Recordings: the kernel side's records as they came, for [`replay`](crate::replay), without what is nobody's business.
//!
//! A recording begins with [`MAGIC`] and the format's version, a `u32`. Frames follow: a kind (`u8`), a length (`u32`),
//! and so many bytes. Numbers are little-endian, records in the byte order of the host that wrote them, which the
//! header names. What is in the bytes of records is described at [`redact`].

mod redact;

use std::io::{self, Read, Write};

pub use redact::Redactor;

use crate::event::ServiceId;

/// What a recording begins with.
pub const MAGIC: [u8; 8] = *b"HTTPMON\n";
/// The format's version.
pub const VERSION: u32 = 2;
/// The reason of [`Frame::Lost`] for requests that began in lost events, which are counted apart.
pub const LOST_REQUESTS: &str = "requests";
/// This host's byte order, as the header has it.
const BYTE_ORDER: u32 = if cfg!(target_endian = "little") { 1 } else { 2 };
/// Longer frames are not written.
const LONGEST: usize = 1 << 20;

const SERVICE: u8 = 1;
const RECORD: u8 = 2;
const LOST: u8 = 3;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A service's number and name, before any record of it.
    Service(ServiceId, &'a str),
    /// A record as [`crate::event::decode`] reads it.
    Record(&'a [u8]),
    /// How many events were lost until now, by reason.
    Lost(&'a str, u64),
}

/// Why a recording can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file.
    #[error("it can't be read: {0}")]
    Io(#[from] io::Error),
    /// Not a recording.
    #[error("it is no recording of httpmon: `httpmon --record FILE` makes one")]
    Magic,
    /// Of another version or machine.
    #[error(
        "it is of format {version}, byte order {order}; this httpmon reads format {VERSION}, byte order {BYTE_ORDER}"
    )]
    Version {
        /// The file's.
        version: u32,
        /// The file's.
        order: u32,
    },
    /// Broken.
    #[error("it is damaged after {0} frames")]
    Damaged(u64),
}

/// Writes a recording.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins one.
    pub fn new(mut out: W) -> io::Result<Self> {
        out.write_all(&MAGIC)?;
        out.write_all(&VERSION.to_le_bytes())?;
        out.write_all(&BYTE_ORDER.to_le_bytes())?;
        Ok(Self { out })
    }

    /// Names a service.
    pub fn service(&mut self, id: ServiceId, name: &str) -> io::Result<()> {
        self.frame(SERVICE, &[&id.0.to_le_bytes(), name.as_bytes()])
    }

    /// A record, redacted.
    pub fn record(&mut self, record: &[u8]) -> io::Result<()> {
        self.frame(RECORD, &[record])
    }

    /// How many events were lost until now, for a reason.
    pub fn lost(&mut self, reason: &str, total: u64) -> io::Result<()> {
        self.frame(LOST, &[&total.to_le_bytes(), reason.as_bytes()])
    }

    /// Writes what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn frame(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > LONGEST {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.out.write_all(&[kind])?;
        self.out.write_all(&(len as u32).to_le_bytes())?;
        parts.iter().try_for_each(|part| self.out.write_all(part))
    }
}

/// Reads a recording.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    /// The last frame, and room for a longer one.
    buffer: Vec<u8>,
    frames: u64,
}

impl<R: Read> Reader<R> {
    /// Looks at the header.
    pub fn new(mut input: R) -> Result<Self, ReadError> {
        let mut magic = [0; 8];
        match input.read_exact(&mut magic) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
            Ok(()) if magic == MAGIC => {}
            _ => return Err(ReadError::Magic),
        }
        let mut number = || {
            let mut bytes = [0; 4];
            input.read_exact(&mut bytes).map(|()| u32::from_le_bytes(bytes))
        };
        let (version, order) = (number()?, number()?);
        if (version, order) != (VERSION, BYTE_ORDER) {
            return Err(ReadError::Version { version, order });
        }
        Ok(Self { input, buffer: Vec::new(), frames: 0 })
    }

    /// The next frame; `None` at the end. An agent that was killed leaves a last frame in part: it counts as the end.
    pub fn frame(&mut self) -> Result<Option<Frame<'_>>, ReadError> {
        let mut head = [0; 5];
        if !fill(&mut self.input, &mut head)? {
            return Ok(None);
        }
        let [kind, len @ ..] = head;
        let len = u32::from_le_bytes(len) as usize;
        if len > LONGEST {
            return Err(ReadError::Damaged(self.frames));
        }
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        let bytes = &mut self.buffer[..len];
        if !fill(&mut self.input, bytes)? {
            return Ok(None);
        }
        let frame = match kind {
            RECORD => Some(Frame::Record(bytes)),
            SERVICE => split(bytes, 4).map(|(id, name)| {
                Frame::Service(ServiceId(u32::from_le_bytes([id[0], id[1], id[2], id[3]])), name)
            }),
            LOST => split(bytes, 8).map(|(total, reason)| {
                let mut number = [0; 8];
                number.copy_from_slice(total);
                Frame::Lost(reason, u64::from_le_bytes(number))
            }),
            _ => None,
        };
        self.frames += 1;
        frame.map(Some).ok_or(ReadError::Damaged(self.frames - 1))
    }
}

/// Fills a buffer; false at the end.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> Result<bool, ReadError> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn split(bytes: &[u8], at: usize) -> Option<(&[u8], &str)> {
    let (number, text) = bytes.split_at_checked(at)?;
    Some((number, std::str::from_utf8(text).ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes).unwrap();
        writer.service(ServiceId(1), "web").unwrap();
        writer.record(b"some record").unwrap();
        writer.lost("ring_full", 7).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<String>, ReadError> {
        let mut reader = Reader::new(bytes)?;
        let mut frames = Vec::new();
        while let Some(frame) = reader.frame()? {
            frames.push(format!("{frame:?}"));
        }
        Ok(frames)
    }

    #[test]
    fn what_was_written_is_read() {
        let expected =
            [Frame::Service(ServiceId(1), "web"), Frame::Record(b"some record"), Frame::Lost("ring_full", 7)];
        assert_eq!(read(&written()).unwrap(), expected.map(|frame| format!("{frame:?}")));
    }

    #[test]
    fn a_recording_cut_short_is_read_as_far_as_it_goes() {
        let bytes = written();
        for len in 16..bytes.len() {
            assert!(read(&bytes[..len]).unwrap().len() < 3, "{len}");
        }
        assert!(matches!(read(&bytes[..5]), Err(ReadError::Magic)));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(matches!(read(b"# HELP some metrics\n"), Err(ReadError::Magic)));
        let mut newer = written();
        newer[8] = 9;
        assert!(matches!(read(&newer), Err(ReadError::Version { version: 9, .. })));
        let mut damaged = written();
        damaged[16] = 77;
        assert!(matches!(read(&damaged), Err(ReadError::Damaged(0))));
    }

    proptest! {
        #[test]
        fn no_file_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let header: &[&[u8]] = &[&MAGIC, &VERSION.to_le_bytes(), &BYTE_ORDER.to_le_bytes(), &bytes];
            let _ = read(&header.concat());
        }
    }
}
