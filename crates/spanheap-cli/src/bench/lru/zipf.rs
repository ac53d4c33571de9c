//! [`Zipf`]: ranks of which few are drawn often and many rarely, as the keys of real caches are.
//!
//! Rank `k` of `n` has a probability in proportion to `1 / (k + 1)^s`, here with `s` = 0.99. The method is that of
//! Gray and others (1994), which YCSB made common: the sum of all weights is computed once, and a draw is
//! one power of a uniform number. It is exact for the two first ranks and close for the others.
//!
//! Everything is made of operations that IEEE 754 says the results of, so that programs in all languages draw the
//! same ranks: libraries differ in the last bit of a power. It is possible since `1 / (1 - s)` is 100. The power of a
//! draw is eight products; the 100th root that is needed once is Newton's; and the sum is the formula of Euler and
//! Maclaurin, which for more than a few ranks is as good as adding.

use crate::random::Random;

/// The zeta function at 0.99: what is left of the sum of the weights of `n` ranks when `100 n^0.01` is taken off.
const ZETA: f64 = -99.4235129777281;
/// The weight of the second rank: 0.5^0.99.
const SECOND: f64 = 0.5034777750283594;
/// The 100th root of 2.
const ROOT_OF_2: f64 = 1.0069555500567189;

/// A distribution over so many ranks.
pub(in crate::bench) struct Zipf {
    ranks: f64,
    /// The sum of all weights.
    sum: f64,
    eta: f64,
}

impl Zipf {
    /// The distribution over `ranks` ranks, of which there must be one at least.
    pub(in crate::bench) fn new(ranks: u64) -> Zipf {
        assert!(ranks > 0, "a draw needs something to draw from");
        let n = ranks as f64;
        let root = root_100(n);
        let sum = ZETA + 100.0 * root + 0.5 * root / n - 0.0825 * root / (n * n);
        let eta = (1.0 - ROOT_OF_2 / root) / (1.0 - (1.0 + SECOND) / sum);
        Zipf { ranks: n, sum, eta }
    }

    /// Draws a rank; 0 is the most frequent.
    pub(in crate::bench) fn draw(&self, random: &mut Random) -> u64 {
        const STEPS: usize = 1 << 53;
        let uniform = random.below(STEPS) as f64 / STEPS as f64;
        let weight = uniform * self.sum;
        if weight < 1.0 {
            return 0;
        }
        if weight < 1.0 + SECOND {
            return 1;
        }
        let rank = self.ranks * power_100(self.eta * uniform - self.eta + 1.0);
        // The last rank, where rounding has gone beyond it.
        (rank as u64).min(self.ranks as u64 - 1)
    }
}

/// `x` to the power of 100.
fn power_100(x: f64) -> f64 {
    let squared = x * x;
    let fourth = squared * squared;
    let eighth = fourth * fourth;
    let sixteenth = eighth * eighth;
    let x32 = sixteenth * sixteenth;
    let x64 = x32 * x32;
    (x64 * x32) * fourth
}

/// The 100th root of a number from 1 to 2^32. From above: a step is a hundredth of the way at first, and then twice
/// as many digits.
fn root_100(n: f64) -> f64 {
    (0..64).fold(1.25, |root, _| {
        let power = power_100(root);
        root - (power - n) * root / (100.0 * power)
    })
}

#[cfg(test)]
mod tests {
    use super::{ROOT_OF_2, SECOND, Zipf, power_100, root_100};
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
    fn the_constants_and_formulas_are_those_of_the_distribution() {
        let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-6;
        assert!(close(SECOND, 0.5_f64.powf(0.99)) && close(ROOT_OF_2, 2_f64.powf(0.01)));
        for ranks in [10, 100, 12_345, 1_000_000] {
            let exact: f64 = (1..=ranks).map(|rank| f64::from(rank).powf(-0.99)).sum();
            let sum = Zipf::new(u64::from(ranks as u32)).sum;
            assert!(close(sum, exact), "{ranks}: {sum}, not {exact}");
        }
        for n in [1.0, 2.0, 1000.0, 4_294_967_296.0] {
            assert!(close(root_100(n), n.powf(0.01)) && close(power_100(root_100(n)), n), "{n}");
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
