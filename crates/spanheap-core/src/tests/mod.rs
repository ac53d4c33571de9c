//! What the unit tests of several layers share: random numbers that are the same in every run.

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
