//! What the demo shows: a live line while it runs, and a summary.
//!
//! The live line goes to standard error, so that the summary can be piped. On a terminal it is redrawn
//! ten times a second; elsewhere (a log file) it is a new line each second.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use spanheap::Stats;

use super::worker::Shared;
use crate::failure::Result;
use crate::output::{self, bytes, duration};
use crate::process::{self, CpuTime};

/// The live line.
pub(super) struct Status {
    started: Instant,
    last: Instant,
    terminal: bool,
    /// Whether the terminal's cursor stands behind a drawn line.
    drawn: bool,
}

impl Status {
    pub(super) fn new() -> Status {
        let now = Instant::now();
        Status { started: now, last: now, terminal: stderr().is_terminal(), drawn: false }
    }

    /// Time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Shows the present state, if it is time to.
    pub(super) fn show(&mut self, shared: &Shared<'_>) {
        let interval = Duration::from_millis(if self.terminal { 100 } else { 1000 });
        if self.last.elapsed() < interval {
            return;
        }
        self.last = Instant::now();
        let stats = shared.heap.stats();
        let line = format!(
            "{:6.1} s | {} documents | {} cycles | live {} | goal {} | resident {} | stall {}",
            self.elapsed().as_secs_f64(),
            shared.counts.decoded.load(Relaxed),
            stats.cycles,
            bytes(stats.live_bytes as u64),
            bytes(stats.goal_bytes as u64),
            bytes(process::resident()),
            duration(stats.longest_stall),
        );
        if self.terminal {
            output::redraw(&line);
            self.drawn = true;
        } else {
            output::note(&line);
        }
    }

    /// Leaves the terminal's cursor on a fresh line.
    pub(super) fn finish(&mut self) {
        if std::mem::take(&mut self.drawn) {
            output::note("");
        }
    }
}

/// Prints what was done in `elapsed`, and what it cost: `cpu` is for the same time.
pub(super) fn summary(
    shared: &Shared<'_>,
    stats: &Stats,
    elapsed: Duration,
    cpu: CpuTime,
) -> Result<()> {
    let counts = &shared.counts;
    let [decoded, volume, edited, queried, surveyed, compared, retried] = [
        &counts.decoded,
        &counts.decoded_bytes,
        &counts.edited,
        &counts.queried,
        &counts.surveyed,
        &counts.compared,
        &counts.retried,
    ]
    .map(|count| count.load(Relaxed));
    let cpu = cpu.total().as_secs_f64();
    let rate = volume as f64 / 1e6 / elapsed.as_secs_f64().max(1e-9);
    let share = 100.0 * stats.gc_cpu.as_secs_f64() / cpu.max(1e-9);
    output::line(&format!(
        "decoded        {decoded} documents, {}, {rate:.1} MB/s",
        bytes(volume)
    ))?;
    output::line(&format!(
        "steps          {edited} edits, {queried} queries, {surveyed} surveys, {compared} comparisons"
    ))?;
    output::line(&format!("collector      {} cycles, {share:.1} % of the CPU time", stats.cycles))?;
    if retried > 0 {
        output::line(&format!("heap full      {retried} times, and collected"))?;
    }
    output::line(&format!("memory         {} resident at most", bytes(process::peak_resident())))?;
    output::line(&match stats.longest_stall_cause {
        "" => format!("longest stall  {}", duration(stats.longest_stall)),
        cause => format!("longest stall  {} ({cause})", duration(stats.longest_stall)),
    })
}
