//! The pacer: when a cycle begins, where it should end, and what allocating costs meanwhile. Pure: numbers in,
//! numbers out; nobody here reads a clock or touches memory.
//!
//! It is Go's pacer, as a value. Sizes are bytes of objects; *work* is bytes scanned. The life of
//! a [`Pacer`]:
//!
//! ```text
//!   commit             goal, runway; from them plan() says when to begin
//!   start              the heap has reached the trigger: the first price of allocating
//!   revise, revise...  work was done, the heap has grown: the next price
//!   finish             marked; what the cycle was like is learnt
//!   commit             goal, runway of the next one
//! ```
//!
//! | file | what |
//! |---|---|
//! | [`goal`] | where a cycle should end: by percent, by memory limit |
//! | [`trigger`] | where it has to begin for that |
//! | [`speed`] | how fast the program allocates, beside how fast the collector marks |
//! | [`assist`] | what allocating costs while it runs |
//! | [`periodic`] | the cycle that comes when none has come for long |
//!
//! # Stacks and globals
//! Go's pacer counts them as work beside the heap's. This collector has neither: a closure's pointers are not
//! scanned, and roots are objects' handles in a table. [`Work`] has fields for them all the same, for a runtime
//! that scans something else as its roots; the collector of this crate says zero, or what its root table is.
//!
//! # Where this collector differs
//! [`Tuning`] has what differs on purpose: the share of the background, the earliest trigger as long as those
//! who allocate do not help, and the room that a limit leaves at the least. [`Tuning::GO`] is Go's.
//!
//! # Changes at run time
//! A [`Policy`] may change at any moment, also while a cycle runs: [`Pacer::set_policy`], which
//! commits at once. The goal of the running cycle moves, never behind its trigger; the next
//! [`Pacer::revise`] takes it up.
//!
//! # What is promised for any input
//! Sizes saturate, ratios are finite and above zero, a trigger is never above its goal, and a goal never below
//! what is marked.

pub mod assist;
pub mod goal;
pub mod periodic;
pub mod speed;
pub mod trigger;

pub use assist::Assist;
pub use goal::MemoryUse;

use super::mark_workers::{MarkWorkers, SHARE};
use crate::addr::Bytes;
use assist::Progress;
use goal::Bounds;
use speed::{Speeds, Times};
use trigger::PARTS;

/// The least that counts as a part of what is marked when a goal by limit keeps its distance from that.
const LEAST_PART: usize = 64 << 10;

/// What a user asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    /// Growth over what is retained that is allowed before a cycle is complete, in percent; `None`: cycles
    /// run on demand only, and when an allocation was refused.
    pub percent: Option<u32>,
    /// Bytes of ready memory that the heap must not exceed.
    pub limit: Option<Bytes>,
}

/// What follows from the collector rather than from the user.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Tuning {
    /// The share of all processors that marks without anybody's help; above 0 and below 1.
    pub background: f64,
    /// The earliest trigger, in 64ths of the way from what is marked to the goal.
    pub earliest: usize,
    /// The least way from what is marked to a goal by limit, in 64ths of what is marked. Without one, a
    /// heap that does not fit under its limit is collected without pause.
    pub least_room: usize,
}

impl Tuning {
    /// Go's: a quarter of the processors marks, and those who allocate help when that is not enough.
    pub const GO: Tuning = Tuning { background: SHARE, earliest: 45, least_room: 0 };

    /// For a background of so many workers on so many processors, and nobody who helps: a cycle may begin early,
    /// since nothing but an early beginning keeps a program that allocates quickly from its goal.
    pub fn unassisted(workers: usize, processors: usize) -> Tuning {
        let share = workers as f64 / processors.max(1) as f64;
        Tuning { background: share.clamp(1.0 / 64.0, 0.5), earliest: PARTS / 8, least_room: 1 }
    }

    /// For the workers of [`MarkWorkers`], where those who allocate help.
    pub fn assisted(processors: usize) -> Tuning {
        let dedicated = MarkWorkers::new(processors, false).dedicated.max(1);
        Tuning { earliest: Tuning::GO.earliest, ..Tuning::unassisted(dedicated, processors) }
    }
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
    pub const NEVER: Plan =
        Plan { goal: goal::NEVER, trigger: goal::NEVER, unlimited: goal::NEVER };
}

/// Work of marking, by where it is: bytes to scan, or scanned.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Work {
    /// In the heap.
    pub heap: Bytes,
    /// In stacks.
    pub stacks: Bytes,
    /// In globals.
    pub globals: Bytes,
}

impl Work {
    /// All of it.
    pub fn all(&self) -> Bytes {
        self.heap.saturating_add(self.stacks).saturating_add(self.globals)
    }

    /// This, and `more`.
    pub fn and(&self, more: Work) -> Work {
        Work {
            heap: self.heap.saturating_add(more.heap),
            stacks: self.stacks.saturating_add(more.stacks),
            globals: self.globals.saturating_add(more.globals),
        }
    }
}

/// What a finished cycle has shown.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// The size of the heap at its end, before anything is known to be garbage.
    pub live: Bytes,
    /// Bytes of objects that it retains: marked, and allocated while it ran.
    pub marked: Bytes,
    /// Work that was done.
    pub done: Work,
    /// How the processors were used.
    pub times: Times,
}

/// The pacer of a heap.
#[derive(Clone, Debug)]
pub struct Pacer {
    policy: Policy,
    tuning: Tuning,
    memory: MemoryUse,
    /// What the last cycle has retained.
    marked: Bytes,
    /// What it has scanned; globals are those of the running one as soon as it has started.
    last: Work,
    speeds: Speeds,
    /// Where the running cycle was triggered.
    triggered: Option<Bytes>,
    // What was committed.
    by_percent: Bytes,
    sweep_line: Bytes,
    runway: Bytes,
}

impl Pacer {
    /// The pacer of a new heap.
    pub fn new(policy: Policy, tuning: Tuning) -> Pacer {
        debug_assert!(tuning.background > 0.0 && tuning.background < 1.0);
        let mut pacer = Pacer {
            policy,
            tuning,
            memory: MemoryUse::default(),
            marked: Bytes::ZERO,
            last: Work::default(),
            speeds: Speeds::new(tuning.background),
            triggered: None,
            by_percent: goal::NEVER,
            sweep_line: Bytes::ZERO,
            runway: Bytes::ZERO,
        };
        pacer.commit(None);
        pacer
    }

    /// What the user asks for.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Another policy, from now on. `sweeping`: see [`Pacer::commit`].
    pub fn set_policy(&mut self, policy: Policy, sweeping: Option<Bytes>) {
        self.policy = policy;
        self.commit(sweeping);
    }

    /// What memory is used for now: the goal by limit follows it.
    pub fn set_memory(&mut self, memory: MemoryUse) {
        self.memory = memory;
    }

    /// Takes what is known of the last cycle for the next one's goal and runway. `sweeping`: the size of the
    /// heap now, if it has not been swept.
    pub fn commit(&mut self, sweeping: Option<Bytes>) {
        let roots = self.last.stacks.saturating_add(self.last.globals);
        self.by_percent = goal::by_percent(self.policy.percent, self.marked, roots);
        self.sweep_line = sweeping.map_or(Bytes::ZERO, goal::sweep_line);
        let speed = self.speeds.estimate();
        self.runway = trigger::runway(speed.ratio, speed.background, self.last.all());
    }

    fn by_limit(&self) -> Bytes {
        let Some(limit) = self.policy.limit else { return goal::NEVER };
        let part = (self.marked.get() / PARTS).max(LEAST_PART);
        let room = Bytes::new(part.saturating_mul(self.tuning.least_room));
        let least = self.marked.saturating_add(room);
        goal::by_limit(limit, self.memory, self.marked).max(least)
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            by_percent: self.by_percent,
            by_limit: self.by_limit(),
            sweep_line: self.sweep_line,
            triggered: self.triggered,
        }
    }

    /// The size at which the cycle should end: the next one, or the one that runs.
    pub fn goal(&self) -> Bytes {
        self.bounds().goal().size
    }

    /// When the next cycle begins, and where it should end.
    pub fn plan(&self) -> Plan {
        if self.policy.percent.is_none() && self.policy.limit.is_none() {
            return Plan::NEVER;
        }
        let trigger = |goal| trigger::trigger(goal, self.marked, self.runway, self.tuning.earliest);
        let goal = self.bounds().goal();
        let unlimited = match self.policy.percent {
            Some(_) => trigger(Bounds { by_limit: goal::NEVER, ..self.bounds() }.goal()),
            None => goal::NEVER,
        };
        Plan { goal: goal.size, trigger: trigger(goal), unlimited }
    }

    /// Says whether those who allocate help to mark from here on. See [`Tuning`].
    pub fn set_tuning(&mut self, tuning: Tuning) {
        debug_assert!(tuning.background > 0.0 && tuning.background < 1.0);
        self.tuning = tuning;
    }

    /// Whether the goal is what a limit leaves.
    pub fn is_limited(&self) -> bool {
        self.by_limit() < self.by_percent
    }

    /// The work that a cycle is expected to be: what the last one was.
    pub fn expected(&self) -> Bytes {
        self.last.all()
    }

    /// What the last cycle has retained.
    pub fn marked(&self) -> Bytes {
        self.marked
    }

    /// Where the running cycle was triggered, if one runs.
    pub fn triggered(&self) -> Option<Bytes> {
        self.triggered
    }

    /// What the program is expected to allocate while the background does all the work of the next cycle.
    pub fn runway(&self) -> Bytes {
        self.runway
    }

    /// Bytes allocated for each byte scanned, in the same processor time.
    pub fn speed_ratio(&self) -> f64 {
        self.speeds.estimate().ratio
    }

    /// A cycle starts while the heap has `live` bytes; it has globals to scan, and in the worst case what
    /// `worst` says. The result is what allocating costs at first.
    pub fn start(&mut self, live: Bytes, worst: Work) -> Assist {
        self.triggered = Some(live);
        self.last.globals = worst.globals;
        self.revise(live, worst, Work::default())
    }

    /// What allocating costs from now on: the heap has `live` bytes, in the worst case all of `worst` has to be
    /// scanned, and `done` has been. Also right when no cycle runs.
    pub fn revise(&self, live: Bytes, worst: Work, done: Work) -> Assist {
        let progress = Progress {
            percent: self.policy.percent,
            goal: self.goal(),
            triggered: self.triggered.unwrap_or(live),
            live,
            expected: self.last.all(),
            worst: worst.all(),
            done: done.all(),
        };
        progress.assist()
    }

    /// A cycle is complete. A [`Pacer::commit`] has to follow.
    pub fn finish(&mut self, cycle: Finished) {
        let triggered = self.triggered.take().unwrap_or(cycle.live);
        let allocated = cycle.live.saturating_sub(triggered).get();
        // A cycle so short that nothing was allocated says nothing about speeds.
        if allocated > 0 {
            let work = cycle.done.all().get();
            let background = self.tuning.background;
            if let Some(speed) = cycle.times.speed(allocated, work, background) {
                self.speeds.learn(speed);
            }
        }
        self.marked = cycle.marked;
        self.last.heap = cycle.done.heap;
        self.last.stacks = cycle.done.stacks;
    }

    /// A cycle has ended without an answer: everything is retained, and nothing is learnt.
    pub fn give_up(&mut self, retained: Bytes) {
        self.triggered = None;
        self.marked = retained;
    }
}

#[cfg(test)]
mod tests;
