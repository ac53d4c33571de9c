//! Suites about returning memory to the system: what, where, and how fast.

use super::json::{self, Failure, exactly, flag, number, numbers, tuple};
use serde_json::{Value, json};
use spanheap_core::addr::{Bytes, CHUNK_PAGES, ChunkIndex, PageCount, PageIndex};
use spanheap_core::heap::pi_controller::{Parameters, PiController};
use spanheap_core::heap::scavenge_pace::{Next, QUANTUM, Rest, ScavengePace};
use spanheap_core::pages::bits::PageBits;
use spanheap_core::pages::candidate;
use spanheap_core::pages::scavenge_index::{Occupancy, ScavengeIndex};
use std::time::Duration;

/// `fill_aligned`
pub(crate) fn fill_aligned(input: &Value) -> Result<Value, Failure> {
    let [m, x] = exactly(input, ["m", "x"])?;
    let m = number(m)?;
    let mut y = Vec::new();
    for x in json::list(x)? {
        y.push(candidate::fill_aligned(json::word(x)?, m));
    }
    Ok(json!({ "y": json::of_words(&y) }))
}

/// `find_scavenge_candidate`
pub(crate) fn find_candidate(input: &Value) -> Result<Value, Failure> {
    let [allocated, scavenged, search, min, max, huge] = exactly(
        input,
        ["alloc_ranges", "scav_ranges", "search", "min", "max", "pages_per_huge_page"],
    )?;
    let allocated: PageBits = json::runs(allocated)?;
    let scavenged: PageBits = json::runs(scavenged)?;
    let found = candidate::find_candidate(
        &allocated,
        &scavenged,
        number(search)?,
        PageCount::new(number(min)?),
        PageCount::new(number(max)?),
        number(huge)?,
    );
    Ok(json!(found.map(|found| [found.start, found.pages.get()])))
}

/// `scav_chunk_pack`. The state of a chunk is packed as Go packs it.
pub(crate) fn pack(input: &Value) -> Result<Value, Failure> {
    let fields = exactly(input, ["gen", "in_use", "last_in_use", "flags"])?;
    let [generation, in_use, last_in_use, flags] = fields;
    let occupancy = Occupancy {
        in_use: PageCount::new(number(in_use)?),
        last_in_use: PageCount::new(number(last_in_use)?),
        generation: number(generation)? as u32,
        flags: number(flags)? as u8,
    };
    let packed = occupancy.to_bits();
    if Occupancy::from_bits(packed) != occupancy {
        return Err(format!("{packed:#x} is read back as {:?}", Occupancy::from_bits(packed)));
    }
    Ok(json!({ "packed": json::of_word(packed) }))
}

/// Chunks of `scavenge_index`.
const CHUNKS: usize = 64;

/// An index under test, and the words of its chunks.
struct Subject {
    index: ScavengeIndex,
    words: [u64; CHUNKS],
}

/// `scavenge_index`. Answers with the state of all chunks; see [`asked_chunks`].
pub(crate) fn index(input: &Value) -> Result<Value, Failure> {
    let [setup, ops] = exactly(input, ["setup", "ops"])?;
    let mut subject = Subject { index: ScavengeIndex::new(), words: [0; CHUNKS] };
    match json::text(setup)? {
        "fresh" => {}
        "dense_and_empty" => subject.fill_and_empty(),
        setup => return Err(format!("unknown set-up {setup:?}")),
    }
    let mut results = Vec::new();
    for op in json::list(ops)? {
        results.push(subject.apply(op).map_err(|failure| format!("{op}: {failure}"))?);
    }
    let describe = |(chunk, word): (usize, &u64)| {
        let chunk_use = Occupancy::from_bits(*word);
        let [in_use, last_in_use] = [chunk_use.in_use, chunk_use.last_in_use].map(PageCount::get);
        json!([chunk, in_use, last_in_use, chunk_use.generation, chunk_use.has_free()])
    };
    let chunks: Vec<Value> = subject.words.iter().enumerate().map(describe).collect();
    Ok(json!({ "results": results, "chunks": chunks }))
}

/// Of all chunks in an answer to `scavenge_index` those that the case names, if it names any.
pub(crate) fn asked_chunks(expect: &Value, mut answer: Value) -> Value {
    let fields = answer.as_object_mut().expect("an answer is an object");
    match expect.get("chunks").and_then(Value::as_array) {
        None => drop(fields.remove("chunks")),
        Some(asked) => {
            let chunks = fields["chunks"].as_array_mut().expect("a list of chunks");
            chunks.retain(|chunk| asked.iter().any(|asked| asked.get(0) == chunk.get(0)));
        }
    }
    answer
}

impl Subject {
    /// All pages were in use in the last generation, and are free and scavenged in this one.
    fn fill_and_empty(&mut self) {
        for chunk in 0..CHUNKS {
            self.words[chunk] = self.alloc(chunk, CHUNK_PAGES);
        }
        self.index.next_generation();
        for chunk in 0..CHUNKS {
            self.words[chunk] = self.free(chunk, CHUNK_PAGES - 1, CHUNK_PAGES);
            self.words[chunk] = Occupancy::from_bits(self.words[chunk]).emptied().to_bits();
        }
        self.index.clear_cursors();
    }

    fn alloc(&self, chunk: usize, n: usize) -> u64 {
        let occupancy = Occupancy::from_bits(self.words[chunk]);
        self.index.alloc(occupancy, PageCount::new(n)).to_bits()
    }

    /// `n` pages of a chunk are freed, up to the page `last` of it.
    fn free(&mut self, chunk: usize, last: usize, n: usize) -> u64 {
        let occupancy = Occupancy::from_bits(self.words[chunk]);
        let last = PageIndex::new(chunk * CHUNK_PAGES + last);
        self.index.free(occupancy, last, PageCount::new(n)).to_bits()
    }

    fn apply(&mut self, op: &Value) -> Result<Value, Failure> {
        let (name, arguments) = json::list(op)?.split_first().ok_or("an empty operation")?;
        match (json::text(name)?, arguments) {
            ("alloc", [at, n]) => {
                for (chunk, start, end) in pieces(numbers(at)?, number(n)?)? {
                    self.words[chunk] = self.alloc(chunk, end - start);
                }
                Ok(Value::Null)
            }
            ("free", [at, n]) => {
                for (chunk, start, end) in pieces(numbers(at)?, number(n)?)? {
                    self.words[chunk] = self.free(chunk, end - 1, end - start);
                }
                Ok(Value::Null)
            }
            ("next_gen", []) => {
                self.index.next_generation();
                Ok(Value::Null)
            }
            ("find", [force]) => {
                let force = flag(force)?;
                let Some(cursor) = self.index.cursor(force) else { return Ok(Value::Null) };
                let words = self.words;
                let chunks = (0..=cursor.get() / CHUNK_PAGES)
                    .rev()
                    .map(|chunk| (ChunkIndex::new(chunk), Occupancy::from_bits(words[chunk])));
                let found = self.index.find(force, chunks);
                Ok(json!(found.map(|page| [page.get() / CHUNK_PAGES, page.get() % CHUNK_PAGES])))
            }
            ("set_empty", [chunk]) => {
                let word = self.words.get_mut(number(chunk)?).ok_or("no such chunk")?;
                *word = Occupancy::from_bits(*word).emptied().to_bits();
                Ok(Value::Null)
            }
            _ => Err("unknown operation".to_string()),
        }
    }
}

/// Cuts pages at the borders of chunks: (chunk, first page in it, behind the last).
fn pieces([chunk, page]: [usize; 2], n: usize) -> Result<Vec<(usize, usize, usize)>, Failure> {
    let (start, end) = (chunk * CHUNK_PAGES + page, chunk * CHUNK_PAGES + page + n);
    if n == 0 || end > CHUNKS * CHUNK_PAGES {
        return Err(format!("the index has no {n} pages from [{chunk}, {page}] on"));
    }
    let in_chunk = |chunk: usize| {
        let first = chunk * CHUNK_PAGES;
        (chunk, start.max(first) - first, end.min(first + CHUNK_PAGES) - first)
    };
    Ok((chunk..=(end - 1) / CHUNK_PAGES).map(in_chunk).collect())
}

/// A number that may be none, or infinite.
fn float(value: &Value) -> Result<f64, Failure> {
    match value.as_str() {
        Some("NaN") => Ok(f64::NAN),
        Some("+Inf") => Ok(f64::INFINITY),
        Some("-Inf") => Ok(f64::NEG_INFINITY),
        _ => value.as_f64().ok_or_else(|| format!("a number is expected, not {value}")),
    }
}

/// `pi_controller`. The same operations in the same order: compared to the last digit.
pub(crate) fn pi_controller(input: &Value) -> Result<Value, Failure> {
    let [kp, ti, tt, min, max, samples] =
        exactly(input, ["kp", "ti", "tt", "min", "max", "samples"])?;
    let mut controller = PiController::new(Parameters {
        gain: float(kp)?,
        integral_time: float(ti)?,
        reset_time: float(tt)?,
        min: float(min)?,
        max: float(max)?,
    });
    let mut outputs = Vec::new();
    for sample in json::list(samples)? {
        let [input, setpoint, period] = tuple(sample)?;
        let output = controller.next(float(input)?, float(setpoint)?, float(period)?);
        outputs.push(json!([output.unwrap_or(controller.min()), output.is_some()]));
    }
    Ok(json!(outputs))
}

/// The share of time that the background scavenger may use, and how far it may be off.
const SHARE: f64 = 0.01;
const TOLERANCE: f64 = 0.005;

/// What a scavenger works with in `scavenger`.
struct World {
    available: usize,
    stop_at: usize,
    work_ns_per_4k: u64,
    zero_time: bool,
    oversleep: Duration,
    released: usize,
    worked: Duration,
    slept: Duration,
}

/// `scavenger`. Times of sleeps, too, are compared to the last digit.
pub(crate) fn scavenger(input: &Value) -> Result<Value, Failure> {
    let [procs, work_ns_per_4k, zero_time, oversleep, phases] =
        exactly(input, ["procs", "work_ns_per_4k", "zero_time", "oversleep_ns", "phases"])?;
    let mut pace = ScavengePace::new(number(procs)?);
    let mut world = World {
        available: 0,
        stop_at: 0,
        work_ns_per_4k: number(work_ns_per_4k)? as u64,
        zero_time: flag(zero_time)?,
        oversleep: Duration::from_nanos(number(oversleep)? as u64),
        released: 0,
        worked: Duration::ZERO,
        slept: Duration::ZERO,
    };
    let (mut answers, mut share_is_right) = (Vec::new(), true);
    for phase in json::list(phases)? {
        let [available, stop_at] = exactly(phase, ["available", "stop_at"])?;
        (world.available, world.stop_at) = (number(available)?, number(stop_at)?);
        let mut runs = Vec::new();
        loop {
            let before = world.released;
            let Rest::Sleep(time) = world.run(&mut pace) else { break };
            runs.push(json!([world.released - before, time.as_nanos() as u64]));
            world.slept += time + world.oversleep;
            pace.slept(time + world.oversleep);
        }
        answers.push(json!({ "runs": runs, "released_total": world.released }));
        let all = world.worked + world.slept;
        let share = world.worked.as_nanos() as f64 / all.as_nanos() as f64;
        share_is_right &= (share - SHARE).abs() <= TOLERANCE;
    }
    Ok(json!({ "phases": answers, "cpu_fraction_ok": share_is_right }))
}

impl World {
    fn run(&mut self, pace: &mut ScavengePace) -> Rest {
        let mut run = pace.begin_run();
        while self.available > self.stop_at {
            let taken = self.available.min(QUANTUM.get());
            self.available -= taken;
            self.released += taken;
            let time = if self.zero_time { 0 } else { self.work_ns_per_4k };
            let time = Duration::from_nanos(taken.div_ceil(4096) as u64 * time);
            self.worked += time;
            if run.worked(time, Bytes::new(taken)) == Next::Done {
                break;
            }
        }
        run.end()
    }
}
