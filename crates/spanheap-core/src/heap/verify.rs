//! A look at the whole heap: does every structure say what the others say?
//!
//! What is compared, by the names under which a finding is reported:
//!
//! | structure | what has to hold |
//! |---|---|
//! | page map | every page of a span names its record, and no free page names any |
//! | span record | slots lie in the pages, the class is one of the heap's and of that layout; the copy that lookups read agrees; it was swept for the current generation |
//! | span lists | every span is in exactly one list, that of its class, and the list's links agree; one that is offered for allocation has a free slot |
//! | allocation bits, mark bits, scanned bits, drops bits | bits stand at slots only; nothing is marked or scanned between cycles; only what is allocated, and has a destructor, waits for one |
//! | drop queue | a span with values that wait is in it or at work |
//! | free pages | no bit is set for them (A2) |
//! | page allocator | its own invariants |
//! | counters | what was counted is what is there: objects by size, objects that wait, pages |
//!
//! Nothing is believed that has not been checked: a finding about a span's record ends the look at that span.
//!
//! # Safety
//! Span records are read while nothing but destructors runs: the caller's promise to [`Central::verify`].
#![allow(unsafe_code)]

use super::central::Central;
use super::class::Class;
use super::counters::{MemoryState, Snapshot};
use super::page_heap::PagesFound;
use crate::addr::{Addr, Bytes, GRANULE_BYTES, PageCount};
use crate::span::size_class::{CLASS_COUNT, SizeClass};
use crate::span::{Span, Table, bits, lookup, map};
use std::collections::HashMap;
use std::fmt;

/// How many findings are kept: after that many, another one would not help.
const MOST: usize = 64;

/// A structure that does not say what others say.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// Its name: see the table in this module's description.
    pub structure: &'static str,
    /// The page, span or object, or null when it is about the whole heap.
    pub at: Addr,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.is_null() {
            true => write!(f, "{}: {}", self.structure, self.what),
            false => write!(f, "{} at {}: {}", self.structure, self.at, self.what),
        }
    }
}

/// What a look at the whole heap has come to.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
#[non_exhaustive]
pub struct Verified {
    /// Spans of objects.
    pub spans: u64,
    /// Objects in them, those included that wait for their destructor.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: Bytes,
    /// Objects that wait for their destructor.
    pub owed: u64,
    /// Pages of spans.
    pub pages: PageCount,
    /// Free pages whose side tables were read.
    pub free_pages: PageCount,
    /// Chunks of user arenas, those included that are kept for their addresses.
    pub chunks: u64,
    /// Values in them that have headers: those with pointers.
    pub values: u64,
    /// Types of spans.
    pub classes: u64,
    /// What is broken, the first 64 of it. Empty when all is well.
    pub findings: Vec<Finding>,
}

impl Verified {
    pub(super) fn find(&mut self, structure: &'static str, at: Addr, what: fmt::Arguments<'_>) {
        if self.findings.len() < MOST {
            self.findings.push(Finding { structure, at, what: what.to_string() });
        }
    }
}

/// Where a span was found.
struct Place {
    class: &'static Class,
    times: u32,
    is_offered: bool,
}

/// A look that is under way.
struct Look<'a> {
    central: &'a Central,
    places: HashMap<usize, Place>,
    by_class: [u64; CLASS_COUNT],
    found: Verified,
}

impl Central {
    /// Looks at everything. No closure is open and none begins; no thread attaches or detaches; all caches have
    /// been given back, and everything has been swept. Destructors may run.
    pub fn verify(&self) -> Verified {
        let mut look = Look::new(self);
        look.lists();
        self.drops().while_still(|queued| {
            look.queue(queued);
            // SAFETY: spans come and go by allocation, sweeping and the drop thread. Nobody allocates or sweeps,
            // and the drop thread frees nothing while the queue stands still.
            unsafe { self.pages().for_each_span(|span| look.span(span)) };
            let before = self.counters().snapshot();
            let pages = self.pages().verify(&mut look.found);
            self.arenas().verify(self.number(), &mut look.found);
            let counted = self.counters().snapshot();
            look.counters(&counted, &pages);
            look.manual(&before, &counted, &pages);
        });
        look.found
    }
}

impl<'a> Look<'a> {
    fn new(central: &'a Central) -> Look<'a> {
        let (places, by_class) = (HashMap::new(), [0; CLASS_COUNT]);
        Look { central, places, by_class, found: Verified::default() }
    }

    /// Which span is in which list.
    fn lists(&mut self) {
        for class in self.central.classes() {
            self.found.classes += 1;
            let places = &mut self.places;
            let links = class.spans().for_each(|span, is_offered| {
                let new = Place { class, times: 0, is_offered };
                places.entry(address(span)).or_insert(new).times += 1;
            });
            if let Err(at) = links {
                let what = format_args!("the links of a list of class {} disagree", class.index());
                self.found.find("span lists", at, what);
            }
        }
    }

    fn queue(&mut self, queued: &[&Span]) {
        for span in queued {
            let is_there = span.is_in_use() && span.in_drop_queue.load(RELAXED);
            if !is_there || bits::count(span.info(), Table::Drops) == 0 {
                let what = format_args!("a span is queued in which nothing waits");
                self.found.find("drop queue", span.info().base, what);
            }
        }
    }

    fn span(&mut self, span: &Span) {
        let info = span.info();
        if !self.record(span) {
            return;
        }
        self.found.spans += 1;
        self.found.pages += info.pages;
        let owned = span.owned_by_drop_queue.load(RELAXED);
        self.place(span, owned);
        let generation = span.generation();
        self.clean("mark bits", span, generation.next().table());
        self.clean("scanned bits", span, Table::Scanned);
        let (mut objects, mut owed) = (0, 0);
        let allocated = bits::lines(info, generation.table());
        for ((page, allocated), (_, drops)) in allocated.zip(bits::lines(info, Table::Drops)) {
            for (word, (allocated, drops)) in allocated.iter().zip(drops).enumerate() {
                let (allocated, drops) = (allocated.load(ACQUIRE), drops.load(ACQUIRE));
                let first = page + Bytes::new(word * 64 * GRANULE_BYTES);
                self.at_slots("allocation bits", span, first, allocated);
                self.at_slots("drops bits", span, first, drops);
                if drops & !allocated != 0 && !owned {
                    let what = format_args!("values wait for their destructor in free slots");
                    self.found.find("drops bits", first, what);
                }
                objects += u64::from((allocated | drops).count_ones());
                owed += u64::from(drops.count_ones());
            }
        }
        if owed > 0 && (info.drop.is_none() || !span.in_drop_queue.load(RELAXED)) {
            let what =
                format_args!("{owed} values wait for a destructor, and nobody comes for them");
            self.found.find("drop queue", info.base, what);
        }
        self.by_class[info.size_class.map_or(0, SizeClass::index)] += objects;
        self.found.objects += objects;
        self.found.owed += owed;
        self.found.bytes += Bytes::new(objects as usize * info.slot);
    }

    /// Whether the record can be believed.
    fn record(&mut self, span: &Span) -> bool {
        let info = span.info();
        let slots_fit = info.slot > 0 && info.limit() <= info.range().end();
        if !slots_fit || !lookup::agrees(span) {
            let what = format_args!("slots and pages do not go together: {info:?}");
            self.found.find("span record", info.base, what);
            return false;
        }
        for page in (0..info.pages.get()).map(|page| info.base + PageCount::new(page)) {
            // SAFETY: M2: arenas live as long as their heap.
            let arena = unsafe { map::find(page).as_ref() };
            let named = arena.filter(|arena| arena.heap() == self.central.number());
            let named = named.map(|arena| arena.span(page.page_in_arena()).cast_const());
            if named != Some(core::ptr::from_ref(span)) {
                let what = format_args!("does not name the span at {}", info.base);
                self.found.find("page map", page, what);
                return false;
            }
        }
        let now = self.central.generation();
        if span.generation() != now && !span.owned_by_drop_queue.load(RELAXED) {
            let what = format_args!("swept for {:?}, not for {now:?}", span.generation());
            self.found.find("span record", info.base, what);
        }
        true
    }

    /// Whether the span is where it belongs.
    fn place(&mut self, span: &Span, owned: bool) {
        let info = span.info();
        match self.places.get(&address(span)) {
            None if owned => {}
            None => {
                let what = format_args!("the span is in no list");
                self.found.find("span lists", info.base, what);
            }
            Some(_) if owned => {
                let what = format_args!("a span of the drop queue is in a list");
                self.found.find("span lists", info.base, what);
            }
            Some(place) => {
                let key = place.class.key();
                let same = place.class.index() == info.class
                    && key.layout == info.layout
                    && key.size_class.map(SizeClass::index)
                        == info.size_class.map(SizeClass::index);
                let home = place.class.spans().home_of(info.base);
                let at_home = span.home().is_some_and(|set| core::ptr::eq(set, home));
                if !same || !at_home || place.times != 1 {
                    let (times, class) = (place.times, place.class.index());
                    let what =
                        format_args!("{times} times in the lists of class {class}: {info:?}");
                    self.found.find("span lists", info.base, what);
                } else if place.is_offered
                    && bits::next_free_run(info, span.generation(), info.base).is_none()
                {
                    let what = format_args!("offered for allocation, and without a free slot");
                    self.found.find("span lists", info.base, what);
                }
            }
        }
    }

    fn clean(&mut self, structure: &'static str, span: &Span, table: Table) {
        let set = bits::count(span.info(), table);
        if set > 0 {
            let what = format_args!("{set} are set between cycles");
            self.found.find(structure, span.info().base, what);
        }
    }

    /// Whether the bits of `word`, for the granules from `first` on, stand at slots (A4).
    fn at_slots(&mut self, structure: &'static str, span: &Span, first: Addr, word: u64) {
        let info = span.info();
        bits::for_each_bit(word, |bit| {
            let granule = first + Bytes::new(bit as usize * GRANULE_BYTES);
            let object = info.object_at(granule);
            let starts = object >= info.base
                && object < info.limit()
                && object.bytes_since(info.base).get() % info.slot == 0
                && object.bytes_since(granule).get() < GRANULE_BYTES;
            if !starts {
                let what = format_args!("a bit where no slot of {} bytes begins", info.slot);
                self.found.find(structure, granule, what);
            }
        });
    }

    fn counters(&mut self, counted: &Snapshot, pages: &PagesFound) {
        if let Err(what) = counted.check() {
            self.found.find("counters", Addr::NULL, format_args!("{what}"));
        }
        for class in SizeClass::all() {
            let (counted, seen) = (counted.small(class), self.by_class[class.index()]);
            if counted.present() != seen || counted.in_runs != 0 {
                let slot = class.size();
                let what = format_args!("{seen} objects of {slot}, counted as {counted:?}");
                self.found.find("counters", Addr::NULL, what);
            }
        }
        let (owed, in_spans) = (self.found.owed, self.found.pages.bytes().get() as u64);
        let mut compare = |name: &str, counted: u64, seen: u64| {
            if counted != seen {
                let what = format_args!("{name}: {counted} are counted, {seen} are there");
                self.found.find("counters", Addr::NULL, what);
            }
        };
        compare("large objects", counted.large().present(), self.by_class[0]);
        let bytes = |state| counted.pages(state).get() as u64;
        compare("bytes of spans", bytes(MemoryState::InUse), pages.in_use.bytes().get() as u64);
        compare(
            "bytes of user arenas",
            bytes(MemoryState::Arena),
            pages.arena.bytes().get() as u64,
        );
        let quarantined = pages.quarantined.bytes().get() as u64;
        compare("bytes in quarantine", bytes(MemoryState::Quarantined), quarantined);
        compare("objects that wait for their destructor", counted.owed().0, owed);
        compare("bytes of spans that were visited", bytes(MemoryState::InUse), in_spans);
    }

    /// Manual spans are given back outside of closures as well, in the midst of the look, and none is made: so if
    /// as many are counted after it as before, those are what was seen.
    fn manual(&mut self, before: &Snapshot, after: &Snapshot, pages: &PagesFound) {
        let [before, after] = [before, after].map(|counted| counted.pages(MemoryState::Manual));
        let seen = pages.manual.bytes();
        if before == after && after != seen {
            let what = format_args!("manual bytes: {after} are counted, {seen} are there");
            self.found.find("counters", Addr::NULL, what);
        }
    }
}

use crate::sync::atomic::Ordering::{Acquire as ACQUIRE, Relaxed as RELAXED};

fn address(span: &Span) -> usize {
    core::ptr::from_ref(span) as usize
}

#[cfg(test)]
mod tests;
