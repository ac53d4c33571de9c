//! What options of several subcommands have in common: sizes (`64MiB`, `1.5GB`, `4096`), seconds, and
//! numbers within bounds.
//!
//! Binary and decimal units are both in use, and differ by 7 % at a gigabyte; so both are understood, and
//! a letter alone (`64M`), which may mean either, is refused.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::failure::{Failure, Result};

/// What a unit multiplies by. Longer names come before the ones that they end with.
const UNITS: [(&str, f64); 9] = [
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("B", 1.0),
];

/// The number of bytes that `text` names: a number, which may have a fraction, and a unit or none.
pub(crate) fn size(text: &str) -> std::result::Result<u64, String> {
    let unit = UNITS.iter().find(|(name, _)| text.ends_with(name));
    let (number, factor) = match unit {
        Some((name, factor)) => (text[..text.len() - name.len()].trim_end(), *factor),
        None => (text, 1.0),
    };
    let plain = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let value = number.parse::<f64>().ok().filter(|_| plain);
    let bytes = value.ok_or("a size is a number with a unit, like 64MiB, 1.5GB or 4096")? * factor;
    // 2^63 is exact, and more than any machine has.
    if bytes > 9_223_372_036_854_775_808.0 {
        return Err("more than 8 EiB".to_owned());
    }
    Ok(bytes as u64)
}

/// By how much a heap may grow before the next cycle, in percent; `None` is as much as it likes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Percent(pub(crate) Option<u32>);

/// The percentage that `text` names, which may be `off`.
pub(crate) fn percent(text: &str) -> std::result::Result<Percent, String> {
    if text == "off" {
        return Ok(Percent(None));
    }
    let number = text.parse().map_err(|_| "a percentage is a whole number, or off")?;
    Ok(Percent(Some(number)))
}

/// A longer run than a year is a typing error.
const MAX_SECONDS: f64 = 366.0 * 86_400.0;

/// The duration of so many seconds, which the user gave for `option`.
pub(crate) fn seconds(option: &str, seconds: f64) -> Result<Duration> {
    // A NaN is in no range.
    check_range(option, seconds, 0.0..=MAX_SECONDS)?;
    Ok(Duration::from_secs_f64(seconds))
}

/// More threads than this are a typing error.
const MAX_THREADS: usize = 1024;

/// Refuses numbers of threads that make no sense.
pub(crate) fn check_threads(threads: usize) -> Result<()> {
    check_range("--threads", threads, 1..=MAX_THREADS)
}

/// Refuses a value that the user gave for `option` and that is not in `range`.
pub(crate) fn check_range<T: PartialOrd + Display>(
    option: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    let (min, max) = (range.start(), range.end());
    Err(Failure::new(format!("{option} is {value}, it must be {min} to {max}")))
}

#[cfg(test)]
mod tests {
    use super::{Percent, check_threads, percent, seconds, size};

    #[test]
    fn sizes_are_numbers_with_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("17B", 17),
            ("64MiB", 64 << 20),
            ("0.5 GiB", 1 << 29),
            ("1.5GB", 1_500_000_000),
            ("3kB", 3000),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in ["", "MiB", "64M", "-1", "-1MiB", "1e3", "inf", "NaN", "1.2.3GB", "9999999TiB"]
        {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages_are_numbers_or_off() {
        assert_eq!(percent("100"), Ok(Percent(Some(100))));
        assert_eq!(percent("off"), Ok(Percent(None)));
        for text in ["", "-1", "on", "1.5", "4294967296"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_bounded() {
        assert_eq!(seconds("--seconds", 0.25).expect("fine").as_millis(), 250);
        for bad in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            let error = seconds("--seconds", bad).expect_err("refused").to_string();
            assert!(error.starts_with("--seconds is "), "{error}");
        }
    }

    #[test]
    fn bounds_belong_to_what_is_allowed() {
        assert!(check_threads(1).is_ok() && check_threads(1024).is_ok());
        for (threads, words) in [(0, "--threads is 0, "), (1025, "--threads is 1025, ")] {
            let error = check_threads(threads).expect_err("refused").to_string();
            assert_eq!(error, format!("{words}it must be 1 to 1024"));
        }
    }
}
