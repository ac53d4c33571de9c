//! [`Histogram`]: times in nanoseconds, counted in log-linear buckets.
//!
//! Each power of two is divided into 32 equal buckets, so a value is known to about 3 %; values below
//! 64 have a bucket each. Recording is a few instructions and never allocates, so that the measuring
//! does not disturb what is measured. The largest value is kept exactly: it is the one that counts.
//!
//! ```text
//! value v with its highest bit at e >= 5:   bucket = (e - 5) * 32 + (v >> (e - 5))
//! ```

/// Buckets in a power of two.
const SUB: usize = 32;
const SUB_BITS: u32 = SUB.trailing_zeros();
/// Buckets for all values of 64 bits.
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUB;

/// How often each duration was seen.
pub(super) struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram::new()
    }
}

impl Histogram {
    pub(super) fn new() -> Histogram {
        Histogram { counts: Box::new([0; BUCKETS]), total: 0, max: 0 }
    }

    /// Counts one value.
    pub(super) fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// Adds all of `other`.
    pub(super) fn merge(&mut self, other: &Histogram) {
        for (mine, theirs) in self.counts.iter_mut().zip(other.counts.iter()) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// A value that `part` of 10,000 values do not exceed: the upper end of the bucket, but never
    /// more than the largest value. 0 when nothing was recorded.
    pub(super) fn quantile(&self, part: u64) -> u64 {
        assert!(part <= 10_000, "a part of 10,000, not {part}");
        let wanted = u128::from(self.total) * u128::from(part);
        let mut seen = 0_u128;
        for (index, &count) in self.counts.iter().enumerate() {
            seen += u128::from(count) * 10_000;
            if count > 0 && seen >= wanted {
                return upper_end(index).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(value: u64) -> usize {
    let exponent = (value | 1).ilog2();
    if exponent < SUB_BITS {
        return value as usize;
    }
    let shift = exponent - SUB_BITS;
    (shift as usize) * SUB + (value >> shift) as usize
}

/// The largest value of a bucket.
fn upper_end(index: usize) -> u64 {
    if index < 2 * SUB {
        return index as u64;
    }
    let shift = index / SUB - 1;
    let head = (index % SUB + SUB) as u128;
    // In 128 bits, since one past the last bucket's end is 2^64.
    (((head + 1) << shift) - 1) as u64
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, bucket, upper_end};

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        for index in 0..BUCKETS {
            let end = upper_end(index);
            assert_eq!(bucket(end), index, "the end {end}");
            match end.checked_add(1) {
                Some(next) => assert_eq!(bucket(next), index + 1, "the next {next}"),
                None => assert_eq!(index, BUCKETS - 1),
            }
        }
    }

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::new();
        let mut other = Histogram::new();
        for value in 1..=100_000_u64 {
            if value % 3 == 0 { &mut other } else { &mut histogram }.record(value);
        }
        histogram.merge(&other);
        for part in [5_000, 9_900, 9_990, 9_999] {
            let exact = part * 10;
            let found = histogram.quantile(part);
            assert!(found >= exact && found <= exact + exact / 32, "{part}: {found}, not {exact}");
        }
        assert_eq!(histogram.quantile(10_000), 100_000);
        assert_eq!(Histogram::new().quantile(5_000), 0);
    }
}
