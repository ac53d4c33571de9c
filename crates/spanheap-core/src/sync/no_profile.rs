//! What stands for `profile` in a build without the feature `lock-profile`: nothing is counted, and nothing is paid.

use super::Rank;

/// A holding that is not timed.
pub(super) struct Holding;

impl Holding {
    #[inline(always)]
    pub(super) fn begin(_: Rank, lock: impl FnOnce() -> bool) -> Holding {
        lock();
        Holding
    }

    #[inline(always)]
    pub(super) fn attempt(_: Rank, lock: impl FnOnce() -> bool) -> Option<Holding> {
        lock().then_some(Holding)
    }

    #[inline(always)]
    pub(super) fn interrupt(&mut self, sleep: impl FnOnce()) {
        sleep();
    }
}
