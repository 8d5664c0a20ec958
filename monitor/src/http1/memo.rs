//! Heads that were read before: the same bytes say the same.
//!
//! Clients that poll and servers that answer them send few different heads again and again. A head is kept by a few of
//! the words around it, compared whole, and never trusted by less than all of its bytes.

/// How many heads are kept.
const MOST: usize = 128;
/// Longer heads are read each time.
const LONGEST: usize = 1024;
const WORD: usize = size_of::<u64>();

struct Kept<T> {
    head: Vec<u8>,
    says: T,
}

/// What heads say that were read before.
pub(super) struct Memo<T>(Vec<Option<Kept<T>>>);

impl<T: Copy> Memo<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// What the head that the bytes begin with says, and its length.
    pub(super) fn recall(&self, bytes: &[u8]) -> Option<(T, usize)> {
        let kept = self.0.get(place(bytes)?)?.as_ref()?;
        bytes.starts_with(&kept.head).then_some((kept.says, kept.head.len()))
    }

    /// Keeps what the head says that is the first `len` of the bytes.
    pub(super) fn keep(&mut self, bytes: &[u8], len: usize, says: T) {
        let Some(place) = place(bytes).filter(|_| len <= LONGEST) else { return };
        if self.0.is_empty() {
            self.0.resize_with(MOST, || None);
        }
        let mut head = self.0[place].take().map_or_else(Vec::new, |kept| kept.head);
        head.clear();
        head.extend_from_slice(&bytes[..len]);
        self.0[place] = Some(Kept { head, says });
    }
}

/// Where the head is kept that these bytes begin with: their length and some of their words tell it from most others.
fn place(bytes: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let last = bytes.len().checked_sub(2 * WORD)?;
    let mut sum = bytes.len() as u64;
    for at in [WORD.min(last), (2 * WORD).min(last), (3 * WORD).min(last), last, last + WORD] {
        sum = (sum.rotate_left(5) ^ word(at)?).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    Some((sum >> 57) as usize % MOST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_bytes_are_recalled() {
        let mut memo = Memo::new();
        let head = b"GET /one HTTP/1.1\r\nHost: a.example\r\n\r\n";
        memo.keep(head, head.len(), 7);
        assert_eq!(memo.recall(head), Some((7, head.len())));
        for index in 0..head.len() {
            let mut other = *head;
            other[index] ^= 1;
            assert_eq!(memo.recall(&other), None, "{index}");
            assert_eq!(memo.recall(&head[..index]), None, "{index}");
        }
    }

    #[test]
    fn what_is_long_or_short_is_not_kept() {
        let mut memo = Memo::new();
        let long = [b'a'; LONGEST + 1];
        memo.keep(&long, long.len(), 1);
        memo.keep(b"short", 5, 1);
        assert_eq!((memo.recall(&long), memo.recall(b"short")), (None, None));
    }

    #[test]
    fn there_are_never_more_than_so_many() {
        let mut memo = Memo::new();
        for number in 0..10_000_u32 {
            let head = format!("GET /{number} HTTP/1.1\r\nHost: a.example\r\n\r\n");
            memo.keep(head.as_bytes(), head.len(), number);
        }
        assert_eq!(memo.0.len(), MOST);
    }
}
