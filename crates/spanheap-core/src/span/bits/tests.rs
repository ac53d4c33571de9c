//! Side bitmaps of spans against one flag per slot.
//!
//! The spans lie in two arenas made by hand, neighbours in the address space, so that a span may cross the
//! border between them. Only their side tables are memory; nothing here touches the objects.
//!
//! # Safety
//! The arenas are published before the first span is looked at and retracted after the last.
#![allow(unsafe_code)]

use super::*;
use crate::addr::{ARENA_BYTES, AddrRange};
use crate::os::{Category, Os};
use crate::span::arena::{ALL_TABLES, TABLE_BYTES, TABLES};
use crate::span::{Counting, HeapArena, Layout};
use crate::tests::Random;
use std::alloc;

const TABLES_OF_ARENA: Bytes = Bytes::new(TABLES * TABLE_BYTES);

/// Two neighbouring arenas with ready side tables.
struct Arenas {
    os: Os,
    range: AddrRange,
    records: [*mut HeapArena; 2],
}

/// A number that no heap of the process comes to have.
const NUMBER: u64 = u64::MAX;

impl Arenas {
    fn new() -> Arenas {
        let os = Os::native();
        let arena = Bytes::new(ARENA_BYTES);
        let base = os.reserve_aligned(None, arena + arena, arena).expect("address space");
        let records = [base, base + arena].map(|base| {
            let tables = os.alloc(TABLES_OF_ARENA, Category::SideTables).expect("memory");
            // SAFETY: the type has a size.
            let record = unsafe { alloc::alloc_zeroed(alloc::Layout::new::<HeapArena>()) };
            let record = record.cast::<HeapArena>();
            assert!(!record.is_null());
            // SAFETY: fresh zeroed memory; the tables have the right size.
            unsafe { HeapArena::init(record, base, NUMBER, tables, core::ptr::null(), arena) };
            map::publish(base.arena(), record, NUMBER);
            record
        });
        Arenas { os, range: AddrRange::at(base, arena + arena), records }
    }

    /// The first address of the upper arena.
    fn border(&self) -> Addr {
        self.range.base() + Bytes::new(ARENA_BYTES)
    }

    /// Whether no bit is set in the pages just below and just above a span.
    fn surroundings_are_clear(&self, info: &Info) -> bool {
        let (range, page) = (info.range(), Bytes::new(PAGE_BYTES));
        let below = (range.base() > self.range.base()).then(|| range.base() - page);
        let above = (range.end() < self.range.end()).then(|| range.end());
        let clear = |table, page| line(table, page).iter().all(|w| w.load(Ordering::Relaxed) == 0);
        let mut pages = below.into_iter().chain(above);
        pages.all(|page| ALL_TABLES.into_iter().all(|table| clear(table, page)))
    }
}

impl Drop for Arenas {
    fn drop(&mut self) {
        for &record in &self.records {
            // SAFETY: made in `new`, and nobody else refers to it.
            let arena = unsafe { &*record };
            map::retract(arena.base().arena());
            let tables = arena.tables();
            let bytes = tables.bytes();
            // SAFETY: allocated in `new` from this system; the map has forgotten the arena.
            unsafe { self.os.release(tables, Category::SideTables, bytes, bytes) };
            // SAFETY: made in `new` with this layout; the map has forgotten it.
            unsafe { alloc::dealloc(record.cast(), alloc::Layout::new::<HeapArena>()) };
        }
        // SAFETY: reserved in `new` from this system; nothing was ever in it.
        unsafe { self.os.release(self.range, Category::Heap, Bytes::ZERO, Bytes::ZERO) };
    }
}

fn info(base: Addr, pages: PageCount, slot: usize, slots: usize) -> Info {
    Info {
        base,
        pages,
        slot,
        slots,
        element: 0,
        size_class: None,
        class: 0,
        layout: Layout::NoScan,
        counting: Counting::One,
        drop: None,
        type_name: || "test",
        ty: None,
    }
}

fn info_of(class: SizeClass, base: Addr) -> Info {
    let plain = info(base, class.pages(), class.size().get(), class.objects());
    Info { size_class: Some(class), ..plain }
}

/// One flag per slot.
struct Twin {
    info: Info,
    set: Vec<bool>,
}

impl Twin {
    fn slot(&self, index: usize) -> Addr {
        self.info.base + Bytes::new(index * self.info.slot)
    }

    fn next_free_run(&self, from: usize) -> Option<Run> {
        let start = (from..self.set.len()).find(|&i| !self.set[i])?;
        let end = (start..self.set.len()).find(|&i| self.set[i]).unwrap_or(self.set.len());
        Some(Run { start: self.slot(start), end: self.slot(end) })
    }

    fn objects(&self) -> Vec<Addr> {
        (0..self.set.len()).filter(|&i| self.set[i]).map(|i| self.slot(i)).collect()
    }

    /// A random stretch of slots; now and then empty, now and then the whole span.
    fn stretch(&self, random: &mut Random) -> (usize, usize) {
        let slots = self.set.len();
        match random.below(16) {
            0 => (0, slots),
            1 => (slots, slots),
            _ => {
                let (a, b) = (random.below(slots + 1), random.below(slots + 1));
                (a.min(b), a.max(b))
            }
        }
    }
}

/// One random operation on the bits of `generation`'s table and on the twin.
fn step(twin: &mut Twin, generation: Generation, random: &mut Random) {
    let (info, table) = (twin.info, generation.table());
    let slots = twin.set.len();
    match random.below(8) {
        0..=2 => {
            // As allocation does it: the next free run is taken whole, or in part.
            let from = random.below(slots + 1);
            let run = next_free_run(&info, generation, twin.slot(from));
            assert_eq!(run, twin.next_free_run(from), "{info:?} from slot {from}");
            let Some(mut run) = run else { return };
            let first = run.start.bytes_since(info.base).get() / info.slot;
            let len = run.end.bytes_since(run.start).get() / info.slot;
            let len = if random.one_in(2) { len } else { 1 + random.below(len) };
            run.end = twin.slot(first + len);
            set_run(&info, table, run);
            twin.set[first..first + len].fill(true);
        }
        3 | 4 => {
            let (a, b) = twin.stretch(random);
            set_run(&info, table, Run { start: twin.slot(a), end: twin.slot(b) });
            twin.set[a..b].fill(true);
        }
        5 | 6 => {
            let (a, b) = twin.stretch(random);
            clear_run(&info, table, Run { start: twin.slot(a), end: twin.slot(b) });
            twin.set[a..b].fill(false);
        }
        _ => {
            let index = random.below(slots);
            assert_eq!(is_set(table, twin.slot(index)), twin.set[index]);
            clear(table, twin.slot(index));
            twin.set[index] = false;
        }
    }
}

fn compare(twin: &Twin, generation: Generation) {
    let (info, table) = (&twin.info, generation.table());
    let mut seen = Vec::new();
    for_each_set(info, table, |object| seen.push(object));
    assert_eq!(seen, twin.objects(), "{info:?}");
    assert_eq!(count(info, table), seen.len());
    for other in ALL_TABLES.into_iter().filter(|&other| other != table) {
        assert_eq!(count(info, other), 0, "{other:?} is another table than {table:?}");
    }
}

/// A random program on the bits of a span; leaves them clear.
fn run_program(arenas: &Arenas, info: Info, steps: usize, random: &mut Random) {
    let generation = Generation::new(random.below(2) as u32);
    let mut twin = Twin { info, set: vec![false; info.slots] };
    for _ in 0..steps {
        step(&mut twin, generation, random);
        if random.one_in(4) {
            compare(&twin, generation);
        }
    }
    compare(&twin, generation);
    assert!(arenas.surroundings_are_clear(&info), "{info:?}: bits outside of the span");
    clear_all(&info, generation.table());
    assert_eq!(count(&info, generation.table()), 0);
}

#[test]
fn every_class_does_what_one_flag_per_slot_does() {
    let arenas = Arenas::new();
    let mut random = Random::new(0xb175);
    for class in SizeClass::all() {
        let pages = class.pages();
        let places = [
            arenas.range.base(),
            arenas.border() - pages.bytes(),
            arenas.border(),
            arenas.range.end() - pages.bytes(),
            arenas.range.base() + PageCount::new(random.below(4000)),
        ];
        for base in places {
            run_program(&arenas, info_of(class, base), 60, &mut random);
        }
    }
}

#[test]
fn a_span_may_cross_the_border_between_two_arenas() {
    let arenas = Arenas::new();
    let mut random = Random::new(0xb0de);
    let mut crossing = 0;
    for class in SizeClass::all() {
        for below in 1..class.pages().get() {
            let base = arenas.border() - PageCount::new(below).bytes();
            let info = info_of(class, base);
            assert!(info.range().contains(arenas.border()));
            run_program(&arenas, info, 60, &mut random);
            crossing += 1;
        }
    }
    assert!(
        crossing > 50,
        "{crossing} crossing spans: the table has many classes of several pages"
    );
    for pages in [2, 3, 700, 5000] {
        let pages = PageCount::new(pages);
        let base = arenas.border() - PageCount::new(1 + random.below(pages.get() - 1)).bytes();
        run_program(&arenas, info(base, pages, pages.bytes().get(), 1), 30, &mut random);
    }
}

#[test]
fn lines_are_those_of_the_pages_on_both_sides_of_a_border() {
    let arenas = Arenas::new();
    let pages = PageCount::new(3);
    let info = info(arenas.border() - PageCount::new(2).bytes(), pages, pages.bytes().get(), 1);
    let found: Vec<_> = lines(&info, Table::Scanned).map(|(page, _)| page).collect();
    let expected: Vec<_> = (0..3).map(|n| info.base + PageCount::new(n)).collect();
    assert_eq!(found, expected);
    for (index, (_, line)) in lines(&info, Table::Scanned).enumerate() {
        line[7].store(1 << index, Ordering::Relaxed);
    }
    let tops: Vec<_> = expected
        .iter()
        .map(|&page| line(Table::Scanned, page)[7].load(Ordering::Relaxed))
        .collect();
    assert_eq!(tops, [1, 2, 4]);
    lines(&info, Table::Scanned).for_each(|(_, line)| line[7].store(0, Ordering::Relaxed));
    // One object, and so one line that can have a bit.
    let found: Vec<_> = object_lines(&info, Table::Scanned).map(|(page, _)| page).collect();
    assert_eq!(found, [info.base]);
}

#[test]
fn the_granule_of_a_24_byte_object_leads_to_its_start() {
    let base = Addr::new(0x1234 * PAGE_BYTES);
    for class in SizeClass::all() {
        let info = info_of(class, base);
        for index in 0..info.slots {
            let start = base + Bytes::new(index * info.slot);
            let granule = start.align_down(GRANULE_BYTES);
            assert_eq!(info.object_at(granule), start, "slot {index} of {class:?}");
        }
    }
    // No two slots of 24 bytes begin in the same granule.
    let info = info_of(SizeClass::for_layout(Bytes::new(24), 8).unwrap(), base);
    let granules: std::collections::BTreeSet<_> =
        (0..info.slots).map(|i| (base + Bytes::new(24 * i)).align_down(GRANULE_BYTES)).collect();
    assert_eq!(granules.len(), info.slots);
    assert_eq!(info.slots, 341);
}

#[test]
fn the_bits_of_a_word_are_visited_lowest_first() {
    let mut random = Random::new(0x64b1);
    for word in [0, 1, u64::MAX, 1 << 63].into_iter().chain((0..100).map(|_| random.next())) {
        let mut seen = Vec::new();
        for_each_bit(word, |bit| seen.push(bit));
        assert_eq!(seen, (0..64).filter(|bit| word >> bit & 1 == 1).collect::<Vec<_>>());
    }
}
