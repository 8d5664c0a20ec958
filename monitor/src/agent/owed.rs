//! Clear text that a process has given to its TLS library, and not yet sent: where the library works in memory, the process
//! sends what it made of it later. What clear text says is told when its last byte was sent, and of that moment. Another
//! thread of the process may have received more by then, which waits for its turn.

use std::{collections::VecDeque, mem::offset_of};

use monitor_ebpf::record::{
    CLOSED_BY_PEER, Data, FLAG_OWED, FLAG_PLAIN, Header, KIND_CLOSED, KIND_RECEIVED, KIND_SENT, enciphered,
};
use rustc_hash::FxHashMap;

/// How much of one connection waits at most: more is told at once, of the moment when the library was given it.
const MOST: usize = 1024;

/// What waits, by connection.
#[derive(Debug, Default)]
pub(super) struct Owed {
    waiting: FxHashMap<u64, Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Vec<u8>>,
    /// How many bytes were sent that are not among those of a record that was told.
    sent: u64,
}

impl Owed {
    /// Passes a record on, before it those that need not wait any more, and keeps it where it has to wait itself.
    pub(super) fn pass(&mut self, record: &[u8], mut handle: impl FnMut(&[u8])) {
        let (Some(&kind), Some(flags)) = (record.first(), u16_at(record, offset_of!(Header, flags))) else {
            return handle(record);
        };
        let is_data = kind == KIND_RECEIVED || kind == KIND_SENT;
        if is_data && flags & FLAG_PLAIN != 0 {
            let record = without_room(record);
            if flags & FLAG_OWED != 0 || (kind == KIND_RECEIVED && self.is_waiting(record)) {
                self.keep(record, handle);
            } else {
                if kind == KIND_SENT {
                    self.release(record, None, &mut handle);
                }
                handle(record);
            }
            return;
        }
        if !self.waiting.is_empty() {
            if kind == KIND_SENT {
                let len = u32_at(record, offset_of!(Data, len)).unwrap_or(0);
                self.release(record, Some(len.into()), &mut handle);
            } else if kind == KIND_CLOSED && record.get(1) != Some(&CLOSED_BY_PEER) {
                self.release(record, None, &mut handle);
            }
        }
        handle(record);
    }

    /// Whether something of a record's connection waits.
    fn is_waiting(&self, record: &[u8]) -> bool {
        !self.waiting.is_empty()
            && u64_at(record, offset_of!(Header, connection))
                .is_some_and(|connection| self.waiting.contains_key(&connection))
    }

    fn keep(&mut self, record: &[u8], mut handle: impl FnMut(&[u8])) {
        let Some(connection) = u64_at(record, offset_of!(Header, connection)) else { return handle(record) };
        let queue = self.waiting.entry(connection).or_default();
        if queue.records.len() == MOST
            && let Some(first) = queue.records.pop_front()
        {
            handle(&first);
        }
        queue.records.push_back(record.to_vec());
    }

    /// Passes on what waits of the connection of a record, of that one's time: all of it, or as much as so many bytes are.
    fn release(&mut self, by: &[u8], sent: Option<u64>, handle: &mut impl FnMut(&[u8])) {
        let at = offset_of!(Header, at);
        let (Some(connection), Some(time)) = (u64_at(by, offset_of!(Header, connection)), by.get(at..at + 8))
        else {
            return;
        };
        let Some(queue) = self.waiting.get_mut(&connection) else { return };
        queue.sent = queue.sent.saturating_add(sent.unwrap_or(0));
        while let Some(first) = queue.records.front_mut() {
            if first.first() == Some(&KIND_SENT) {
                let needed = enciphered(u32_at(first, offset_of!(Data, len)).unwrap_or(0).into());
                if sent.is_some() {
                    if queue.sent < needed {
                        return;
                    }
                    queue.sent -= needed;
                }
                first[at..at + 8].copy_from_slice(time);
            }
            handle(first);
            queue.records.pop_front();
        }
        self.waiting.remove(&connection);
    }
}

/// A record of clear text without the room behind it.
fn without_room(record: &[u8]) -> &[u8] {
    let part = |at| u16_at(record, at).map_or(0, usize::from);
    let len = size_of::<Data>() + part(offset_of!(Data, prefix)) + part(offset_of!(Data, tail));
    record.get(..len).unwrap_or(record)
}

fn u16_at(record: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(record.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(record: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(record.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(record: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(record.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{self, Event};

    const CONNECTION: u64 = 7;

    /// A record of the connection: its time, its bytes, and how many it moved.
    fn record(kind: u8, flags: u16, at: u64, bytes: &[u8], len: u32) -> Vec<u8> {
        let mut record = vec![kind, 0];
        record.extend_from_slice(&flags.to_ne_bytes());
        record.extend_from_slice(&1_u32.to_ne_bytes());
        record.extend_from_slice(&at.to_ne_bytes());
        record.extend_from_slice(&CONNECTION.to_ne_bytes());
        record.extend_from_slice(&1_u32.to_ne_bytes());
        record.extend_from_slice(&(-1_i32).to_ne_bytes());
        record.extend_from_slice(&[0; 24]);
        record.extend_from_slice(&len.to_ne_bytes());
        record.extend_from_slice(&(bytes.len() as u16).to_ne_bytes());
        record.extend_from_slice(&[0; 2]);
        record.extend_from_slice(bytes);
        record
    }

    /// What comes out: clear text or not, its length, and its time.
    fn passed(records: &[Vec<u8>]) -> Vec<(bool, u32, u64)> {
        let mut owed = Owed::default();
        let mut out = Vec::new();
        for record in records {
            owed.pass(record, |record| match event::decode(record).unwrap() {
                Event::Data(origin, _, data) => out.push((data.plain, data.len, origin.at.0)),
                Event::Closed(origin, ..) => out.push((false, 0, origin.at.0)),
                other => panic!("{other:?}"),
            });
        }
        out
    }

    fn given(at: u64, len: u32) -> Vec<u8> {
        record(KIND_SENT, FLAG_PLAIN | FLAG_OWED, at, b"HTTP", len)
    }

    fn sent(at: u64, len: u32) -> Vec<u8> {
        record(KIND_SENT, 0, at, b"", len)
    }

    #[test]
    fn clear_text_is_told_when_its_last_byte_was_sent() {
        let all =
            [given(1, 100), given(2, 20_000), sent(3, 122), sent(4, 10_000), sent(5, 10_044), sent(6, 9)];
        assert_eq!(
            passed(&all),
            [
                (true, 100, 3),
                (false, 122, 3),
                (false, 10_000, 4),
                (true, 20_000, 5),
                (false, 10_044, 5),
                (false, 9, 6)
            ]
        );
    }

    #[test]
    fn what_a_library_sent_itself_does_not_wait() {
        let direct = record(KIND_SENT, FLAG_PLAIN, 4, b"HTTP", 30);
        assert_eq!(
            passed(&[given(1, 10), direct.clone(), direct]),
            [(true, 10, 4), (true, 30, 4), (true, 30, 4)]
        );
    }

    #[test]
    fn what_was_received_meanwhile_comes_after_it_with_its_own_time() {
        let received = |at, len| record(KIND_RECEIVED, FLAG_PLAIN, at, b"GET", len);
        let all =
            [given(1, 100), received(2, 30), given(3, 100), received(4, 31), sent(5, 122), sent(6, 122)];
        assert_eq!(
            passed(&all),
            [(true, 100, 5), (true, 30, 2), (false, 122, 5), (true, 100, 6), (true, 31, 4), (false, 122, 6)]
        );
        assert_eq!(passed(&[received(1, 30)]), [(true, 30, 1)]);
    }

    #[test]
    fn the_end_of_the_connection_ends_the_wait() {
        let mut closed = record(KIND_CLOSED, 0, 9, b"", 0);
        closed[1] = monitor_ebpf::record::CLOSED_FULLY;
        assert_eq!(
            passed(&[given(1, 10), given(2, 10), closed]),
            [(true, 10, 9), (true, 10, 9), (false, 0, 9)]
        );
    }

    #[test]
    fn what_waits_is_bounded() {
        let many: Vec<_> = (0..MOST as u64 + 2).map(|at| given(at, 10)).collect();
        assert_eq!(passed(&many), [(true, 10, 0), (true, 10, 1)]);
    }

    #[test]
    fn the_room_behind_a_record_is_left_off() {
        let mut long = record(KIND_RECEIVED, FLAG_PLAIN, 1, b"GET", 3);
        let len = long.len();
        long.resize(len + 200, b'x');
        Owed::default().pass(&long, |record| assert_eq!(record.len(), len));
    }
}
