//! Numbers of bytes as people write them: `512MiB`.
//!
//! ```text
//!   amount = digits [ unit ]        unit = "B" | "KiB" | "MiB" | "GiB" | "TiB"
//! ```
//!
//! This is what Go reads from `GOMEMLIMIT`, and nothing else: no fractions, no spaces, no decimal
//! units, no lower case. A limit that is understood differently from what was meant is worse than
//! one that is refused; `10MB` could be either of two numbers. The amount has to fit in a *signed*
//! word, and a minus sign is read for the sake of `-0` alone, as Go does.

use super::Bytes;
use core::fmt;
use core::str::FromStr;

/// The units, with the power of two that each stands for. `B` ends the others, so it comes last.
const UNITS: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];

/// The largest amount that can be written.
const LARGEST: usize = isize::MAX.unsigned_abs();

/// Why a text is no number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ParseBytesError {
    /// It is not decimal digits with an optional unit behind them.
    Syntax,
    /// The number does not fit in a signed 64-bit word.
    TooLarge,
    /// It is below zero.
    Negative,
}

impl fmt::Display for ParseBytesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syntax => "a number of bytes is digits, and B, KiB, MiB, GiB or TiB if needed",
            Self::TooLarge => "a number of bytes is less than 8388608 TiB",
            Self::Negative => "a number of bytes is not negative",
        })
    }
}

impl std::error::Error for ParseBytesError {}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    /// Reads `1024`, `1024B`, `1KiB`, `1MiB`, `1GiB` or `1TiB`.
    fn from_str(text: &str) -> Result<Bytes, ParseBytesError> {
        let with_unit = |&(unit, shift): &(&str, u32)| Some((text.strip_suffix(unit)?, shift));
        let (number, shift) = UNITS.iter().find_map(with_unit).unwrap_or((text, 0));
        let (digits, negative) = match number.strip_prefix('-') {
            Some(digits) => (digits, true),
            None => (number, false),
        };
        // `usize::from_str` alone would read a plus sign.
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ParseBytesError::Syntax);
        }
        let amount = digits.parse::<usize>().ok();
        match amount.and_then(|amount| amount.checked_mul(1 << shift)) {
            Some(0) => Ok(Bytes::ZERO),
            _ if negative => Err(ParseBytesError::Negative),
            Some(bytes) if bytes <= LARGEST => Ok(Bytes::new(bytes)),
            _ => Err(ParseBytesError::TooLarge),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn amounts_are_digits_and_a_unit() {
        let read = |text: &str| text.parse::<Bytes>();
        assert_eq!(read("0"), Ok(Bytes::ZERO));
        assert_eq!(read("-0KiB"), Ok(Bytes::ZERO));
        assert_eq!(read("007B"), Ok(Bytes::new(7)));
        assert_eq!(read("3GiB"), Ok(Bytes::new(3 << 30)));
        assert_eq!(read("9223372036854775807"), Ok(Bytes::new(LARGEST)));
        assert_eq!(read("8388607TiB"), Ok(Bytes::new(8_388_607 << 40)));
    }

    #[test]
    fn each_refusal_says_why() {
        for text in ["", "B", "KiB", "-", "+1", "1 KiB", " 1", "1kib", "1MB", "1.5GiB", "0x10", "١"]
        {
            assert_eq!(text.parse::<Bytes>(), Err(ParseBytesError::Syntax), "{text:?}");
        }
        for text in ["9223372036854775808", "8388608TiB", "99999999999999999999999B"] {
            assert_eq!(text.parse::<Bytes>(), Err(ParseBytesError::TooLarge), "{text:?}");
        }
        for text in ["-1", "-9KiB", "-99999999999999999999999"] {
            assert_eq!(text.parse::<Bytes>(), Err(ParseBytesError::Negative), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_amount_is_read_as_it_is_written(
            amount in 0..=u32::MAX as usize,
            unit in 0..UNITS.len(),
        ) {
            let (name, shift) = UNITS[unit];
            let amount = amount & (LARGEST >> shift);
            prop_assert_eq!(format!("{amount}{name}").parse(), Ok(Bytes::new(amount << shift)));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[-+0-9KMGTiB ]{0,24}") {
            if let Ok(bytes) = text.parse::<Bytes>() {
                prop_assert!(bytes.get() <= LARGEST);
            }
        }
    }
}
