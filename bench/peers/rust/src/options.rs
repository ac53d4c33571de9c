//! The parameters of a workload: `key=value` arguments, checked against the keys that the workload has.
//!
//! A value is a whole number; `off` and `on` are 0 and 1, and binary units are understood, as in
//! `spanheap bench --set`. Three keys are common to all workloads: `threads`; `gc_percent`, which is how much a heap
//! may grow over what was live before the next cycle; and `limit`, a bound for its memory. A system without such a
//! setting refuses the key, and none here has a limit.

use crate::bench::{Failure, Result};

/// A parameter that a workload has, and what it is if nothing is said.
pub struct Key {
    pub name: &'static str,
    pub default: u64,
    pub min: u64,
    pub max: u64,
}

/// Shorthand for tables.
pub const fn key(name: &'static str, default: u64, min: u64, max: u64) -> Key {
    Key { name, default, min, max }
}

/// Values for all keys of a workload, in their order, and for the common ones.
#[derive(Debug)]
pub struct Params {
    values: Vec<(&'static str, u64)>,
    pub threads: usize,
    /// If it was given. 0 is `off`.
    pub gc_percent: Option<u64>,
    /// If it was given.
    pub limit: Option<u64>,
}

/// Stands for a common key that was not given.
const NONE: u64 = u64::MAX;

const COMMON: [Key; 3] = [
    key("threads", 1, 1, 1024),
    key("gc_percent", NONE, 0, 100_000),
    key("limit", NONE, 1, NONE - 1),
];

impl Params {
    /// Takes the defaults of `keys`, and then each of `settings`; the last one counts.
    pub fn parse(keys: &[Key], settings: &[String]) -> Result<Params> {
        let all: Vec<&Key> = keys.iter().chain(&COMMON).collect();
        let mut values: Vec<_> = all.iter().map(|key| (key.name, key.default)).collect();
        for setting in settings {
            let Some((name, text)) = setting.split_once('=') else {
                return Err(Failure::new(format!("{setting:?} is not key=value")));
            };
            let Some(index) = all.iter().position(|key| key.name == name) else {
                let names = all.iter().map(|key| key.name).collect::<Vec<_>>().join(", ");
                return Err(Failure::new(format!("there is no key {name:?}; there are {names}")));
            };
            let (min, max) = (all[index].min, all[index].max);
            let value = number(text).filter(|value| (min..=max).contains(value));
            values[index].1 = value.ok_or_else(|| {
                Failure::new(format!("{name} is {text:?}, it must be a number from {min} to {max}"))
            })?;
        }
        let common = values.split_off(keys.len());
        let given = |index: usize| Some(common[index].1).filter(|&value| value != NONE);
        let (gc_percent, limit) = (given(1), given(2));
        Ok(Params { values, threads: common[0].1 as usize, gc_percent, limit })
    }

    /// The value of a key that the workload has.
    ///
    /// # Panics
    /// When it has no such key, which is a mistake in this program.
    pub fn get(&self, name: &str) -> u64 {
        match self.values.iter().find(|(key, _)| *key == name) {
            Some((_, value)) => *value,
            None => panic!("a workload asks for {name:?}, which is not in its list of keys"),
        }
    }

    /// The workload's own keys and values.
    pub fn own(&self) -> &[(&'static str, u64)] {
        &self.values
    }
}

fn number(text: &str) -> Option<u64> {
    match text {
        "off" => return Some(0),
        "on" => return Some(1),
        _ => {}
    }
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("B", 0)];
    let unit = units.iter().find(|(unit, _)| text.ends_with(unit));
    let (digits, shift) =
        unit.map_or((text, 0), |(unit, shift)| (&text[..text.len() - unit.len()], *shift));
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::{Key, Params, key};

    const KEYS: [Key; 2] = [key("depth", 16, 4, 40), key("size", 7, 1, u64::MAX)];

    fn parse(settings: &[&str]) -> Result<Params, String> {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        Params::parse(&KEYS, &settings).map_err(|failure| failure.to_string())
    }

    #[test]
    fn defaults_hold_until_something_is_set_and_the_last_setting_counts() {
        let params = parse(&["size=1KiB", "threads=2", "depth=5", "size=2KiB"]).expect("fine");
        assert_eq!(params.own(), [("depth", 5), ("size", 2048)]);
        assert_eq!((params.threads, params.gc_percent, params.limit), (2, None, None));
        let params = parse(&["gc_percent=off", "limit=3MiB"]).expect("fine");
        assert_eq!((params.gc_percent, params.limit), (Some(0), Some(3 << 20)));
        assert_eq!(params.own(), [("depth", 16), ("size", 7)]);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (setting, expected) in [
            ("depth", "\"depth\" is not key=value"),
            (
                "deep=1",
                "there is no key \"deep\"; there are depth, size, threads, gc_percent, limit",
            ),
            ("depth=3", "depth is \"3\", it must be a number from 4 to 40"),
            ("depth=off", "depth is \"off\", it must be a number from 4 to 40"),
            ("depth=", "depth is \"\", it must be a number from 4 to 40"),
            ("size=-1", "size is \"-1\", it must be a number from 1 to 18446744073709551615"),
        ] {
            assert_eq!(parse(&[setting]).expect_err("refused"), expected);
        }
    }
}
