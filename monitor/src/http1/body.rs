//! Bodies: how far one has been read, and whether it has ended.

use super::{
    Framing,
    chunked::{Chunked, LAST_CHUNK},
};

/// How far a body has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body(State);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    Chunked(Chunked),
    /// Chunked, but a chunk's size was among bytes that weren't captured: the end shows only where an operation
    /// ends with the last chunk.
    ChunksLost,
    UntilClose,
    /// The head wasn't captured whole.
    Unknown,
}

/// What reading on came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// How many bytes belonged to the body.
    pub read: usize,
    /// How many of them were octets of the body, not its framing.
    pub octets: u64,
    /// Whether it ended with them.
    pub ended: bool,
}

impl Body {
    /// By a head's framing; `otherwise` is what no statement means.
    #[must_use]
    pub fn framed(framing: Framing, otherwise: Self) -> Self {
        match framing {
            Framing::Length(len) => Self(State::Length(len)),
            Framing::Chunked => Self(State::Chunked(Chunked::default())),
            Framing::Unstated => otherwise,
        }
    }

    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self(State::Length(0))
    }

    /// One that ends when its sender closes.
    #[must_use]
    pub const fn until_close() -> Self {
        Self(State::UntilClose)
    }

    /// One whose head wasn't captured whole.
    #[must_use]
    pub const fn unknown() -> Self {
        Self(State::Unknown)
    }

    /// Whether it ends when its sender closes.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.0, State::UntilClose)
    }

    /// Whether its end can't be told from its bytes: it ends where the other side's next message begins.
    #[must_use]
    pub fn ends_with_turn(&self) -> bool {
        matches!(self.0, State::Unknown | State::ChunksLost)
    }

    /// Whether it comes in chunks.
    #[must_use]
    pub fn is_chunked(&self) -> bool {
        matches!(self.0, State::Chunked(_) | State::ChunksLost)
    }

    /// Whether there is nothing (more) to it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.0, State::Length(0) | State::Chunked(Chunked::Done))
    }

    /// Reads on.
    pub fn read(&mut self, bytes: &[u8]) -> Progress {
        let all = bytes.len();
        let (read, octets) = match &mut self.0 {
            State::Length(left) => {
                let taken = (*left).min(all as u64);
                *left -= taken;
                (taken as usize, taken)
            }
            State::Chunked(chunked) => {
                let (read, octets) = chunked.read(bytes);
                if *chunked == Chunked::Invalid {
                    self.0 = State::Unknown;
                    (all, all as u64)
                } else {
                    (read, octets)
                }
            }
            State::ChunksLost | State::UntilClose | State::Unknown => (all, all as u64),
        };
        Progress { read, octets, ended: self.is_over() }
    }

    /// Passes over bytes that weren't captured, all within this operation or lost one.
    ///
    /// Where they are more than the rest of the body, only that rest is passed over.
    pub fn skip(&mut self, count: u64) -> u64 {
        match &mut self.0 {
            State::Length(left) => {
                let taken = (*left).min(count);
                *left -= taken;
                taken
            }
            State::Chunked(chunked) => {
                if !chunked.skip(count) {
                    self.0 = State::ChunksLost;
                }
                count
            }
            State::ChunksLost | State::UntilClose | State::Unknown => count,
        }
    }

    /// Whether bytes that never came can be passed over without losing the body's end.
    #[must_use]
    pub fn survives(&self, missing: u64) -> bool {
        match &self.0 {
            State::Length(left) => *left > missing,
            State::Chunked(chunked) => { *chunked }.skip(missing),
            State::UntilClose => true,
            State::ChunksLost | State::Unknown => false,
        }
    }

    /// Looks at an operation's last bytes: they can end a body whose chunks were lost.
    pub fn look_at_tail(&mut self, tail: &[u8]) -> bool {
        let ended = matches!(self.0, State::ChunksLost) && tail.ends_with(LAST_CHUNK);
        if ended {
            self.0 = State::Length(0);
        }
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_of_known_length_leaves_what_follows() {
        let mut body = Body::framed(Framing::Length(5), Body::empty());
        assert_eq!(body.read(b"hello GET"), Progress { read: 5, octets: 5, ended: true });
    }

    #[test]
    fn a_body_until_close_takes_all() {
        let mut body = Body::framed(Framing::Unstated, Body::until_close());
        assert_eq!(body.read(b"GET / HTTP/1.1\r\n\r\n"), Progress { read: 18, octets: 18, ended: false });
        assert!(body.survives(1 << 40));
    }

    #[test]
    fn a_chunk_size_that_was_not_captured_leaves_the_tail_to_tell() {
        let mut body = Body::framed(Framing::Chunked, Body::empty());
        body.read(b"5\r\nhe");
        body.skip(100);
        assert!(!body.look_at_tail(b"abc\r\n"));
        assert!(body.look_at_tail(b"xx\r\n0\r\n\r\n"));
        assert!(body.is_over());
    }

    #[test]
    fn missing_bytes_are_survived_within_data_alone() {
        let mut body = Body::framed(Framing::Length(10), Body::empty());
        assert!(body.survives(9) && !body.survives(10));
        body.skip(4);
        assert!(body.survives(5) && !body.survives(6));
    }
}
