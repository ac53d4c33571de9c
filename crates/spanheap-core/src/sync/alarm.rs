//! An alarm clock that anybody may ring and one thread sleeps by.

use super::{Condition, Lock, Rank};
use std::time::Duration;

/// Wakes the one thread that waits; a ring while it is awake is not lost.
pub struct Alarm {
    rung: Lock<bool>,
    condition: Condition,
}

impl Alarm {
    /// An alarm that has not rung.
    pub const fn new() -> Alarm {
        Alarm { rung: Lock::new(Rank::Alarm, false), condition: Condition::new() }
    }

    /// Wakes the sleeper, or lets its next sleep end at once.
    pub fn ring(&self) {
        *self.rung.lock() = true;
        self.condition.notify_all();
    }

    /// Sleeps until somebody has rung or until the time is over; true if somebody has.
    pub fn sleep(&self, limit: Option<Duration>) -> bool {
        let mut rung = self.rung.lock();
        if !*rung {
            rung = self.condition.wait(rung, limit);
        }
        core::mem::take(&mut *rung)
    }
}

impl Default for Alarm {
    fn default() -> Alarm {
        Alarm::new()
    }
}
