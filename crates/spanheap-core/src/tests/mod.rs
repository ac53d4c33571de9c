//! What the unit tests of several layers share: random numbers that are the same in every run, and processes
//! that are forked from the test's.
//!
//! # Safety
//! A forked child runs the test's code and ends; what that may do there, the test knows.
#![allow(unsafe_code)]

/// How many steps a random test takes: `usual`, or `long` in a run that may take its time
/// (`SPANHEAP_LONG=1`).
pub(crate) fn steps(usual: usize, long: usize) -> usize {
    if std::env::var_os("SPANHEAP_LONG").is_some_and(|value| value == "1") { long } else { usual }
}

/// A small generator (xorshift64*), seeded with a constant of the test. The seed is printed, so a failure
/// names it.
pub(crate) struct Random(u64);

impl Random {
    /// A generator for `seed`, which is not 0.
    pub(crate) fn new(seed: u64) -> Random {
        println!("seed {seed:#x}");
        Random(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True once in `n` times.
    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What `body` says in a child that is forked here, where only the calling thread is left. A child that hangs is
/// killed. So is perhaps one that panics: telling it takes locks, which another thread may have held. The hook that
/// tells it is left alone, since changing it takes one, too.
pub(crate) fn forked(body: impl FnOnce() -> bool) -> bool {
    // SAFETY: the child only runs `body` and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends a child that hangs.
        unsafe { libc::alarm(20) };
        let body = std::panic::AssertUnwindSafe(body);
        let code = std::panic::catch_unwind(body).map_or(2, i32::from);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for the child that was just made.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status), "the child was killed: {status:#x}");
    libc::WEXITSTATUS(status) == 1
}
