//! How fast the background scavenger works, and what it works for. Pure: numbers in, decisions out;
//! nobody here reads a clock, sleeps, or touches memory.
//!
//! # The pace
//!
//! To return memory costs processor time, in the system more than here, and the threads that the
//! system interrupts for it pay too. The background scavenger is to use 1 % of the processors, as
//! long as there is something to do:
//!
//! ```text
//! forever:
//!     run := pace.begin_run()
//!     while the goals are exceeded:
//!         return QUANTUM bytes, or what there is
//!         run.worked(time, returned) says when it is enough
//!     match run.end():
//!         Sleep(time) => sleep;  pace.slept(the time that it has taken)
//!         Park        => wait until somebody finds that the goals are exceeded
//! ```
//!
//! A run lasts at least a millisecond, so that sleeping and waking cost little beside it. How long
//! to sleep follows from how long the run has lasted, by a *ratio* that a controller sets from the
//! share of time that was really used. A fixed ratio would be wrong on a busy machine, where a
//! sleep lasts longer than was asked for, and with few processors.
//!
//! A clock that does not tick within a quantum says 0, and the scavenger would never finish a run.
//! Then 10 µs are assumed for every 4 KiB, about what it costs.
//!
//! When the controller fails, the ratio is what it was in the beginning, where the scavenger sleeps
//! a thousand times as long as it works, and the controller is left out for five seconds.
//!
//! # The goals
//!
//! The background works while either is exceeded: [`percent_goal`], what the program will need in
//! this cycle if it goes on as in the last one, with a little to spare, against the heap's memory;
//! [`limit_goal`], 95 % of the memory limit, against all ready memory.

use super::pi_controller::{Parameters, PiController};
use crate::addr::Bytes;
use core::time::Duration;

/// What is returned between two looks at the goals and at the clock.
pub const QUANTUM: Bytes = Bytes::new(64 << 10);

/// The share of all processors' time that the background uses.
const PROCESSOR_SHARE: f64 = 1.0 / 100.0;
/// The least time of a run, in nanoseconds.
const MIN_WORK_NS: f64 = 1e6;
/// What is assumed for [`ASSUMED_BYTES`] where the clock has seen no time pass.
const ASSUMED_NS: f64 = 10e3;
const ASSUMED_BYTES: usize = 4096;
/// The first ratio of time at work to time asleep.
const FIRST_RATIO: f64 = 0.001;
/// For how long a controller that has failed is left out.
const COOLDOWN: Duration = Duration::from_secs(5);

/// The controller of the ratio. Times are nanoseconds: the integral follows within milliseconds of
/// work, and forgets within a second.
const CONTROLLER: Parameters = Parameters {
    gain: 0.3375,
    integral_time: 3.2e6,
    reset_time: 1e9,
    min: FIRST_RATIO,
    max: 1000.0,
};

/// The pace of one background scavenger.
#[derive(Clone, Debug)]
pub struct ScavengePace {
    controller: PiController,
    /// Time at work for each time asleep.
    ratio: f64,
    /// Time that has to pass before the controller is asked again.
    cooldown: Duration,
    processors: f64,
    /// Nanoseconds of the run after which the scavenger is asleep.
    worked: Option<f64>,
}

/// The scavenger at work. Ends by [`Run::end`].
#[derive(Debug)]
#[must_use = "a run that does not end does not count"]
pub struct Run<'a> {
    pace: &'a mut ScavengePace,
    /// Nanoseconds.
    worked: f64,
    returned: Bytes,
}

/// Whether a run goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Return another quantum, if the goals are still exceeded.
    Continue,
    /// It has lasted long enough, or there is nothing to return.
    Done,
}

/// What follows a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rest {
    /// Sleep that long, and say by [`ScavengePace::slept`] how long it has been.
    Sleep(Duration),
    /// Nothing was returned: wait to be woken.
    Park,
}

impl ScavengePace {
    /// The pace of a scavenger that has not run yet, on so many processors.
    ///
    /// # Panics
    /// When there is no processor.
    pub fn new(processors: usize) -> ScavengePace {
        assert!(processors > 0, "a scavenger runs on a processor");
        ScavengePace {
            controller: PiController::new(CONTROLLER),
            ratio: FIRST_RATIO,
            cooldown: Duration::ZERO,
            processors: processors as f64,
            worked: None,
        }
    }

    /// Begins a run.
    pub fn begin_run(&mut self) -> Run<'_> {
        self.worked = None;
        Run { pace: self, worked: 0.0, returned: Bytes::ZERO }
    }

    /// The sleep after the last run has lasted that long. Says nothing after a run that was not
    /// followed by a sleep.
    pub fn slept(&mut self, time: Duration) {
        let Some(worked) = self.worked.take() else { return };
        if self.cooldown > Duration::ZERO {
            let passed = time.saturating_add(Duration::from_nanos(worked as u64));
            self.cooldown = self.cooldown.saturating_sub(passed);
            return;
        }
        let period = time.as_nanos() as f64 + worked;
        let share = worked / (period * self.processors);
        match self.controller.next(share, PROCESSOR_SHARE, period) {
            Some(ratio) => self.ratio = ratio,
            None => {
                self.ratio = FIRST_RATIO;
                self.cooldown = COOLDOWN;
            }
        }
    }
}

impl Run<'_> {
    /// An attempt to return [`QUANTUM`] bytes has returned that much, and took that long.
    pub fn worked(&mut self, time: Duration, returned: Bytes) -> Next {
        self.worked += if time > Duration::ZERO {
            time.as_nanos() as f64
        } else {
            ASSUMED_NS * (returned.get() / ASSUMED_BYTES) as f64
        };
        self.returned += returned;
        if returned < QUANTUM || self.worked >= MIN_WORK_NS { Next::Done } else { Next::Continue }
    }

    /// Ends the run.
    pub fn end(self) -> Rest {
        if self.returned == Bytes::ZERO {
            return Rest::Park;
        }
        let worked = self.worked.max(MIN_WORK_NS);
        self.pace.worked = Some(worked);
        Rest::Sleep(Duration::from_nanos((worked / self.pace.ratio) as u64))
    }
}

/// The part of the needed memory that may be retained on top of it. Go has a tenth; what is retained
/// beyond the need is memory that a heap keeps when it has shrunk, and a heap that needs it after all
/// gets it back for a page fault.
const SPARE: usize = 32;

/// The memory that the heap needs in the next cycle: what it had in use at the end of the last one,
/// in proportion to the collector's goals then and now, and a thirty-second part more; in whole pages
/// of the system. `None`: there was no cycle to compare with, and nothing is to be returned.
///
/// # Panics
/// When `page_size` is not a power of two.
pub fn percent_goal(
    last_in_use: Bytes,
    goal: Bytes,
    last_goal: Bytes,
    page_size: Bytes,
) -> Option<Bytes> {
    if last_goal == Bytes::ZERO {
        return None;
    }
    let ratio = goal.get() as f64 / last_goal.get() as f64;
    // A product beyond all numbers becomes the largest, and that has no next page.
    let needed = (last_in_use.get() as f64 * ratio) as usize;
    let spare = needed / SPARE;
    Bytes::new(needed.checked_add(spare)?).checked_align_up(page_size.get())
}

/// What has to be ready at most for the background to be at rest under a memory limit: it begins to
/// return memory before the limit forces the threads that allocate to do so.
pub fn limit_goal(limit: Bytes) -> Bytes {
    Bytes::new((limit.get() as f64 * 0.95) as usize)
}

/// Whether `retained` bytes exceed a goal so far that something can be returned: by a page of the
/// system at least.
pub fn is_exceeded(retained: Bytes, goal: Option<Bytes>, page_size: Bytes) -> bool {
    goal.is_some_and(|goal| retained > goal && retained - goal >= page_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Bytes = Bytes::new(4096);
    const MIB: usize = 1 << 20;

    fn us(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn a_run_lasts_a_millisecond_or_until_nothing_is_left() {
        let mut pace = ScavengePace::new(1);
        let mut run = pace.begin_run();
        assert_eq!(run.worked(us(999), QUANTUM), Next::Continue);
        assert_eq!(run.worked(us(1), QUANTUM), Next::Done);
        assert_eq!(run.end(), Rest::Sleep(Duration::from_secs(1)));

        let mut run = pace.begin_run();
        assert_eq!(run.worked(us(1), QUANTUM - PAGE), Next::Done);
        // What is shorter counts as a millisecond.
        assert_eq!(run.end(), Rest::Sleep(Duration::from_secs(1)));
    }

    #[test]
    fn without_anything_to_return_the_scavenger_parks() {
        let mut pace = ScavengePace::new(1);
        assert_eq!(pace.begin_run().end(), Rest::Park);
        let mut run = pace.begin_run();
        assert_eq!(run.worked(us(5000), Bytes::ZERO), Next::Done);
        assert_eq!(run.end(), Rest::Park);
        // The time parked is no time asleep: the next sleep is as long as the first would have
        // been.
        pace.slept(Duration::from_secs(1000));
        let mut run = pace.begin_run();
        let _ = run.worked(us(1000), QUANTUM);
        assert_eq!(run.end(), Rest::Sleep(Duration::from_secs(1)));
    }

    #[test]
    fn a_clock_that_stands_still_does_not_stop_the_scavenger() {
        let mut pace = ScavengePace::new(1);
        let mut run = pace.begin_run();
        let quanta = (1..).find(|_| run.worked(Duration::ZERO, QUANTUM) == Next::Done);
        // 16 times 4 KiB for 10 us each are 160 us.
        assert_eq!(quanta, Some(7));
        assert_eq!(run.end(), Rest::Sleep(us(1_120_000)));
    }

    #[test]
    fn sleeps_become_shorter_while_less_than_the_share_is_used() {
        let mut pace = ScavengePace::new(4);
        let sleeps: Vec<Duration> = (0..3)
            .map(|_| {
                let mut run = pace.begin_run();
                assert_eq!(run.worked(us(1000), QUANTUM), Next::Done);
                let Rest::Sleep(time) = run.end() else { panic!("something was returned") };
                pace.slept(time);
                time
            })
            .collect();
        assert!(sleeps[0] > sleeps[1] && sleeps[1] > sleeps[2], "{sleeps:?}");
    }

    #[test]
    fn a_controller_that_failed_is_left_out_for_five_seconds() {
        // No finite times make it fail; so its integral is driven beyond all numbers by hand.
        let broken = Parameters { reset_time: f64::MIN_POSITIVE, ..CONTROLLER };
        let mut pace = ScavengePace::new(1);
        pace.controller = PiController::new(broken);
        let mut sleep = |time| {
            let mut run = pace.begin_run();
            let _ = run.worked(us(1000), QUANTUM);
            let Rest::Sleep(_) = run.end() else { panic!("something was returned") };
            pace.slept(time);
            (pace.ratio, pace.cooldown)
        };
        // All the time was work, so the raw output is below the least, by a finite amount.
        let second = Duration::from_secs(1);
        assert_eq!(sleep(Duration::ZERO), (FIRST_RATIO, COOLDOWN));
        assert_eq!(sleep(second), (FIRST_RATIO, COOLDOWN - second - us(1000)));
        assert_eq!(sleep(COOLDOWN), (FIRST_RATIO, Duration::ZERO));
        assert_eq!(sleep(Duration::ZERO), (FIRST_RATIO, COOLDOWN));
    }

    #[test]
    fn the_percent_goal_follows_the_goals_of_the_collector() {
        let mib = |n: usize| Bytes::new(n * MIB);
        let goal = |in_use, goal, last| percent_goal(mib(in_use), mib(goal), mib(last), PAGE);
        assert_eq!(goal(128, 80, 80), Some(mib(132)));
        assert_eq!(goal(128, 160, 80), Some(mib(264)));
        assert_eq!(goal(128, 40, 80), Some(mib(66)));
        assert_eq!(goal(0, 40, 80), Some(Bytes::ZERO));
        let one = percent_goal(Bytes::new(1), mib(1), mib(1), PAGE);
        assert_eq!(one, Some(PAGE), "goals are whole pages");
    }

    #[test]
    fn without_a_cycle_before_or_beyond_all_memory_there_is_no_percent_goal() {
        let mib = Bytes::new(MIB);
        assert_eq!(percent_goal(mib, mib, Bytes::ZERO, PAGE), None);
        assert_eq!(percent_goal(mib, Bytes::new(usize::MAX), mib, PAGE), None);
        assert_eq!(percent_goal(mib, Bytes::new(usize::MAX), Bytes::new(1), PAGE), None);
    }

    #[test]
    fn a_goal_is_exceeded_by_whole_pages() {
        let goal = Bytes::new(MIB);
        let exceeded = |retained| is_exceeded(retained, Some(goal), PAGE);
        assert!(!exceeded(Bytes::ZERO) && !exceeded(goal) && !exceeded(goal + Bytes::new(4095)));
        assert!(exceeded(goal + PAGE));
        assert!(!is_exceeded(Bytes::new(usize::MAX), None, PAGE), "no goal is never exceeded");
    }

    #[test]
    fn the_limit_goal_is_a_twentieth_below_the_limit() {
        assert_eq!(limit_goal(Bytes::new(1000)), Bytes::new(950));
        assert_eq!(limit_goal(Bytes::ZERO), Bytes::ZERO);
        assert!(limit_goal(Bytes::new(usize::MAX)) < Bytes::new(usize::MAX));
    }
}
