//! The parameters of a workload: names, defaults, bounds, and what the user set.
//!
//! Every parameter is a whole number with a lower and an upper bound. Two are written in words as well: a number
//! of bytes may have a unit (`live=1GiB`), and what is 0 or 1 is a switch (`collection=off`). The bounds are where the workload
//! stops making sense; whether the sizes that follow from several of them together fit the machine
//! is the workload's `footprint` to say.

use crate::failure::{Failure, Result};
use crate::options::{check_range, size};

/// A parameter that a workload has.
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) default: u64,
    pub(super) min: u64,
    pub(super) max: u64,
}

/// A value for each of a workload's keys, in the order of the keys, and the number of threads.
#[derive(Debug)]
pub(super) struct Params {
    values: Vec<(&'static str, u64)>,
    pub(super) threads: usize,
}

impl Params {
    /// Takes the defaults of `keys` and then each `key=value` of `settings`; the last one counts.
    pub(super) fn parse(keys: &[Key], settings: &[String], threads: usize) -> Result<Params> {
        let mut values: Vec<_> = keys.iter().map(|key| (key.name, key.default)).collect();
        for setting in settings {
            let Some((name, text)) = setting.split_once('=') else {
                return Err(Failure::new(format!("--set {setting:?} is not key=value")));
            };
            let Some(index) = keys.iter().position(|key| key.name == name) else {
                let names = keys.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
                return Err(Failure::new(format!("there is no key {name:?}; there are {names}")));
            };
            values[index].1 = number(&keys[index], text)?;
        }
        Ok(Params { values, threads })
    }

    /// The value of a key that the workload has.
    ///
    /// # Panics
    /// When it has no such key, which is a mistake in this program.
    pub(super) fn get(&self, name: &str) -> u64 {
        match self.values.iter().find(|(key, _)| *key == name) {
            Some((_, value)) => *value,
            None => panic!("a workload asks for {name:?}, which is not in its list of keys"),
        }
    }

    /// All keys and values, in the order of the workload's list.
    pub(super) fn all(&self) -> &[(&'static str, u64)] {
        &self.values
    }
}

fn number(key: &Key, text: &str) -> Result<u64> {
    let Key { name, min, max, .. } = *key;
    match text {
        "off" if max == 1 => return Ok(0),
        "on" if max == 1 => return Ok(1),
        _ => {}
    }
    // With a unit, and only then: what else is wrong has words of its own below.
    if text.ends_with('B') && text.starts_with(|first: char| first.is_ascii_digit()) {
        let value = size(text).map_err(|why| Failure::new(format!("{name}={text:?}: {why}")))?;
        check_range(name, value, min..=max)?;
        return Ok(value);
    }
    let value = text.parse::<u64>().map_err(|error| {
        use std::num::IntErrorKind::PosOverflow;
        match error.kind() {
            PosOverflow => Failure::new(format!("{name}={text} is too large, at most {max}")),
            _ => Failure::new(format!("{name}={text:?} is not a whole number")),
        }
    })?;
    check_range(name, value, min..=max)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::{Key, Params};

    const KEYS: [Key; 3] = [
        Key { name: "depth", default: 16, min: 4, max: 40 },
        Key { name: "size", default: 7, min: 1, max: u64::MAX },
        Key { name: "fast", default: 1, min: 0, max: 1 },
    ];

    fn parse(settings: &[&str]) -> crate::failure::Result<Params> {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        Params::parse(&KEYS, &settings, 1)
    }

    #[test]
    fn defaults_hold_until_something_is_set_and_the_last_setting_counts() {
        assert_eq!(parse(&[]).expect("fine").all(), [("depth", 16), ("size", 7), ("fast", 1)]);
        let params = parse(&["size=1", "depth=5", "size=2"]).expect("fine");
        assert_eq!((params.get("depth"), params.get("size")), (5, 2));
    }

    #[test]
    fn bytes_have_units_and_switches_have_words() {
        let params = parse(&["size=1.5KiB", "fast=off"]).expect("fine");
        assert_eq!((params.get("size"), params.get("fast")), (1536, 0));
        assert_eq!(parse(&["fast=off", "fast=on"]).expect("fine").get("fast"), 1);
    }

    #[test]
    fn each_mistake_has_its_own_words() {
        for (setting, expected) in [
            ("depth", "--set \"depth\" is not key=value"),
            ("deep=3", "there is no key \"deep\"; there are depth, size, fast"),
            ("depth=x", "depth=\"x\" is not a whole number"),
            ("depth=", "depth=\"\" is not a whole number"),
            ("depth=-1", "depth=\"-1\" is not a whole number"),
            ("depth=64B", "depth is 64, it must be 4 to 40"),
            ("depth=off", "depth=\"off\" is not a whole number"),
            (
                "size=1x2MB",
                "size=\"1x2MB\": a size is a number with a unit, like 64MiB, 1.5GB or 4096",
            ),
            ("depth=1e3", "depth=\"1e3\" is not a whole number"),
            ("depth=3", "depth is 3, it must be 4 to 40"),
            ("depth=60", "depth is 60, it must be 4 to 40"),
            (
                "size=99999999999999999999",
                "size=99999999999999999999 is too large, at most 18446744073709551615",
            ),
        ] {
            assert_eq!(parse(&[setting]).expect_err("refused").to_string(), expected);
        }
    }
}
