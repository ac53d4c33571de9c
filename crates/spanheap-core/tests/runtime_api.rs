//! The unsafe runtime API as the author of a virtual machine would use it: cons cells, registers, a mailbox
//! between two threads, and the collector running all the time.
//!
//! Each thread has an object full of registers, held by a root, and a twin of everything that its registers
//! reach, in ordinary memory. Cells carry a number and its complement, which freed memory does not have.
//! Checkmark mode verifies every cycle, so an object that was missed is found even when nobody looks.
//!
//! # Safety
//! The machine keeps the contract of the API: pointers are used inside closures only, cells are initialised
//! before they are published, and fields change through the barrier.
#![allow(unsafe_code)]

mod random;

use random::Random;
use spanheap_core::addr::{Addr, Bytes};
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::collect::{Options, Policy};
use spanheap_core::mutator::{Heap, Mutator};
use spanheap_core::observe::{Stats, Walk};
use spanheap_core::os::{Os, SimOs};
use spanheap_core::span::{EdgeSink, Layout, Shape, Tracer, TypeInfo};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A cell of the machine.
#[repr(C)]
struct Cons {
    car: AtomicUsize,
    cdr: AtomicUsize,
    number: usize,
    check: usize,
}

const REGISTERS: usize = 8;

/// The registers of a thread, and the mailbox: pointers and nothing else.
#[repr(C)]
struct Registers([AtomicUsize; REGISTERS]);

/// An element of a slice with a pointer, in a type that has to be dropped.
#[repr(C)]
struct Entry {
    pointer: AtomicUsize,
    data: usize,
}

/// Reports nothing: no type of the machine is opaque.
unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

unsafe fn drop_entries(_: *mut u8, _: usize) {}

static CONS: TypeInfo = TypeInfo::new(
    || "cons",
    size_of::<Cons>(),
    align_of::<Cons>(),
    Shape::Words(0b11),
    trace_nothing,
    None,
);
static REGISTER_FILE: TypeInfo = TypeInfo::new(
    || "registers",
    size_of::<Registers>(),
    align_of::<Registers>(),
    Shape::Words(0xff),
    trace_nothing,
    None,
);
static TEXT: TypeInfo = TypeInfo::new(|| "text", 1, 1, Shape::NoScan, trace_nothing, None);
static ENTRY: TypeInfo = TypeInfo::new(
    || "entry",
    size_of::<Entry>(),
    align_of::<Entry>(),
    Shape::Words(0b1),
    trace_nothing,
    Some(drop_entries),
);

/// What a thread expects a cell to be.
#[derive(Clone, Copy)]
struct Shadow {
    car: Option<usize>,
    cdr: Option<usize>,
    number: usize,
}

/// A machine on its thread.
struct Machine<'h> {
    mutator: Mutator,
    heap: &'h Heap,
    registers: Arc<RootRecord>,
    mailbox: Arc<RootRecord>,
    shadow: HashMap<usize, Shadow>,
    expected: [Option<usize>; REGISTERS],
    next: usize,
    random: Random,
}

/// The object at `at`, for as long as the closure is open.
fn cons<'a>(at: usize) -> Option<&'a Cons> {
    // SAFETY: the machine stores addresses of cells only, and looks at them inside closures.
    let cell = unsafe { Addr::new(at).as_ptr::<Cons>().as_ref() }?;
    assert_eq!(cell.number, !cell.check, "the cell at {at:#x} is no cell any more");
    Some(cell)
}

fn file<'a>(root: &RootRecord) -> &'a [AtomicUsize; REGISTERS] {
    // SAFETY: the root holds a register file, which lives as long as it.
    unsafe { &(*root.object().as_ptr::<Registers>()).0 }
}

/// Makes a file of empty registers, held by a root. A closure is open.
fn new_file(mutator: &Mutator) -> Arc<RootRecord> {
    // SAFETY: a closure is open.
    let slot = unsafe { mutator.alloc(&REGISTER_FILE) }.expect("memory");
    // SAFETY: the slot is ours and large enough.
    unsafe { slot.cast::<Registers>().write(Registers(Default::default())) };
    // SAFETY: it is initialised.
    unsafe { mutator.publish(slot) };
    // SAFETY: the closure holds it.
    unsafe { mutator.root(slot) }
}

impl<'h> Machine<'h> {
    fn new(heap: &'h Heap, mailbox: Arc<RootRecord>, seed: u64) -> Machine<'h> {
        let mutator = heap.attach();
        mutator.enter();
        let registers = new_file(&mutator);
        mutator.leave();
        Machine {
            mutator,
            heap,
            registers,
            mailbox,
            shadow: HashMap::new(),
            expected: [None; REGISTERS],
            next: 1,
            random: Random(seed),
        }
    }

    fn register(&self, index: usize) -> &AtomicUsize {
        &file(&self.registers)[index]
    }

    fn write(&self, field: &AtomicUsize, value: usize) {
        // SAFETY: fields of published objects, and values that the open closure holds.
        unsafe { self.mutator.write(field, Addr::new(value)) };
    }

    /// A new cell in register `to`, with the contents of two others.
    fn make(&mut self, to: usize, a: usize, b: usize) {
        let number = self.next;
        self.next += 1;
        // SAFETY: a closure is open.
        let slot = unsafe { self.mutator.alloc(&CONS) }.expect("memory");
        let (car, cdr) = (self.register(a), self.register(b));
        let cell = Cons {
            car: AtomicUsize::new(car.load(Ordering::Acquire)),
            cdr: AtomicUsize::new(cdr.load(Ordering::Acquire)),
            number,
            check: !number,
        };
        // SAFETY: the slot is ours.
        unsafe { slot.cast::<Cons>().write(cell) };
        // SAFETY: initialised just now.
        unsafe { self.mutator.publish(slot) };
        self.write(self.register(to), slot.as_ptr() as usize);
        let (car, cdr) = (self.expected[a], self.expected[b]);
        self.shadow.insert(number, Shadow { car, cdr, number });
        self.expected[to] = Some(number);
    }

    /// Register `to` becomes the car or the cdr of what register `from` holds.
    fn load(&mut self, to: usize, from: usize, first: bool) {
        let Some(cell) = cons(self.register(from).load(Ordering::Acquire)) else { return };
        let field = if first { &cell.car } else { &cell.cdr };
        self.write(self.register(to), field.load(Ordering::Acquire));
        let shadow = self.shadow[&cell.number];
        self.expected[to] = if first { shadow.car } else { shadow.cdr };
    }

    /// The car or the cdr of what register `at` holds becomes what register `from` holds.
    fn store(&mut self, at: usize, from: usize, first: bool) {
        let Some(cell) = cons(self.register(at).load(Ordering::Acquire)) else { return };
        let field = if first { &cell.car } else { &cell.cdr };
        self.write(field, self.register(from).load(Ordering::Acquire));
        let shadow = self.shadow.get_mut(&cell.number).expect("one of ours");
        *(if first { &mut shadow.car } else { &mut shadow.cdr }) = self.expected[from];
    }

    /// Puts a cell that nobody else has into the mailbox and looks at what was there.
    fn exchange(&mut self) {
        let number = self.next;
        self.next += 1;
        // SAFETY: a closure is open.
        let slot = unsafe { self.mutator.alloc(&CONS) }.expect("memory");
        let place = &file(&self.mailbox)[self.random.below(REGISTERS)];
        let old = place.load(Ordering::Acquire);
        // A short chain: a cell remembers the one before it only half of the time.
        let cdr = if number % 2 == 0 { old } else { 0 };
        let cell =
            Cons { car: AtomicUsize::new(0), cdr: AtomicUsize::new(cdr), number, check: !number };
        // SAFETY: the slot is ours.
        unsafe { slot.cast::<Cons>().write(cell) };
        // SAFETY: initialised just now.
        unsafe { self.mutator.publish(slot) };
        // SAFETY: a field of a published object, and a cell that the closure holds.
        let was = unsafe { self.mutator.swap(place, Addr::of(slot.as_ptr())) };
        let mut at = was.get();
        while let Some(cell) = cons(at) {
            at = cell.cdr.load(Ordering::Acquire);
        }
    }

    /// Some bytes that nobody keeps.
    fn scribble(&mut self) {
        let len = self.random.below(3000);
        // SAFETY: a closure is open; bytes have no counter.
        let slot = unsafe { self.mutator.alloc_slice(&TEXT, len) }.expect("memory");
        assert!(slot.counter.is_none());
        // SAFETY: the slot has room for so many bytes and is ours.
        unsafe { slot.start.as_ptr().write_bytes(0xee, len) };
        // SAFETY: initialised just now.
        unsafe { self.mutator.publish(slot.start) };
    }

    fn step(&mut self) {
        let (a, b, c) = (
            self.random.below(REGISTERS),
            self.random.below(REGISTERS),
            self.random.below(REGISTERS),
        );
        match self.random.below(32) {
            0..=9 => self.make(a, b, c),
            10..=15 => self.load(a, b, c % 2 == 0),
            16..=21 => self.store(a, b, c % 2 == 0),
            22..=23 => {
                self.write(self.register(a), 0);
                self.expected[a] = None;
            }
            24..=27 => {
                self.write(self.register(a), self.register(b).load(Ordering::Acquire));
                self.expected[a] = self.expected[b];
            }
            28..=30 => self.exchange(),
            _ => self.scribble(),
        }
    }

    /// Compares everything that the registers reach with the twin, and lets the twin forget the rest.
    fn compare(&mut self) {
        let mut todo: Vec<(usize, Option<usize>)> = (0..REGISTERS)
            .map(|r| (self.register(r).load(Ordering::Acquire), self.expected[r]))
            .collect();
        let mut seen = HashMap::new();
        while let Some((at, expected)) = todo.pop() {
            let Some(cell) = cons(at) else {
                assert_eq!(expected, None);
                continue;
            };
            let shadow = self.shadow[&expected.expect("a cell where there is none")];
            assert_eq!(cell.number, shadow.number);
            if seen.insert(cell.number, shadow).is_none() {
                todo.push((cell.car.load(Ordering::Acquire), shadow.car));
                todo.push((cell.cdr.load(Ordering::Acquire), shadow.cdr));
            }
        }
        self.shadow = seen;
    }

    fn run(mut self, closures: usize) -> usize {
        for round in 0..closures {
            self.mutator.enter();
            for _ in 0..1 + self.random.below(60) {
                self.step();
            }
            if round % 8 == 0 {
                self.compare();
            }
            self.mutator.leave();
            match round % 128 {
                63 => self.heap.request_cycle(),
                127 => self.heap.collect(),
                _ => {}
            }
        }
        self.next
    }
}

fn options() -> Options {
    Options { checkmark: true, poison: true, ..Options::default() }
}

/// Two machines on two threads; returns the mailbox's root.
fn run_machines(heap: &Heap, closures: usize, seed: u64) -> Arc<RootRecord> {
    println!("seed {seed:#x}");
    let mutator = heap.attach();
    mutator.enter();
    let mailbox = new_file(&mutator);
    mutator.leave();
    drop(mutator);
    std::thread::scope(|scope| {
        for thread in 0..2 {
            let mailbox = mailbox.clone();
            scope.spawn(move || {
                let made = Machine::new(heap, mailbox, seed + thread).run(closures);
                assert!(made > closures, "{made} cells");
            });
        }
    });
    mailbox
}

/// Spans' pages, and objects with their bytes, as a walk over all spans finds them.
fn walk(heap: &Heap) -> (Bytes, u64, Bytes) {
    // SAFETY: the machines have ended, and a cycle is run on demand only.
    let walk = unsafe { Walk::of(heap) };
    (walk.pages, walk.objects, walk.bytes)
}

#[test]
fn two_machines_lose_nothing_and_leave_nothing_behind() {
    let heap = Heap::new(Os::native(), options()).expect("memory");
    let mailbox = run_machines(&heap, 6000, 0xc0115);
    heap.collect();
    let stats = Stats::of(&heap);
    assert!(stats.cycles >= 46 && stats.verified_objects > 0, "{stats:?}");
    assert!(stats.marked_objects > 0, "the mailbox is held");
    drop(mailbox);
    heap.collect();
    let stats = Stats::of(&heap);
    assert_eq!((stats.marked_objects, stats.roots, stats.mutators), (0, 0, 0));
    assert_eq!((stats.live, stats.spans), (Bytes::ZERO, Bytes::ZERO));
    assert!(!stats.retained_everything);
}

#[test]
fn the_same_with_a_collector_that_never_rests_on_a_simulated_system() {
    let sim = SimOs::builder().build();
    let options = Options { continuously: true, symmetric_fences: true, ..options() };
    let heap = Heap::new(Os::simulated(sim.clone()), options).expect("memory");
    let mailbox = run_machines(&heap, 4000, 0xc0116);
    drop(mailbox);
    heap.collect();
    heap.collect();
    assert_eq!(walk(&heap), (Bytes::ZERO, 0, Bytes::ZERO));
    drop(heap);
    sim.assert_all_released();
}

#[test]
fn after_a_collection_the_walk_over_all_spans_agrees_with_every_count() {
    for seed in [0xacc0, 0xacc1, 0xacc2] {
        let policy = Policy { percent: Some(100), limit: None };
        let heap =
            Heap::new(Os::native(), Options { policy, ..Options::default() }).expect("memory");
        let mailbox = run_machines(&heap, 1000, seed);
        for _ in 0..2 {
            heap.collect();
            let stats = Stats::of(&heap);
            let (pages, objects, bytes) = walk(&heap);
            assert_eq!((pages, objects, bytes), (stats.spans, stats.marked_objects, stats.marked));
            assert_eq!((stats.retained, stats.live), (bytes, bytes));
            assert!(objects > 0);
        }
        drop(mailbox);
        heap.collect();
        assert_eq!(walk(&heap), (Bytes::ZERO, 0, Bytes::ZERO));
    }
}

/// Counts what a trace reports.
#[derive(Default)]
struct Count(usize);

impl EdgeSink for Count {
    fn edge(&mut self, _: Addr) {
        self.0 += 1;
    }
}

#[test]
fn a_tracer_leaves_out_null_pointers() {
    let mut sink = Count::default();
    // SAFETY: nothing is traced.
    let mut tracer = unsafe { Tracer::new(&mut sink, spanheap_core::span::Reader::Everything) };
    // SAFETY: 0 is always allowed.
    unsafe { tracer.edge(Addr::NULL) };
    // SAFETY: the sink counts, and never looks at the address.
    unsafe { tracer.edge(Addr::new(16)) };
    assert!(!tracer.is_deferred());
    assert_eq!(sink.0, 1);
}

/// Makes a slice of `len` entries that all point to `target`. A closure is open.
fn entries(mutator: &Mutator, len: usize, target: usize) -> Addr {
    // SAFETY: a closure is open; the counter is written below.
    let slot = unsafe { mutator.alloc_slice(&ENTRY, len) }.expect("memory");
    let counter = slot.counter.expect("values that are dropped are counted");
    // What the collector could take for elements behind the last one.
    let used = slot.start.as_ptr() as usize + len * size_of::<Entry>();
    for word in (used..counter.as_ptr() as usize).step_by(size_of::<usize>()) {
        // SAFETY: the word lies in the slot.
        let found = unsafe { Addr::new(word).as_ptr::<usize>().read() };
        assert_eq!(found, 0, "a word behind the last element, which the collector reads");
    }
    for index in 0..len {
        let entry = Entry { pointer: AtomicUsize::new(target), data: index };
        let place = Addr::of(slot.start.as_ptr()) + Bytes::new(index * size_of::<Entry>());
        // SAFETY: the slot has room for `len` entries.
        unsafe { place.as_ptr::<Entry>().write(entry) };
    }
    // SAFETY: a word of the slot.
    unsafe { counter.write(len) };
    // SAFETY: all elements are initialised.
    unsafe { mutator.publish(slot.start) };
    Addr::of(slot.start.as_ptr())
}

#[test]
fn a_counted_slice_with_pointers_is_clean_behind_its_last_element() {
    let heap = Heap::new(Os::native(), Options::default()).expect("memory");
    let mutator = heap.attach();
    assert!(matches!(ENTRY.slice_layout(), Layout::Words { mask: 1, period: 2 }));
    // 54 and 50 entries need slots of the same size.
    let mut made = 0;
    for len in [54, 50] {
        mutator.enter();
        let target = new_file(&mutator);
        for _ in 0..200 {
            entries(&mutator, len, target.object().get());
            made += len as u64;
        }
        mutator.leave();
        drop(target);
        // The slots are free when the drop thread has been there.
        while Stats::of(&heap).dropped < made {
            heap.collect();
            std::thread::yield_now();
        }
    }
}
