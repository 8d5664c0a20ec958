//! The agent's end of the ring buffer (kernel/bpf/ringbuf.c, Linux 6.18; Documentation/bpf/ringbuf.rst).
//!
//! Libraries map its pages twice in a row, as the kernel does, so that no record is in two pieces; what is mapped counts as
//! resident, twice. Here they are mapped once, and a record that goes past the end is put together. What was read is
//! given back a part of the buffer at a time: each writer looks at how much that is, and need not fetch it anew from
//! the agent's CPU with each record.
#![expect(unsafe_code, reason = "records are read where the kernel wrote them")]

use std::{
    num::NonZeroUsize,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::Ordering,
};

use aya::maps::{MapData, MapError};
use nix::sys::mman::ProtFlags;

use super::mapped::{Mapping, page_size};

/// Before each record, its length and two flags (include/uapi/linux/bpf.h: `BPF_RINGBUF_HDR_SZ`, `BPF_RINGBUF_BUSY_BIT`,
/// `BPF_RINGBUF_DISCARD_BIT`).
const HEADER: usize = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;

/// Records begin at multiples of this.
const ALIGNMENT: usize = 8;

/// How much is read before it is given back: one of so many parts of the buffer.
const PARTS: u64 = 64;

/// A ring buffer that only this agent reads.
#[derive(Debug)]
pub(super) struct Ring {
    map: OwnedFd,
    /// The page that says up to where the agent has read.
    reader: Mapping,
    /// The page that says up to where the kernel has written, and the records.
    writer: Mapping,
    /// Where in that the records begin.
    records: usize,
    size: NonZeroUsize,
    /// Up to where was read; positions only grow.
    read: u64,
    /// Up to where the kernel knows that.
    given_back: u64,
    /// Up to where it had written when that was last looked at.
    written: u64,
    /// The record in two pieces, put together.
    joined: Vec<u8>,
}

impl Ring {
    /// A table's.
    pub(super) fn of(table: &MapData) -> Result<Self, MapError> {
        let size = table.info()?.max_entries() as usize;
        let map = table.fd().as_fd().try_clone_to_owned().map_err(MapError::IoError)?;
        Self::new(map, size).map_err(|error| MapError::IoError(error.into()))
    }

    /// A file that is laid out like one, with room for so many bytes, a power of two.
    fn new(map: OwnedFd, size: usize) -> nix::Result<Self> {
        let page = page_size();
        let size = NonZeroUsize::new(size).filter(|size| size.is_power_of_two()).ok_or(nix::Error::EINVAL)?;
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let reader = Mapping::new(&map, 0, page, both)?;
        let length = page.checked_add(size.get()).ok_or(nix::Error::EINVAL)?;
        let writer = Mapping::new(&map, page.get(), length, ProtFlags::PROT_READ)?;
        let read = reader.u64(0).load(Ordering::Acquire);
        let records = page.get();
        Ok(Self {
            map,
            reader,
            writer,
            records,
            size,
            read,
            given_back: read,
            written: read,
            joined: Vec::new(),
        })
    }

    /// Passes the waiting records on, `most` at most; how many there were.
    pub(super) fn drain(&mut self, most: usize, mut handle: impl FnMut(&[u8])) -> usize {
        let mut count = 0;
        while count < most && self.has_more() {
            let begin = self.place(self.read);
            // The length is written before the flag goes, and the record before that.
            let header = self.writer.u32(self.records + begin).load(Ordering::Acquire);
            if header & BUSY != 0 {
                break;
            }
            let length = (header & !DISCARDED) as usize;
            if header & DISCARDED == 0 {
                handle(self.record(begin + HEADER, length));
                count += 1;
            }
            self.read += (HEADER + length).next_multiple_of(ALIGNMENT) as u64;
            if self.read - self.given_back >= self.size.get() as u64 / PARTS {
                self.give_back();
            }
        }
        self.give_back();
        count
    }

    /// How many bytes wait, headers and unfinished records included.
    pub(super) fn waiting(&self) -> u64 {
        self.writer.u64(0).load(Ordering::Acquire) - self.read
    }

    /// How many bytes there is room for.
    pub(super) fn size(&self) -> u64 {
        self.size.get() as u64
    }

    fn has_more(&mut self) -> bool {
        if self.read == self.written {
            // Records' headers are written before it.
            self.written = self.writer.u64(0).load(Ordering::Acquire);
        }
        self.read != self.written
    }

    fn give_back(&mut self) {
        if self.given_back != self.read {
            // What was read is done with before the kernel may write there.
            self.reader.u64(0).store(self.read, Ordering::Release);
            self.given_back = self.read;
        }
    }

    /// Where in the buffer a position is.
    fn place(&self, position: u64) -> usize {
        position as usize & (self.size.get() - 1)
    }

    /// `length` bytes from `begin` on, which may be where the buffer begins again.
    fn record(&mut self, begin: usize, length: usize) -> &[u8] {
        let begin = begin & (self.size.get() - 1);
        let first = length.min(self.size.get() - begin);
        let from = self.records + begin;
        // SAFETY: the kernel writes no record that is finished and not given back.
        let bytes = unsafe { self.writer.bytes(from..from + first) };
        if first == length {
            return bytes;
        }
        // SAFETY: that is the same record.
        let rest = unsafe { self.writer.bytes(self.records..self.records + (length - first)) };
        self.joined.clear();
        self.joined.extend_from_slice(bytes);
        self.joined.extend_from_slice(rest);
        &self.joined
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::VecDeque, fs::File, os::unix::fs::FileExt as _};

    use nix::sys::memfd::{MFdFlags, memfd_create};
    use proptest::prelude::*;

    use super::*;

    /// The kernel's end, on a file that is laid out like a ring buffer.
    pub(in crate::kernel) struct Writer {
        file: File,
        size: usize,
        pub(in crate::kernel) written: u64,
    }

    impl Writer {
        pub(in crate::kernel) fn new(size: usize) -> (Self, Ring) {
            let file = File::from(memfd_create("ring", MFdFlags::MFD_CLOEXEC).unwrap());
            file.set_len((2 * page_size().get() + size) as u64).unwrap();
            let ring = Ring::new(file.try_clone().unwrap().into(), size).unwrap();
            (Self { file, size, written: 0 }, ring)
        }

        pub(in crate::kernel) fn given_back(&self) -> u64 {
            let mut position = [0; 8];
            self.file.read_exact_at(&mut position, 0).unwrap();
            u64::from_ne_bytes(position)
        }

        fn put(&self, position: u64, bytes: &[u8]) {
            for (index, byte) in bytes.iter().enumerate() {
                let place = (position as usize + index) % self.size;
                self.file.write_all_at(&[*byte], (2 * page_size().get() + place) as u64).unwrap();
            }
        }

        /// Where its header is, if there was room.
        pub(in crate::kernel) fn write(&mut self, record: &[u8], flags: u32) -> Option<u64> {
            let length = (HEADER + record.len()).next_multiple_of(ALIGNMENT) as u64;
            if self.written + length - self.given_back() > self.size as u64 - 1 {
                return None;
            }
            let begin = self.written;
            self.put(begin, &(record.len() as u32 | flags).to_ne_bytes());
            self.put(begin + HEADER as u64, record);
            self.written += length;
            self.file.write_all_at(&self.written.to_ne_bytes(), page_size().get() as u64).unwrap();
            Some(begin)
        }
    }

    fn drained(ring: &mut Ring, most: usize) -> Vec<Vec<u8>> {
        let mut records = Vec::new();
        let count = ring.drain(most, |record| records.push(record.to_vec()));
        assert_eq!(count, records.len());
        records
    }

    #[test]
    fn an_unfinished_record_holds_back_those_behind_it() {
        let (mut writer, mut ring) = Writer::new(page_size().get());
        assert_eq!(writer.write(b"one", 0), Some(0));
        let unfinished = writer.write(b"two", BUSY).unwrap();
        assert!(writer.write(b"three", 0).is_some());
        assert_eq!(drained(&mut ring, 9), [b"one"]);
        assert_eq!(writer.given_back(), unfinished);
        writer.put(unfinished, &3_u32.to_ne_bytes());
        assert_eq!(drained(&mut ring, 1), [b"two"]);
        assert_eq!(drained(&mut ring, 9), [b"three"]);
        assert_eq!(writer.given_back(), writer.written);
        assert!(drained(&mut ring, 9).is_empty());
    }

    #[test]
    fn discarded_records_are_passed_over_and_not_counted() {
        let (mut writer, mut ring) = Writer::new(page_size().get());
        for (record, flags) in [(b"a", DISCARDED), (b"b", 0), (b"c", DISCARDED), (b"d", 0)] {
            assert!(writer.write(record, flags).is_some());
        }
        assert_eq!(drained(&mut ring, 2), [b"b", b"d"]);
        assert_eq!(writer.given_back(), writer.written);
    }

    #[test]
    fn the_buffer_is_given_back_before_all_of_it_is_read() {
        let (mut writer, mut ring) = Writer::new(4 * page_size().get());
        while writer.write(&[7; 100], 0).is_some() {}
        let mut given_back = Vec::new();
        ring.drain(usize::MAX, |_| given_back.push(writer.given_back()));
        given_back.dedup();
        let part = writer.size as u64 / PARTS;
        for step in given_back.windows(2).map(|both| both[1] - both[0]) {
            assert!((part..part + 112).contains(&step), "{given_back:?}");
        }
        assert!(given_back.len() > 4, "{given_back:?}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_in_its_order(
            steps in proptest::collection::vec((0_usize..1500, 0_usize..4, any::<bool>()), 0..100),
        ) {
            let (mut writer, mut ring) = Writer::new(page_size().get());
            let mut expected = VecDeque::new();
            for (number, (length, most, discarded)) in steps.into_iter().enumerate() {
                let record = vec![number as u8; length];
                if discarded {
                    writer.write(&record, DISCARDED);
                } else if writer.write(&record, 0).is_some() {
                    expected.push_back(record);
                }
                for record in drained(&mut ring, most) {
                    prop_assert_eq!(Some(record), expected.pop_front());
                }
            }
            prop_assert_eq!(drained(&mut ring, usize::MAX), Vec::from(expected));
            prop_assert_eq!(writer.given_back(), writer.written);
        }
    }
}
