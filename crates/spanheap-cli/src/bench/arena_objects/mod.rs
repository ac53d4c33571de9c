//! `arena-objects`: what it costs to make small objects that die together, and nothing else.
//!
//! Two shapes: a *node*, 56 bytes with a slice of four pointers beside it, to the four nodes before; and a *small*
//! object of two words, a pointer to the one before and a number. Each arena gets so many of one shape, is looked
//! through, and freed. The variants are `heap`, the collected heap; `scoped`, a scoped arena; `shared`, a shared one;
//! and those of [`peers`], if they are built in.
//!
//! ```text
//! node:  children --> [ * | * | * | * ]        small:  before --> small
//!        40 bytes of numbers                           number
//! ```
//! CPU time is the process's, so that a collector's threads count, without that of the thread while it looks through
//! the objects. What ending an arena costs is in it, and told besides. The figures are medians over the rounds, in
//! which the variants take turns, and the *least* of a round; a round of a heap that began a cycle ends with a complete
//! one. Every look adds up the numbers that it finds, and the sum is checked.
//!
//! The least matters for bump allocators. Each allocation waits for the pointer that the one before it has stored, and
//! some processors pass it on at once or after several cycles, as they guess; so a small object takes 1.2 ns in one
//! round and 2.5 in the next, in every one of them.

#[cfg(feature = "peers")]
mod peers;
#[cfg(not(feature = "peers"))]
#[path = "no_peers.rs"]
mod peers;
mod variants;

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::request_arena::rounds::{least, median};
use super::{check_fits, share};
use crate::failure::{Failure, Result};
use crate::options::check_range;
use crate::{output, process};
use variants::Variant;

/// What `spanheap bench arena-objects` is told.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How many objects an arena gets.
    #[arg(long, default_value_t = 50_000)]
    objects: u64,
    /// How many arenas, for each shape.
    #[arg(long, default_value_t = 200)]
    arenas: u64,
    /// In how many rounds; the medians over them are reported.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// These variants alone.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How much a heap may grow over what was live before the next cycle, in percent.
    #[arg(long, default_value_t = 100)]
    gc_percent: u32,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  spanheap bench arena-objects
  spanheap bench arena-objects --objects 1000 --arenas 10000 --json";

/// More are typing errors.
const MOST_OBJECTS: u64 = 100_000_000;
const MOST_ARENAS: u64 = 1 << 40;
const MOST_ROUNDS: u64 = 10_000;
/// What an object takes at most, with its slice and what lies between.
const MOST_BYTES: u64 = 160;

/// What is made.
#[derive(Clone, Copy)]
enum Shape {
    Node,
    Small,
}

const SHAPES: [(Shape, &str); 2] = [(Shape::Node, "node"), (Shape::Small, "small")];

/// CPU time of the calling thread in parts of a round that are told apart.
#[derive(Default)]
struct Parts {
    look: Duration,
    free: Duration,
}

impl Parts {
    /// Looks through the objects.
    fn look<T>(&mut self, look: impl FnOnce() -> T) -> T {
        let before = process::thread_cpu_time();
        let result = look();
        self.look += process::thread_cpu_time().saturating_sub(before);
        result
    }

    /// Ends an arena.
    fn free(&mut self, free: impl FnOnce()) {
        let before = process::thread_cpu_time();
        free();
        self.free_since(before);
    }

    /// An arena has ended whose end began then.
    fn free_since(&mut self, before: Duration) {
        self.free += process::thread_cpu_time().saturating_sub(before);
    }
}

/// Nanoseconds for each object, for each round.
#[derive(Default)]
struct Times {
    cpu: Vec<f64>,
    free: Vec<f64>,
    wall: Vec<f64>,
}

/// What is known about a variant.
struct Row {
    name: &'static str,
    /// For each of [`SHAPES`].
    times: [Times; 2],
    cycles: Option<u64>,
}

/// Runs the benchmark.
pub(super) fn run(options: &Options) -> Result<()> {
    let Options { objects, arenas, rounds, .. } = *options;
    check_range("--objects", objects, 1..=MOST_OBJECTS)?;
    check_range("--rounds", rounds, 1..=MOST_ROUNDS)?;
    check_range("--arenas", arenas, rounds..=MOST_ARENAS)?;
    check_fits("arena-objects", objects * MOST_BYTES * 4)?;
    let mut variants = variants::all(options)?;
    variants.extend(peers::variants());
    let mut variants = chosen(variants, &options.only)?;
    let mut rows: Vec<Row> = Vec::new();
    for (name, variant) in &mut variants {
        // Once without measuring, so that all have their memory.
        for (shape, _) in SHAPES {
            round(name, variant.as_mut(), shape, objects, 1, &mut Times::default())?;
        }
        let cycles = variant.heap().map(|_| 0);
        rows.push(Row { name, times: Default::default(), cycles });
    }
    for number in 0..rounds {
        let arenas = share(arenas, rounds as usize, number as usize);
        for turn in 0..variants.len() {
            let index = (turn + number as usize) % variants.len();
            let ((name, variant), row) = (&mut variants[index], &mut rows[index]);
            for ((shape, _), times) in SHAPES.into_iter().zip(&mut row.times) {
                let cycles = round(name, variant.as_mut(), shape, objects, arenas, times)?;
                row.cycles = row.cycles.map(|sum| sum + cycles);
            }
        }
    }
    if options.json {
        output::line(&output::json(&report(options, &rows))?)
    } else {
        print(options, &rows)
    }
}

/// The variants that are named; all, if none is.
fn chosen(
    variants: Vec<(&'static str, Box<dyn Variant>)>,
    names: &[String],
) -> Result<Vec<(&'static str, Box<dyn Variant>)>> {
    let known: Vec<&str> = variants.iter().map(|(name, _)| *name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let absent = peers::ABSENT.map_or(String::new(), |words| format!("; {words}"));
        let known = known.join(", ");
        return Err(Failure::new(format!(
            "there is no variant {name:?}; there are {known}{absent}"
        )));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    Ok(variants.into_iter().filter(|(name, _)| wanted(name)).collect())
}

/// So many arenas of a variant with so many objects each. Returns how many cycles its heap began.
fn round(
    name: &str,
    variant: &mut dyn Variant,
    shape: Shape,
    objects: u64,
    arenas: u64,
    times: &mut Times,
) -> Result<u64> {
    let begun = |variant: &dyn Variant| variant.heap().map_or(0, |heap| heap.stats().cycles);
    let before = begun(variant);
    let (cpu, started, mut parts) = (process::cpu_time(), Instant::now(), Parts::default());
    for _ in 0..arenas {
        let found = match shape {
            Shape::Node => variant.nodes(objects, &mut parts),
            Shape::Small => variant.small(objects, &mut parts),
        };
        let expected = match shape {
            Shape::Node => variants::nodes_weigh(objects),
            Shape::Small => objects * (objects - 1) / 2,
        };
        if found != expected {
            let error = format!("{name}: objects add up to {found}, and should to {expected}");
            return Err(Failure::new(error));
        }
    }
    let cycles = begun(variant) - before;
    if let (Some(heap), 1..) = (variant.heap(), cycles) {
        let _ = heap.collect();
    }
    let each = |time: Duration| time.as_nanos() as f64 / (arenas * objects) as f64;
    times.wall.push(each(started.elapsed()));
    times.cpu.push(each(process::cpu_time().since(cpu).total().saturating_sub(parts.look)));
    times.free.push(each(parts.free));
    Ok(cycles)
}

fn print(options: &Options, rows: &[Row]) -> Result<()> {
    output::line(&format!(
        "arena-objects  {} arenas of {} objects in {} rounds; CPU time of an object, and its part of the arena's end",
        options.arenas, options.objects, options.rounds
    ))?;
    output::line(&format!(
        "{:<14} {:>10} {:>10} {:>10} {:>10} {:>10} {:>10} {:>7}",
        "variant", "node", "least", "end", "small", "least", "end", "cycles"
    ))?;
    for Row { name, times, cycles } in rows {
        let mut text = format!("{name:<14}");
        for Times { cpu, free, .. } in times {
            for time in [median(cpu), least(cpu), median(free)] {
                text += &format!(" {:>10}", format!("{time:.2} ns"));
            }
        }
        let cycles = cycles.map_or_else(|| "-".to_owned(), |cycles| cycles.to_string());
        output::line(&format!("{text} {cycles:>7}"))?;
    }
    match peers::ABSENT {
        Some(words) => output::line(words),
        None => Ok(()),
    }
}

/// The result as JSON; what other benchmarks report too has the same key.
fn report(options: &Options, rows: &[Row]) -> Value {
    let row = |row: &Row| {
        let mut value = json!({ "variant": row.name, "gc_cycles": row.cycles });
        for ((_, shape), Times { cpu, free, wall }) in SHAPES.iter().zip(&row.times) {
            for (key, times) in [("cpu", cpu), ("free", free), ("wall", wall)] {
                value[format!("{shape}_{key}_ns")] = median(times).into();
            }
            value[format!("{shape}_cpu_least_ns")] = least(cpu).into();
        }
        value
    };
    json!({
        "workload": "arena-objects",
        "subject": "spanheap",
        "params": {
            "objects": options.objects,
            "arenas": options.arenas,
            "rounds": options.rounds,
            "gc_percent": options.gc_percent,
        },
        "checksum": variants::nodes_weigh(options.objects),
        "peak_rss_bytes": process::peak_resident(),
        "peers_absent": peers::ABSENT,
        "rows": rows.iter().map(row).collect::<Vec<_>>(),
    })
}
