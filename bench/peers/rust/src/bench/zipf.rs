//! [`Zipf`]: ranks of which few are drawn often and many rarely, by the method of Gray and others (1994).
//!
//! The exponent is 0.99. There is no call of a power function, whose last bit differs from system to system: the
//! hundredth root comes from Newton's method, and the hundredth power from products, so that all languages draw the
//! same.

use crate::random::Random;

/// The distribution over so many ranks.
pub(super) struct Zipf {
    ranks: u64,
    /// The sum of all weights.
    sum: f64,
    eta: f64,
}

/// zeta(0.99), and what a sum of finitely many terms has besides it.
const ZETA: f64 = -99.4235129777281;
/// 0.5^0.99
const HALF: f64 = 0.5034777750283594;
/// 2^0.01
const ROOT: f64 = 1.0069555500567189;

impl Zipf {
    /// There must be one rank at least.
    pub(super) fn new(ranks: u64) -> Zipf {
        let n = ranks as f64;
        let mut q = 1.25;
        for _ in 0..64 {
            let p = hundredth(q);
            q -= (p - n) * q / (100.0 * p);
        }
        let sum = ZETA + 100.0 * q + 0.5 * q / n - 0.0825 * q / (n * n);
        let eta = (1.0 - ROOT / q) / (1.0 - (1.0 + HALF) / sum);
        Zipf { ranks, sum, eta }
    }

    /// Draws a rank; 0 is the most frequent.
    pub(super) fn draw(&self, random: &mut Random) -> u64 {
        const STEPS: usize = 1 << 53;
        let uniform = random.below(STEPS) as f64 / STEPS as f64;
        let weight = uniform * self.sum;
        if weight < 1.0 {
            return 0;
        }
        if weight < 1.0 + HALF {
            return 1.min(self.ranks - 1);
        }
        let rank = self.ranks as f64 * hundredth(self.eta * uniform - self.eta + 1.0);
        (rank as u64).min(self.ranks - 1)
    }
}

/// x^100 as x^64 * x^32 * x^4.
fn hundredth(x: f64) -> f64 {
    let a = x * x;
    let b = a * a;
    let c = b * b;
    let d = c * c;
    let e = d * d;
    let f = e * e;
    (f * e) * b
}

#[cfg(test)]
mod tests {
    use super::Zipf;
    use crate::random::Random;

    #[test]
    fn the_sum_is_that_of_the_weights() {
        for ranks in [3_u64, 10, 1000, 100_000] {
            let exact: f64 = (1..=ranks).map(|rank| (rank as f64).powf(-0.99)).sum();
            let found = Zipf::new(ranks).sum;
            assert!((found / exact - 1.0).abs() < 1e-3, "{ranks}: {found}, not {exact}");
        }
    }

    #[test]
    fn frequencies_follow_the_weights() {
        let (zipf, mut random) = (Zipf::new(1000), Random::new(3));
        let mut counts = vec![0_u32; 1000];
        (0..200_000).for_each(|_| counts[zipf.draw(&mut random) as usize] += 1);
        // The weights of 1000 ranks add up to about 7.73.
        for rank in [0_u32, 1, 9, 99] {
            let expected = 200_000.0 / 7.73 / f64::from(rank + 1).powf(0.99);
            let ratio = f64::from(counts[rank as usize]) / expected;
            assert!((0.7..1.3).contains(&ratio), "rank {rank}: {ratio}");
        }
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
