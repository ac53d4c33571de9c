//! [`Zipf`]: ranks of which few are drawn often and many rarely, as the keys of real caches are.
//!
//! Rank `k` of `n` has a probability in proportion to `1 / (k + 1)^s`, here with `s` = 0.99. The method is that of
//! Gray and others (1994), which YCSB made common: the sum of all weights is computed once, and a draw is
//! one power of a uniform number. It is exact for the two first ranks and close for the others.

use crate::random::Random;

/// The exponent.
const S: f64 = 0.99;

/// A distribution over so many ranks.
pub(in crate::bench) struct Zipf {
    ranks: f64,
    /// The sum of all weights.
    sum: f64,
    alpha: f64,
    eta: f64,
}

impl Zipf {
    /// The distribution over `ranks` ranks, of which there must be one at least.
    pub(in crate::bench) fn new(ranks: u64) -> Zipf {
        assert!(ranks > 0, "a draw needs something to draw from");
        let sum: f64 = (1..=ranks).map(|rank| (rank as f64).powf(-S)).sum();
        let two = 1.0 + 0.5_f64.powf(S);
        let ranks = ranks as f64;
        let eta = (1.0 - (2.0 / ranks).powf(1.0 - S)) / (1.0 - two / sum);
        Zipf { ranks, sum, alpha: 1.0 / (1.0 - S), eta }
    }

    /// Draws a rank; 0 is the most frequent.
    pub(in crate::bench) fn draw(&self, random: &mut Random) -> u64 {
        const STEPS: usize = 1 << 53;
        let uniform = random.below(STEPS) as f64 / STEPS as f64;
        let weight = uniform * self.sum;
        if weight < 1.0 {
            return 0;
        }
        if weight < 1.0 + 0.5_f64.powf(S) {
            return 1;
        }
        let rank = self.ranks * (self.eta * uniform - self.eta + 1.0).powf(self.alpha);
        // The last rank, where rounding has gone beyond it.
        (rank as u64).min(self.ranks as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::Zipf;
    use crate::random::Random;

    #[test]
    fn frequencies_follow_the_weights() {
        let (zipf, mut random) = (Zipf::new(1000), Random::new(3));
        let mut counts = vec![0_u32; 1000];
        for _ in 0..200_000 {
            counts[zipf.draw(&mut random) as usize] += 1;
        }
        // The weights of 1000 ranks add up to about 7.73.
        let expected = |rank: u32| 200_000.0 / 7.73 / f64::from(rank + 1).powf(0.99);
        for rank in [0, 1, 9, 99] {
            let ratio = f64::from(counts[rank as usize]) / expected(rank);
            assert!((0.7..1.3).contains(&ratio), "rank {rank}: {ratio}");
        }
        let tail: u32 = counts[900..].iter().sum();
        assert!((1500..4500).contains(&tail), "{tail} in the last tenth");
    }

    #[test]
    fn few_ranks_are_all_drawn_and_no_others() {
        for ranks in [1, 2, 3] {
            let (zipf, mut random) = (Zipf::new(ranks), Random::new(9));
            let mut seen = vec![false; ranks as usize];
            (0..1000).for_each(|_| seen[zipf.draw(&mut random) as usize] = true);
            assert!(seen.iter().all(|&seen| seen), "{ranks}: {seen:?}");
        }
    }
}
