//! Random numbers for tests: a linear congruential generator, of which the upper bits are used. Equal seeds give
//! equal runs; each test prints its own.

/// A generator, in the state that a seed is.
pub struct Random(pub u64);

impl Random {
    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n as u64) as usize
    }
}
