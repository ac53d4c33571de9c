//! What `request-arena` found out, as one line of JSON or as a table.

use std::time::Duration;

use serde_json::{Value, json};

use super::rounds::{Series, least, median};
use super::{Document, Options, peers};
use crate::bench::report::PERCENTILES;
use crate::failure::Result;
use crate::output::{self, bytes, duration};
use crate::process;

/// Everything that is known after a run.
pub(super) struct Report<'a> {
    pub(super) options: &'a Options,
    pub(super) document: &'a Document,
    pub(super) series: &'a [Series],
}

impl Report<'_> {
    /// The CPU time of a request of the variant with this name.
    fn cpu_of(&self, name: &str) -> Option<f64> {
        let series = self.series.iter().find(|series| series.name == name)?;
        Some(median(&series.cpu))
    }

    /// What a request takes longer than its decoding alone, for each object; where that was measured.
    fn object(&self, series: &Series) -> Option<f64> {
        let over = median(&series.cpu) - self.cpu_of("parse")?;
        (series.name != "parse").then_some(over / self.document.census.objects as f64)
    }

    /// The result as one line of JSON; what other benchmarks report too has the same key.
    pub(super) fn json(&self) -> Result<String> {
        let Report { options, document, series } = self;
        output::json(&json!({
            "workload": "request-arena",
            "subject": "spanheap",
            "params": {
                "requests": options.requests,
                "rounds": options.rounds,
                "size": options.size,
                "promote": options.promote,
                "gc_percent": options.gc_percent,
            },
            "checksum": document.sum,
            "objects": document.census.objects,
            "depth": document.census.depth,
            "peak_rss_bytes": process::peak_resident(),
            "peers_absent": peers::ABSENT,
            "rows": series.iter().map(|series| self.row(series)).collect::<Vec<_>>(),
        }))
    }

    fn row(&self, series: &Series) -> Value {
        let mut row = json!({
            "variant": series.name,
            "cpu_ns": median(&series.cpu),
            "cpu_least_ns": least(&series.cpu),
            "wall_ns": median(&series.wall),
            "object_ns": self.object(series),
            "gc_cycles": series.cycles,
            "grown_bytes": series.grown,
        });
        for (name, part) in PERCENTILES {
            row[format!("request_{name}_ns")] = series.times.quantile(part).into();
        }
        row
    }

    /// Prints the result for a person.
    pub(super) fn print(&self) -> Result<()> {
        let Report { options, document, series } = self;
        output::line(&format!(
            "request-arena  {} requests in {} rounds, a document of {} bytes, {} objects, {} deep; checksum {}",
            options.requests,
            options.rounds,
            document.text.len(),
            document.census.objects,
            document.census.depth,
            document.sum,
        ))?;
        output::line(&format!(
            "{:<14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9} {:>10}",
            "variant",
            "CPU",
            "least",
            "wall",
            "object",
            "p50",
            "p99.9",
            "max",
            "cycles",
            "grown",
            "to bumpalo"
        ))?;
        series.iter().try_for_each(|series| output::line(&self.text(series)))?;
        if let Some(words) = peers::ABSENT {
            output::line(words)?;
        }
        output::line(&format!(
            "memory         {} resident at most",
            bytes(process::peak_resident())
        ))
    }

    /// A row of the table.
    fn text(&self, series: &Series) -> String {
        let nanoseconds = |number: f64| duration(Duration::from_nanos(number as u64));
        let point = |part| duration(Duration::from_nanos(series.times.quantile(part)));
        let none = || "-".to_owned();
        let cpu = median(&series.cpu);
        format!(
            "{:<14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>7} {:>9} {:>10}",
            series.name,
            nanoseconds(cpu),
            nanoseconds(least(&series.cpu)),
            nanoseconds(median(&series.wall)),
            self.object(series).map_or_else(none, |time| format!("{time:.1} ns")),
            point(5_000),
            point(9_990),
            point(10_000),
            series.cycles.map_or_else(none, |cycles| cycles.to_string()),
            series.grown.map_or_else(none, bytes),
            self.cpu_of("bumpalo").map_or_else(none, |bumpalo| format!("{:.3}", cpu / bumpalo)),
        )
    }
}
