//! The ration of what nobody but a limit or a goal wants: one account for how much of the processors cycles for a
//! limit, and assists, may have. It is pure: numbers in, a decision out; the collector asks it with
//! [`Collector::due`], and while it marks with [`Collector::may_assist`].
//!
//! A heap whose live objects need more than its limit allows could collect all the time, to no avail: the
//! death spiral of memory limits. And a program whose goal is near could mark all the time, instead of what it is
//! for. So both are granted, out of one account ([`super::limiter`]):
//!
//! ```text
//!   debt += processor time of cycles that begin because of a limit, or because an allocation was refused;
//!           and of all assists
//!   debt += processor time of cycles that growth has triggered, but not beyond CREDIT
//!   debt -= processor time of everybody else in the process, or a quarter of the time that has passed if that
//!           is more; down to zero
//!   a cycle that only a limit wants may begin when debt <= CREDIT
//!   whoever allocates is made to assist while debt < CREDIT
//! ```
//!
//! Hence, at any time, what was granted has had no more than half of the processor time of the process, and
//! `CREDIT`, and the last one of the cycles; or if the process rests, a fifth of one processor, because then is a
//! good time. All that is entered in full stops when the account is overdrawn, so nothing has to be
//! forgotten, and the worst case is a half, not the five eighths of Go's limiter.
//!
//! **Cycles that growth has triggered** begin whatever the debt is: with a percent, memory in proportion to what is live is
//! what was asked for. They are entered up to the credit, so that a program that collects half of the time anyway is not
//! made to assist besides, and so that its limit has as much left as any other's. Cycles that somebody has asked
//! for, and time that somebody has offered, are not entered, and pay nothing: their number is the program's choice.
//!
//! **A program that is refused again and again** asks for a cycle each time. If the last one that was begun for
//! that has freed next to nothing, the next one waits until [`REFRAIN`] has passed since; nothing that the
//! program could have let go of tells us, so some waiting there must be. Who knows that he has let go of something
//! asks for a cycle himself.
//!
//! **While it waits** the collector sleeps until the debt could be paid at the earliest, between 1 and 20 ms;
//! and if nobody has allocated since it last looked, twice as long as the last time, up to a second. So a program
//! that is at rest above its limit is hardly woken.

use super::collector::Collector;
use super::limiter::{CpuLimiter, Used};
use crate::addr::Bytes;
use crate::heap::Reason;
use crate::os::clock::process_cpu_time;
use std::time::Duration;

/// The debt up to which a cycle may begin, and below which assists may.
pub const CREDIT: Duration = Duration::from_millis(100);

/// How long a refusal waits for its cycle if the last such cycle was in vain.
pub const REFRAIN: Duration = Duration::from_millis(100);

/// Time pays a debt, too, so many times more slowly.
const RESTING: u32 = 4;

/// A cycle was in vain if it has freed less than this part of the live bytes.
const VAIN: usize = 32;

/// The shortest and the longest sleep while others allocate, and the longest one while nobody does.
const SLEEPS: [Duration; 3] =
    [Duration::from_millis(1), Duration::from_millis(20), Duration::from_secs(1)];

/// What the clocks say.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Clocks {
    /// Time since the heap was made.
    pub wall: Duration,
    /// Processor time of the process.
    pub process: Duration,
    /// Processor time of the heap's cycles, which is a part of that.
    pub cycles: Duration,
    /// Processor time of assists, another part.
    pub assists: Duration,
    /// Processor time that threads of the program have offered to the heap, another part.
    pub offered: Duration,
}

/// How the time of a cycle is entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// In full: the account has granted the cycle.
    Granted,
    /// Up to the credit: growth has begun it.
    Counted,
    /// Not at all: somebody has asked for it.
    Asked,
}

impl Entry {
    /// For a cycle that was begun for `reason`.
    pub fn of(reason: Reason) -> Entry {
        match reason {
            Reason::Limit | Reason::Refusal => Entry::Granted,
            Reason::Goal | Reason::Quarantine | Reason::Every => Entry::Counted,
            Reason::Asked | Reason::Periodic | Reason::Continuous => Entry::Asked,
        }
    }
}

/// What a cycle was good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Yield {
    /// Live bytes when it began.
    pub before: Bytes,
    /// Live bytes that it has retained.
    pub retained: Bytes,
}

/// When a cycle begins that nobody has asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Due {
    /// Now, for this reason.
    Now(Reason),
    /// Not before so much time has passed.
    In(Duration),
    /// There is no reason for one.
    No,
}

/// The account.
pub struct Ration {
    processors: u32,
    account: CpuLimiter,
    seen: Clocks,
    /// When the last cycle ended that a refusal had begun, if it was in vain.
    in_vain: Option<Duration>,
    /// Live bytes at the last look, and how long the sleep was after it.
    last_look: Option<(Bytes, Duration)>,
    deferred: u64,
}

impl Ration {
    /// An account without debt, on a machine with so many processors.
    pub fn new(processors: usize) -> Ration {
        Ration {
            processors: u32::try_from(processors.max(1)).unwrap_or(u32::MAX),
            account: CpuLimiter::with_credit(CREDIT),
            seen: Clocks::default(),
            in_vain: None,
            last_look: None,
            deferred: 0,
        }
    }

    /// How long the collector sleeps before it asks again, when there is `reason` for a cycle and `live` bytes
    /// are live; `None`: the cycle may begin.
    pub fn pause(&mut self, reason: Reason, live: Bytes, now: Clocks) -> Option<Duration> {
        // No cycle runs, so none is entered.
        self.enter(now, Entry::Asked);
        if !reason.is_rationed() {
            return None;
        }
        let by_debt = self.account.state().fill.saturating_sub(CREDIT) / self.processors;
        let by_vain = match (reason, self.in_vain) {
            (Reason::Refusal, Some(ended)) => (ended + REFRAIN).saturating_sub(now.wall),
            _ => Duration::ZERO,
        };
        let least = by_debt.max(by_vain);
        if least == Duration::ZERO {
            return None;
        }
        let [shortest, busy, idle] = SLEEPS;
        let sleep = match self.last_look {
            Some((seen, sleep)) if seen == live => (sleep * 2).min(idle),
            _ => least.clamp(shortest, busy),
        };
        self.deferred += u64::from(self.last_look.is_none());
        self.last_look = Some((live, sleep));
        Some(sleep)
    }

    /// A cycle has ended that was begun for `reason`.
    pub fn cycle_ended(&mut self, reason: Reason, result: Yield, now: Clocks) {
        self.enter(now, Entry::of(reason));
        self.last_look = None;
        let freed = result.before.saturating_sub(result.retained);
        let in_vain = freed.get() < result.before.get() / VAIN;
        match reason {
            Reason::Refusal => self.in_vain = in_vain.then_some(now.wall),
            _ if !in_vain => self.in_vain = None,
            _ => {}
        }
    }

    /// Whether those who allocate may be made to mark, in a cycle that is entered as `entry`.
    pub fn may_assist(&mut self, entry: Entry, now: Clocks) -> bool {
        self.enter(now, entry);
        self.account.may_assist()
    }

    /// How often a cycle had to wait.
    pub fn deferred(&self) -> u64 {
        self.deferred
    }

    /// Enters what was used since the last look, cycles as `entry` says.
    fn enter(&mut self, now: Clocks, entry: Entry) {
        let all = now.process.saturating_sub(self.seen.process);
        let own = now.cycles.saturating_sub(self.seen.cycles);
        let assists = now.assists.saturating_sub(self.seen.assists);
        let offered = now.offered.saturating_sub(self.seen.offered);
        let others =
            [own, assists, offered].iter().fold(all, |all, &part| all.saturating_sub(part));
        let passed = now.wall.saturating_sub(self.seen.wall).saturating_sub(own);
        let mut used = Used { granted: assists, ..Used::default() };
        used.program = others.max(passed / RESTING);
        match entry {
            Entry::Granted => used.granted = used.granted.saturating_add(own),
            Entry::Counted => used.collector = own,
            Entry::Asked => {}
        }
        self.account.enter(used);
        self.seen = now;
    }
}

impl Collector {
    /// The clocks, when the cycle that runs has used `running` so far.
    fn clocks(&self, running: Duration) -> Clocks {
        Clocks {
            wall: self.begun.elapsed(),
            process: process_cpu_time(),
            cycles: self.last_cycle().cpu + running,
            assists: self.spent.assists(),
            offered: self.spent.offered(),
        }
    }

    /// When a cycle is due that nobody has asked for.
    pub(super) fn due(&self) -> Due {
        let Some(reason) = self.central.reason() else { return Due::No };
        let (live, clocks) = (self.central.live(), self.clocks(Duration::ZERO));
        match self.ration.lock().pause(reason, live, clocks) {
            None => Due::Now(reason),
            Some(pause) => {
                // Nobody is to wait for a collector that must not begin.
                self.central.pages().limits().set_brake(None);
                Due::In(pause)
            }
        }
    }

    /// Whether those who allocate may be made to mark in a cycle that has used `running` so far.
    pub(super) fn may_assist(&self, entry: Entry, running: Duration) -> bool {
        let clocks = self.clocks(running);
        self.ration.lock().may_assist(entry, clocks)
    }

    /// Enters a cycle that was begun for `reason`, when `before` bytes were live.
    pub(super) fn enter_cycle(&self, reason: Reason, before: Bytes) {
        let result = Yield { before, retained: self.central.retained() };
        let clocks = self.clocks(Duration::ZERO);
        let mut ration = self.ration.lock();
        ration.cycle_ended(reason, result, clocks);
        let deferred = ration.deferred();
        drop(ration);
        self.last.lock().deferred = deferred;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const LIVE: Bytes = Bytes::new(100 << 20);
    const VAINLY: Yield = Yield { before: LIVE, retained: LIVE };
    const WELL: Yield = Yield { before: LIVE, retained: Bytes::new(50 << 20) };

    /// Clocks that are moved by hand.
    #[derive(Default)]
    struct World(Clocks);

    impl World {
        fn collect(&mut self, ration: &mut Ration, reason: Reason, ms: u32, result: Yield) {
            self.0.wall += MS * ms;
            self.0.process += MS * ms;
            self.0.cycles += MS * ms;
            ration.cycle_ended(reason, result, self.0);
        }

        fn work(&mut self, ms: u32) {
            self.0.wall += MS * ms;
            self.0.process += MS * ms;
        }
    }

    #[test]
    fn fault_16_cycles_for_a_limit_have_half_of_the_time_at_most() {
        // A program that allocates all the time, with a limit that it cannot meet: each cycle takes 30 ms, in
        // vain, and the next one is wanted at once.
        let (mut ration, mut world) = (Ration::new(1), World::default());
        let (mut cycles, mut live) = (0, LIVE);
        while world.0.wall < MS * 10_000 {
            match ration.pause(Reason::Limit, live, world.0) {
                None => {
                    world.collect(&mut ration, Reason::Limit, 30, VAINLY);
                    cycles += 1;
                }
                Some(pause) => {
                    assert!(pause >= MS && pause <= 20 * MS, "{pause:?}");
                    world.work(pause.as_millis() as u32);
                    live += Bytes::new(4096);
                }
            }
            let others = world.0.process - world.0.cycles;
            assert!(world.0.cycles <= others + CREDIT + MS * 30);
        }
        assert!(cycles > 160, "it has what it may have: {cycles}");
    }

    #[test]
    fn what_growth_wants_and_what_somebody_asks_for_is_not_rationed() {
        let (mut ration, mut world) = (Ration::new(1), World::default());
        for _ in 0..100 {
            world.collect(&mut ration, Reason::Asked, 50, VAINLY);
            assert_eq!(ration.pause(Reason::Goal, LIVE, world.0), None);
            world.collect(&mut ration, Reason::Goal, 50, VAINLY);
        }
        assert_eq!(
            ration.pause(Reason::Limit, LIVE, world.0),
            None,
            "nor does it hold others back"
        );
        world.collect(&mut ration, Reason::Limit, 500, VAINLY);
        assert!(ration.pause(Reason::Limit, LIVE, world.0).is_some());
        assert_eq!(ration.pause(Reason::Goal, LIVE, world.0), None);
        assert_eq!(ration.deferred(), 1);
    }

    #[test]
    fn assists_have_half_of_the_time_together_with_all_cycles() {
        // One thread that allocates, and is made to mark for three quarters of its time as long as it may be; beside
        // it cycles without a pause, for one reason or another.
        for (reason, others_at_least) in
            [(Reason::Goal, 900), (Reason::Limit, 900), (Reason::Asked, 480)]
        {
            let (mut ration, mut world) = (Ration::new(2), World::default());
            let (mut assists, mut worked) = (0, 0);
            for _ in 0..1000 {
                let may = ration.may_assist(Entry::of(reason), world.0);
                let marks = if may { 3 } else { 0 };
                world.0.wall += MS * 4;
                world.0.process += MS * 8;
                world.0.cycles += MS * 4;
                world.0.assists += MS * marks;
                assists += marks;
                worked += 4 - marks;
                assert!(MS * assists <= MS * worked + CREDIT + MS * 3, "{reason:?}");
            }
            assert!(worked * 1000 >= others_at_least * 4000, "{reason:?}: {worked}");
        }
    }

    #[test]
    fn refusals_wait_after_a_cycle_in_vain() {
        let (mut ration, mut world) = (Ration::new(4), World::default());
        assert_eq!(ration.pause(Reason::Refusal, LIVE, world.0), None);
        world.collect(&mut ration, Reason::Refusal, 1, VAINLY);
        assert!(ration.pause(Reason::Refusal, LIVE, world.0).is_some());
        assert_eq!(ration.pause(Reason::Limit, LIVE, world.0), None, "that is another matter");
        world.work(99);
        assert!(ration.pause(Reason::Refusal, LIVE, world.0).is_some());
        world.work(1);
        assert_eq!(ration.pause(Reason::Refusal, LIVE, world.0), None);
    }

    #[test]
    fn refusals_do_not_wait_when_cycles_help() {
        let (mut ration, mut world) = (Ration::new(4), World::default());
        world.collect(&mut ration, Reason::Refusal, 1, WELL);
        assert_eq!(ration.pause(Reason::Refusal, LIVE, world.0), None);
        // Nor when a cycle that somebody asked for has helped since.
        world.collect(&mut ration, Reason::Refusal, 1, VAINLY);
        world.collect(&mut ration, Reason::Asked, 1, WELL);
        assert_eq!(ration.pause(Reason::Refusal, LIVE, world.0), None);
    }

    #[test]
    fn fault_19_a_program_at_rest_above_its_limit_is_hardly_woken() {
        let (mut ration, mut world) = (Ration::new(2), World::default());
        world.collect(&mut ration, Reason::Limit, 500_000, VAINLY);
        let begun = world.0.wall;
        let mut looks = 0;
        while world.0.wall < begun + Duration::from_secs(65) {
            // Nobody works, so little is paid.
            world.0.wall += ration.pause(Reason::Limit, LIVE, world.0).expect("in debt");
            looks += 1;
        }
        assert!(looks <= 65 + 8, "{looks} looks in 65 seconds");
        // As soon as somebody allocates, it looks more often.
        let pause = ration.pause(Reason::Limit, LIVE + Bytes::new(1), world.0);
        assert_eq!(pause, Some(SLEEPS[1]));
    }

    #[test]
    fn clocks_that_step_back_do_no_harm() {
        let (mut ration, mut world) = (Ration::new(2), World::default());
        world.work(1000);
        world.collect(&mut ration, Reason::Limit, 300, VAINLY);
        assert!(ration.pause(Reason::Limit, LIVE, Clocks::default()).is_some());
        ration.cycle_ended(Reason::Refusal, VAINLY, Clocks::default());
        assert!(ration.pause(Reason::Refusal, LIVE, Clocks::default()).is_some());
    }
}
