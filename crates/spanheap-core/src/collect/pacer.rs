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
//! so that a cycle that takes as long as the last one, with a quarter to spare, ends at the goal. (4 MiB and
//! the percent goal are Go's; Go's trigger uses the ratio of the two sides' speeds, which will come with
//! several workers.)
//!
//! A limit lowers the goal to what it leaves for objects ([`limit_goal`], Go's formula): the limit, less what
//! the heap has ready beside objects and free pages, less what it is over the limit already, less 3 %. A limit
//! that leaves nothing would have one cycle follow the other even if nobody allocates, so the goal is a
//! sixty-fourth above what is retained at least. How much of the processors such cycles may have is not
//! decided here but in [`super::ration`]; the plan says when a cycle would begin without the limit.

use crate::addr::Bytes;

/// The smallest goal at 100 percent.
const MIN_GOAL: usize = 4 << 20;

/// What a limit keeps free at least, beside 3 %.
const HEADROOM: usize = 1 << 20;

/// How much the heap grows at least until a limit wants a cycle again, beside a sixty-fourth.
const LEAST_ROOM: usize = 64 << 10;

/// What a user asks for.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Growth over what is retained that is allowed before a cycle is complete, in percent; `None`: cycles
    /// run on demand only, and when an allocation was refused.
    pub percent: Option<u32>,
    /// Bytes of ready memory that the heap should not exceed.
    pub limit: Option<Bytes>,
}

/// What the last cycle showed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    /// Bytes of objects that it retained.
    pub retained: Bytes,
    /// Bytes that mutators took while it ran.
    pub allocated: Bytes,
    /// Bytes that were ready at its end.
    pub ready: Bytes,
    /// How many of these were neither objects, dead ones included, nor free pages: side tables, records, free
    /// slots, the ends of spans.
    pub overhead: Bytes,
}

/// Sizes at which to act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The size at which the next cycle should end.
    pub goal: Bytes,
    /// The size at which it should begin.
    pub trigger: Bytes,
    /// The size at which it would begin without a limit.
    pub unlimited: Bytes,
}

impl Plan {
    /// No cycle unless somebody asks.
    pub const NEVER: Plan = {
        let never = Bytes::new(usize::MAX);
        Plan { goal: never, trigger: never, unlimited: never }
    };
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
            let least = retained.saturating_add((retained / 64).max(LEAST_ROOM));
            limit_goal(limit, last).get().max(least)
        });
        let goal = match (by_percent, by_limit) {
            (None, None) => return Plan::NEVER,
            (Some(a), Some(b)) => a.min(b),
            (Some(only), None) | (None, Some(only)) => only,
        };
        let unlimited = by_percent.map_or(usize::MAX, |goal| trigger(last, goal));
        let trigger = trigger(last, goal);
        Plan {
            goal: Bytes::new(goal),
            trigger: Bytes::new(trigger),
            unlimited: Bytes::new(unlimited),
        }
    }
}

/// Where a cycle begins that should end at `goal`.
fn trigger(last: Measured, goal: usize) -> usize {
    let retained = last.retained.get();
    let distance = goal - retained.min(goal);
    let runway = last.allocated.get().saturating_add(last.allocated.get() / 4);
    let earliest = retained + distance / 8;
    let latest = retained + distance / 16 * 15;
    goal.saturating_sub(runway).clamp(earliest, latest.max(earliest))
}

/// The bytes of objects that a limit leaves room for.
fn limit_goal(limit: Bytes, last: Measured) -> Bytes {
    let over = last.ready.saturating_sub(limit);
    let room = limit.saturating_sub(last.overhead + over).get();
    let headroom = (room / 100 * 3).max(HEADROOM);
    // A limit that hardly leaves the headroom is as good as that.
    let goal = room.saturating_sub(headroom).max(headroom.min(room));
    Bytes::new(goal).max(last.retained)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: usize = 1 << 20;

    fn plan(percent: u32, retained: usize, allocated: usize) -> Plan {
        let policy = Policy { percent: Some(percent), limit: None };
        let (retained, allocated) = (Bytes::new(retained), Bytes::new(allocated));
        policy.plan(Measured { retained, allocated, ..Measured::default() })
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

    fn limited(limit: usize, retained: usize, ready: usize, overhead: usize) -> Plan {
        let policy = Policy { percent: None, limit: Some(Bytes::new(limit)) };
        let [retained, ready, overhead] = [retained, ready, overhead].map(Bytes::new);
        policy.plan(Measured { retained, allocated: Bytes::ZERO, ready, overhead })
    }

    #[test]
    fn a_limit_leaves_its_room_less_overhead_and_three_percent() {
        // 200 MiB, of which 10 are overhead: 190 less 3 % of it, cut to whole hundredths.
        let room = 190 * MIB;
        let plan = limited(200 * MIB, 50 * MIB, 60 * MIB, 10 * MIB);
        assert_eq!(plan.goal, Bytes::new(room - room / 100 * 3));
        assert_eq!(plan.unlimited, Bytes::new(usize::MAX), "no percent goal");
        // What is ready beyond the limit counts against it.
        let plan = limited(200 * MIB, 50 * MIB, 220 * MIB, 10 * MIB);
        let room = 170 * MIB;
        assert_eq!(plan.goal, Bytes::new(room - room / 100 * 3));
        // The headroom is a mebibyte at least.
        assert_eq!(limited(20 * MIB, MIB, 2 * MIB, 0).goal, Bytes::new(19 * MIB));
    }

    #[test]
    fn a_limit_below_what_is_live_leaves_a_little_room_to_grow() {
        let plan = limited(64 * MIB, 128 * MIB, 140 * MIB, 2 * MIB);
        assert_eq!(plan.goal, Bytes::new(130 * MIB));
        assert!(plan.trigger > Bytes::new(128 * MIB));
        let plan = limited(MIB, 1000, 2 * MIB, MIB);
        assert_eq!(plan.goal, Bytes::new(1000 + LEAST_ROOM));
    }

    #[test]
    fn the_plan_without_the_limit_is_known_beside_the_one_with_it() {
        let both = Policy { percent: Some(100), limit: Some(Bytes::new(64 * MIB)) };
        let measured = Measured { retained: Bytes::new(50 * MIB), ..Measured::default() };
        let (plan, free) = (both.plan(measured), Policy { limit: None, ..both }.plan(measured));
        assert!(plan.goal < free.goal && plan.trigger < free.trigger);
        assert_eq!(plan.unlimited, free.trigger);
        assert_eq!(free.unlimited, free.trigger);
    }

    #[test]
    fn a_share_beyond_all_addresses_is_the_largest_goal() {
        assert_eq!(plan(u32::MAX, 1 << 44, 0).goal, Bytes::new(usize::MAX));
    }

    #[test]
    fn the_loop_of_plan_and_cycle_settles_on_the_goal() {
        // A program that allocates 10 MiB during each cycle and retains 100 MiB ends cycles at the goal.
        let mut measured = Measured { retained: Bytes::new(100 * MIB), ..Measured::default() };
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
            ready in 0usize..1 << 44,
        ) {
            let policy = Policy { percent: Some(percent), limit: limit.map(Bytes::new) };
            let (retained, allocated) = (Bytes::new(retained), Bytes::new(allocated));
            let (ready, overhead) = (Bytes::new(ready), Bytes::new(ready / 7));
            let measured = Measured { retained, allocated, ready, overhead };
            let plan = policy.plan(measured);
            prop_assert!(plan.trigger >= retained);
            prop_assert!(plan.trigger <= plan.goal);
            prop_assert!(plan.goal >= retained);
            // A limit makes cycles begin earlier, and never one after the other without pause.
            prop_assert!(plan.trigger <= plan.unlimited);
            prop_assert!(limit.is_none() || plan.goal > retained);
        }
    }
}
