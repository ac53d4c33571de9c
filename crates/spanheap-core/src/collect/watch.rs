//! The watchdog: who keeps the collector waiting is named, and nothing is done to him.
//!
//! A closure that does not end holds up nobody but the collector, so a program that has one runs on until its
//! memory is used up, and then nothing points to the cause. The collector looks, while it waits for a grace
//! period, at how long that has taken, and tells the program which threads it waits for, once for each time that
//! the set duration has passed. A process that was stopped, by a debugger say, is told of a long wait when it goes
//! on, and that is all that happens.

use super::registry::Registry;
use crate::fatal::contain;
use crate::heap::Central;
use crate::heap::hooks::{Delay, DelayHook};
use crate::span::alone::{Alone, Busy};
use std::time::{Duration, Instant};

/// The watch over one grace period.
pub(super) struct Watch<'a> {
    hook: Option<&'a (Duration, DelayHook)>,
    begun: Instant,
    /// How long the wait may last before it is told next.
    next: Duration,
}

impl<'a> Watch<'a> {
    /// Begins with a grace period.
    pub(super) fn new(central: &'a Central) -> Watch<'a> {
        let hook = central.hooks().watchdog.as_ref();
        let next = hook.map_or(Duration::MAX, |(every, _)| *every);
        Watch { hook, begun: Instant::now(), next }
    }

    /// The grace period is not over yet.
    pub(super) fn look(&mut self, registry: &Registry) {
        let Some((every, hook)) = self.hook else { return };
        let waited = self.begun.elapsed();
        if waited < self.next {
            return;
        }
        self.next = waited.saturating_add(*every);
        for thread in registry.delaying() {
            let delay = Delay::new(thread, waited);
            let _alone = Alone::begin(Busy::Hook);
            contain(|| hook(&delay));
        }
    }
}
