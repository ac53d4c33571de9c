//! `leak`: a program that keeps everything, against a hard limit.
//!
//! It appends object after object to a list. When one is refused it reads the error, lets go of the older half of
//! the list, checks each object of it, has the heap collect, and appends the same object again. What is asked is
//! that a program survives this as often as it likes: that the refusal is an error and no end, that it comes when the
//! heap is full and not long before (`full_at`: bytes of live objects at the refusals, in parts of the limit), that
//! letting go helps at once (`relief_max_us`: the longest time from a refusal to the next success), and that nothing
//! is lost or overwritten on the way.
//!
//! The checksum is the sum of the numbers of all objects and of the last byte of each.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use spanheap::{Collected, Gc, Heap, HeapBuilder, Mutator, OutOfMemory, Root, Rootable, Trace};

use super::params::{Key, Params};
use super::report::Figure;
use super::{Outcome, Work, Workload};
use crate::failure::{Failure, Result};

pub(super) const WORKLOAD: Workload = Workload {
    name: "leak",
    keys: &[
        Key { name: "limit", default: 256 << 20, min: 8 << 20, max: u64::MAX },
        Key { name: "objects", default: 2_000_000, min: 1, max: u64::MAX },
        Key { name: "size", default: 1024, min: 1, max: u64::MAX },
    ],
    footprint: |params| Some(params.get("limit")),
    settings: |params, builder| hard_limited(builder, params.get("limit")),
    run: Work::OnHeap(run),
};

/// Objects of a chunk: the unit in which the program lets go.
const CHUNK: u64 = 64;

/// A heap that refuses what would exceed the limit.
fn hard_limited(builder: HeapBuilder, bytes: u64) -> HeapBuilder {
    builder.hard_limit(usize::try_from(bytes).unwrap_or(usize::MAX))
}

#[derive(Trace)]
struct Object<'gc> {
    number: u64,
    payload: Gc<'gc, [u8]>,
    before: Option<Gc<'gc, Object<'gc>>>,
}

type ObjectRoot = Root<Rootable![Object<'_>]>;

/// Some objects that follow each other; the root is the last of them.
struct Chunk {
    last: ObjectRoot,
    len: u64,
}

/// The program.
struct Leak<'a> {
    heap: &'a Heap,
    size: usize,
    chunks: VecDeque<Chunk>,
    checksum: u64,
    refused: u64,
    error: String,
    full: f64,
    relief: Duration,
}

fn run(heap: &Heap, params: &Params) -> Result<Outcome> {
    if params.threads != 1 {
        return Err(Failure::new("leak runs on one thread"));
    }
    let mut leak = Leak {
        heap,
        size: params.get("size") as usize,
        chunks: VecDeque::new(),
        checksum: 0,
        refused: 0,
        error: "none".to_owned(),
        full: 0.0,
        relief: Duration::ZERO,
    };
    for number in 0..params.get("objects") {
        leak.append(number)?;
    }
    while leak.let_go()? {}
    let figures = vec![
        Figure::count("refused", leak.refused),
        Figure::text("error", &leak.error),
        Figure::real("full_at", leak.full / leak.refused as f64),
        Figure::real("relief_max_us", leak.relief.as_secs_f64() * 1e6),
    ];
    Ok(Outcome { checksum: leak.checksum, latency: None, figures })
}

/// Appends one object to the chunk that ends with `last`.
fn object<'gc>(
    mc: &Mutator<'gc>,
    number: u64,
    size: usize,
    last: Option<Gc<'gc, Object<'gc>>>,
) -> std::result::Result<ObjectRoot, OutOfMemory> {
    let payload = mc.try_alloc_slice(std::iter::repeat_n(number as u8, size))?;
    Ok(mc.root(mc.try_alloc(Object { number, payload, before: last })?))
}

impl Leak<'_> {
    fn append(&mut self, number: u64) -> Result<()> {
        let mut refused = None::<Instant>;
        loop {
            match self.try_append(number) {
                Ok(()) => {
                    let relief = refused.map_or(Duration::ZERO, |since| since.elapsed());
                    self.relief = self.relief.max(relief);
                    return Ok(());
                }
                Err(error) => {
                    refused.get_or_insert_with(Instant::now);
                    self.refused += 1;
                    let limit = error.limit.map_or(f64::INFINITY, |limit| limit.get() as f64);
                    self.full += error.live.get() as f64 / limit;
                    self.error = error.to_string();
                    self.relieve(&error)?;
                }
            }
        }
    }

    fn try_append(&mut self, number: u64) -> std::result::Result<(), OutOfMemory> {
        let open = self.chunks.back_mut().filter(|chunk| chunk.len < CHUNK);
        let size = self.size;
        let last = self
            .heap
            .enter(|mc| object(mc, number, size, open.as_ref().map(|chunk| chunk.last.get(mc))))?;
        match open {
            Some(chunk) => *chunk = Chunk { last, len: chunk.len + 1 },
            None => self.chunks.push_back(Chunk { last, len: 1 }),
        }
        Ok(())
    }

    /// Lets go of the older half, and waits for a cycle.
    fn relieve(&mut self, error: &OutOfMemory) -> Result<()> {
        if self.chunks.is_empty() {
            return Err(Failure::exhausted("one object alone does not fit", error));
        }
        for _ in 0..self.chunks.len().div_ceil(2) {
            self.let_go()?;
        }
        match self.heap.collect() {
            Collected::Complete => Ok(()),
            Collected::Requested => Err(Failure::new("the heap was asked to collect and did not")),
        }
    }

    /// Checks the oldest chunk and lets it go. False when there is none.
    fn let_go(&mut self) -> Result<bool> {
        let Some(chunk) = self.chunks.pop_front() else { return Ok(false) };
        let (count, sum) = self.heap.enter(|mc| {
            let (mut count, mut sum, mut link) = (0, 0_u64, Some(chunk.last.get(mc)));
            while let Some(object) = link {
                if object.payload.iter().any(|&byte| byte != object.number as u8) {
                    return Err(Failure::new(format!("object {} was overwritten", object.number)));
                }
                count += 1;
                sum = sum.wrapping_add(object.number).wrapping_add(u64::from(object.number as u8));
                link = object.before;
            }
            Ok((count, sum))
        })?;
        if count != chunk.len {
            return Err(Failure::new(format!("{count} of {} objects are left", chunk.len)));
        }
        self.checksum = self.checksum.wrapping_add(sum);
        Ok(true)
    }
}
