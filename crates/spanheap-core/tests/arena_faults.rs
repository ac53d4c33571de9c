//! Uses of user arenas after they were freed, by pointers that nobody has asked about: what is told of them, and that
//! the process ends as is documented. Each test runs in a process of its own.
//!
//! # Safety
//! The uses are the point of this file.
#![allow(unsafe_code)]

mod kernel;

use core::alloc::Layout;
use core::ptr::NonNull;
use kernel::child::{self, Outcome};
use spanheap_core::addr::{Addr, Bytes};
use spanheap_core::collect::Options;
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::mutator::{ArenaOptions, Heap, Mutator, UserArena};
use spanheap_core::observe::Stats;
use spanheap_core::os::Os;
use spanheap_core::span::sites::{AfterReport, EXIT_CODE, report_faults};
use spanheap_core::span::{Shape, Tracer, TypeInfo};
use std::sync::Arc;

unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

static NODE: TypeInfo = TypeInfo::new(|| "Node", 64, 8, Shape::Words(0b11), trace_nothing, None);
static LEAF: TypeInfo = TypeInfo::new(|| "Leaf", 24, 8, Shape::NoScan, trace_nothing, None);

/// The result of an expression, and its line as a report would name it.
macro_rules! with_line {
    ($expression:expr) => {
        ($expression, concat!(file!(), ":", line!(), ":"))
    };
}

/// A heap, and an arena of the name "request". With `record`, its values are noted.
fn heap_with_arena(record: bool) -> (Heap, UserArena) {
    let options = Options { record_sites: record, ..Options::default() };
    let heap = Heap::new(Os::native(), options).expect("memory");
    let arena = heap.new_arena(ArenaOptions { name: Some("request".into()), limit: None });
    (heap, arena)
}

/// A value that was freed with its arena.
struct Stale {
    at: usize,
    _root: Arc<RootRecord>,
}

/// Runs `fill` in a closure. What it makes is held by a root, so it stays in quarantine.
fn fill(heap: &Heap, fill: impl FnOnce(&Mutator) -> NonNull<u8>) -> Stale {
    let mutator = heap.attach();
    mutator.enter();
    let value = fill(&mutator);
    // SAFETY: the closure holds the value.
    let root = unsafe { mutator.root(value) };
    mutator.leave();
    Stale { at: value.as_ptr() as usize, _root: root }
}

/// One value of a type.
#[track_caller]
fn alloc(mutator: &Mutator, arena: &UserArena, ty: &'static TypeInfo) -> NonNull<u8> {
    // SAFETY: a closure is open.
    let room = unsafe { mutator.arena_alloc(arena, ty) }.expect("memory");
    // SAFETY: room for a value, and all zeros is one of each type here.
    unsafe { room.write_bytes(0, ty.size) };
    room
}

/// Frees the arena; returns the line, when the memory is gone.
fn free(heap: &Heap, arena: &UserArena) -> &'static str {
    let (freed, line) = with_line!(arena.free());
    freed.expect("it was not freed before");
    heap.collect();
    line
}

fn read(at: usize) {
    let byte = core::ptr::with_exposed_provenance::<u8>(at);
    // SAFETY: it is not in order, and faults.
    let byte = unsafe { byte.read_volatile() };
    println!("read {byte} without a fault");
}

fn write(at: usize) {
    let byte = core::ptr::with_exposed_provenance_mut::<u8>(at);
    // SAFETY: as in `read`.
    unsafe { byte.write_volatile(7) };
    println!("written without a fault");
}

/// Says what a report has to contain.
fn expect(text: &str) {
    println!("expected: {text}");
}

fn thread() -> i32 {
    // SAFETY: takes nothing.
    unsafe { libc::gettid() }
}

/// Pages of arenas fault here at all.
fn can_guard() -> bool {
    let os = Os::native();
    let bytes = os.page_size();
    let base = os.alloc(bytes, spanheap_core::os::Category::Heap).expect("memory");
    let range = spanheap_core::addr::AddrRange::at(base, bytes);
    // SAFETY: allocated above, and nobody uses it.
    let guarding = unsafe { os.guard(range, spanheap_core::os::Category::Heap, bytes) };
    guarding == spanheap_core::os::Guarding::Faults
}

/// The process has ended with one line that contains everything that it had said to expect.
#[track_caller]
fn is_reported(outcome: &Outcome) {
    let text = &outcome.output;
    assert_eq!((outcome.signal, outcome.code), (None, Some(EXIT_CODE)), "{text}");
    let mut reports = text.lines().filter(|line| line.starts_with("spanheap: "));
    let report = reports.next().expect("a report");
    assert!(reports.next().is_none(), "{text}");
    let mut count = 0;
    for expected in text.lines().filter_map(|line| Some(line.split_once("expected: ")?.1)) {
        assert!(report.contains(expected), "{expected:?} is not in {report:?}");
        count += 1;
    }
    assert!(count > 0, "{text}");
}

#[test]
fn a_report_names_the_arena_and_who_has_freed_it() {
    let outcome = child::outcome("a_report_names_the_arena_and_who_has_freed_it", "only", || {
        assert!(can_guard());
        report_faults(AfterReport::Exit).unwrap();
        let (heap, arena) = heap_with_arena(false);
        let stale = fill(&heap, |mutator| alloc(mutator, &arena, &NODE));
        let line = free(&heap, &arena);
        expect(&format!("spanheap: use after arena free: arena #1 \"request\" freed at {line}"));
        expect(&format!(" (thread {}, ", thread()));
        expect(&format!(" ago); address {:#x}; read by thread {}", stale.at + 8, thread()));
        read(stale.at + 8);
    });
    if let Some(outcome) = outcome {
        is_reported(&outcome);
    }
}

#[test]
fn with_recording_a_report_names_types_and_both_places() {
    let name = "with_recording_a_report_names_types_and_both_places";
    for variant in ["value", "leaf", "slice", "large", "writer", "bytes", "header"] {
        let outcome = child::outcome(name, variant, || {
            assert!(can_guard());
            report_faults(AfterReport::Exit).unwrap();
            let (heap, arena) = heap_with_arena(true);
            let mut what = String::new();
            let mut offset = 0;
            let stale = fill(&heap, |mutator| {
                for _ in 0..500 {
                    alloc(mutator, &arena, &LEAF);
                    alloc(mutator, &arena, &NODE);
                }
                // SAFETY: a closure is open, and the writer is dropped in it.
                let mut writer = unsafe { mutator.arena_writer(&arena) }.unwrap();
                // SAFETY: as in `alloc`.
                let mut slice = |len| with_line!(unsafe { writer.alloc_slice(&NODE, len) });
                let ((value, line), text) = match variant {
                    "leaf" => (with_line!(alloc(mutator, &arena, &LEAF)), "object Leaf (24 bytes)"),
                    "slice" => {
                        let (value, line) = slice(5);
                        offset = 319;
                        ((value.unwrap(), line), "slice of Node (320 bytes)")
                    }
                    "large" => {
                        let (value, line) = slice(100_000);
                        offset = 6_399_999;
                        ((value.unwrap(), line), "slice of Node (6400000 bytes)")
                    }
                    "writer" => {
                        let (value, line) = slice(1);
                        ((value.unwrap(), line), "object Node (64 bytes)")
                    }
                    "bytes" => {
                        let layout = Layout::from_size_align(100, 4).unwrap();
                        // SAFETY: as in `alloc`.
                        let (value, line) = with_line!(unsafe { writer.alloc_leaf(layout) });
                        ((value.unwrap(), line), "ago); 100 bytes")
                    }
                    _ => (with_line!(alloc(mutator, &arena, &NODE)), "object Node (64 bytes)"),
                };
                what = format!("{text} allocated at {line}");
                if variant == "header" {
                    // In front of the value, where there is no object.
                    (what, offset) = ("ago); no object was noted there".to_owned(), usize::MAX);
                }
                value
            });
            let line = free(&heap, &arena);
            expect(&format!("arena #1 \"request\" freed at {line}"));
            expect(&what);
            expect("write by");
            write(stale.at.wrapping_add(offset));
        });
        if let Some(outcome) = outcome {
            is_reported(&outcome);
        }
    }
}

/// The chunk of one small value: its last byte faults like its first, on a thread that the heap does not know.
#[test]
fn the_last_byte_of_a_chunk_that_is_partly_used_on_another_thread() {
    let name = "the_last_byte_of_a_chunk_that_is_partly_used_on_another_thread";
    for record in [false, true] {
        let outcome = child::outcome(name, &record.to_string(), || {
            assert!(can_guard());
            report_faults(AfterReport::Exit).unwrap();
            let (heap, arena) = heap_with_arena(record);
            let stale = fill(&heap, |mutator| alloc(mutator, &arena, &NODE));
            let reserved = arena.reserved();
            assert_eq!(reserved, Bytes::new(8192).max(Os::native().page_size()));
            let last = Addr::new(stale.at).align_down(reserved.get()) + reserved;
            let last = last.get() - 1;
            free(&heap, &arena);
            let touch = move || {
                let said = if record { "ago); no object was noted there" } else { "ago)" };
                expect(&format!("{said}; address {last:#x}; read by thread {}", thread()));
                read(last);
            };
            std::thread::spawn(touch).join().unwrap();
        });
        if let Some(outcome) = outcome {
            is_reported(&outcome);
        }
    }
}

/// A thread may have no more than this: what the kernel needs and a page, on this side of another that faults.
#[test]
fn a_report_takes_no_more_than_a_page_of_the_alternate_stack() {
    let name = "a_report_takes_no_more_than_a_page_of_the_alternate_stack";
    let outcome = child::outcome(name, "only", || {
        assert!(can_guard());
        report_faults(AfterReport::Exit).unwrap();
        let (heap, arena) = heap_with_arena(true);
        let stale = fill(&heap, |mutator| alloc(mutator, &arena, &NODE));
        free(&heap, &arena);
        // SAFETY: reads a number of the kernel's.
        let least = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
        let size = least.max(libc::MINSIGSTKSZ) + 4096;
        let (page, os) = (Os::native().page_size(), Os::native());
        let bytes = page + Bytes::new(size.next_multiple_of(page.get()));
        let base = os.alloc(bytes, spanheap_core::os::Category::Heap).expect("memory");
        // SAFETY: the first page of what was just allocated.
        assert_eq!(unsafe { libc::mprotect(base.as_ptr(), page.get(), libc::PROT_NONE) }, 0);
        let stack = libc::stack_t { ss_sp: (base + page).as_ptr(), ss_flags: 0, ss_size: size };
        // SAFETY: the rest of it, which nobody else uses, and which is never given back.
        assert_eq!(unsafe { libc::sigaltstack(&raw const stack, core::ptr::null_mut()) }, 0);
        expect("spanheap: use after arena free: arena #1 \"request\" freed at ");
        expect("; object Node (64 bytes) allocated at ");
        expect("; address ");
        read(stale.at);
    });
    if let Some(outcome) = outcome {
        is_reported(&outcome);
    }
}

/// What keeps its memory until a cycle has looked at it faults like what has none, and so does a large one, of which the
/// memory has moved on: at both ends, and in the midst.
#[test]
fn a_chunk_that_keeps_its_memory_faults_as_well() {
    let name = "a_chunk_that_keeps_its_memory_faults_as_well";
    let (small, large) = (900 << 10, 7 << 20);
    let ends = |bytes: usize| [0, bytes / 2, bytes - 1].map(|offset| (bytes, offset));
    for (bytes, offset) in [ends(small), ends(large)].concat() {
        let outcome = child::outcome(name, &format!("{bytes}-{offset}"), || {
            assert!(can_guard());
            report_faults(AfterReport::Exit).unwrap();
            let (heap, arena) = heap_with_arena(false);
            let stale = fill(&heap, |mutator| {
                // SAFETY: a closure is open, and the writer is dropped in it.
                let mut writer = unsafe { mutator.arena_writer(&arena) }.unwrap();
                // SAFETY: as above.
                unsafe { writer.alloc_leaf(Layout::from_size_align(bytes, 8).unwrap()) }.unwrap()
            });
            let begun = std::time::Instant::now();
            let (freed, line) = with_line!(arena.free());
            freed.expect("it was not freed before");
            while Stats::of(&heap).arenas.guarded == 0 {
                std::thread::yield_now();
            }
            // After a second it is given away.
            let is_kept = Stats::of(&heap).arenas.kept >= Bytes::new(bytes);
            assert!(bytes == large || is_kept || begun.elapsed().as_secs() > 0);
            expect(&format!("arena #1 \"request\" freed at {line}"));
            expect(&format!("; address {:#x}; write by", stale.at + offset));
            write(stale.at + offset);
        });
        if let Some(outcome) = outcome {
            is_reported(&outcome);
        }
    }
}

#[test]
fn an_arena_that_went_with_its_handle() {
    let outcome = child::outcome("an_arena_that_went_with_its_handle", "only", || {
        assert!(can_guard());
        report_faults(AfterReport::Exit).unwrap();
        let (heap, arena) = heap_with_arena(true);
        // The first arenas of the heap are freed in between, and leave nothing.
        for _ in 0..100 {
            let other = heap.new_arena(ArenaOptions::default());
            fill(&heap, |mutator| alloc(mutator, &other, &LEAF));
            free(&heap, &other);
        }
        let last = heap.new_arena(ArenaOptions::default());
        let stale = fill(&heap, |mutator| alloc(mutator, &last, &LEAF));
        drop(last);
        heap.collect();
        expect("arena #102 freed by dropping its handle (thread ");
        expect("; object Leaf (24 bytes) allocated at ");
        expect("; address ");
        assert!(!arena.is_freed());
        read(stale.at);
    });
    if let Some(outcome) = outcome {
        is_reported(&outcome);
    }
}

#[test]
fn nothing_is_told_of_what_is_not_a_freed_arena() {
    let name = "nothing_is_told_of_what_is_not_a_freed_arena";
    for variant in ["null", "without a handler", "dropped heap"] {
        let outcome = child::outcome(name, variant, || {
            child::set_limit(libc::RLIMIT_CORE, 0);
            if variant != "without a handler" {
                report_faults(AfterReport::Exit).unwrap();
            }
            let (heap, arena) = heap_with_arena(true);
            let stale = fill(&heap, |mutator| alloc(mutator, &arena, &NODE));
            free(&heap, &arena);
            match variant {
                "null" => read(8),
                "dropped heap" => {
                    let at = stale.at;
                    drop((stale, arena, heap));
                    read(at);
                }
                _ => read(stale.at),
            }
        });
        if let Some(outcome) = outcome {
            let end = (outcome.signal, outcome.code);
            assert_eq!(end, (Some(libc::SIGSEGV), None), "{}", outcome.output);
            assert!(!outcome.output.contains("spanheap:"), "{}", outcome.output);
        }
    }
}

/// Until the memory is gone, an access reads what was there; a program that makes no mistake sees nothing of all this.
#[test]
fn a_correct_program_is_not_disturbed() {
    child::run("a_correct_program_is_not_disturbed", || {
        report_faults(AfterReport::Exit).unwrap();
        let (heap, _) = heap_with_arena(true);
        let mutator = heap.attach();
        for round in 0..200u64 {
            let arena = heap.new_arena(ArenaOptions::default());
            mutator.enter();
            // SAFETY: a closure is open, and the writer is dropped in it.
            let mut writer = unsafe { mutator.arena_writer(&arena) }.unwrap();
            let values: Vec<NonNull<u64>> = (0..100)
                .map(|n| {
                    // SAFETY: as in `alloc`.
                    let value = unsafe { writer.alloc(&LEAF) }.unwrap().cast::<u64>();
                    // SAFETY: room for three words.
                    unsafe { value.write(round * 1000 + n) };
                    value
                })
                .collect();
            drop(writer);
            arena.free().unwrap();
            for (n, value) in values.iter().enumerate() {
                // SAFETY: the closure is open in which they were allocated.
                assert_eq!(unsafe { value.read() }, round * 1000 + n as u64);
            }
            mutator.leave();
            if round % 50 == 0 {
                heap.collect();
            }
        }
    });
}
