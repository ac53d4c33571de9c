//! A workload's result, as one line of JSON or as a table.
//!
//! The keys of the JSON line, their order and their units are the interface to the scripts that
//! compare collectors; the programs under `bench/peers` print the same ones.

use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use spanheap::Stats;

use super::Outcome;
use super::params::Params;
use crate::failure::Result;
use crate::output::{self, bytes, duration};
use crate::process::CpuTime;

/// Everything that is known after a run.
pub(super) struct Report<'a> {
    pub(super) workload: &'static str,
    pub(super) params: &'a Params,
    pub(super) gc_percent: u32,
    pub(super) outcome: &'a Outcome,
    pub(super) wall: Duration,
    pub(super) cpu: CpuTime,
    pub(super) peak_resident: u64,
    pub(super) stats: Stats,
}

/// The points of the latency distribution that are reported, in parts of 10,000.
const PERCENTILES: [(&str, u64); 5] = [
    ("push_p50_ns", 5_000),
    ("push_p99_ns", 9_900),
    ("push_p999_ns", 9_990),
    ("push_p9999_ns", 9_999),
    ("push_max_ns", 10_000),
];

impl Report<'_> {
    /// The result as one line of JSON.
    pub(super) fn json(&self) -> Result<String> {
        output::json(self)
    }

    /// Prints the result for a person.
    pub(super) fn print(&self) -> Result<()> {
        let Report { cpu, stats, outcome, .. } = self;
        let settings: Vec<String> =
            self.settings().map(|(key, value)| format!("{key}={value}")).collect();
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
        output::line(&format!("longest stall  {}", duration(stats.longest_stall)))?;
        if let Some(latency) = &outcome.latency {
            let points = PERCENTILES.map(|(name, part)| {
                let name = name.trim_start_matches("push_").trim_end_matches("_ns");
                format!("{name} {}", duration(Duration::from_nanos(latency.quantile(part))))
            });
            output::line(&format!("push           {}", points.join(", ")))?;
        }
        Ok(())
    }

    /// All that was set, by the user or by default.
    fn settings(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let common =
            [("threads", self.params.threads as u64), ("gc_percent", u64::from(self.gc_percent))];
        self.params.all().iter().copied().chain(common)
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
        map.serialize_entry("checksum", &self.outcome.checksum)?;
        map.serialize_entry("wall_s", &self.wall.as_secs_f64())?;
        map.serialize_entry("user_s", &self.cpu.user.as_secs_f64())?;
        map.serialize_entry("sys_s", &self.cpu.system.as_secs_f64())?;
        map.serialize_entry("peak_rss_bytes", &self.peak_resident)?;
        map.serialize_entry("gc_cycles", &self.stats.cycles)?;
        map.serialize_entry("gc_cpu_s", &self.stats.gc_cpu.as_secs_f64())?;
        map.serialize_entry("longest_stall_ns", &(self.stats.longest_stall.as_nanos() as u64))?;
        if let Some(latency) = &self.outcome.latency {
            for (name, part) in PERCENTILES {
                map.serialize_entry(name, &latency.quantile(part))?;
            }
        }
        map.end()
    }
}
