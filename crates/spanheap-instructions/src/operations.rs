//! What is counted: each operation with the loop around it.
//!
//! Heaps are made in the child, since a heap belongs to the process that has made it. Each operation has a heap of
//! its own, and has been done a few times before it is counted: the first time is the slow path's. What is counted while a
//! cycle marks has an object in its heap that the collector does not get done with before the counting is over.
//!
//! # Safety
//! The trace function of that object reports all of its pointers: it has none.
#![allow(unsafe_code)]

use crate::trace::breakpoint;
use spanheap::{Gc, GcCell, Heap, Mutator, Root, Rootable, Trace, Tracer};
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Operations of the first stretch; the second one has twice as many.
pub(crate) const TIMES: usize = 16;

/// Operations before those that are counted. All together take less than a run of 64 slots.
const WARM: usize = 8;

/// Something that is counted.
pub(crate) struct Operation {
    /// Its name in the file.
    pub(crate) name: &'static str,
    /// What the child does.
    pub(crate) run: fn(),
}

const fn operation(name: &'static str, run: fn()) -> Operation {
    Operation { name, run }
}

/// All of them, in the order of the file.
pub(crate) const ALL: &[Operation] = &[
    operation("loop", || counted(eat)),
    operation("alloc-16", || inside(|mc| counted(|_| eat(mc.alloc(Words::<1>::new()))))),
    operation("alloc-32", || inside(|mc| counted(|_| eat(mc.alloc(Words::<3>::new()))))),
    operation("alloc-64", || inside(|mc| counted(|_| eat(mc.alloc(Words::<7>::new()))))),
    operation("alloc-128", || inside(|mc| counted(|_| eat(mc.alloc(Words::<15>::new()))))),
    operation("alloc-leaf-8", || inside(|mc| counted(|i| eat(mc.alloc(i))))),
    operation("alloc-leaf-128", || inside(|mc| counted(|i| eat(mc.alloc([i; 16]))))),
    operation("alloc-drop-32", || inside(|mc| counted(|_| eat(mc.alloc(Dropped::new()))))),
    operation("try-alloc-16", || {
        inside(|mc| counted(|_| eat(mc.try_alloc(Words::<1>::new()).ok())));
    }),
    operation("slice-of-8-numbers", || {
        inside(|mc| counted(|i| eat(mc.alloc_slice([i; 8]))));
    }),
    operation("slice-of-8-pointers", || {
        inside(|mc| {
            let one = mc.alloc(1_u64);
            counted(|_| eat(mc.alloc_slice([one; 8])));
        });
    }),
    operation("store-idle", || {
        inside(|mc| {
            let (cell, one) = cell(mc);
            counted(|_| black_box(&cell).set(mc, black_box(one)));
        });
    }),
    operation("store-marking", || {
        while_marking(|mc| {
            let (cell, one) = cell(mc);
            counted(|_| black_box(&cell).set(mc, black_box(one)));
        });
    }),
    operation("fill-8-idle", || {
        inside(|mc| {
            let one = mc.alloc(1_u64);
            let cells: [GcCell<'_, _>; 8] = core::array::from_fn(|_| GcCell::new(one));
            counted(|_| GcCell::fill(black_box(&cells), mc, black_box(one)));
        });
    }),
    operation("load", || {
        inside(|mc| {
            let (cell, _) = cell(mc);
            counted(|_| eat(black_box(&cell).get()));
        });
    }),
    operation("deref", || {
        inside(|mc| {
            let one = mc.alloc(1_u64);
            counted(|_| eat(*black_box(one)));
        });
    }),
    operation("root-and-drop", || {
        inside(|mc| {
            let one = mc.alloc(1_u64);
            // So many that the table does not grow meanwhile.
            (0..140).for_each(|_| drop(mc.root::<Rootable![u64]>(one)));
            counted(|_| eat(mc.root::<Rootable![u64]>(one)));
        });
    }),
    operation("root-get", || {
        inside(|mc| {
            let root: Root<Rootable![u64]> = mc.root(mc.alloc(1_u64));
            counted(|_| eat(black_box(&root).get(mc)));
        });
    }),
    operation("enter", || {
        let heap = Heap::new();
        counted(|i| eat(heap.enter(|_| black_box(i))));
    }),
];

/// Whether the count is in part that of the C library, and so another one with another version of it.
pub(crate) fn depends_on_libc(name: &str) -> bool {
    name == "root-and-drop"
}

/// Two pointers' worth of header, less one, and `N` words.
#[derive(Trace)]
struct Words<'gc, const N: usize> {
    pointer: Option<Gc<'gc, u64>>,
    numbers: [u64; N],
}

impl<const N: usize> Words<'_, N> {
    fn new() -> Self {
        Words { pointer: None, numbers: [0; N] }
    }
}

/// Something with a destructor.
#[derive(Trace)]
struct Dropped<'gc> {
    pointer: Option<Gc<'gc, u64>>,
    text: String,
}

impl Dropped<'_> {
    fn new() -> Self {
        Dropped { pointer: None, text: String::new() }
    }
}

/// Takes a value that the compiler has to make. (Nothing that is counted is dropped: what has a destructor is in the
/// heap by then, but for roots.)
#[inline(always)]
fn eat<T>(value: T) {
    let _ = black_box(value);
}

/// Does something in a closure of a new heap.
fn inside(f: impl for<'gc> FnOnce(&Mutator<'gc>)) {
    Heap::new().enter(|mc| f(mc));
}

/// An object that is traced as long as somebody counts.
struct Gate {
    is_reached: AtomicBool,
    is_open: AtomicBool,
}

// SAFETY: there are no pointers in it.
unsafe impl Trace for Gate {
    fn trace(&self, _: &mut Tracer<'_>) {
        self.is_reached.store(true, Ordering::Release);
        while !self.is_open.load(Ordering::Acquire) {
            thread::yield_now();
        }
    }
}

/// Does something in a closure that begins while a cycle marks, and ends before it does. What it overwrites has to
/// fit into the buffer of the barrier.
fn while_marking(f: impl for<'gc> FnOnce(&Mutator<'gc>)) {
    let heap = Heap::new();
    let gate = Gate { is_reached: AtomicBool::new(false), is_open: AtomicBool::new(false) };
    let gate: Root<Rootable![Gate]> = heap.enter(|mc| mc.root(mc.alloc(gate)));
    thread::scope(|scope| {
        scope.spawn(|| heap.collect());
        while !heap.enter(|mc| gate.get(mc).is_reached.load(Ordering::Acquire)) {
            thread::yield_now();
        }
        heap.enter(|mc| f(mc));
        heap.enter(|mc| gate.get(mc).is_open.store(true, Ordering::Release));
    });
}

fn cell<'gc>(mc: &Mutator<'gc>) -> (GcCell<'gc, Gc<'gc, u64>>, Gc<'gc, u64>) {
    let one = mc.alloc(1_u64);
    (GcCell::new(one), one)
}

/// Does something as often as it is to be counted, with breakpoints between.
fn counted(mut f: impl FnMut(u64)) {
    repeat(WARM, &mut f);
    breakpoint();
    repeat(TIMES, &mut f);
    breakpoint();
    repeat(2 * TIMES, &mut f);
    breakpoint();
}

/// The one loop of an operation: never inlined, so that both stretches run the same code.
#[inline(never)]
fn repeat(times: usize, f: &mut impl FnMut(u64)) {
    for i in 0..black_box(times) {
        f(i as u64);
    }
}
