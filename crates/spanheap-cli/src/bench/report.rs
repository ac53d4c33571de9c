//! A workload's result, as one line of JSON or as a table.
//!
//! The keys of the JSON line, their order and their units are the interface to the scripts that
//! compare collectors; the programs under `bench/peers` print the same ones. Only the cause of the longest
//! stall is ours alone. Behind the common keys come those of the workload: its latencies, under the name of its
//! operation, and its [`Figure`]s.

use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use spanheap::Stats;

use super::Outcome;
use super::params::Params;
use crate::failure::Result;
use crate::options::Percent;
use crate::output::{self, bytes, duration};
use crate::process::CpuTime;

/// Everything that is known after a run.
pub(super) struct Report<'a> {
    pub(super) workload: &'static str,
    pub(super) params: &'a Params,
    pub(super) gc_percent: Percent,
    /// The soft limit of the heap, if one was given.
    pub(super) limit: Option<u64>,
    /// The most bytes that the workload keeps alive at once.
    pub(super) footprint: u64,
    pub(super) outcome: &'a Outcome,
    pub(super) wall: Duration,
    pub(super) cpu: CpuTime,
    pub(super) peak_resident: u64,
    pub(super) stats: Stats,
}

/// The points of the latency distribution that are reported, in parts of 10,000.
pub(super) const PERCENTILES: [(&str, u64); 5] =
    [("p50", 5_000), ("p99", 9_900), ("p999", 9_990), ("p9999", 9_999), ("max", 10_000)];

/// Something that one workload has found out, and others do not know of.
pub(super) struct Figure {
    /// Its key; the unit is at its end.
    pub(super) key: String,
    pub(super) value: Number,
}

/// The value of a figure.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Number {
    /// A number of whole things: operations, bytes.
    Count(u64),
    /// A ratio, or a time in the unit that the key names.
    Real(f64),
    /// Words.
    Text(String),
}

impl Figure {
    pub(super) fn count(key: &str, value: u64) -> Figure {
        Figure { key: key.to_owned(), value: Number::Count(value) }
    }

    /// What is no number, such as a part of nothing, is 0.
    pub(super) fn real(key: &str, value: f64) -> Figure {
        let value = if value.is_finite() { value } else { 0.0 };
        Figure { key: key.to_owned(), value: Number::Real(value) }
    }

    pub(super) fn text(key: &str, value: &str) -> Figure {
        Figure { key: key.to_owned(), value: Number::Text(value.to_owned()) }
    }

    /// The key and the value for a person.
    fn line(&self) -> String {
        let name = self.key.replace('_', " ");
        let (name, value) = match &self.value {
            Number::Count(count) => match name.strip_suffix(" bytes") {
                Some(name) => (name, bytes(*count)),
                None => (name.as_str(), count.to_string()),
            },
            Number::Real(real) => (name.as_str(), format!("{real:.3}")),
            Number::Text(text) => (name.as_str(), text.clone()),
        };
        format!("{name:<14} {value}")
    }
}

impl Report<'_> {
    /// The result as one line of JSON.
    pub(super) fn json(&self) -> Result<String> {
        output::json(self)
    }

    /// Prints the result for a person.
    pub(super) fn print(&self) -> Result<()> {
        let Report { cpu, stats, outcome, .. } = self;
        let setting = |(key, value): (&str, Option<u64>)| match value {
            Some(value) => format!("{key}={value}"),
            None => format!("{key}=off"),
        };
        let settings: Vec<String> = self.settings().map(setting).collect();
        let share = stats.gc_cpu.as_secs_f64() / cpu.total().as_secs_f64().max(1e-9) * 100.0;
        output::line(&format!("{} {}", self.workload, settings.join(" ")))?;
        output::line(&format!("checksum       {}", outcome.checksum))?;
        output::line(&format!("wall           {}", duration(self.wall)))?;
        output::line(&format!(
            "CPU            {} user, {} system",
            duration(cpu.user),
            duration(cpu.system)
        ))?;
        output::line(&format!("memory         {} resident at most", bytes(self.peak_resident)))?;
        output::line(&format!("collector      {} cycles, {share:.1} % of the CPU", stats.cycles))?;
        output::line(&format!(
            "longest stall  {}, {}",
            duration(stats.longest_stall),
            stats.longest_stall_cause
        ))?;
        if let Some((operation, latency)) = &outcome.latency {
            let points = PERCENTILES.map(|(name, part)| {
                format!("{name} {}", duration(Duration::from_nanos(latency.quantile(part))))
            });
            output::line(&format!("{operation:<14} {}", points.join(", ")))?;
        }
        outcome.figures.iter().try_for_each(|figure| output::line(&figure.line()))
    }

    /// All that was set, by the user or by default. What is off has no value.
    fn settings(&self) -> impl Iterator<Item = (&'static str, Option<u64>)> {
        let common = [
            ("threads", Some(self.params.threads as u64)),
            ("gc_percent", self.gc_percent.0.map(u64::from)),
            ("limit", self.limit),
        ];
        self.params.all().iter().map(|&(key, value)| (key, Some(value))).chain(common)
    }
}

/// The object `params`, which keeps the order of the workload's keys.
struct Settings<'a>(&'a Report<'a>);

impl Serialize for Settings<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        to.collect_map(self.0.settings())
    }
}

impl Serialize for Report<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("workload", self.workload)?;
        map.serialize_entry("subject", "spanheap")?;
        map.serialize_entry("params", &Settings(self))?;
        map.serialize_entry("footprint_bytes", &self.footprint)?;
        map.serialize_entry("checksum", &self.outcome.checksum)?;
        map.serialize_entry("wall_s", &self.wall.as_secs_f64())?;
        map.serialize_entry("user_s", &self.cpu.user.as_secs_f64())?;
        map.serialize_entry("sys_s", &self.cpu.system.as_secs_f64())?;
        map.serialize_entry("peak_rss_bytes", &self.peak_resident)?;
        map.serialize_entry("gc_cycles", &self.stats.cycles)?;
        map.serialize_entry("gc_cpu_s", &self.stats.gc_cpu.as_secs_f64())?;
        map.serialize_entry("longest_stall_ns", &(self.stats.longest_stall.as_nanos() as u64))?;
        map.serialize_entry("longest_stall_cause", self.stats.longest_stall_cause)?;
        if let Some((operation, latency)) = &self.outcome.latency {
            for (name, part) in PERCENTILES {
                map.serialize_entry(&format!("{operation}_{name}_ns"), &latency.quantile(part))?;
            }
        }
        for Figure { key, value } in &self.outcome.figures {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
