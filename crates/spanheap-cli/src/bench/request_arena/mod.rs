//! `request-arena`: a service that decodes a document for each request, looks at it, and drops it.
//!
//! It is the case that arenas are made for: some hundred small objects that die together. Every *variant* has the same
//! decoder, documents of the same shape, and the same walk over them, and differs in where the values go:
//!
//! | variant | where |
//! |---|---|
//! | `parse` | nowhere: decoding alone, what is to be taken off all others |
//! | `heap` | the collected heap; each request is an `enter` |
//! | `scoped` | a scoped arena for each request |
//! | `scoped-reset` | one scoped arena for a round, reset after each request |
//! | `shared` | a shared arena for each request |
//! | `shared-64` | a shared arena for so many requests |
//! | `promoted` | as `scoped`, and one document in a hundred is promoted to the heap and kept for a while |
//! | `box` | boxes on the program's allocator, the system's |
//!
//! and those of [`peers`], if they are built in: `bumpalo` (one for all requests, reset after each) and `bumpalo-new`
//! (one for each), and `mimalloc`, boxes on that allocator.
//!
//! # How it is measured
//! All in one process: each round gives every variant its share of the requests, one after the other, and each round
//! begins with another one. So a machine that grows slower hurts all, and the medians over the rounds are compared; the
//! *least* of a round is told besides. CPU time is the process's, so that a collector's threads count; a round of a
//! heap that began a cycle ends with a complete one, which is in its time. The column *object* is what a request takes
//! longer than `parse`, for each object: making it, looking at it, and dropping it. What a variant *grew* the resident
//! set by is its peak in a first round, which is not in the times. Each variant has a heap of its own.
//!
//! Every request's checksum is compared with that of the document, and so is what is left in the heap at the end.
//!
//! # Modules
//! `generate` makes the document, `decode` decodes it, `document` says what it is wherever it lies, `places` are the
//! heap and boxes, `arenas` scoped arenas, `shared` shared ones; `variants` serves requests, `rounds` measures,
//! `report` tells.

mod arenas;
mod decode;
mod document;
mod generate;
#[cfg(feature = "peers")]
mod peers;
#[cfg(not(feature = "peers"))]
#[path = "no_peers.rs"]
mod peers;
mod places;
mod report;
pub(super) mod rounds;
mod shared;
mod variants;

use clap::Args;

use crate::failure::{Failure, Result};
use crate::options::{check_range, size};
use crate::output;
use decode::decode;
use document::{Census, Scratch};
use places::Boxes;
use report::Report;
use variants::Named;

/// What `spanheap bench request-arena` is told.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How many requests each variant serves.
    #[arg(long, default_value_t = 100_000)]
    requests: u64,
    /// In how many rounds; the medians over them are reported.
    #[arg(long, default_value_t = 20)]
    rounds: u64,
    /// Bytes of the document: a number, or with a unit.
    #[arg(long, default_value = "10KiB", value_parser = size)]
    size: u64,
    /// Of how many requests one keeps its document, where documents are kept.
    #[arg(long, default_value_t = 100)]
    promote: u64,
    /// These variants alone.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// How much a heap may grow over what was live before the next cycle, in percent.
    #[arg(long, default_value_t = 100)]
    gc_percent: u32,
    /// Print the document, and do nothing else.
    #[arg(long)]
    print_document: bool,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  spanheap bench request-arena
  spanheap bench request-arena --only parse,heap --requests 1000000
  spanheap bench request-arena --size 100KiB --json
  spanheap bench request-arena --print-document          for the program of another language";

/// More are typing errors.
const MOST_REQUESTS: u64 = 1 << 40;
const MOST_ROUNDS: u64 = 10_000;

/// The document that is decoded, and what is known about it.
struct Document {
    text: String,
    /// See [`document::sum`].
    sum: u64,
    census: Census,
}

impl Document {
    fn new(length: usize) -> Result<Document> {
        let text = generate::document(length);
        let value = decode(&text, &mut Boxes, &mut Scratch::new())
            .map_err(|error| Failure::new(format!("the document is wrong at {}", error.0)))?;
        let (sum, census) = (document::sum(&Boxes, &value), Census::of(&Boxes, &value));
        Ok(Document { text, sum, census })
    }
}

/// Runs the benchmark.
pub(super) fn run(options: &Options) -> Result<()> {
    let Options { requests, rounds, size, promote, .. } = *options;
    check_range("--size", size, generate::MIN_LENGTH..=generate::MAX_LENGTH)?;
    check_range("--rounds", rounds, 1..=MOST_ROUNDS)?;
    check_range("--requests", requests, rounds..=MOST_REQUESTS)?;
    check_range("--promote", promote, 1..=MOST_REQUESTS)?;
    let document = Document::new(size as usize)?;
    if options.print_document {
        return output::line(&document.text);
    }
    let mut variants = variants::all(options)?;
    variants.extend(peers::variants());
    let mut variants = chosen(variants, &options.only)?;
    let series = rounds::measure(&mut variants, &document, requests, rounds)?;
    let report = Report { options, document: &document, series: &series };
    if options.json { output::line(&report.json()?) } else { report.print() }
}

/// The variants that are named; all, if none is.
fn chosen(variants: Vec<Named>, names: &[String]) -> Result<Vec<Named>> {
    let known: Vec<&str> = variants.iter().map(|variant| variant.name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let absent = peers::ABSENT.map_or(String::new(), |words| format!("; {words}"));
        let known = known.join(", ");
        return Err(Failure::new(format!(
            "there is no variant {name:?}; there are {known}{absent}"
        )));
    }
    let wanted = |name: &str| names.is_empty() || names.iter().any(|wanted| wanted == name);
    Ok(variants.into_iter().filter(|variant| wanted(variant.name)).collect())
}
