//! What `phases` found out, as one line of JSON or as a table.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use spanheap::Stats;

use super::Options;
use crate::failure::Result;
use crate::output::{self, bytes, duration};
use crate::process::CpuTime;

/// Everything that is known after a run. Sizes are bytes.
pub(super) struct Report<'a> {
    pub(super) options: &'a Options,
    /// The resident set in the first small phase.
    pub(super) base: u64,
    /// CPU time of that phase.
    pub(super) base_cpu: Duration,
    pub(super) returns: &'a [Return],
    /// Objects that were checked at the end.
    pub(super) verified: u64,
    pub(super) wall: Duration,
    pub(super) cpu: CpuTime,
    pub(super) peak_resident: u64,
    pub(super) stats: Stats,
}

/// One way back from large to small.
pub(super) struct Return {
    pub(super) cycle: usize,
    /// How long the data took to grow.
    pub(super) grow: Duration,
    /// How long it took to drop the roots and to collect.
    pub(super) collect: Duration,
    /// The time in which memory was looked at, from when the roots were dropped.
    pub(super) window: Duration,
    /// When the resident set was within 10 % of the base for the first time.
    pub(super) within: Option<Duration>,
    /// The resident set: at most while large, at least in the window, at its end.
    pub(super) peak: u64,
    pub(super) lowest: u64,
    pub(super) end: u64,
    /// CPU time in the window.
    pub(super) cpu: Duration,
    /// What the heap says is ready for use: before the roots were dropped, and at the end.
    pub(super) ready_before: u64,
    pub(super) ready_end: u64,
    /// Pages at the end: free with memory, free and returned.
    pub(super) free_end: u64,
    pub(super) returned_end: u64,
}

#[derive(Serialize)]
struct Row {
    cycle: usize,
    grow_s: f64,
    collect_s: f64,
    window_s: f64,
    within_10_percent_s: Option<f64>,
    peak_rss_bytes: u64,
    lowest_rss_bytes: u64,
    end_rss_bytes: u64,
    cpu_s: f64,
    ready_before_bytes: u64,
    ready_end_bytes: u64,
    free_end_bytes: u64,
    returned_end_bytes: u64,
}

impl Return {
    fn row(&self) -> Row {
        Row {
            cycle: self.cycle,
            grow_s: self.grow.as_secs_f64(),
            collect_s: self.collect.as_secs_f64(),
            window_s: self.window.as_secs_f64(),
            within_10_percent_s: self.within.map(|time| time.as_secs_f64()),
            peak_rss_bytes: self.peak,
            lowest_rss_bytes: self.lowest,
            end_rss_bytes: self.end,
            cpu_s: self.cpu.as_secs_f64(),
            ready_before_bytes: self.ready_before,
            ready_end_bytes: self.ready_end,
            free_end_bytes: self.free_end,
            returned_end_bytes: self.returned_end,
        }
    }

    fn print(&self) -> Result<()> {
        let within = match self.within {
            Some(time) => format!("within 10 % of the base after {}", duration(time)),
            None => format!("not within 10 % of the base in {}", duration(self.window)),
        };
        output::line(&format!("return {}       {within}", self.cycle))?;
        output::line(&format!(
            "  resident     {} at most, then {} at least, {} at the end",
            bytes(self.peak),
            bytes(self.lowest),
            bytes(self.end)
        ))?;
        output::line(&format!(
            "  heap         {} ready before, {} at the end; free pages: {} ready, {} returned",
            bytes(self.ready_before),
            bytes(self.ready_end),
            bytes(self.free_end),
            bytes(self.returned_end)
        ))?;
        output::line(&format!(
            "  time         {} to grow, {} to collect, {} of CPU in {}",
            duration(self.grow),
            duration(self.collect),
            duration(self.cpu),
            duration(self.window)
        ))
    }
}

impl Report<'_> {
    /// The result as one line of JSON; what other benchmarks report too has the same key.
    pub(super) fn json(&self) -> Result<String> {
        let Report { options, stats, .. } = self;
        let rows: Vec<Row> = self.returns.iter().map(Return::row).collect();
        let value = json!({
            "workload": "phases",
            "subject": "spanheap",
            "params": {
                "phase_seconds": options.phase_seconds,
                "cycles": options.cycles,
                "small": options.small,
                "large": options.large,
                "churn": options.churn,
                "collect": !options.no_collect,
                "threads": options.threads,
                "gc_percent": options.gc_percent,
            },
            "wall_s": self.wall.as_secs_f64(),
            "user_s": self.cpu.user.as_secs_f64(),
            "sys_s": self.cpu.system.as_secs_f64(),
            "peak_rss_bytes": self.peak_resident,
            "gc_cycles": stats.cycles,
            "gc_cpu_s": stats.gc_cpu.as_secs_f64(),
            "longest_stall_ns": stats.longest_stall.as_nanos() as u64,
            "verified_objects": self.verified,
            "base_rss_bytes": self.base,
            "base_cpu_s": self.base_cpu.as_secs_f64(),
            "returns": rows,
        });
        output::json(&value)
    }

    /// Prints the result for a person.
    pub(super) fn print(&self) -> Result<()> {
        let Report { options, stats, .. } = self;
        let collect = if options.no_collect { ", without collect()" } else { "" };
        output::line(&format!(
            "phases         {} to {}, {} s each, churn {}/s, {} threads{collect}",
            bytes(options.small),
            bytes(options.large),
            options.phase_seconds,
            bytes(options.churn),
            options.threads,
        ))?;
        output::line(&format!(
            "base           {} resident, {} of CPU in a small phase",
            bytes(self.base),
            duration(self.base_cpu)
        ))?;
        for back in self.returns {
            back.print()?;
        }
        output::line(&format!("memory         {} resident at most", bytes(self.peak_resident)))?;
        output::line(&format!(
            "time           {}, {} user, {} system",
            duration(self.wall),
            duration(self.cpu.user),
            duration(self.cpu.system)
        ))?;
        output::line(&format!(
            "collector      {} cycles, {} of CPU, longest stall {}",
            stats.cycles,
            duration(stats.gc_cpu),
            duration(stats.longest_stall)
        ))?;
        output::line(&format!("verified       {} objects, heap empty", self.verified))
    }
}
