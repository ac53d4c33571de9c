//! What a system was found to offer, and what it has refused.
//!
//! Much of what the `os` layer uses is optional: kernels lack it, and sandboxes refuse it. Nothing is
//! assumed from a version number. Each optional thing has a latch, which starts as *untried* (or as
//! *refused*, when a question without effect has shown that at the start), becomes *works* with the first
//! success, and *refused* with the first refusal that will last. A refused feature is not tried again:
//! what stands in for it is used from then on, and no system call is wasted. A refusal that concerns one
//! range or one moment (locked memory, no memory right now) does not change the latch.
//!
//! [`Os::features`](super::Os::features) makes all of it visible, for statistics and for whoever wonders
//! why a program behaves differently in its container.
//!
//! # Locking
//! None. A latch is one atomic word that orders nothing else: a thread that reads an old value makes a
//! call too many.

use core::fmt;

use super::barrier::BarrierKind;
use crate::addr::Bytes;
use crate::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// What is known of an optional ability of the system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// Not used so far, and not known to be missing.
    Untried,
    /// Used with success.
    Works,
    /// The system refused it for good, with this error number. What stands in for it is in use.
    Refused(i32),
    /// Not wanted, or of no use here.
    Off,
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Feature::Untried => f.write_str("untried"),
            Feature::Works => f.write_str("works"),
            Feature::Refused(errno) => write!(f, "refused (errno {errno})"),
            Feature::Off => f.write_str("off"),
        }
    }
}

/// A [`Feature`] that changes as the system answers: from untried to works or refused, from works to
/// refused, and never back.
pub(super) struct Latch(AtomicI32);

impl Latch {
    const UNTRIED: i32 = 0;
    const WORKS: i32 = -1;
    const OFF: i32 = -2;

    pub(super) const fn new(feature: Feature) -> Latch {
        Latch(AtomicI32::new(match feature {
            Feature::Untried => Latch::UNTRIED,
            Feature::Works => Latch::WORKS,
            Feature::Off => Latch::OFF,
            Feature::Refused(errno) => errno,
        }))
    }

    pub(super) fn get(&self) -> Feature {
        match self.0.load(Relaxed) {
            Latch::UNTRIED => Feature::Untried,
            Latch::WORKS => Feature::Works,
            Latch::OFF => Feature::Off,
            errno => Feature::Refused(errno),
        }
    }

    /// Whether it is worth a try.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        matches!(self.0.load(Relaxed), Latch::UNTRIED | Latch::WORKS)
    }

    /// It was used with success.
    pub(super) fn works(&self) {
        if self.0.load(Relaxed) == Latch::UNTRIED {
            // A refusal that comes in between is not overwritten.
            let _ = self.0.compare_exchange(Latch::UNTRIED, Latch::WORKS, Relaxed, Relaxed);
        }
    }

    /// The system will never do it.
    pub(super) fn refuse(&self, errno: i32) {
        self.0.store(errno.max(1), Relaxed);
    }

    /// Notes the outcome of a use. `lasting` says which error numbers mean that there will be no other
    /// answer.
    pub(super) fn note<T>(&self, result: &Result<T, i32>, lasting: impl Fn(i32) -> bool) {
        match result {
            Ok(_) => self.works(),
            Err(errno) if lasting(*errno) => self.refuse(*errno),
            Err(_) => {}
        }
    }
}

/// Whether an error number says that a call does not exist, or is forbidden to this process. Sandboxes
/// answer with either.
pub(super) const fn is_forbidden(errno: i32) -> bool {
    matches!(errno, libc::ENOSYS | libc::EPERM | libc::EACCES | libc::EOPNOTSUPP)
}

/// What an [`Os`](super::Os) has found out about its system so far. Prints as one line per item.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Features {
    /// Which system it is.
    pub system: &'static str,
    /// The size of a physical page.
    pub page_size: Bytes,
    /// The size of a transparent huge page; zero when there are none of use.
    pub huge_page_size: Bytes,
    /// Whether memory reads as zeros after `unused` and `used`.
    pub zero_after_unused: bool,
    /// Giving the memory behind a range back while the range stays mapped. Without it `unused` clears the
    /// range, and its memory stays with the process.
    pub discard: Feature,
    /// Reservations that are not charged against the system's memory. Without it they may be, under
    /// strict accounting.
    pub uncharged: Feature,
    /// Hints about huge pages.
    pub huge_hints: Feature,
    /// Putting a range into huge pages at once.
    pub collapse: Feature,
    /// Names for mappings in the system's list of them.
    pub names: Feature,
    /// Guarding pages without changing their mapping. Without it `guard` takes access away by changing
    /// mappings, as long as its share of them lasts.
    pub guard_markers: Feature,
    /// Moving memory to other addresses: aside while it is shut, or onwards when what had it is guarded. Without it,
    /// shutting and opening large ranges takes longer, and nothing is moved onwards.
    pub moves: Feature,
    /// How many mappings ranges that were guarded, made inaccessible or moved may cost, at most, before
    /// `guard` stops making them.
    pub split_limit: usize,
    /// How many such ranges cost now, at most.
    pub splits: usize,
    /// How often `guard` could only return the memory, so that an access would not fault.
    pub guards_without_fault: u64,
    /// What the system offers as a barrier for the whole process; or what is in use, after
    /// [`Features::with_barrier`].
    pub barrier: BarrierKind,
}

impl Features {
    /// The same, with the barrier that is in use in place of the one that the system offers.
    pub fn with_barrier(mut self, barrier: BarrierKind) -> Features {
        self.barrier = barrier;
        self
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "system: {}", self.system)?;
        writeln!(f, "page size: {}", self.page_size)?;
        match self.huge_page_size {
            Bytes::ZERO => writeln!(f, "huge page size: none")?,
            size => writeln!(f, "huge page size: {size}")?,
        }
        let zero = if self.zero_after_unused { "zeros" } else { "anything" };
        writeln!(f, "unused memory reads as: {zero}")?;
        writeln!(f, "returning memory in place: {}", self.discard)?;
        writeln!(f, "uncharged reservations: {}", self.uncharged)?;
        writeln!(f, "huge page hints: {}", self.huge_hints)?;
        writeln!(f, "huge page collapse: {}", self.collapse)?;
        writeln!(f, "mapping names: {}", self.names)?;
        writeln!(f, "guard markers: {}", self.guard_markers)?;
        writeln!(f, "moves of memory: {}", self.moves)?;
        writeln!(f, "mappings split: {} of {}", self.splits, self.split_limit)?;
        writeln!(f, "guards without fault: {}", self.guards_without_fault)?;
        write!(f, "process barrier: {}", self.barrier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latch_never_goes_back() {
        let latch = Latch::new(Feature::Untried);
        assert!(latch.is_open());
        latch.note(&Err::<(), _>(libc::ENOMEM), is_forbidden);
        assert_eq!(latch.get(), Feature::Untried, "a refusal of the moment");
        latch.note(&Ok(()), is_forbidden);
        assert_eq!(latch.get(), Feature::Works);
        latch.note(&Err::<(), _>(libc::EPERM), is_forbidden);
        assert_eq!(latch.get(), Feature::Refused(libc::EPERM));
        latch.works();
        assert!(!latch.is_open());
        assert_eq!(latch.get(), Feature::Refused(libc::EPERM));
    }

    #[test]
    fn what_is_off_stays_off() {
        let latch = Latch::new(Feature::Off);
        latch.works();
        assert_eq!(latch.get(), Feature::Off);
        assert!(!latch.is_open());
    }

    #[test]
    fn features_print_one_line_each() {
        let text = super::super::Os::native().features().to_string();
        for part in ["system: linux", "page size: ", "guard markers: ", "process barrier: "] {
            assert!(text.lines().any(|line| line.starts_with(part)), "{part}\n{text}");
        }
        let with = super::super::Os::native().features().with_barrier(BarrierKind::Fences);
        assert!(with.to_string().ends_with("process barrier: full fences"), "{with}");
        assert_eq!(Feature::Refused(22).to_string(), "refused (errno 22)");
    }
}
