//! Overwriting header blocks in recordings.

use super::{
    frame::{CONTINUATION, END_HEADERS, Header, LEN},
    half::fragment_place,
    hpack::{Beyond, Broken, Decoder},
};

/// Overwrites a block whose fields can't be told apart: an index that no encoder uses, so that nothing is read from it.
const HOLE: u8 = 0x80;

/// The header blocks of one direction, as they are recorded.
#[derive(Debug)]
pub struct Blocks {
    decoder: Decoder,
    /// The frame's header that came last, where it came whole.
    header: Option<Header>,
}

impl Blocks {
    /// `asked` tells the names of fields that are not overwritten, or in part.
    #[must_use]
    pub fn new(asked: fn(&[u8]) -> bool) -> Self {
        Self { decoder: Decoder::new(Beyond::Unknown, asked), header: None }
    }

    /// Framing, in the pieces in which it is read.
    pub fn framing(&mut self, bytes: &[u8]) {
        let header: Option<&[u8; LEN]> = bytes.try_into().ok();
        self.header = header.map(Header::read);
    }

    /// The payload of a frame with a part of a header block, or a piece of it. Of a block that came in pieces, or in several
    /// frames, all is overwritten, and what refers to it later is unknown.
    pub fn overwrite(&mut self, payload: &mut [u8], kept: impl Fn(Option<&[u8]>, &[u8]) -> usize) {
        if self.whole(payload, kept).is_err() {
            self.decoder.forget();
            payload.fill(HOLE);
        }
    }

    fn whole(
        &mut self,
        payload: &mut [u8],
        kept: impl Fn(Option<&[u8]>, &[u8]) -> usize,
    ) -> Result<(), Broken> {
        let header = self.header.take().ok_or(Broken)?;
        if header.len as usize != payload.len() || header.kind == CONTINUATION || !header.has(END_HEADERS) {
            return Err(Broken);
        }
        let place = fragment_place(&header, payload).ok_or(Broken)?;
        let padding = place.end;
        self.decoder.redact(payload.get_mut(place).ok_or(Broken)?, kept)?;
        payload[padding..].fill(0);
        Ok(())
    }
}
