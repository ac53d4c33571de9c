//! Suites about the page allocator, its caches and its scavenging, which share one format.

use super::json::{self, Failure, exactly, number, numbers, tuple};
use serde_json::{Value, json};
use spanheap_core::addr::{Addr, AddrRange, Bytes, CHUNK_PAGES, ChunkIndex, PAGE_BYTES, PageCount};
use spanheap_core::bitmap;
use spanheap_core::os::{Os, SimOs};
use spanheap_core::pages::bits::PageBits;
use spanheap_core::pages::{PageAlloc, PageCache, PageRun};
use std::collections::BTreeMap;

/// Chunk 0 of the files.
const BASE_CHUNK: usize = 0xc000;

/// An allocator under test, and its caches by slot.
struct Subject {
    os: Os,
    pages: PageAlloc,
    caches: BTreeMap<usize, PageCache>,
}

/// The pages of a huge page, in `page_alloc_scavenge`.
const HUGE_PAGE: usize = 256;

/// `page_alloc_*`, `page_cache_flush`: runs the operations and describes what is there afterwards.
///
/// The set-up may be done in any order, so it is done in two, and both must end the same.
pub(crate) fn script(input: &Value) -> Result<Value, Failure> {
    let [chunks, ops] = exactly(input, ["chunks", "ops"])?;
    let (chunks, ops) = (json::list(chunks)?, json::list(ops)?);
    let forwards = run(chunks.iter(), ops)?;
    let backwards = run(chunks.iter().rev(), ops)?;
    if forwards != backwards {
        return Err(format!("the order of the set-up matters: {forwards} against {backwards}"));
    }
    Ok(forwards)
}

fn run<'a>(chunks: impl Iterator<Item = &'a Value>, ops: &[Value]) -> Result<Value, Failure> {
    let os = Os::simulated(SimOs::builder().build());
    let pages = PageAlloc::new(&os).map_err(|error| error.to_string())?;
    let mut subject = Subject { os, pages, caches: BTreeMap::new() };
    let outcome = subject.replay(chunks, ops);
    subject.pages.release(&subject.os);
    outcome
}

impl Subject {
    fn replay<'a>(
        &mut self,
        chunks: impl Iterator<Item = &'a Value>,
        ops: &[Value],
    ) -> Result<Value, Failure> {
        for chunk in chunks {
            self.set_up(chunk)?;
            self.pages.check_invariants();
        }
        let mut results = Vec::new();
        for op in ops {
            results.push(self.apply(op).map_err(|failure| format!("{op}: {failure}"))?);
            self.pages.check_invariants();
        }
        Ok(self.describe(results))
    }

    /// `[chunk, allocated runs, scavenged runs]`
    fn set_up(&mut self, chunk: &Value) -> Result<(), Failure> {
        let [chunk, allocated, scavenged] = tuple(chunk)?;
        let chunk = number(chunk)?;
        let allocated: PageBits = json::runs(allocated)?;
        let scavenged: PageBits = json::runs(scavenged)?;
        self.grow(chunk, 1)?;
        // All pages have been used and are free: they have memory, and the scavenge index knows it.
        let whole = PageCount::new(CHUNK_PAGES);
        self.pages.claim(page(chunk, 0), whole);
        self.pages.free(page(chunk, 0), whole);
        for run in bitmap::runs(&scavenged) {
            self.pages.set_scavenged(page(chunk, run.start), PageCount::new(run.len));
        }
        for run in bitmap::runs(&allocated) {
            self.pages.claim(page(chunk, run.start), PageCount::new(run.len));
        }
        Ok(())
    }

    fn grow(&mut self, chunk: usize, n: usize) -> Result<(), Failure> {
        let range = AddrRange::new(page(chunk, 0), page(chunk + n, 0));
        self.pages.grow(&self.os, range).map_err(|error| error.to_string())
    }

    fn apply(&mut self, op: &Value) -> Result<Value, Failure> {
        let (name, arguments) = json::list(op)?.split_first().ok_or("an empty operation")?;
        match (json::text(name)?, arguments) {
            ("alloc", [n]) => {
                let n = PageCount::new(number(n)?);
                Ok(self.pages.alloc(n).map_or(Value::Null, of_run))
            }
            ("alloc_seq", [n, count]) => {
                let (n, count) = (number(n)?, number(count)?);
                for call in 0..count {
                    let expected = PageRun { base: page(0, call * n), scavenged: PageCount::ZERO };
                    let run = self.pages.alloc(PageCount::new(n));
                    if run != Some(expected) {
                        return Err(format!("call {call} gave {run:?}, must give {expected:?}"));
                    }
                }
                Ok(json!(count))
            }
            ("free", [at, n]) => {
                self.pages.free(read_page(at)?, PageCount::new(number(n)?));
                Ok(Value::Null)
            }
            ("grow", [chunk, n]) => {
                self.grow(number(chunk)?, number(n)?)?;
                Ok(Value::Null)
            }
            ("alloc_to_cache", [slot]) => {
                let Some(cache) = self.pages.alloc_to_cache() else { return Ok(Value::Null) };
                let (chunk, page) = name_page(cache.base());
                let (free, scavenged) = (cache.free_bits(), cache.scavenged_bits());
                self.caches.insert(number(slot)?, cache);
                Ok(json!([chunk, page, json::of_word(free), json::of_word(scavenged)]))
            }
            ("cache_put", [slot, at, free, scavenged]) => {
                let cache =
                    PageCache::new(read_page(at)?, json::word(free)?, json::word(scavenged)?);
                self.caches.insert(number(slot)?, cache);
                Ok(Value::Null)
            }
            ("cache_alloc", [slot, n]) => {
                let n = PageCount::new(number(n)?);
                let cache = self.caches.get_mut(&number(slot)?).ok_or("no cache in this slot")?;
                Ok(cache.alloc(n).map_or(Value::Null, of_run))
            }
            ("cache_flush", [slot]) => {
                let cache = self.caches.get_mut(&number(slot)?).ok_or("no cache in this slot")?;
                cache.flush(&mut self.pages);
                if !cache.is_empty() {
                    return Err("the cache is not empty after a flush".to_string());
                }
                Ok(Value::Null)
            }
            ("next_gen", []) => {
                self.pages.next_scavenge_generation();
                Ok(Value::Null)
            }
            ("scavenge", [bytes, force]) => {
                let wanted = if bytes.is_null() { usize::MAX } else { number(bytes)? };
                Ok(json!(self.scavenge(Bytes::new(wanted), json::flag(force)?).get()))
            }
            _ => Err("unknown operation".to_string()),
        }
    }

    /// Releases pages until that is enough, or nothing is left to be found.
    fn scavenge(&mut self, wanted: Bytes, force: bool) -> Bytes {
        let mut released = Bytes::ZERO;
        while released < wanted {
            let max = PageCount::new((wanted - released).get().div_ceil(PAGE_BYTES));
            let one = PageCount::new(1);
            let taken = self.pages.take_for_scavenging(force, one, max, HUGE_PAGE);
            let Some(range) = taken else { break };
            self.pages.check_invariants();
            self.pages.finish_scavenging(range);
            self.pages.check_invariants();
            released += range.bytes();
        }
        released
    }

    fn describe(&self, results: Vec<Value>) -> Value {
        let relative =
            |range: AddrRange| json!([name_page(range.base()).0, name_page(range.end()).0]);
        let in_use: Vec<AddrRange> = self.pages.in_use().collect();
        let chunks: Vec<Value> = in_use
            .iter()
            .flat_map(|range| range.base().chunk().get()..range.end().chunk().get())
            .map(|chunk| self.describe_chunk(ChunkIndex::new(chunk)))
            .collect();
        json!({
            "results": results,
            "bounds": self.pages.bounds().map(relative),
            "in_use": in_use.into_iter().map(relative).collect::<Value>(),
            "chunks": chunks,
        })
    }

    fn describe_chunk(&self, chunk: ChunkIndex) -> Value {
        let view = self.pages.chunk(chunk).expect("a chunk of a grown range is known");
        let sum = [view.summary.start(), view.summary.max(), view.summary.end()];
        json!([
            chunk.get() - BASE_CHUNK,
            json::of_runs(view.allocated),
            json::of_runs(view.scavenged),
            sum.map(PageCount::get),
        ])
    }
}

/// The address of a page of a chunk as the files count them.
fn page(chunk: usize, page: usize) -> Addr {
    ChunkIndex::new(BASE_CHUNK + chunk).base() + PageCount::new(page)
}

fn read_page(value: &Value) -> Result<Addr, Failure> {
    let [chunk, number] = numbers(value)?;
    Ok(page(chunk, number))
}

fn name_page(addr: Addr) -> (usize, usize) {
    (addr.chunk().get() - BASE_CHUNK, addr.page().get() % CHUNK_PAGES)
}

fn of_run(run: PageRun) -> Value {
    let (chunk, page) = name_page(run.base);
    json!([chunk, page, run.scavenged.get()])
}

/// `page_cache_alloc`
pub(crate) fn cache_alloc(input: &Value) -> Result<Value, Failure> {
    let [free, scavenged, requests] = exactly(input, ["free_bits", "scav_bits", "requests"])?;
    let mut cache = PageCache::new(page(0, 0), json::word(free)?, json::word(scavenged)?);
    let mut results = Vec::new();
    for request in json::list(requests)? {
        let run = cache.alloc(PageCount::new(number(request)?));
        results.push(run.map(|run| [name_page(run.base).1, run.scavenged.get()]));
    }
    let after = json!({
        "free_bits": json::of_word(cache.free_bits()),
        "scav_bits": json::of_word(cache.scavenged_bits()),
    });
    Ok(json!({ "results": results, "after": after }))
}
