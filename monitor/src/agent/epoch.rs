//! What the real-time clock is ahead of the events' one, which nobody sets.

use std::sync::atomic::{AtomicU64, Ordering};

use nix::time::{ClockId, clock_gettime};

/// Less than this is how exact it can be measured; more, and the real-time clock was set.
const STEP: u64 = 1_000_000;
/// The longest that a measurement may take, or else something came in between.
const LONGEST: u64 = 100_000;
/// How often something may come in between.
const TRIES: usize = 4;

/// The difference, the same as long as nobody sets the clock: times that are told twice are told alike.
#[derive(Debug)]
pub(super) struct Epoch(AtomicU64);

impl Epoch {
    /// As it is now.
    pub(super) fn new() -> Self {
        let now = monotonic();
        Self(AtomicU64::new(measured().unwrap_or_else(|| read(ClockId::CLOCK_REALTIME).saturating_sub(now))))
    }

    /// In nanoseconds.
    pub(super) fn now(&self) -> u64 {
        let before = self.0.load(Ordering::Relaxed);
        match measured() {
            Some(now) if now.abs_diff(before) > STEP => {
                self.0.store(now, Ordering::Relaxed);
                now
            }
            _ => before,
        }
    }
}

fn measured() -> Option<u64> {
    (0..TRIES).find_map(|_| {
        let before = monotonic();
        let real = read(ClockId::CLOCK_REALTIME);
        let after = monotonic();
        (after - before < LONGEST).then(|| real.saturating_sub(before.midpoint(after)))
    })
}

fn monotonic() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

fn read(clock: ClockId) -> u64 {
    clock_gettime(clock)
        .map_or(0, |time| time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_until_the_clock_is_set() {
        let epoch = Epoch::new();
        let first = epoch.now();
        assert_eq!([epoch.now(), epoch.now()], [first; 2]);
        // As it was before the clock was set by a minute.
        let set = Epoch(AtomicU64::new(first - 60_000_000_000));
        assert!(set.now().abs_diff(first) < STEP);
    }
}
