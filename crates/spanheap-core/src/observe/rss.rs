//! Where the resident memory of a process is, as far as a heap has to do with it.
//!
//! Every allocator is asked the same question: the objects are gone, why is the process still so
//! large? The answer is a table. The kernel says which pages are in memory; the page heap says what
//! each page of the heap is used for; the side tables say which slots of a span hold objects. Each
//! resident page is thus divided, byte by byte, and the rows add up to what the kernel says that
//! the process has.
//!
//! # What is known, and what is not
//! Known, to the byte, at the moment of looking: free slots, free pages, what waits for its
//! destructor, what the last cycle found dead and nobody has swept, tables and records. *Objects*
//! are divided by an estimate: the bytes that were taken since the last cycle are assumed to be
//! resident, since they were written just now, and the rest is what that cycle retained. Neither is
//! known to be live: only the next cycle finds out. Slots of runs that threads allocate from count
//! as objects taken since.
//!
//! Nobody is stopped, so figures of a heap that is at work are as of slightly different moments.
//! What the process has besides is a difference, and has in it whatever could not be attributed.
//!
//! # What it costs
//! A word is read for each page of the heap's address space, and up to three bits for each slot of
//! the pages that are resident: some 20 ms for 64 MiB of 16-byte objects, 2 ms for objects of 256
//! bytes. The page heap is locked for 4 MiB at a time, and allocations that need pages wait so
//! long.

use crate::addr::{ARENA_BYTES, Addr, AddrRange, Bytes, CHUNK_BYTES, PAGE_BYTES, PageCount};
use crate::bitmap;
use crate::heap::Central;
use crate::heap::page_heap::PageUse;
use crate::mutator::Heap;
use crate::os::{Category, Os};
use crate::span::arena::TABLE_BYTES;
use crate::span::{Generation, HeapArena, Span, Table, bits};
use core::fmt;

/// Where resident memory is. Every field is resident memory in bytes; [`Rss::rows`] names and
/// explains them.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Rss {
    /// The whole process, if the system says.
    pub process: Option<Bytes>,
    /// Objects that the last cycle has retained (an estimate, see [`Rss::allocated`]).
    pub retained: Bytes,
    /// Objects that were allocated since the last cycle (an estimate: all that was taken since, if
    /// there is as much).
    pub allocated: Bytes,
    /// Objects that the last cycle has found dead, in spans that have not been swept yet.
    pub unswept: Bytes,
    /// Dead values that wait for their destructor.
    pub owed: Bytes,
    /// Free slots of spans, and the ends of spans that are too short for one.
    pub free_slots: Bytes,
    /// Pages that are taken and belong to no span: in page caches of threads, or changing hands.
    pub taken_pages: Bytes,
    /// Free pages that were not returned to the system.
    pub free_pages: Bytes,
    /// Spans that a runtime manages by hand.
    pub manual: Bytes,
    /// User arenas that have not been freed, or just now: what their values have, and what they have in reserve.
    pub user_arenas: Bytes,
    /// Pages that count as returned, or were never used, and are in memory all the same: huge
    /// pages.
    pub huge_pages: Bytes,
    /// Bits for each object, and the verification mode's.
    pub side_tables: Bytes,
    /// The page allocator's bitmaps and summaries.
    pub page_tables: Bytes,
    /// Records of spans, classes, arenas and threads.
    pub records: Bytes,
    /// The collector's queues.
    pub mark_queue: Bytes,
    /// Tables of roots.
    pub roots: Bytes,
    /// Means of observation.
    pub diagnostics: Bytes,
    /// What the process has besides this heap: code, stacks, the Rust allocator with what values
    /// own there and the heap's handles, and other heaps.
    pub rest: Bytes,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct RssRow {
    /// What it is.
    pub name: &'static str,
    /// How much of it is resident.
    pub bytes: Bytes,
    /// What it means.
    pub meaning: &'static str,
}

impl Rss {
    /// Looks through all pages of `heap`. See the head of this file for the costs.
    pub fn of(heap: &Heap) -> Rss {
        let collector = heap.collector();
        let central = collector.central();
        let os = central.os();
        let mut rss = Rss { process: os.process_resident(), ..Rss::default() };
        let mut objects = Bytes::ZERO;
        for arena in central.pages().arenas() {
            rss.add_arena(central, arena, &mut objects);
        }
        let taken = central.live().saturating_sub(central.retained());
        rss.allocated = taken.min(objects);
        rss.retained = objects - rss.allocated;
        rss.add_tables(central);
        rss.mark_queue += resident_bytes(os, collector.queue_memory());
        rss.rest = rss.process.unwrap_or(Bytes::ZERO).saturating_sub(rss.heap());
        rss
    }

    /// All that this heap has in memory.
    pub fn heap(&self) -> Bytes {
        self.rows().iter().map(|row| row.bytes).sum::<Bytes>() - self.rest
    }

    /// The sum of all rows. It differs from [`Rss::process`] if more was attributed to the heap
    /// than the process is said to have.
    pub fn sum(&self) -> Bytes {
        self.heap() + self.rest
    }

    /// The rows of the table, in the order in which one looks for an answer.
    pub fn rows(&self) -> [RssRow; 17] {
        let row = |name, bytes, meaning| RssRow { name, bytes, meaning };
        [
            row(
                "objects retained",
                self.retained,
                "live for the last cycle; what has died since, the next one finds",
            ),
            row(
                "objects allocated since",
                self.allocated,
                "since the last cycle; the next one finds what of it is dead (an estimate)",
            ),
            row(
                "dead, not swept",
                self.unswept,
                "found dead by the last cycle; free as soon as somebody sweeps it",
            ),
            row(
                "dead, destructor owed",
                self.owed,
                "free when the destructor has run; a slow destructor holds up the others",
            ),
            row(
                "free slots",
                self.free_slots,
                "fragmentation: room for objects of the same size and layout, between live ones",
            ),
            row("pages taken", self.taken_pages, "kept by threads for their next spans"),
            row(
                "free pages",
                self.free_pages,
                "not returned to the system; the next spans use them",
            ),
            row("manual spans", self.manual, "memory that the program manages by hand"),
            row("user arenas", self.user_arenas, "live and free together"),
            row(
                "huge-page excess",
                self.huge_pages,
                "returned or never used, and in memory with a huge page around it",
            ),
            row("side tables", self.side_tables, "a few bits for every 16 bytes of pages in use"),
            row("page tables", self.page_tables, "which pages are free"),
            row("records", self.records, "of spans, classes, arenas and threads"),
            row("mark queue", self.mark_queue, "the collector's; kept for the next cycle"),
            row("roots", self.roots, "tables of roots"),
            row("diagnostics", self.diagnostics, "profiles and traces"),
            row("not this heap", self.rest, "code, stacks, the Rust allocator, other heaps"),
        ]
    }

    /// Divides the resident pages of an arena.
    fn add_arena(&mut self, central: &Central, arena: &HeapArena, objects: &mut Bytes) {
        let resident = Resident::of(central.os(), AddrRange::at(arena.base(), ARENA));
        let generation = central.generation();
        let view = View { generation, retains: central.retains_everything() };
        for chunk in 0..ARENA_BYTES / CHUNK_BYTES {
            let chunk = (arena.base() + Bytes::new(chunk * CHUNK_BYTES)).chunk();
            central.pages().for_each_page_of(arena, chunk, |page, usage| {
                let page = AddrRange::at(page, PageCount::new(1).bytes());
                resident.for_each_part(page, |part| match usage {
                    PageUse::Span(span) => {
                        let parts = view.divide(span, part);
                        *objects += parts.objects;
                        self.unswept += parts.unswept;
                        self.owed += parts.owed;
                        self.free_slots += parts.free;
                    }
                    PageUse::Manual => self.manual += part.bytes(),
                    PageUse::Arena => self.user_arenas += part.bytes(),
                    PageUse::Taken => self.taken_pages += part.bytes(),
                    PageUse::Free => self.free_pages += part.bytes(),
                    PageUse::Returned | PageUse::Reserved | PageUse::Quarantined => {
                        self.huge_pages += part.bytes();
                    }
                });
            });
        }
        self.side_tables += resident_bytes(central.os(), arena.tables());
        let check = arena.check_table();
        if !check.is_null() {
            let check = AddrRange::at(check, Bytes::new(TABLE_BYTES));
            self.side_tables += resident_bytes(central.os(), check);
        }
    }

    /// Adds tables and records that do not belong to an arena.
    fn add_tables(&mut self, central: &Central) {
        let mut ranges = Vec::new();
        central.memory().for_each_block(|range, category| ranges.push((range, category)));
        central.pages().for_each_table(&mut |range| ranges.push((range, Category::PageTables)));
        let mut add = |range| ranges.push((range, Category::Metadata));
        central.pages().for_each_record_block(&mut add);
        for (range, category) in ranges {
            let bytes = resident_bytes(central.os(), range);
            match category {
                Category::SideTables => self.side_tables += bytes,
                Category::PageTables => self.page_tables += bytes,
                Category::MarkQueue => self.mark_queue += bytes,
                Category::Roots => self.roots += bytes,
                Category::Diagnostics => self.diagnostics += bytes,
                // Nothing of the heap's pages comes from the memory of records.
                Category::Metadata | Category::Heap => self.records += bytes,
            }
        }
    }
}

impl fmt::Display for Rss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(process) => writeln!(f, "resident memory of the process: {process}")?,
            None => writeln!(f, "resident memory of the process: unknown")?,
        }
        writeln!(f, "of this heap:                   {}", self.heap())?;
        let whole = self.sum().get().max(1);
        for RssRow { name, bytes, meaning } in self.rows() {
            if bytes != Bytes::ZERO {
                // In tenths of a percent, rounded to the nearest.
                let share = (bytes.get() as u128 * 1000 + whole as u128 / 2) / whole as u128;
                let (percent, tenth) = (share / 10, share % 10);
                let bytes = bytes.to_string();
                writeln!(f, "  {name:<24} {bytes:>10} {percent:>3}.{tenth} %  {meaning}")?;
            }
        }
        Ok(())
    }
}

const ARENA: Bytes = Bytes::new(ARENA_BYTES);

/// How many bytes of a range are in memory.
fn resident_bytes(os: &Os, range: AddrRange) -> Bytes {
    let mut bytes = Bytes::ZERO;
    os.resident(range, &mut |run: AddrRange| bytes += run.bytes());
    bytes
}

/// The physical pages of an arena that are in memory, a bit for each.
struct Resident {
    base: Addr,
    page: usize,
    bits: Vec<u64>,
}

impl Resident {
    fn of(os: &Os, range: AddrRange) -> Resident {
        let page = os.page_size().get();
        let mut bits = vec![0; (range.bytes().get() / page).div_ceil(64)];
        os.resident(range, &mut |run: AddrRange| {
            let first = run.base().bytes_since(range.base()).get() / page;
            bitmap::set_range(&mut bits, first, run.bytes().get() / page);
        });
        Resident { base: range.base(), page, bits }
    }

    /// Calls `visit` with each part of a page of the heap that is in memory.
    fn for_each_part(&self, page: AddrRange, mut visit: impl FnMut(AddrRange)) {
        let step = self.page.min(PAGE_BYTES);
        let mut at = page.base();
        while at < page.end() {
            if bitmap::test(&self.bits, at.bytes_since(self.base).get() / self.page) {
                visit(AddrRange::at(at, Bytes::new(step)));
            }
            at = at + Bytes::new(step);
        }
    }
}

/// What is in a part of a span.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Parts {
    objects: Bytes,
    unswept: Bytes,
    owed: Bytes,
    free: Bytes,
}

/// How bits are to be read.
#[derive(Clone, Copy, Debug)]
struct View {
    /// The heap's generation.
    generation: Generation,
    /// Whether the marks of the last cycle are not to be trusted.
    retains: bool,
}

impl View {
    /// Divides a part of a page of a span, slot by slot.
    fn divide(self, span: &Span, part: AddrRange) -> Parts {
        let info = span.info();
        let swept = span.generation();
        let unswept = swept.next() == self.generation && !self.retains;
        let marked = |slot| bits::is_set(swept.next().table(), slot);
        let mut parts = Parts::default();
        let index = part.base().bytes_since(info.base).get() / info.slot;
        let mut slot = info.base + Bytes::new(index * info.slot);
        while slot < part.end() {
            let end = slot + Bytes::new(info.slot);
            let here = end.min(part.end()).bytes_since(slot.max(part.base()));
            let kind = if slot >= info.limit() {
                &mut parts.free
            } else if info.drop.is_some() && bits::is_set(Table::Drops, slot) {
                &mut parts.owed
            } else if !bits::is_set(swept.table(), slot) {
                &mut parts.free
            } else if unswept && !marked(slot) {
                &mut parts.unswept
            } else {
                &mut parts.objects
            };
            *kind += here;
            slot = end;
        }
        parts
    }
}

#[cfg(test)]
mod tests;
