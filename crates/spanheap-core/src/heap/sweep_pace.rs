//! Proportional sweeping: how many pages are to be swept for how many bytes that are taken.
//!
//! The collector's thread sweeps everything after it has marked. If it gets no processor, the next cycle
//! is due and cannot begin, because its marks need clean bits. So mutators sweep along: between the point
//! at which the line below was drawn and the trigger of the next cycle, pages swept keep pace with bytes
//! taken, and all pages are swept a little before the trigger, whoever has swept them.
//!
//! ```text
//!   pages swept
//!     ^
//!     |                  .---- all that waited when the line was drawn
//!     |             .·'  |
//!     |        .·'       |
//!     |   .·'            |
//!   --+-------------------------> live bytes
//!     now           trigger - 1 MiB
//! ```
//!
//! **A change of the line creates no debt**: it begins where the heap is now, in both coordinates, so what
//! has been taken and swept before counts for nothing. Then a line is two pairs of numbers, and the slope
//! is a fraction: there is no rounding that adds up.
//!
//! # Ordering
//! The collector alone draws lines; mutators read them without a lock. A version number that is odd while
//! the line changes lets a reader know that what it read belongs together. A reader that meets a change owes
//! nothing: the new line begins here.

use crate::addr::{Bytes, PageCount};
use crate::sync::atomic::{AtomicU64, Ordering, fence};

/// Sweeping is to be over this many bytes before the trigger.
const SLACK: u64 = 1 << 20;

/// The shortest way over which the pages of a line are spread.
const SHORTEST: u64 = 8 << 10;

/// How many pages to sweep on the way to the trigger.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Line {
    /// Live bytes where the line begins.
    live: u64,
    /// Pages that had been swept there.
    swept: u64,
    /// Pages to sweep ...
    pages: u64,
    /// ... while this many bytes are taken.
    distance: u64,
}

impl Line {
    /// A line from here, where `live` bytes are live and `swept` pages have been swept, to the trigger, by
    /// when the `waiting` pages are to be swept, too.
    pub fn new(waiting: PageCount, swept: u64, live: Bytes, trigger: Bytes) -> Line {
        let live = live.get() as u64;
        let distance = (trigger.get() as u64).saturating_sub(live).saturating_sub(SLACK);
        Line { live, swept, pages: waiting.get() as u64, distance: distance.max(SHORTEST) }
    }

    /// How many pages are missing, when `swept` pages have been swept and `live` bytes are live, for
    /// somebody who is about to take `bytes` more and to sweep `own` pages for it.
    pub fn owed(&self, live: Bytes, swept: u64, bytes: Bytes, own: PageCount) -> u64 {
        let after = (live.get() as u64).saturating_add(bytes.get() as u64);
        let taken = after.saturating_sub(self.live);
        let target = u128::from(self.pages) * u128::from(taken) / u128::from(self.distance.max(1));
        let target = u64::try_from(target).unwrap_or(u64::MAX);
        let done = swept.saturating_sub(self.swept).saturating_add(own.get() as u64);
        target.saturating_sub(done)
    }
}

/// The line that holds now.
pub struct SweepPace {
    version: AtomicU64,
    live: AtomicU64,
    swept: AtomicU64,
    pages: AtomicU64,
    distance: AtomicU64,
}

impl SweepPace {
    /// A line on which nobody owes anything.
    pub const fn new() -> SweepPace {
        SweepPace {
            version: AtomicU64::new(0),
            live: AtomicU64::new(0),
            swept: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            distance: AtomicU64::new(0),
        }
    }

    /// Draws another line. One thread at a time does that: the collector's.
    pub fn set(&self, line: Line) {
        let version = self.version.load(Ordering::Relaxed);
        debug_assert!(version % 2 == 0, "two threads draw lines");
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.live.store(line.live, Ordering::Relaxed);
        self.swept.store(line.swept, Ordering::Relaxed);
        self.pages.store(line.pages, Ordering::Relaxed);
        self.distance.store(line.distance, Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }

    /// Draws a line on which nobody owes anything.
    pub fn rest(&self) {
        self.set(Line::default());
    }

    /// The line; `None` while it is being changed.
    pub fn line(&self) -> Option<Line> {
        let version = self.version.load(Ordering::Acquire);
        let line = Line {
            live: self.live.load(Ordering::Relaxed),
            swept: self.swept.load(Ordering::Relaxed),
            pages: self.pages.load(Ordering::Relaxed),
            distance: self.distance.load(Ordering::Relaxed),
        };
        fence(Ordering::Acquire);
        let same = self.version.load(Ordering::Relaxed) == version;
        (version % 2 == 0 && same).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Random;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicBool;

    const MIB: usize = 1 << 20;
    const NOTHING: PageCount = PageCount::ZERO;

    fn line(waiting: usize, swept: u64, live: usize, trigger: usize) -> Line {
        Line::new(PageCount::new(waiting), swept, Bytes::new(live), Bytes::new(trigger))
    }

    fn owed(line: &Line, live: usize, swept: u64) -> u64 {
        line.owed(Bytes::new(live), swept, Bytes::ZERO, NOTHING)
    }

    #[test]
    fn pages_follow_bytes_to_a_mebibyte_before_the_trigger() {
        let line = line(1000, 70, 100 * MIB, 201 * MIB);
        assert_eq!(owed(&line, 100 * MIB, 70), 0);
        assert_eq!(owed(&line, 150 * MIB, 70), 500);
        assert_eq!(owed(&line, 150 * MIB, 70 + 480), 20);
        assert_eq!(owed(&line, 200 * MIB, 70), 1000);
        assert_eq!(owed(&line, 200 * MIB, 70 + 1000), 0);
    }

    #[test]
    fn a_trigger_that_is_near_or_past_makes_the_way_8_kib_long() {
        for trigger in [0, 100 * MIB, 101 * MIB, 101 * MIB + 8191] {
            let line = line(64, 0, 100 * MIB, trigger);
            assert_eq!(owed(&line, 100 * MIB, 0), 0);
            assert_eq!(owed(&line, 100 * MIB + 128, 0), 1);
            assert_eq!(owed(&line, 100 * MIB + 8192, 0), 64);
        }
    }

    #[test]
    fn what_is_about_to_be_taken_counts_and_own_pages_do() {
        let line = line(1000, 0, 0, 101 * MIB);
        let about = |own| line.owed(Bytes::ZERO, 0, Bytes::new(10 * MIB), PageCount::new(own));
        assert_eq!(about(0), 100);
        assert_eq!(about(99), 1);
        assert_eq!(about(100), 0);
        assert_eq!(about(5000), 0);
    }

    #[test]
    fn without_a_trigger_nobody_owes_anything() {
        let line = line(1 << 20, 0, MIB, usize::MAX);
        assert_eq!(owed(&line, 1 << 40, 0), 0);
        assert_eq!(owed(&Line::default(), usize::MAX, 0), 0);
    }

    proptest! {
        /// Whoever pays what he owes before each allocation has swept everything when live bytes come
        /// within a mebibyte of the trigger, and has never swept a page too many.
        #[test]
        fn who_pays_has_swept_everything_in_time(
            waiting in 0usize..1 << 20,
            swept in 0u64..1 << 40,
            live in 0usize..1 << 40,
            way in 0usize..64 * MIB,
            steps in proptest::collection::vec(1usize..4 * MIB, 1..60),
        ) {
            let trigger = live + way;
            let line = line(waiting, swept, live, trigger);
            prop_assert_eq!(owed(&line, live, swept), 0, "no debt where the line begins");
            let end = live + way.saturating_sub(MIB).max(8 << 10);
            let (mut now, mut done) = (live, swept);
            for step in steps {
                let due = line.owed(Bytes::new(now), done, Bytes::new(step), NOTHING);
                // More is owed beyond the end of the line than there is; then nothing waits any more.
                done += due.min(swept + waiting as u64 - done);
                now += step;
                let share = |at: usize| ((at - live) as f64 / (end - live) as f64).min(1.0);
                let paid = (done - swept) as f64;
                prop_assert!(paid >= (waiting as f64 * share(now)).floor() - 1.0);
                prop_assert!(paid <= waiting as f64 * share(now) + 1.0);
                if now >= end {
                    prop_assert_eq!(done, swept + waiting as u64);
                }
            }
        }

        /// A line that is drawn anew on the way asks for nothing at once, and ends at the same place.
        #[test]
        fn a_change_of_the_line_creates_no_debt(
            waiting in 1usize..1 << 20,
            way in 2 * MIB..1 << 34,
            at in 0usize..1 << 34,
            paid in 0usize..1 << 20,
        ) {
            let (at, paid) = (at % way, paid % waiting);
            let trigger = way + MIB;
            let first = line(waiting, 0, 0, trigger);
            let second = line(waiting - paid, paid as u64, at, trigger);
            prop_assert_eq!(owed(&second, at, paid as u64), 0);
            let end = way.max(at + (8 << 10));
            prop_assert_eq!(owed(&second, end, waiting as u64), 0);
            prop_assert_eq!(owed(&second, end, paid as u64), (waiting - paid) as u64);
            prop_assert_eq!(owed(&first, way, waiting as u64), 0);
        }
    }

    /// Readers get lines that were drawn, whole.
    #[test]
    fn a_reader_sees_whole_lines() {
        let (pace, over) = (SweepPace::new(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = Random::new(0x9ace);
                for _ in 0..200_000 {
                    let n = random.next() & 0xffff;
                    pace.set(Line { live: n, swept: n + 1, pages: n + 2, distance: n + 3 });
                }
                over.store(true, Ordering::Release);
            });
            let mut seen = 0;
            while !over.load(Ordering::Acquire) {
                match pace.line() {
                    Some(line) if line != Line::default() => {
                        let n = line.live;
                        assert_eq!((line.swept, line.pages, line.distance), (n + 1, n + 2, n + 3));
                        seen += 1;
                    }
                    _ => {}
                }
            }
            // However the threads were scheduled, the last line can be read.
            assert!(seen > 0 || pace.line().is_some());
        });
    }
}
