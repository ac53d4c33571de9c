//! How much those who allocate have to mark in a running cycle.
//!
//! ```text
//!   work per byte = work that is left / bytes that are left to the goal
//! ```
//!
//! so that at the goal all is marked, however fast anybody allocates: who allocates more marks
//! more. As long as the background keeps up, there is credit and nobody is asked.
//!
//! How much work there will be is not known before it is done. Expected is what the last cycle
//! has scanned. If that turns out too little, the worst case is assumed: that everything is
//! alive that has been allocated up to now. The heap would need more room for it then, and gets it, in the
//! same proportion of room to work as before, but not beyond what the percent would give on top of the
//! goal. If the goal itself is behind, a tenth is added, and the worst case assumed as well.
//!
//! The arithmetic is that of 64-bit floats where Go's is, evaluated in the same order; conversions saturate, so that
//! no size, percent or ratio leaves the finite numbers.

use crate::addr::Bytes;

/// Work that is left is taken to be no less than this: whoever finishes the last of it
/// should not run out of debt, and ratios stay away from zero.
const LEAST_WORK: i64 = 1000;

/// A goal that has been passed is moved by this factor.
const OVERSHOOT: f64 = 1.1;

/// The percent that counts for a heap that has none.
const PERCENT_OFF: f64 = 100_000.0;

/// The price of allocating while a cycle runs. Both are finite and above zero.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Assist {
    /// Bytes to scan for each byte that is allocated.
    pub work_per_byte: f64,
    /// Bytes that may be allocated for each byte that was scanned.
    pub bytes_per_work: f64,
}

/// Where a running cycle stands.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The percent of the policy.
    pub percent: Option<u32>,
    /// The goal of the cycle.
    pub goal: Bytes,
    /// Where it was triggered.
    pub triggered: Bytes,
    /// The size of the heap now.
    pub live: Bytes,
    /// Work that it is expected to be in all.
    pub expected: Bytes,
    /// Work that it is in the worst case.
    pub worst: Bytes,
    /// Work that has been done.
    pub done: Bytes,
}

/// As a signed number, in which distances may be negative.
fn signed(bytes: Bytes) -> i64 {
    i64::try_from(bytes.get()).unwrap_or(i64::MAX)
}

impl Progress {
    /// What allocating costs from here on.
    pub fn assist(&self) -> Assist {
        let (done, live, worst) = (signed(self.done), signed(self.live), signed(self.worst));
        let (mut goal, mut expected) = (signed(self.goal), signed(self.expected));
        if done > expected {
            goal = self.extended(goal, expected, worst);
            expected = worst;
        }
        if live > goal {
            goal = (goal as f64 * OVERSHOOT) as i64;
            expected = worst;
        }
        let work = expected.saturating_sub(done).max(LEAST_WORK) as f64;
        let room = goal.saturating_sub(live).max(1) as f64;
        Assist { work_per_byte: work / room, bytes_per_work: room / work }
    }

    /// The goal that gives the worst case the room for its work that was meant for the expected one.
    fn extended(&self, goal: i64, expected: i64, worst: i64) -> i64 {
        let triggered = signed(self.triggered);
        let hard = (1.0 + self.percent.map_or(PERCENT_OFF, f64::from) / 100.0) * goal as f64;
        let hard = hard as i64;
        if expected <= 0 {
            return hard;
        }
        let way = goal.saturating_sub(triggered) as f64 / expected as f64 * worst as f64;
        (way as i64).saturating_add(triggered).min(hard)
    }
}
