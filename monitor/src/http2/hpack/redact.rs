//! Overwriting what a header block says, so that it is as long as before, and so is all that enters tables.

use super::{Broken, Decoder, Item, huffman};

/// Overwrites octets.
const FILLER: u8 = b'x';

impl Decoder {
    /// Overwrites the values of a block's literal fields. `kept` tells of a name, where it is known, and a value how many
    /// of its first octets stay.
    ///
    /// After an error nothing is overwritten, and nothing is known of the table.
    pub fn redact(
        &mut self,
        block: &mut [u8],
        kept: impl Fn(Option<&[u8]>, &[u8]) -> usize,
    ) -> Result<(), Broken> {
        let original = block.to_vec();
        let mut hidden = Vec::new();
        self.walk(&original, &mut |item| {
            if let Item::Literal { name, value, coded, len, left } = item {
                let end = original.len() - left;
                let keep = kept(name, value).min(value.len());
                hidden.push((end - len..end, value.to_vec(), coded, keep));
            }
        })?;
        for (place, value, coded, keep) in hidden {
            if coded {
                block[place.clone()].copy_from_slice(&huffman::hide(&value, keep, place.len()));
            } else {
                block[place][keep..].fill(FILLER);
            }
        }
        Ok(())
    }
}
