//! `fragmentation`: half of the objects are freed; how much memory do the others hold, and what can be done
//! with the rest?
//!
//! For each size, in a heap of its own:
//! ```text
//! fill      objects of this size, `fill` bytes of them
//! free      one half, and collect()
//! refill    with as many bytes of objects of the next size as were freed
//! ```
//! in two cases that differ in *which* half:
//!
//! - **scattered**: every second object, or each with a probability of one half. Nearly every span keeps an
//!   object, so its free slots serve this size only, and the refill needs new pages. A non-moving
//!   heap cannot do better; what it can do is use the slots for objects of the same size.
//! - **spans**: every second run of whole spans. Their pages are free for anything, so the refill fits
//!   where the freed objects were. Resident over live must stay below [`BOUND`] here, in every size.
//!
//! Three measures of memory are held against the live bytes: the resident set, less what it was before
//! the heap was made; what the heap says is ready; and the pages that belong to spans. Only the last is exact
//! to the byte in every run. The fixed size of a heap is in the other two, so a fill of many MiB is
//! needed for them to mean anything.
//!
//! The heaps collect when they are told to only: when a cycle would have begun is no matter here.

mod fill;
mod report;

use clap::{Args, ValueEnum};
use spanheap::{ClassPicture, Heap};
use spanheap_core::addr::Bytes;
use spanheap_core::span::size_class::SizeClass;

use super::check_fits;
use crate::failure::{Failure, Result};
use crate::options::size;
use crate::random::Random;
use crate::{output, process};
use fill::{Halves, Kind, kinds};
use report::{Report, Row};

/// What `spanheap bench fragmentation` is told.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Bytes of objects that a heap is filled with, for each size.
    #[arg(long, default_value = "32MiB", value_parser = size)]
    fill: u64,
    /// Which objects are freed in the scattered case.
    #[arg(long, value_enum, default_value_t = Free::Alternating)]
    free: Free,
    /// Only these sizes of objects, in bytes, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "BYTES")]
    sizes: Vec<usize>,
    /// The seed of --free random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  spanheap bench fragmentation                           every size
  spanheap bench fragmentation --sizes 16,1024,32768 --fill 256MiB
  spanheap bench fragmentation --free random --json";

/// Which objects are freed in the scattered case.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Free {
    /// Every second one.
    Alternating,
    /// Each with a probability of one half.
    Random,
}

/// Resident over live, where whole spans could be used again, has to stay below this.
const BOUND: f64 = 1.3;
/// The least fill: below it there are no runs of whole spans of the larger sizes.
const MIN_FILL: u64 = 1 << 20;
/// The most spans in a run that is freed or kept as a whole.
const RUN_SPANS: usize = 16;

/// A case: which half is freed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Case {
    Scattered,
    Spans,
}

/// What a heap looks like at one moment. Sizes are bytes.
#[derive(Clone, Copy, Default, Debug)]
struct Figures {
    /// Objects that are held.
    live: u64,
    /// The resident set, less what it was before the heap was made.
    resident: u64,
    /// What the heap says is ready for use.
    ready: u64,
    /// Pages that belong to spans.
    pages: u64,
    /// Slots of the filled size that hold no object.
    free_slots: u64,
}

/// Runs the benchmark.
pub(super) fn run(options: &Options) -> Result<()> {
    let kinds = chosen(options)?;
    let mut rows = Vec::with_capacity(kinds.len() * 2);
    for case in [Case::Scattered, Case::Spans] {
        for (kind, next) in &kinds {
            rows.push(experiment(options, case, kind, next)?);
        }
    }
    let report = Report { options, rows: &rows, peak_resident: process::peak_resident() };
    if options.json { output::line(&report.json()?) } else { report.print() }
}

/// The sizes that the user wants, each with the one that the heap is refilled with.
fn chosen(options: &Options) -> Result<Vec<(Kind, Kind)>> {
    if options.fill < MIN_FILL {
        return Err(Failure::new(format!(
            "--fill is {}, it must be {} at least",
            output::bytes(options.fill),
            output::bytes(MIN_FILL)
        )));
    }
    check_fits("fragmentation", options.fill.saturating_mul(2))?;
    let all = kinds();
    let pair = |index: usize| (all[index], all[(index + 1) % all.len()]);
    if options.sizes.is_empty() {
        return Ok((0..all.len()).map(pair).collect());
    }
    let find = |&size: &usize| {
        let index = all.iter().position(|kind| kind.size == size);
        index.map(pair).ok_or_else(|| {
            let near: Vec<String> = all.iter().map(|kind| kind.size.to_string()).collect();
            Failure::new(format!("no slot has {size} bytes; there are {}", near.join(", ")))
        })
    };
    options.sizes.iter().map(find).collect()
}

/// Fills, frees and refills one heap.
fn experiment(options: &Options, case: Case, kind: &Kind, next: &Kind) -> Result<Row> {
    let resident = process::resident();
    let heap = Heap::builder().gc_percent_off().build()?;
    let size = kind.size as u64;
    let count = (options.fill / size).max(2);
    let mut random = Random::new(options.seed);
    let run = run_length(kind.size, count);
    let mut freed = 0;
    let mut is_doomed = |index: u64| {
        let doomed = match (case, options.free) {
            (Case::Spans, _) => index / run % 2 == 1,
            (Case::Scattered, Free::Alternating) => index % 2 == 1,
            (Case::Scattered, Free::Random) => random.below(2) == 1,
        };
        freed += u64::from(doomed);
        doomed
    };
    let Halves { kept, doomed } = (kind.fill)(&heap, count, &mut is_doomed)?;
    let kept_bytes = (count - freed) * size;
    let filled = look(&heap, kind, count * size, resident);
    drop(doomed);
    let _ = heap.collect();
    let after = look(&heap, kind, kept_bytes, resident);
    let refill = freed * size / next.size as u64;
    let second = (next.fill)(&heap, refill, &mut |_| false)?;
    let live = kept_bytes + refill * next.size as u64;
    let refilled = look(&heap, kind, live, resident);
    for (held, expected) in [(kept, count - freed), (second.kept, refill)] {
        let found = held.verify(&heap)?;
        if found != expected {
            return Err(Failure::new(format!("{found} objects are left of {expected}")));
        }
    }
    Ok(Row { case, slot: kind.size, next: next.size, filled, freed: after, refilled })
}

/// How many objects of this size make a run of whole spans; a heap of `count` has several runs.
fn run_length(size: usize, count: u64) -> u64 {
    // A large object is alone in its span.
    let per_span = SizeClass::for_size(Bytes::new(size)).map_or(1, SizeClass::objects) as u64;
    let spans = count / per_span;
    (spans / 16).clamp(1, RUN_SPANS as u64) * per_span
}

/// What `heap` looks like, with so many bytes of live objects.
fn look(heap: &Heap, kind: &Kind, live: u64, resident_before: u64) -> Figures {
    let picture = heap.picture();
    let totals = picture.totals();
    let free_slots = |class: &ClassPicture| {
        let ours = class.slot.is_some_and(|slot| slot.get() == kind.size);
        if ours && fill::is_ours(class.type_name) { class.free_slots() as u64 } else { 0 }
    };
    Figures {
        live,
        resident: process::resident().saturating_sub(resident_before),
        ready: heap.stats().ready_bytes as u64,
        pages: (totals.small + totals.large).get() as u64,
        free_slots: picture.classes.iter().map(free_slots).sum(),
    }
}
