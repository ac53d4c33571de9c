//! A memory fence with a cheap side and a dear side.
//!
//! Two threads that each store to one place and then load the other's need a full fence between
//! store and load on both sides, or both may miss the other's store. Entering the heap happens a
//! million times for every phase change of the collector, so the cost belongs on the collector's
//! side: it runs [`heavy`](ProcessBarrier::heavy), which makes *every running thread of the
//! process* execute a full fence, and the mutator's [`light`](ProcessBarrier::light) only keeps the
//! compiler from reordering.
//!
//! ```text
//! mutator:    state = inside;  light();  read phase
//! collector:  phase = next;    heavy();  read state of every mutator
//! ```
//!
//! Whatever the interleaving, the mutator sees the new phase or the collector sees it inside. (A
//! thread that does not run at the moment has passed the scheduler's fence, or will pass it before
//! its next instruction.)
//!
//! On Linux the heavy side is `membarrier(PRIVATE_EXPEDITED)`, an interrupt to the processors that
//! run a thread of this process. A kernel or a sandbox without it gets the symmetric variant: a
//! full fence on both sides. That is decided once, by [`ProcessBarrier::detect`].
//!
//! # When the call fails later
//! The expedited call can fail after a successful registration: for want of memory, because the
//! process was sandboxed meanwhile, or in a child that lost the registration. `heavy` must not
//! return before it is a barrier, and must not end the process. So it goes down a ladder:
//!
//! 1. register again and repeat, a few times;
//! 2. `membarrier(GLOBAL)`, which is slow but needs neither registration nor memory;
//! 3. switch this barrier to the symmetric variant for good. From the switch on, `light` is a full
//!    fence. What remains are `light` calls that read the old mode: their store may still be in a
//!    store buffer, and no fence of ours reaches it. Store buffers drain by themselves, within
//!    microseconds at worst, so `heavy` waits once, for milliseconds, which is thousands of times
//!    longer. This last step rests on a property of processors and not of a memory model, which is
//!    why it is the last.
//!
//! While one thread waits, another must not take the short cut of a settled symmetric barrier;
//! hence three modes and not two.
//!
//! # Safety
//! This file is trusted to pass commands without pointers to the `membarrier` system call.
#![allow(unsafe_code)]

use core::ffi::c_int;
use core::fmt;
use core::time::Duration;

use super::error::last_errno;
use crate::sync::atomic::{AtomicU8, Ordering, compiler_fence, fence};

/// Commands of `membarrier(2)`.
mod command {
    use core::ffi::c_int;

    pub(super) const QUERY: c_int = 0;
    pub(super) const GLOBAL: c_int = 1 << 0;
    pub(super) const PRIVATE_EXPEDITED: c_int = 1 << 3;
    pub(super) const REGISTER_PRIVATE_EXPEDITED: c_int = 1 << 4;
}

/// `light` orders the compiler only; `heavy` is a system call.
const ASYMMETRIC: u8 = 0;
/// `light` is a full fence already; `heavy` may not rely on that yet.
const SETTLING: u8 = 1;
/// Both are full fences.
const SYMMETRIC: u8 = 2;

/// How often the expedited call is repeated before it counts as gone.
const ATTEMPTS: usize = 8;

/// How long a processor is given to drain its store buffer.
const SETTLE: Duration = Duration::from_millis(20);

/// How the two sides of a barrier are done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarrierKind {
    /// The frequent side is free; the rare side is a system call.
    Expedited,
    /// Both sides are full memory fences.
    Fences,
}

impl BarrierKind {
    /// What the system says that it offers to this process. Nothing is registered and nothing tried, so
    /// [`ProcessBarrier::detect`] may come to know better.
    pub fn offered() -> BarrierKind {
        BarrierKind::offered_by(&membarrier)
    }

    fn offered_by(call: &impl Fn(c_int) -> Result<c_int, i32>) -> BarrierKind {
        let needed = command::PRIVATE_EXPEDITED | command::REGISTER_PRIVATE_EXPEDITED;
        match call(command::QUERY) {
            Ok(offered) if offered & needed == needed => BarrierKind::Expedited,
            _ => BarrierKind::Fences,
        }
    }
}

impl fmt::Display for BarrierKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BarrierKind::Expedited => "expedited system call",
            BarrierKind::Fences => "full fences",
        })
    }
}

/// A pair of fences, one of which can be nearly free. See the [module](self).
pub struct ProcessBarrier {
    /// Moves upwards only. `light` reads it `Relaxed`: an old value is what step 3 waits for.
    mode: AtomicU8,
}

impl ProcessBarrier {
    /// The asymmetric barrier where the system has it, the symmetric one elsewhere.
    pub fn detect() -> ProcessBarrier {
        ProcessBarrier::detect_by(membarrier)
    }

    /// The symmetric barrier, whatever the system offers.
    pub const fn forced_symmetric() -> ProcessBarrier {
        ProcessBarrier { mode: AtomicU8::new(SYMMETRIC) }
    }

    fn detect_by(call: impl Fn(c_int) -> Result<c_int, i32>) -> ProcessBarrier {
        // A filter may let the query and the registration pass and refuse the call itself, so it is
        // tried once.
        let works = BarrierKind::offered_by(&call) == BarrierKind::Expedited
            && call(command::REGISTER_PRIVATE_EXPEDITED).is_ok()
            && call(command::PRIVATE_EXPEDITED).is_ok();
        ProcessBarrier { mode: AtomicU8::new(if works { ASYMMETRIC } else { SYMMETRIC }) }
    }

    /// How this barrier is done at the moment.
    pub fn kind(&self) -> BarrierKind {
        if self.is_asymmetric() { BarrierKind::Expedited } else { BarrierKind::Fences }
    }

    /// Whether [`light`](Self::light) is nearly free. May change to `false`, never back.
    pub fn is_asymmetric(&self) -> bool {
        self.mode.load(Ordering::Relaxed) == ASYMMETRIC
    }

    /// The frequent side: stores before it are ordered before loads after it, with respect to a
    /// thread that runs [`heavy`](Self::heavy) between its own store and load.
    #[inline]
    pub fn light(&self) {
        if self.mode.load(Ordering::Relaxed) == ASYMMETRIC {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// The rare side: a full fence on this thread and, as seen from it, on every thread that runs
    /// [`light`](Self::light). Takes microseconds; in the cases named in the module's text, once,
    /// some milliseconds.
    pub fn heavy(&self) {
        self.heavy_by(membarrier);
    }

    fn heavy_by(&self, call: impl Fn(c_int) -> Result<c_int, i32>) {
        // Also orders the caller's own accesses around the system call.
        fence(Ordering::SeqCst);
        if self.mode.load(Ordering::Relaxed) == SYMMETRIC {
            return;
        }
        if !everybody_fences(&call) {
            self.mode.fetch_max(SETTLING, Ordering::SeqCst);
            std::thread::sleep(SETTLE);
            self.mode.fetch_max(SYMMETRIC, Ordering::SeqCst);
        }
        fence(Ordering::SeqCst);
    }
}

/// Steps 1 and 2 of the ladder: whether some system call did it.
fn everybody_fences(call: &impl Fn(c_int) -> Result<c_int, i32>) -> bool {
    for _ in 0..ATTEMPTS {
        match call(command::PRIVATE_EXPEDITED) {
            Ok(_) => return true,
            Err(libc::EPERM) => {
                let _ = call(command::REGISTER_PRIVATE_EXPEDITED);
            }
            Err(_) => std::thread::yield_now(),
        }
    }
    call(command::GLOBAL).is_ok()
}

/// `membarrier(2)`, which the C library does not wrap.
fn membarrier(command: c_int) -> Result<c_int, i32> {
    let (flags, cpu): (c_int, c_int) = (0, 0);
    // SAFETY: the call takes three integers and touches no memory of the process.
    let status = unsafe { libc::syscall(libc::SYS_membarrier, command, flags, cpu) };
    // The answer is 0 or, to QUERY, a small bit set.
    if status >= 0 { Ok(status as c_int) } else { Err(last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::atomic::AtomicUsize;
    use std::cell::RefCell;

    /// Waits, spinning, until both sides have arrived `times` times, so that they really meet.
    fn meet(arrivals: &AtomicUsize, times: usize) {
        arrivals.fetch_add(1, Ordering::SeqCst);
        let mut spins = 0u32;
        while arrivals.load(Ordering::SeqCst) < 2 * times {
            spins = spins.wrapping_add(1);
            if spins % 1024 == 0 { std::thread::yield_now() } else { core::hint::spin_loop() }
        }
    }

    /// Shifts the two sides against each other by a few instructions more in each round, because the
    /// window in which a missing fence shows is that small.
    fn stagger(steps: usize) {
        for _ in 0..core::hint::black_box(steps) {
            core::hint::black_box(());
        }
    }

    /// Store, fence, load on both sides: at least one side must see the other's store. A correct
    /// barrier always passes; one without its fence is found out by chance, in most runs or some,
    /// depending on the processors.
    fn sides_never_miss_each_other(barrier: &ProcessBarrier, rounds: usize) {
        let (a, b) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (seen_a, seen_b) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let arrivals = AtomicUsize::new(0);
        // Judged at the end: a side that stopped early would leave the other one waiting.
        let mut misses = 0;
        std::thread::scope(|s| {
            s.spawn(|| {
                for round in 1..=rounds {
                    meet(&arrivals, 2 * round - 1);
                    stagger(round % 128);
                    a.store(round, Ordering::Relaxed);
                    barrier.light();
                    seen_b.store(b.load(Ordering::Relaxed), Ordering::Relaxed);
                    meet(&arrivals, 2 * round);
                }
            });
            for round in 1..=rounds {
                meet(&arrivals, 2 * round - 1);
                stagger(round / 128 % 128);
                b.store(round, Ordering::Relaxed);
                barrier.heavy();
                seen_a.store(a.load(Ordering::Relaxed), Ordering::Relaxed);
                meet(&arrivals, 2 * round);
                let (a, b) = (seen_a.load(Ordering::Relaxed), seen_b.load(Ordering::Relaxed));
                misses += usize::from(a != round && b != round);
            }
        });
        assert_eq!(misses, 0, "rounds of {rounds} in which neither side saw the other");
    }

    #[test]
    fn the_detected_barrier_orders_store_and_load() {
        sides_never_miss_each_other(&ProcessBarrier::detect(), 30_000);
    }

    #[test]
    fn the_symmetric_barrier_orders_store_and_load() {
        let barrier = ProcessBarrier::forced_symmetric();
        assert!(!barrier.is_asymmetric());
        sides_never_miss_each_other(&barrier, 30_000);
    }

    #[test]
    fn detection_needs_query_registration_and_a_call_that_works() {
        let all = |command| Ok(if command == command::QUERY { 0x1ff } else { 0 });
        assert!(ProcessBarrier::detect_by(all).is_asymmetric());
        for refused in
            [command::QUERY, command::REGISTER_PRIVATE_EXPEDITED, command::PRIVATE_EXPEDITED]
        {
            let barrier = ProcessBarrier::detect_by(|command| {
                if command == refused { Err(libc::ENOSYS) } else { all(command) }
            });
            assert!(!barrier.is_asymmetric(), "command {refused} was refused");
        }
        assert_eq!(ProcessBarrier::detect_by(all).kind(), BarrierKind::Expedited);
        let old = |command| Ok(if command == command::QUERY { command::GLOBAL } else { 0 });
        assert_eq!(BarrierKind::offered_by(&old), BarrierKind::Fences);
        assert!(!ProcessBarrier::detect_by(old).is_asymmetric());
    }

    #[test]
    fn a_lost_registration_is_renewed() {
        let barrier = ProcessBarrier { mode: AtomicU8::new(ASYMMETRIC) };
        let calls = RefCell::new(Vec::new());
        barrier.heavy_by(|command| {
            calls.borrow_mut().push(command);
            let registered = calls.borrow().contains(&command::REGISTER_PRIVATE_EXPEDITED);
            if registered { Ok(0) } else { Err(libc::EPERM) }
        });
        assert!(barrier.is_asymmetric());
        assert_eq!(
            calls.into_inner(),
            [
                command::PRIVATE_EXPEDITED,
                command::REGISTER_PRIVATE_EXPEDITED,
                command::PRIVATE_EXPEDITED
            ]
        );
    }

    #[test]
    fn the_global_call_stands_in_for_the_expedited_one() {
        let barrier = ProcessBarrier { mode: AtomicU8::new(ASYMMETRIC) };
        barrier.heavy_by(
            |command| {
                if command == command::GLOBAL { Ok(0) } else { Err(libc::ENOMEM) }
            },
        );
        assert!(barrier.is_asymmetric());
    }

    #[test]
    fn without_any_call_the_barrier_becomes_symmetric_for_good() {
        let barrier = ProcessBarrier { mode: AtomicU8::new(ASYMMETRIC) };
        barrier.heavy_by(|_| Err(libc::EPERM));
        assert!(!barrier.is_asymmetric());
        barrier.heavy_by(|_| panic!("a symmetric barrier makes no system call"));
        sides_never_miss_each_other(&barrier, 1_000);
    }
}
