//! Medians, quartiles, and how sure a ratio of medians is.
//!
//! Times of a program on a machine that others use are not normally distributed: a run is disturbed, never
//! hurried. So the middle is the median, the spread is the distance of the quartiles, and the uncertainty of a
//! ratio comes from the *bootstrap*: draw from each of the two samples as many values as it has, with replacement,
//! take the ratio of the medians, do it some thousand times, and look at where 95 in a hundred of the ratios lie.
//! The generator has a fixed seed, so that the same runs give the same interval, on every machine.
//!
//! Quartiles are interpolated between order statistics: of values at 0, 1, ..., n - 1, the quantile q lies at
//! q (n - 1). That is type 7 of Hyndman and Fan, what most programs do by default.

use serde::Serialize;

/// Resamplings of a bootstrap.
const RESAMPLES: usize = 4000;
/// The part of the ratios that lies in the interval.
const CONFIDENCE: f64 = 0.95;
/// Of fewer values there is no interval: all that can be drawn from one value is itself.
const FEW: usize = 3;
/// The seed of the generator; any odd number would do.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// What is known of a sample.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// How many values it has.
    pub count: usize,
    /// The least of them.
    pub least: f64,
    /// A quarter of them is below this one.
    pub lower: f64,
    /// The middle.
    pub median: f64,
    /// A quarter of them is above this one.
    pub upper: f64,
    /// The largest of them.
    pub largest: f64,
}

impl Summary {
    /// Of a sample; nothing, if it is empty or has a value that is no number.
    pub fn of(sample: &[f64]) -> Option<Summary> {
        if sample.is_empty() || !sample.iter().all(|value| value.is_finite()) {
            return None;
        }
        let sorted = sorted(sample);
        Some(Summary {
            count: sorted.len(),
            least: sorted[0],
            lower: quantile(&sorted, 0.25),
            median: quantile(&sorted, 0.5),
            upper: quantile(&sorted, 0.75),
            largest: sorted[sorted.len() - 1],
        })
    }
}

/// A ratio of two medians, and between which values it lies, most likely.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Ratio {
    /// Median by median.
    pub value: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
    /// How many values the smaller of the samples has.
    pub count: usize,
}

impl Ratio {
    /// The ratio of the median of `ours` to that of `theirs`. Nothing, if a sample is empty or the second median
    /// is not above zero.
    pub fn of(ours: &[f64], theirs: &[f64]) -> Option<Ratio> {
        let (our, their) = (Summary::of(ours)?, Summary::of(theirs)?);
        if their.least <= 0.0 {
            return None;
        }
        let mut random = Random(SEED);
        let mut ratios: Vec<f64> = (0..RESAMPLES)
            .map(|_| drawn_median(ours, &mut random) / drawn_median(theirs, &mut random))
            .collect();
        ratios.sort_by(f64::total_cmp);
        let tail = (1.0 - CONFIDENCE) / 2.0;
        Some(Ratio {
            value: our.median / their.median,
            low: quantile(&ratios, tail),
            high: quantile(&ratios, 1.0 - tail),
            count: our.count.min(their.count),
        })
    }

    /// How far from 1 the interval reaches, as a part of 1. Of two equal programs this is the noise.
    pub fn reach(&self) -> f64 {
        (self.low - 1.0).abs().max((self.high - 1.0).abs())
    }

    /// Whether there are enough values for the interval to mean something.
    pub fn has_interval(&self) -> bool {
        self.count >= FEW
    }

    /// Whether all of the interval lies farther from 1 than `noise`.
    pub fn is_beyond(&self, noise: f64) -> bool {
        self.has_interval() && (self.high < 1.0 - noise || self.low > 1.0 + noise)
    }
}

fn sorted(sample: &[f64]) -> Vec<f64> {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The quantile of values in ascending order, of which there is one at least.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// The median of as many values as there are, each drawn from all.
fn drawn_median(sample: &[f64], random: &mut Random) -> f64 {
    let drawn: Vec<f64> = sample.iter().map(|_| sample[random.below(sample.len())]).collect();
    quantile(&sorted(&drawn), 0.5)
}

/// Marsaglia's xorshift with a multiplication.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which is above zero. The bias is of the order of `end` by 2^64.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.draw()) * end as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::{Random, Ratio, Summary};

    #[test]
    fn the_quartiles_are_those_of_the_textbook() {
        let of = |sample: &[f64]| Summary::of(sample).expect("numbers");
        // R: quantile(c(1, 2, 3, 4), type = 7) is 1 1.75 2.5 3.25 4.
        let four = of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!((four.lower, four.median, four.upper), (1.75, 2.5, 3.25));
        assert_eq!((four.count, four.least, four.largest), (4, 1.0, 4.0));
        // R: quantile(c(15, 20, 35, 40, 50)) is 15 20 35 40 50.
        let five = of(&[15.0, 20.0, 35.0, 40.0, 50.0]);
        assert_eq!((five.lower, five.median, five.upper), (20.0, 35.0, 40.0));
        let one = of(&[7.0]);
        assert_eq!((one.least, one.lower, one.median, one.upper), (7.0, 7.0, 7.0, 7.0));
    }

    #[test]
    fn nothing_is_known_of_nothing() {
        assert_eq!(Summary::of(&[]), None);
        assert_eq!(Summary::of(&[1.0, f64::NAN]), None);
        assert_eq!(Ratio::of(&[], &[1.0]), None);
        assert_eq!(Ratio::of(&[1.0], &[0.0]), None);
    }

    #[test]
    fn constant_samples_have_a_sure_ratio() {
        let ratio = Ratio::of(&[3.0; 5], &[4.0; 9]).expect("numbers");
        assert_eq!((ratio.value, ratio.low, ratio.high), (0.75, 0.75, 0.75));
        assert!(ratio.is_beyond(0.2) && !ratio.is_beyond(0.3));
        assert_eq!(ratio.reach(), 0.25);
    }

    /// The median of two values, drawn with replacement, is one of three, with the weights 1, 2, 1. Of 4000 draws
    /// a quarter lies at either end, so that the interval of 95 in a hundred is the whole range.
    #[test]
    fn the_interval_of_two_values_is_their_range() {
        let ratio = Ratio::of(&[1.0, 3.0], &[1.0, 1.0]).expect("numbers");
        assert_eq!((ratio.value, ratio.low, ratio.high), (2.0, 1.0, 3.0));
        assert!(!ratio.has_interval() && !ratio.is_beyond(0.0));
    }

    /// For many values the bootstrap agrees with theory: the standard error of the median of n uniform values on
    /// 0..1 is 1 / (2 sqrt n), so that the interval is 1.96 of these to either side.
    #[test]
    fn the_interval_of_many_values_is_that_of_theory() {
        let mut random = Random(1);
        let sample: Vec<f64> =
            (0..400).map(|_| random.below(1 << 30) as f64 / f64::from(1 << 30)).collect();
        let ratio = Ratio::of(&sample, &[1.0; 3]).expect("numbers");
        let width = ratio.high - ratio.low;
        let expected = 2.0 * 1.96 / (2.0 * 400_f64.sqrt());
        assert!((0.6..1.6).contains(&(width / expected)), "{width} and {expected}");
        assert!(ratio.low < ratio.value && ratio.value < ratio.high);
    }

    #[test]
    fn the_same_runs_give_the_same_interval() {
        let (ours, theirs) = ([1.0, 1.1, 0.9, 1.3, 1.0], [2.0, 2.2, 1.9, 2.4, 2.1]);
        assert_eq!(Ratio::of(&ours, &theirs), Ratio::of(&ours, &theirs));
        let ratio = Ratio::of(&ours, &theirs).expect("numbers");
        assert!(ratio.low <= ratio.value && ratio.value <= ratio.high);
    }

    #[test]
    fn every_number_below_the_end_is_drawn() {
        let mut random = Random(2);
        let mut seen = [0; 7];
        (0..7000).for_each(|_| seen[random.below(7)] += 1);
        assert!(seen.iter().all(|&count| (800..1200).contains(&count)), "{seen:?}");
    }
}
