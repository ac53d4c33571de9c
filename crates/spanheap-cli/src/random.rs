//! [`Random`]: xorshift64*, the generator that all workloads share, so that runs can be repeated.
//!
//! Quality beyond "looks mixed" does not matter here; equal seeds giving equal runs does.

/// A generator with its own state; never in the all-zero state, from which it would not leave.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// A generator for one stream of choices. Neighbouring seeds give unrelated streams.
    pub(crate) fn new(seed: u64) -> Random {
        // One round of splitmix64 spreads small seeds over all bits.
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random((z ^ (z >> 31)).max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    ///
    /// # Panics
    /// When `bound` is 0: there is no such number.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        assert!(bound > 0, "a random number below 0 was asked for; check for emptiness first");
        // The high half of a 128-bit product: no division, and no bias that matters here.
        ((u128::from(self.next()) * bound as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn every_value_below_the_bound_comes_and_no_other() {
        let mut random = Random::new(7);
        let mut seen = [0_u32; 10];
        for _ in 0..10_000 {
            seen[random.below(10)] += 1;
        }
        assert!(seen.iter().all(|&count| count > 800), "{seen:?}");
    }

    #[test]
    fn equal_seeds_repeat_and_neighbours_differ() {
        let draw = |seed| {
            let mut random = Random::new(seed);
            [random.below(1 << 30), random.below(1 << 30), random.below(1 << 30)]
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_ne!(draw(0), draw(u64::MAX));
    }
}
