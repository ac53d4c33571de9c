//! The pacer: when the next cycle begins. Pure: numbers in, numbers out.
//!
//! The goal is a heap that has grown by `percent` of what the last cycle retained:
//!
//! ```text
//!   goal    = max(4 MiB * percent / 100, retained + retained * percent / 100)
//!   runway  = 5/4 of what was allocated while the last cycle ran
//!   trigger = goal - runway, but between 1/8 and 15/16 of the way from retained to goal
//! ```
//!
//! so that a cycle that takes as long as the last one, with a quarter to spare, ends at the goal. A limit
//! lowers the goal to seven eighths of it, as long as that is above what is retained. (4 MiB and the
//! percent goal are Go's; Go's trigger uses the ratio of the two sides' speeds, which will come with
//! several workers.)

use crate::addr::Bytes;

/// The smallest goal at 100 percent.
const MIN_GOAL: usize = 4 << 20;

/// What a user asks for.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Growth over what is retained that is allowed before a cycle is complete, in percent; `None`: cycles
    /// run on demand only, and when an allocation was refused.
    pub percent: Option<u32>,
    /// Bytes of ready memory that the heap must not exceed.
    pub limit: Option<Bytes>,
}

/// What the last cycle showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Bytes of objects that it retained.
    pub retained: Bytes,
    /// Bytes that mutators took while it ran.
    pub allocated: Bytes,
}

/// Sizes at which to act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The size at which the next cycle should end.
    pub goal: Bytes,
    /// The size at which it should begin.
    pub trigger: Bytes,
}

impl Plan {
    /// No cycle unless somebody asks.
    pub const NEVER: Plan = Plan { goal: Bytes::new(usize::MAX), trigger: Bytes::new(usize::MAX) };
}

impl Policy {
    /// The plan for the next cycle.
    pub fn plan(&self, last: Measured) -> Plan {
        let retained = last.retained.get();
        let by_percent = self.percent.map(|percent| {
            let share = |bytes: usize| {
                let share = bytes as u128 * u128::from(percent) / 100;
                usize::try_from(share).unwrap_or(usize::MAX)
            };
            share(MIN_GOAL).max(retained.saturating_add(share(retained)))
        });
        let by_limit = self.limit.map(|limit| {
            let room = limit.get() - limit.get() / 8;
            room.max(retained.saturating_add(retained / 16))
        });
        let goal = match (by_percent, by_limit) {
            (None, None) => return Plan::NEVER,
            (Some(a), Some(b)) => a.min(b),
            (Some(only), None) | (None, Some(only)) => only,
        };
        let distance = goal - retained.min(goal);
        let runway = last.allocated.get().saturating_add(last.allocated.get() / 4);
        let earliest = retained + distance / 8;
        let latest = retained + distance / 16 * 15;
        let trigger = goal.saturating_sub(runway).clamp(earliest, latest.max(earliest));
        Plan { goal: Bytes::new(goal), trigger: Bytes::new(trigger) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: usize = 1 << 20;

    fn plan(percent: u32, retained: usize, allocated: usize) -> Plan {
        let policy = Policy { percent: Some(percent), limit: None };
        policy.plan(Measured { retained: Bytes::new(retained), allocated: Bytes::new(allocated) })
    }

    #[test]
    fn a_small_heap_has_the_smallest_goal() {
        assert_eq!(plan(100, 0, 0).goal, Bytes::new(4 * MIB));
        assert_eq!(plan(50, MIB, 0).goal, Bytes::new(2 * MIB));
    }

    #[test]
    fn the_goal_is_twice_the_live_heap_at_100_percent() {
        assert_eq!(plan(100, 100 * MIB, 0).goal, Bytes::new(200 * MIB));
        assert_eq!(plan(100, 100 * MIB, 16 * MIB).trigger, Bytes::new(180 * MIB));
    }

    #[test]
    fn without_percent_and_limit_nothing_triggers() {
        let policy = Policy { percent: None, limit: None };
        assert_eq!(policy.plan(Measured::default()), Plan::NEVER);
    }

    #[test]
    fn a_share_beyond_all_addresses_is_the_largest_goal() {
        assert_eq!(plan(u32::MAX, 1 << 44, 0).goal, Bytes::new(usize::MAX));
    }

    #[test]
    fn the_loop_of_plan_and_cycle_settles_on_the_goal() {
        // A program that allocates 10 MiB during each cycle and retains 100 MiB ends cycles at the goal.
        let mut measured = Measured { retained: Bytes::new(100 * MIB), allocated: Bytes::ZERO };
        let policy = Policy { percent: Some(100), limit: None };
        for _ in 0..5 {
            let plan = policy.plan(measured);
            measured.allocated = Bytes::new(10 * MIB);
            let end = plan.trigger.get() + 10 * MIB;
            assert!(end <= plan.goal.get() + 4 * MIB, "ended at {end}");
        }
        let plan = policy.plan(measured);
        assert!(plan.trigger.get() + 10 * MIB <= plan.goal.get());
    }

    proptest! {
        #[test]
        fn a_plan_leaves_room_on_both_sides(
            percent in 1u32..1000,
            retained in 0usize..1 << 44,
            allocated in 0usize..1 << 44,
            limit in proptest::option::of(1usize..1 << 44),
        ) {
            let policy = Policy { percent: Some(percent), limit: limit.map(Bytes::new) };
            let measured = Measured { retained: Bytes::new(retained), allocated: Bytes::new(allocated) };
            let plan = policy.plan(measured);
            prop_assert!(plan.trigger.get() >= retained);
            prop_assert!(plan.trigger <= plan.goal);
            prop_assert!(plan.goal.get() >= retained);
        }
    }
}
