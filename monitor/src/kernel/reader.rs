//! The ring buffer, and records that were taken out of it while nobody had the time to look at them: meanwhile the kernel
//! side still finds room.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
};

use zerocopy::FromBytes as _;

use super::ring::Ring;

/// How many bytes are held outside of the buffer at most, but for the last records.
const MOST: usize = 32 << 20;
/// In pieces of so many.
const PIECE: usize = 256 << 10;
/// How many records are taken before that is looked at again.
const BATCH: usize = 64;
/// The part of the buffer that is left to those who read it.
const LEFT: u64 = 4;

/// Reads records in the order in which they were written.
#[derive(Debug)]
pub struct Reader {
    ring: Ring,
    aside: Aside,
}

impl Reader {
    pub(super) fn new(ring: Ring) -> Self {
        Self { ring, aside: Aside::default() }
    }

    /// Passes the waiting records on, `most` at most; how many there were.
    pub(super) fn drain(&mut self, most: usize, mut handle: impl FnMut(&[u8])) -> usize {
        let count = self.aside.pass(most, &mut handle);
        count + self.ring.drain(most - count, handle)
    }

    /// Where much waits in the buffer, takes it out, to be passed on later.
    pub fn set_aside(&mut self) {
        let Self { ring, aside } = self;
        if ring.waiting() < ring.size() / LEFT {
            return;
        }
        while aside.held() < MOST && ring.drain(BATCH, |record| aside.put(record)) == BATCH {}
    }
}

impl AsFd for Reader {
    /// Readable when records wait in the buffer.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// Records in memory, each behind its length.
#[derive(Debug, Default)]
struct Aside {
    pieces: VecDeque<Vec<u8>>,
    /// How much of the first piece was passed on.
    read: usize,
}

impl Aside {
    fn put(&mut self, record: &[u8]) {
        let needed = size_of::<u32>() + record.len();
        if self.pieces.back().is_none_or(|last| last.len() + needed > PIECE) {
            self.pieces.push_back(Vec::with_capacity(PIECE.max(needed)));
        }
        if let Some(last) = self.pieces.back_mut() {
            last.extend_from_slice(&(record.len() as u32).to_ne_bytes());
            last.extend_from_slice(record);
        }
    }

    /// How many bytes are in all pieces.
    fn held(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum()
    }

    fn pass(&mut self, most: usize, handle: &mut impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while let Some(piece) = self.pieces.front() {
            while let Ok((length, rest)) = u32::read_from_prefix(&piece[self.read..]) {
                if count == most {
                    return count;
                }
                handle(&rest[..length as usize]);
                self.read += size_of::<u32>() + length as usize;
                count += 1;
            }
            self.read = 0;
            self.pieces.pop_front();
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::kernel::{mapped::page_size, ring::tests::Writer};

    fn drained(reader: &mut Reader, most: usize) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let count = reader.drain(most, |record| records.push(record.to_vec()));
        assert_eq!(count, records.len());
        records
    }

    #[test]
    fn little_stays_in_the_buffer() {
        let (mut writer, ring) = Writer::new(page_size().get());
        let mut reader = Reader::new(ring);
        writer.write(&[7; 500], 0);
        reader.set_aside();
        assert_eq!(writer.given_back(), 0);
        writer.write(&[8; 600], 0);
        reader.set_aside();
        assert_eq!(writer.given_back(), writer.written);
        assert_eq!(drained(&mut reader, 9), [vec![7; 500], vec![8; 600]]);
    }

    #[test]
    fn what_is_set_aside_is_bounded_and_its_memory_given_back() {
        let (mut writer, ring) = Writer::new(64 * page_size().get());
        let mut reader = Reader::new(ring);
        let mut written = 0;
        loop {
            while writer.write(&[9; 16_000], 0).is_some() {
                written += 1;
            }
            let before = writer.given_back();
            reader.set_aside();
            if writer.given_back() == before {
                break;
            }
        }
        assert!((MOST..MOST + BATCH * 16_004).contains(&reader.aside.held()), "{}", reader.aside.held());
        assert_eq!(drained(&mut reader, usize::MAX).len(), written);
        assert_eq!((reader.aside.held(), reader.aside.pieces.len()), (0, 0));
    }

    proptest! {
        #[test]
        fn the_order_stays_whoever_takes_records_out(
            steps in proptest::collection::vec((0_usize..1500, 0_usize..4, any::<bool>()), 0..200),
        ) {
            let (mut writer, ring) = Writer::new(page_size().get());
            let mut reader = Reader::new(ring);
            let mut expected = VecDeque::new();
            for (number, (length, most, sets_aside)) in steps.into_iter().enumerate() {
                let record = vec![number as u8; length];
                if writer.write(&record, 0).is_some() {
                    expected.push_back(record);
                }
                if sets_aside {
                    reader.set_aside();
                }
                for record in drained(&mut reader, most) {
                    prop_assert_eq!(Some(record), expected.pop_front());
                }
            }
            prop_assert_eq!(drained(&mut reader, usize::MAX), Vec::from(expected));
        }
    }
}
