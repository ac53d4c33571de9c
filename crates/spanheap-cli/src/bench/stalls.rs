//! `stalls`: the message bus beside more and more live data. Does the longest push grow with the heap?
//!
//! For each of the sizes, a new heap gets so many bytes of objects of mixed sizes, and then the messages pass, while
//! one cycle follows the other. The first row is the same loop with a collector that never begins, beside the
//! least data: what its slowest push takes is the machine's own doing, and the allocator's. `max, own` is the slowest
//! push when the waiting for a processor is left out ([`super::run_queue`]).
//!
//! A collector that stops its threads for work in proportion to the heap shows it here: its column grows. What
//! the heap itself calls its longest stall is in the last column; the making of the live data is in that one.

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use spanheap::{Heap, HeapBuilder};

use super::check_fits;
use super::histogram::Histogram;
use super::message_bus::{Load, Sent};
use super::report::PERCENTILES;
use crate::failure::{Failure, Result};
use crate::live_data::LiveData;
use crate::options::{check_range, check_threads, size};
use crate::output::{self, bytes, duration};
use crate::process;

/// What `spanheap bench stalls` is told.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Live data beside the messages, a row for each: numbers of bytes, or with units.
    #[arg(long, value_delimiter = ',', default_value = "0.1GiB,1GiB,4GiB", value_parser = size)]
    live: Vec<u64>,
    /// How many messages are kept.
    #[arg(long, default_value_t = 200_000)]
    window: u64,
    /// How many messages are sent.
    #[arg(long, default_value_t = 1_000_000)]
    messages: u64,
    /// Bytes of a message.
    #[arg(long, default_value = "1KiB", value_parser = size)]
    size: u64,
    /// How many threads send, 1 to 1024.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  spanheap bench stalls                                  0.1, 1 and 4 GiB
  spanheap bench stalls --live 64MiB,256MiB --json";

/// More messages or larger ones are typing errors.
const MOST: u64 = 1 << 40;

/// A row: one heap.
struct Row {
    live: u64,
    collects: bool,
    sent: Sent,
    wall: Duration,
    cpu: Duration,
    collector: Duration,
    cycles: u64,
    stall: (Duration, &'static str),
}

/// Runs the benchmark.
pub(super) fn run(options: &Options) -> Result<()> {
    let load = check(options)?;
    let least = options.live.iter().min().copied().unwrap_or(0);
    let mut rows = vec![row(&load, least, false)?];
    for &live in &options.live {
        rows.push(row(&load, live, true)?);
    }
    if rows.iter().any(|row| row.sent.checksum != rows[0].sent.checksum) {
        return Err(Failure::new("the rows have different checksums"));
    }
    if options.json { output::line(&output::json(&report(options, &rows))?) } else { print(&rows) }
}

/// Refuses what makes no sense.
fn check(options: &Options) -> Result<Load> {
    let Options { window, messages, size, threads, .. } = *options;
    check_threads(threads)?;
    check_range("--window", window, threads as u64..=MOST)?;
    check_range("--messages", messages, 1..=MOST)?;
    check_range("--size", size, 1..=1 << 30)?;
    let live = options.live.iter().max().copied().unwrap_or(0);
    let sent = messages.checked_mul(size + 64);
    let fits = sent.and_then(|sent| sent.checked_add(live.saturating_mul(2)));
    check_fits("stalls", fits.unwrap_or(u64::MAX))?;
    Ok(Load { window, messages, size: size as usize, rate: 0, threads })
}

/// One heap with so much live data.
fn row(load: &Load, live: u64, collects: bool) -> Result<Row> {
    let builder: HeapBuilder = match collects {
        true => Heap::builder().collect_continuously(true),
        false => Heap::builder().gc_percent_off(),
    };
    let heap = builder.build()?;
    let mut data = LiveData::new(&heap, 1);
    data.grow_to(live)?;
    let (before, cpu, started) = (heap.stats(), process::cpu_time(), Instant::now());
    let sent = load.measure(&heap)?;
    let (wall, cpu) = (started.elapsed(), process::cpu_time().since(cpu).total());
    let stats = heap.stats();
    data.verify()?;
    Ok(Row {
        live,
        collects,
        sent,
        wall,
        cpu,
        collector: stats.gc_cpu.saturating_sub(before.gc_cpu),
        cycles: stats.cycles - before.cycles,
        stall: (stats.longest_stall, stats.longest_stall_cause),
    })
}

fn print(rows: &[Row]) -> Result<()> {
    output::line(&format!(
        "{:<10} {:<10} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>7} {:>9}  longest stall",
        "live",
        "collection",
        "p50",
        "p99",
        "p99.9",
        "p99.99",
        "max",
        "max, own",
        "wall",
        "CPU",
        "cycles",
        "collector"
    ))?;
    for row in rows {
        let at = |pushes: &Histogram, part| duration(Duration::from_nanos(pushes.quantile(part)));
        let [p50, p99, p999, p9999, max] = PERCENTILES.map(|(_, part)| at(&row.sent.times, part));
        let own = at(&row.sent.own, 10_000);
        output::line(&format!(
            "{:<10} {:<10} {p50:>9} {p99:>9} {p999:>9} {p9999:>9} {max:>9} {own:>9} {:>8} {:>8} {:>7} \
             {:>9}  {}, {}",
            bytes(row.live),
            if row.collects { "continuous" } else { "off" },
            duration(row.wall),
            duration(row.cpu),
            row.cycles,
            duration(row.collector),
            duration(row.stall.0),
            row.stall.1,
        ))?;
    }
    output::line(&format!("memory     {} resident at most", bytes(process::peak_resident())))
}

/// The result as JSON; what other benchmarks report too has the same key.
fn report(options: &Options, rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let mut value = json!({
            "live_bytes": row.live,
            "collection": row.collects,
            "wall_s": row.wall.as_secs_f64(),
            "cpu_s": row.cpu.as_secs_f64(),
            "gc_cycles": row.cycles,
            "gc_cpu_s": row.collector.as_secs_f64(),
            "longest_stall_ns": row.stall.0.as_nanos() as u64,
            "longest_stall_cause": row.stall.1,
        });
        for (name, part) in PERCENTILES {
            value[format!("push_{name}_ns")] = row.sent.times.quantile(part).into();
            value[format!("push_own_{name}_ns")] = row.sent.own.quantile(part).into();
        }
        value
    };
    json!({
        "workload": "stalls",
        "subject": "spanheap",
        "params": {
            "live": options.live,
            "window": options.window,
            "messages": options.messages,
            "size": options.size,
            "threads": options.threads,
        },
        "checksum": rows[0].sent.checksum,
        "peak_rss_bytes": process::peak_resident(),
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}
