//! Gaps: whoever has kept the collector waiting for long lets it act before he goes on.
//!
//! A thread whose closures follow each other closely is outside for some nanoseconds at a time. The collector, asleep
//! until somebody leaves, takes some ten microseconds to wake up; by then the next closure is open, and it is this one
//! that the next grace period waits for. Where closures are short nobody minds. Where one takes
//! tens of milliseconds, each step of a cycle takes as long, and what is allocated meanwhile is retained: in the second
//! arming phase because it is grey, in the marking phase because it is black. A cycle over a program that
//! builds trees of 32 MiB, one in each closure, retained three of them.
//!
//! So the collector says since when it has been waiting, and a mutator that it has waited for, and that leaves nobody
//! inside, gives it back a part of the time for which it has *worked* meanwhile: it waits, outside, until the collector
//! has done what nobody could hold up:
//!
//! ```text
//!   from the grace period of arming A:   arming B, its grace period (nobody is inside), marking begins
//!   from that of a termination round:    if it was clean, all that is decided then; idle
//! ```
//!
//! [`Gap::close`] ends the waiting in both cases, and where a round was not clean. This is no handshake:
//! nothing depends on anybody's waiting. It is bounded by a [`PART`] of that time, and
//! by [`MOST`], so a thread loses no more than it has cost; and whoever waits is asleep, so that there is a processor to
//! wake up on. Grace periods shorter than [`LONG`] are nobody's fault: programs with short closures never wait here.
//!
//! What counts is the CPU time of the thread: the collector asks for it when it begins to wait for that thread in this
//! gap ([`Registry::note_work`](super::registry::Registry::note_work)), and the thread when it has left. Threads with short
//! closures lose their processor inside one now and then, for milliseconds, and would pay for that once more; and one
//! that sleeps in a closure leaves the collector a processor.
//!
//! # Locking
//! [`Rank::Control`].

use crate::sync::{Condition, Lock, Rank};
use std::time::{Duration, Instant};

/// Who has worked for so long while the collector waited for him waits for it.
const LONG: Duration = Duration::from_millis(1);

/// One part in so many of that is waited for it.
const PART: u32 = 8;

/// The longest that anybody waits. The collector needs less than that to wake up and act: with half a millisecond the
/// peak of binary-trees was the same.
const MOST: Duration = Duration::from_micros(200);

#[derive(Default)]
struct State {
    /// Since when the collector has been waiting for closures to end.
    since: Option<Instant>,
    /// How many gaps were closed.
    closed: u64,
    /// How many mutators wait.
    waiting: u32,
}

/// Where mutators let the collector act.
pub struct Gap {
    state: Lock<State>,
    changed: Condition,
}

/// How long a mutator waits that has worked for so long while the collector waited; `None`: not at all.
fn patience(worked: Duration) -> Option<Duration> {
    (worked >= LONG).then(|| (worked / PART).min(MOST))
}

impl Gap {
    /// The collector waits for nobody.
    pub const fn new() -> Gap {
        let state = State { since: None, closed: 0, waiting: 0 };
        Gap { state: Lock::new(Rank::Control, state), changed: Condition::new() }
    }

    /// The collector begins to wait for closures to end; or goes on with it, if the gap was not closed. The result is
    /// the gap's number, which is not 0.
    pub fn begin(&self) -> u64 {
        let mut state = self.state.lock();
        state.since.get_or_insert_with(Instant::now);
        state.closed + 1
    }

    /// The collector has done what it could do while nobody was inside.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.since = None;
        state.closed += 1;
        if state.waiting > 0 {
            self.changed.notify_all();
        }
    }

    /// Waits until the gap is closed, if the collector has been waiting for long, of which the caller has `worked` for
    /// long in the gap of that number, and for a moment only. He is outside, has woken the collector, and nobody else is
    /// inside. False if he has not waited at all.
    pub fn wait(&self, worked: impl FnOnce(u64) -> Duration) -> bool {
        let state = self.state.lock();
        let (since, gap) = (state.since, state.closed + 1);
        drop(state);
        let waited = since.map(|since| since.elapsed()).filter(|waited| *waited >= LONG);
        match waited.and_then(|waited| patience(worked(gap).min(waited))) {
            Some(patience) => {
                self.wait_for(patience);
                true
            }
            None => false,
        }
    }

    /// Whether somebody could wait.
    #[cfg(test)]
    pub fn is_open(&self) -> bool {
        self.state.lock().since.is_some()
    }

    /// Waits until the gap is closed, or so much time has passed.
    fn wait_for(&self, patience: Duration) {
        let until = Instant::now() + patience;
        let mut state = self.state.lock();
        let closed = state.closed;
        state.waiting += 1;
        while state.since.is_some() && state.closed == closed {
            let left = until.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                break;
            }
            state = self.changed.wait(state, Some(left));
        }
        state.waiting -= 1;
    }
}

impl Default for Gap {
    fn default() -> Gap {
        Gap::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gives_back_more_than_a_part_of_what_he_has_cost() {
        assert_eq!(patience(Duration::ZERO), None);
        assert_eq!(patience(LONG - Duration::from_nanos(1)), None);
        assert_eq!(patience(LONG), Some(Duration::from_micros(125)));
        assert_eq!(patience(Duration::from_micros(1500)), Some(Duration::from_nanos(187_500)));
        assert_eq!(patience(Duration::from_secs(3600)), Some(MOST));
    }

    #[test]
    fn without_a_gap_nobody_waits() {
        let gap = Gap::new();
        let all_the_time = |_| Duration::MAX;
        assert!(!gap.wait(all_the_time));
        gap.begin();
        gap.state.lock().since = Some(Instant::now() - Duration::from_secs(1));
        gap.close();
        assert!(!gap.wait(all_the_time));
        gap.wait_for(Duration::from_secs(1 << 20));
        // One that was begun is not begun again.
        let long_ago = Instant::now() - Duration::from_secs(1);
        gap.state.lock().since = Some(long_ago);
        gap.begin();
        assert_eq!(gap.state.lock().since, Some(long_ago));
        assert!(gap.wait(all_the_time), "it is waited for, and nobody closes it");
    }

    #[test]
    fn whoever_has_not_worked_does_not_wait_however_long_he_was_inside() {
        let gap = Gap::new();
        gap.begin();
        gap.state.lock().since = Some(Instant::now() - Duration::from_secs(1));
        assert!(!gap.wait(|_| LONG - Duration::from_nanos(1)));
        assert!(gap.wait(|number| if number == 1 { LONG } else { Duration::ZERO }));
        // Neither does he wait for a gap that has just begun, and he is not asked what he has done.
        gap.state.lock().since = Some(Instant::now() + Duration::from_secs(3600));
        assert!(!gap.wait(|_| panic!("the gap has not lasted for long")));
    }

    #[test]
    fn whoever_waits_goes_on_when_the_gap_is_closed_even_if_another_one_has_begun() {
        let gap = Gap::new();
        gap.begin();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| gap.wait_for(Duration::from_secs(1 << 20)));
            }
            while gap.state.lock().waiting < 3 {
                std::thread::yield_now();
            }
            gap.close();
            gap.begin();
        });
        assert_eq!(gap.state.lock().waiting, 0);
    }
}
