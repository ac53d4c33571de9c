//! What is told of a cycle when it has ended: its figures, and the line that they are written as.
//!
//! Whoever watches programs in Go knows the line that `GODEBUG=gctrace=1` writes for each cycle, and has tools that
//! read it. So the line of this heap begins as that one does, field by field, and what only this heap has comes
//! behind a bar, as `key=value`. Tools that know nothing of it stop at the bar.
//!
//! The figures are taken by the collector while it runs the cycle (`collect/journal.rs`); here is only what they mean
//! and how they are written. Everything is a whole number or a time, so nothing that is written is negative or no number.

use crate::addr::Bytes;
use core::fmt;
use std::time::Duration;

pub use super::central::Reason;

/// A cycle that has ended. `Display` makes a line of it, without the end of the line.
///
/// ```text
/// gc 12 @3.412s 2%: 0.018+4.1+0.022 ms clock, 0.017+0.40/3.9/0+0.021 ms cpu, 41->44->19 MB, 42 MB goal,
///   0 MB stacks, 0 MB globals, 4 P | heap=1 why=goal rounds=2 objects=310022 marked=19461KiB retained=live
///   sweep=0.31ms sweep_cpu=0.30ms outside=0KiB arenas=3/18 arena_live=4096KiB quarantined=1088->64KiB kept=1024KiB
///   escapes=2
/// ```
///
/// It is one line, which is broken here for want of room. Up to the bar it is Go's, with the same meaning wherever
/// there is such a thing; MB are 2^20 bytes and times are cut to two digits, as there. More keys may come at the end,
/// and those that are there keep their meaning. The last column says which field of `spanheap::Stats` has the same
/// figure right after the cycle, in a heap that nobody uses meanwhile.
///
/// | in the line | is | field | in `Stats` |
/// |---|---|---|---|
/// | `gc 12` | the number of the cycle, from 1 | `cycle` | `cycles` |
/// | `@3.412s` | when it began, since the heap was made | `began` | |
/// | `2%` | collecting so far, of all processors' time since the heap was made | `percent` | `gc_cpu`, over time and processors |
/// | `0.018+4.1+0.022 ms clock` | arming, marking and ending: see [`CycleClock`] | `clock` | |
/// | `0.017+0.40/3.9/0+0.021 ms cpu` | the same as processor time, that of marking in three parts: threads that allocate, the collector's threads, and threads that offer their time: see [`CycleCpu`] | `cpu` | with `sweep_cpu`, and over all cycles: `gc_cpu` |
/// | `41->44->19 MB` | what counts for the goal: when the cycle began, when marking had ended, and of that what lives | `heap_before`, `heap_marked`, `heap_live` | the last one: `live_bytes`, `accounted_bytes` and `arenas.live_bytes`, less what arenas the program is expected to free by itself |
/// | `42 MB goal` | the size at which the cycle was to end | `goal` | `goal_bytes`, before the cycle |
/// | `0 MB stacks` | nothing: no stack is looked at | | |
/// | `0 MB globals` | roots that were scanned | `roots` | `roots`, a word each |
/// | `4 P` | processors of the process | `processors` | |
/// | `(forced)` | only if somebody has asked for the cycle | `reason` | |
/// | `heap` | which heap of the process it is | `heap` | |
/// | `why` | [the reason](Reason), as the word that [`name`](Reason::name) says | `reason` | |
/// | `rounds` | how often the collector has looked whether marking was complete | `rounds` | |
/// | `objects`, `marked` | objects that were marked, and their bytes | `marked_objects`, `marked` | `live_objects`, `live_bytes` |
/// | `retained` | `live`: what was marked, and what is younger; `all`: the cycle could not finish marking, frees nothing, and `objects` and `marked` are what it has got to | `retained_everything` | `retained_everything` |
/// | `sweep`, `sweep_cpu` | what the collector's thread has done since, until everything was swept, and planning | `clock`, `cpu` | |
/// | `outside` | bytes that the program accounts for outside of the heap | `outside` | `accounted_bytes` |
/// | `arenas` | user arenas: open/freed so far | `arenas` | `arenas.open`, `arenas.freed` |
/// | `arena_live` | bytes of open ones | `arenas` | `arenas.live_bytes` |
/// | `quarantined` | addresses, without memory, of freed ones that something may still point to: when marking began, and what is left of them and of what was kept | `arenas` | `arenas.quarantined_bytes`, before and after |
/// | `kept` | freed ones that had their memory still, inaccessible, when marking began; after a cycle none has | `arenas` | `arenas.kept_bytes`, before |
/// | `escapes` | pointers into freed ones that cycles have found so far | `arenas` | `arenas.escapes` |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CycleTrace {
    /// The number of the heap in its process.
    pub heap: u64,
    /// The number of the cycle, from 1.
    pub cycle: u64,
    /// Why it began.
    pub reason: Reason,
    /// When, since the heap was made.
    pub began: Duration,
    /// What collecting has taken so far of the time of all processors since the heap was made, in percent, rounded
    /// down; at most 100.
    pub percent: u32,
    /// How long its steps have taken.
    pub clock: CycleClock,
    /// What they have cost.
    pub cpu: CycleCpu,
    /// What counted for the goal when it began: objects, what is accounted for outside, and user arenas, but for those
    /// that the program is expected to free by itself.
    pub heap_before: Bytes,
    /// The same when marking had ended.
    pub heap_marked: Bytes,
    /// Of that, what lives: objects that were marked, or, if everything was retained, all of them; and what lies outside
    /// of the heap.
    pub heap_live: Bytes,
    /// The size at which the cycle was to end.
    pub goal: Bytes,
    /// Entries of the root table when marking had ended.
    pub roots: Bytes,
    /// Processors that the process may use.
    pub processors: usize,
    /// Termination rounds that it took.
    pub rounds: u32,
    /// Objects that were marked. (Small values without pointers share a slot and count as one.)
    pub marked_objects: u64,
    /// Bytes of these.
    pub marked: Bytes,
    /// Whether marking could not be finished, so that nothing is freed.
    pub retained_everything: bool,
    /// Bytes that the program accounts for outside of the heap.
    pub outside: Bytes,
    /// User arenas.
    pub arenas: CycleArenas,
}

/// How long the steps of a cycle have taken. The program went on all the while.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct CycleClock {
    /// From its beginning until marking began: two grace periods, and sweeping what was left.
    pub arming: Duration,
    /// From there until nothing was left to be marked, the last round included.
    pub marking: Duration,
    /// From there until marking was over for everybody: weak pointers, finalizers, verification if it is on.
    pub ending: Duration,
    /// From there until everything was swept.
    pub sweeping: Duration,
}

/// What a cycle has cost in processor time.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct CycleCpu {
    /// Of the collector's thread until marking began.
    pub arming: Duration,
    /// Of threads of the program that have marked in the middle of allocations.
    pub assists: Duration,
    /// Of the collector's thread and its helpers in marking.
    pub marking: Duration,
    /// Of threads that had nothing better to do than to mark, and have offered it.
    pub offered: Duration,
    /// Of the collector's thread from there until marking was over for everybody.
    pub ending: Duration,
    /// Of the collector's thread from there until everything was swept.
    pub sweeping: Duration,
}

/// The user arenas of a heap, at the end of a cycle.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct CycleArenas {
    /// How many have not been freed.
    pub open: u64,
    /// How many have been, so far.
    pub freed: u64,
    /// Bytes of those that are open.
    pub live: Bytes,
    /// Bytes of addresses, without memory, of freed ones that something might have pointed to when marking began.
    pub quarantined_before: Bytes,
    /// Bytes of others that had their memory still, inaccessible. The cycle has made free pages of them, or taken it from
    /// those that something points to.
    pub kept: Bytes,
    /// Bytes of addresses, without memory, of freed ones that something may still point to.
    pub quarantined: Bytes,
    /// Pointers into freed ones that cycles have found, so far.
    pub escapes: u64,
}

/// What `spent` is of `elapsed` on so many processors, in percent.
pub(crate) fn percent(spent: Duration, elapsed: Duration, processors: usize) -> u32 {
    let all = elapsed.as_nanos().saturating_mul(processors as u128);
    let share = spent.as_nanos().saturating_mul(100).checked_div(all).unwrap_or(0);
    // A hundred at most, so it fits.
    share.min(100) as u32
}

/// A time in milliseconds: whole ones from ten on, below that two digits, but no more than three behind the point.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        let (whole, rest) = (micros / 1000, micros % 1000);
        match micros {
            0 => f.write_str("0"),
            1..100 => write!(f, "0.{rest:03}"),
            100..1000 => write!(f, "0.{:02}", rest / 10),
            1000..10_000 => write!(f, "{whole}.{}", rest / 100),
            _ => write!(f, "{whole}"),
        }
    }
}

/// Whole mebibytes, rounded down.
fn mb(bytes: Bytes) -> usize {
    bytes.get() >> 20
}

/// Kibibytes, rounded down; of pages nothing is lost by that.
struct Kib(Bytes);

impl fmt::Display for Kib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}KiB", self.0.get() >> 10)
    }
}

impl fmt::Display for CycleTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_as_go(f)?;
        f.write_str(" | ")?;
        self.write_keys(f)
    }
}

impl CycleTrace {
    /// What Go's line has.
    fn write_as_go(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clock, cpu) = (&self.clock, &self.cpu);
        let [arming, marking, ending] = [clock.arming, clock.marking, clock.ending].map(Millis);
        let (seconds, millis) = (self.began.as_secs(), self.began.subsec_millis());
        write!(f, "gc {} @{seconds}.{millis:03}s {}%: ", self.cycle, self.percent)?;
        write!(f, "{arming}+{marking}+{ending} ms clock, ")?;
        let [arming, ending] = [cpu.arming, cpu.ending].map(Millis);
        let [assists, marking, offered] = [cpu.assists, cpu.marking, cpu.offered].map(Millis);
        write!(f, "{arming}+{assists}/{marking}/{offered}+{ending} ms cpu, ")?;
        let [before, marked, live] = [self.heap_before, self.heap_marked, self.heap_live].map(mb);
        write!(f, "{before}->{marked}->{live} MB, {} MB goal, ", mb(self.goal))?;
        write!(f, "0 MB stacks, {} MB globals, {} P", mb(self.roots), self.processors)?;
        match self.reason {
            Reason::Asked => f.write_str(" (forced)"),
            _ => Ok(()),
        }
    }

    /// What it has not.
    fn write_keys(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retained = if self.retained_everything { "all" } else { "live" };
        write!(f, "heap={} why={} rounds={} ", self.heap, self.reason.name(), self.rounds)?;
        write!(f, "objects={} marked={} ", self.marked_objects, Kib(self.marked))?;
        let [sweep, sweep_cpu] = [self.clock.sweeping, self.cpu.sweeping].map(Millis);
        write!(f, "retained={retained} sweep={sweep}ms sweep_cpu={sweep_cpu}ms ")?;
        let CycleArenas { open, freed, escapes, .. } = self.arenas;
        write!(f, "outside={} arenas={open}/{freed} ", Kib(self.outside))?;
        let CycleArenas { live, quarantined_before, kept, quarantined, .. } = self.arenas;
        let [live, kept, quarantined] = [live, kept, quarantined].map(Kib);
        let before = quarantined_before.get() >> 10;
        write!(f, "arena_live={live} quarantined={before}->{quarantined} kept={kept} ")?;
        write!(f, "escapes={escapes}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mib(n: usize) -> Bytes {
        Bytes::new((n << 20) + 1023)
    }

    fn trace() -> CycleTrace {
        let us = Duration::from_micros;
        CycleTrace {
            heap: 1,
            cycle: 12,
            reason: Reason::Goal,
            began: us(3_412_999),
            percent: 2,
            clock: CycleClock {
                arming: us(18),
                marking: us(4199),
                ending: us(22),
                sweeping: us(319),
            },
            cpu: CycleCpu {
                arming: us(17),
                assists: us(409),
                marking: us(3900),
                offered: Duration::from_nanos(999),
                ending: us(21),
                sweeping: us(300),
            },
            heap_before: mib(41),
            heap_marked: mib(44),
            heap_live: mib(19),
            goal: mib(42),
            roots: Bytes::new(1 << 16),
            processors: 4,
            rounds: 2,
            marked_objects: 310_022,
            marked: Bytes::new(19_461 << 10),
            retained_everything: false,
            outside: Bytes::ZERO,
            arenas: CycleArenas {
                open: 3,
                freed: 18,
                live: Bytes::new(4 << 20),
                quarantined_before: Bytes::new(1088 << 10),
                kept: Bytes::new(1 << 20),
                quarantined: Bytes::new(64 << 10),
                escapes: 2,
            },
        }
    }

    /// The line of the documentation, in one piece.
    #[test]
    fn the_line_is_the_one_that_is_documented() {
        assert_eq!(
            trace().to_string(),
            "gc 12 @3.412s 2%: 0.018+4.1+0.022 ms clock, 0.017+0.40/3.9/0+0.021 ms cpu, 41->44->19 MB, 42 MB goal, \
             0 MB stacks, 0 MB globals, 4 P | heap=1 why=goal rounds=2 objects=310022 marked=19461KiB retained=live \
             sweep=0.31ms sweep_cpu=0.30ms outside=0KiB arenas=3/18 arena_live=4096KiB quarantined=1088->64KiB \
             kept=1024KiB escapes=2"
        );
    }

    #[test]
    fn who_has_asked_and_what_was_retained_are_said() {
        let mut trace = trace();
        (trace.reason, trace.retained_everything) = (Reason::Asked, true);
        let line = trace.to_string();
        assert!(line.contains(" 4 P (forced) | heap=1 why=asked "), "{line}");
        assert!(line.contains(" retained=all "), "{line}");
    }

    #[test]
    fn times_have_two_digits_or_are_whole_milliseconds() {
        let text = |nanos| Millis(Duration::from_nanos(nanos)).to_string();
        let cases = [
            (0, "0"),
            (999, "0"),
            (1000, "0.001"),
            (99_999, "0.099"),
            (100_000, "0.10"),
            (999_999, "0.99"),
            (1_000_000, "1.0"),
            (9_999_999, "9.9"),
            (10_000_000, "10"),
            (1_234_567_890, "1234"),
        ];
        for (nanos, expected) in cases {
            assert_eq!(text(nanos), expected);
        }
        assert_eq!(Millis(Duration::MAX).to_string(), "18446744073709551615999");
    }

    #[test]
    fn a_share_is_a_percentage_whatever_the_clocks_say() {
        let second = Duration::from_secs(1);
        assert_eq!(percent(second, second * 10, 2), 5);
        assert_eq!(percent(second * 199, second * 1000, 2), 9);
        assert_eq!(percent(second * 3, second, 2), 100, "the clocks differ by a little");
        assert_eq!(percent(second, Duration::ZERO, 2), 0);
        assert_eq!(percent(Duration::MAX, Duration::MAX, usize::MAX), 0);
        assert_eq!(percent(Duration::MAX, second, 1), 100);
    }
}
