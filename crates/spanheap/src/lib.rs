//! A garbage-collected heap for Rust: several threads share one heap of objects with cycles, and a
//! concurrent, precise collector frees what is unreachable without ever stopping the world.
//!
//! # A first heap
//! ```
//! use spanheap::{Gc, GcCell, Heap, Root, Rootable, Trace};
//!
//! #[derive(Trace)]
//! struct Node<'gc> {
//!     key: u64,
//!     next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
//! }
//!
//! let heap = Heap::new();
//! let ring: Root<Rootable![Node<'_>]> = heap.enter(|mc| {
//!     let b = mc.alloc(Node { key: 2, next: GcCell::new(None) });
//!     let a = mc.alloc(Node { key: 1, next: GcCell::new(Some(b)) });
//!     b.next.set(mc, Some(a)); // a cycle
//!     mc.root(a) // what leaves the closure
//! });
//! let _ = heap.collect();
//! assert_eq!(heap.stats().live_objects, 2);
//! assert_eq!(heap.enter(|mc| ring.get(mc).next.get().map(|b| b.key)), Some(2));
//! ```
//!
//! # Closures
//! Objects are reached only inside the closure of [`Heap::enter`]. A [`Gc`] carries the lifetime of its
//! closure, so it can be copied, compared and followed freely there, and cannot leave:
//!
//! ```compile_fail
//! # use spanheap::Heap;
//! let heap = Heap::new();
//! let escaped = heap.enter(|mc| mc.alloc(1_u64)); // its lifetime ends with the closure
//! ```
//!
//! Nor can it be stored in an object of another closure, whose heap may be another one:
//!
//! ```compile_fail
//! # use spanheap::{Gc, GcCell, Heap, Trace};
//! # #[derive(Trace)]
//! # struct Node<'gc> { next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>> }
//! let (one, other) = (Heap::new(), Heap::new());
//! one.enter(|mc| {
//!     let ours = mc.alloc(Node { next: GcCell::new(None) });
//!     other.enter(|other_mc| {
//!         let theirs = other_mc.alloc(Node { next: GcCell::new(None) });
//!         ours.next.set(mc, Some(theirs)); // borrowed data escapes
//!     });
//! });
//! ```
//!
//! - **A closure holds up nobody but the collector.** Other threads go on allocating, in every phase.
//!   But while one closure is open, the collector can neither begin nor finish a cycle, and memory
//!   grows. Make a closure a step: one request, one batch, a slice of an interpreter's loop.
//! - Threads attach themselves at their first `enter`. Any number of heaps can be used by a thread, and
//!   closures nest, on one heap or on several; the collector sees the outermost.
//! - A panic in a closure leaves it and is passed on.
//! - [`Heap::collect`] waits for a complete cycle outside of closures. Inside one of the same heap it only
//!   requests one, and its result says which of the two it was. Two threads that wait from inside closures
//!   for a cycle of each other's heap wait for ever.
//!
//! # What may live in a heap
//! A type that is [`Trace`], `Send` and `Sync`: the collector has to find its pointers, other threads may
//! reach it, and it is dropped on another thread. Write `#[derive(Trace)]`. Fields may be numbers and
//! strings, `Gc`s, cells, `Option`s, tuples, arrays, `Box`es and collections of such; and enums of them. A type may
//! have lifetime parameters, if each stands for the closure (`'gc`) or for `'static`: an object outlives every
//! other borrow.
//!
//! ```compile_fail
//! # use spanheap::Heap;
//! struct Engine { power: u32 } // without `Trace`
//! Heap::new().enter(|mc| { mc.alloc(Engine { power: 90 }); });
//! ```
//!
//! ```compile_fail
//! # use spanheap::{Heap, Trace};
//! #[derive(Trace)]
//! struct Counter { hits: std::cell::Cell<u32> } // not `Sync`: use an atomic, or a `Mutex`
//! Heap::new().enter(|mc| { mc.alloc(Counter { hits: 0.into() }); });
//! ```
//!
//! A foreign type without `Trace` can be a field marked `#[trace(leaf)]`, if it is `'static`: then it holds
//! no `Gc`. `#[trace(leaf)]` on a type says so of all its fields. Objects hold no other borrows than of
//! `'static` data.
//!
//! [`Mutator::alloc`] moves a value in; [`Mutator::alloc_slice`] makes a `Gc<[T]>` of an iterator,
//! [`Mutator::alloc_str`] a `Gc<str>` of a string. Equality, order and hashes of a `Gc` are those of the
//! object; [`Gc::ptr_eq`] compares identity.
//!
//! # Changing objects
//! An object is shared from the moment that it exists, so there is no `&mut` to it. Pointers that change
//! are fields of these kinds, all of which tell the collector what was overwritten:
//!
//! - [`GcCell`] is one atomic word and holds a `Gc<T>`, a [`Weak<T>`](Weak), an [`ArenaGc<T>`](ArenaGc) or an
//!   `Option` of one. Outside of a cycle setting it is a plain store. [`GcCell::compare_exchange`] and
//!   [`GcCell::fetch_update`] are for algorithms without locks.
//! - [`GcOnce`] is empty, and then set once, to anything that is `Trace`. Reading it takes no lock.
//! - [`GcMutex`] is a lock around anything that is `Trace`, such as a `HashMap` of `Gc`s, and [`GcRwLock`] one
//!   that many threads may read under. The collector only tries the lock. While a cycle runs, taking it to change
//!   something may cost a walk over the contents. A guard that is forgotten (`mem::forget`), other than one for
//!   reading, keeps cycles from completing until the heap is dropped.
//!
//! ```
//! # use spanheap::{Gc, GcMutex, Heap, Trace};
//! # use std::collections::HashMap;
//! #[derive(Trace)]
//! struct Scope<'gc> {
//!     names: GcMutex<'gc, HashMap<String, Gc<'gc, str>>>,
//! }
//!
//! Heap::new().enter(|mc| {
//!     let scope = mc.alloc(Scope { names: GcMutex::new(HashMap::new()) });
//!     scope.names.lock(mc).insert("x".into(), mc.alloc_str("one"));
//!     assert_eq!(&*scope.names.lock(mc)["x"], "one");
//! });
//! ```
//!
//! A `Vec` or a `HashMap` has its storage outside of the heap: it needs a destructor, is scanned in one piece, and
//! its memory counts only if one says so ([`Heap::account`]). [`GcVec`] and [`GcHashMap`] have theirs in the heap.
//! Their elements are `Copy`, and taking a lock around one costs nothing that grows with its length:
//!
//! ```
//! use spanheap::{Gc, GcHashMap, GcRwLock, GcVec, Heap, Trace};
//!
//! #[derive(Trace)]
//! struct Index<'gc> {
//!     words: GcRwLock<'gc, GcVec<'gc, Gc<'gc, str>>>,
//!     places: GcRwLock<'gc, GcHashMap<'gc, Gc<'gc, str>, usize>>,
//! }
//!
//! Heap::new().enter(|mc| {
//!     let index = mc.alloc(Index {
//!         words: GcRwLock::new(GcVec::new()),
//!         places: GcRwLock::new(GcHashMap::new()),
//!     });
//!     for word in ["oak", "ash"] {
//!         let (mut words, mut places) = (index.words.write(mc), index.places.write(mc));
//!         let word = mc.alloc_str(word);
//!         places.insert(mc, word, words.len());
//!         words.push(mc, word);
//!     }
//!     assert_eq!(index.places.read(mc)["ash"], 1);
//! });
//! ```
//!
//! Cells and locks of the standard library are for contents without pointers: atomics, `Mutex<String>`.
//!
//! # Scoped arenas
//! What lives for one request and then all ends together can live in an [`Arena`], inside a closure: allocating there
//! is an addition, freeing is nothing, and no cycle begins for it. References into it are ordinary ones, which the
//! borrow checker keeps inside. Values in an arena may hold `Gc`s; what is to outlive it is copied to the heap,
//! deeply.
//!
//! ```
//! use spanheap::{Gc, Heap, Promote, Root, Rootable, Trace};
//!
//! #[derive(Promote)]
//! #[promote(into = Word<'gc>)]
//! struct Parsed<'a> { text: &'a str, next: Option<&'a Parsed<'a>> }
//!
//! #[derive(Trace)]
//! struct Word<'gc> { text: Gc<'gc, str>, next: Option<Gc<'gc, Word<'gc>>> }
//!
//! let heap = Heap::new();
//! let kept: Root<Rootable![Word<'_>]> = heap.enter(|mc| mc.arena(|arena| {
//!     let mut last: &Parsed = arena.alloc(Parsed { text: "first", next: None });
//!     for number in 0..1000 {
//!         let text = arena.alloc_str(&number.to_string());
//!         last = arena.alloc(Parsed { text, next: (number % 500 != 0).then_some(last) });
//!     }
//!     mc.root(mc.promote(last)) // 500 words; the others are gone with the arena
//! }));
//! assert_eq!(heap.enter(|mc| kept.get(mc).text.parse()), Ok(999));
//! ```
//!
//! # Roots
//! [`Mutator::root`] makes a [`Root`], which retains an object outside of closures: in a static, on another
//! thread, over an `await`. Its parameter names the type with its lifetime left open,
//! `Root<Rootable![Node<'_>]>`; [`Root::get`] gives the object back in a closure of the same heap, and
//! panics in one of another. Cloning and dropping roots takes no lock and needs no closure. What only a
//! dropped root held is freed by the next cycle that begins.
//!
//! # Weak pointers
//! A [`Weak`] is made by [`Mutator::downgrade`], retains nothing, and leads to its object by [`Weak::upgrade`] as long
//! as that lives. It is copied and stored like a `Gc`. What leaves the closure is a [`WeakRoot`]. An
//! [`Ephemeron`] is a pair whose second object lives as long as the first does, and a [`WeakMap`] a table of
//! such pairs: its entries die with their keys, even if the values lead to keys.
//!
//! ```
//! use spanheap::{Gc, Heap, Root, Rootable, WeakMap};
//!
//! let heap = Heap::new();
//! let (notes, key): (Root<Rootable![WeakMap<'_, String, String>]>, Root<Rootable![String]>) =
//!     heap.enter(|mc| (mc.root(mc.alloc(WeakMap::new())), mc.root(mc.alloc("key".into()))));
//! let weak = heap.enter(|mc| {
//!     notes.get(mc).insert(mc, key.get(mc), mc.alloc("a note about the key".into()));
//!     mc.root_weak::<Rootable![String]>(mc.downgrade(key.get(mc)))
//! });
//! drop(key);
//! let _ = heap.collect();
//! heap.enter(|mc| {
//!     assert!(weak.upgrade(mc).is_none());
//!     assert_eq!(notes.get(mc).len(mc), 0);
//! });
//! ```
//!
//! # Shared arenas
//! A [`SharedArena`] is a part of the heap whose values are freed together, at a moment that the program chooses, also
//! while others still point to them. An [`ArenaGc`] is stored wherever a `Gc` may be, and opened by [`ArenaGc::get`],
//! which is `None` as soon as the arena has been freed. Values may lead to objects and objects to values; the collector
//! follows both. An [`ArenaWriter`] fills an arena for the price of a few stores.
//!
//! ```
//! use spanheap::{ArenaGc, Gc, Heap, Root, Rootable, Trace};
//!
//! #[derive(Trace)]
//! struct Element<'gc> {
//!     name: ArenaGc<'gc, str>,
//!     children: ArenaGc<'gc, [ArenaGc<'gc, Element<'gc>>]>,
//!     style: Option<Gc<'gc, String>>, // an object of the heap, shared by many documents
//! }
//!
//! let heap = Heap::new();
//! let document = heap.shared_arena();
//! let kept: Root<Rootable![ArenaGc<'_, Element<'_>>]> = heap.enter(|mc| {
//!     let to = document.writer(mc);
//!     let style = Some(mc.alloc(String::from("bold")));
//!     let leaf = |name| {
//!         let children = to.alloc_slice([]);
//!         to.alloc(Element { name: to.alloc_str(name), children, style })
//!     };
//!     let children = to.alloc_slice(["a", "b"].map(leaf));
//!     let top = to.alloc(Element { name: to.alloc_str("top"), children, style: None });
//!     mc.root(mc.alloc(top))
//! });
//! heap.enter(|mc| {
//!     let top = kept.get(mc).get(mc).expect("the document is open");
//!     let first = top.children.get(mc).and_then(|children| children.first()?.get(mc)).unwrap();
//!     assert_eq!((top.name.get(mc), first.name.get(mc)), (Some("top"), Some("a")));
//!     assert!(first.style.is_some_and(|style| *style == "bold"));
//! });
//! document.free(); // all at once; the style is garbage now
//! assert!(heap.enter(|mc| kept.get(mc).get(mc).is_none()));
//! ```
//!
//! # When an object dies
//! A cycle decides which objects are dead: all at one moment, for all threads, for ever. Then, in this order:
//!
//! 1. Weak pointers to them are empty, and entries of weak maps with them as keys are gone.
//! 2. Those that were registered with a [`FinalizerQueue`] live once more, with all that they lead to, until the
//!    program has taken them out. This is for virtual machines whose languages have such finalizers.
//! 3. Cleanups ([`Mutator::cleanup`]), functions that cannot see the object, and destructors of values that need
//!    dropping are called: on a thread of the heap's own, some time later, each once, and at the latest when the
//!    heap is dropped. The cleanups of one object run in the order in which they were added; else there is no order.
//!
//! The memory is free after that, so a destructor that blocks holds up those behind it (`Stats::dropping` names it),
//! and neither allocation nor collection. A panic there is contained, counted, and told to
//! [`HeapBuilder::on_drop_panic`]. What a destructor could see through a `Gc` may be gone, so a type that may hold one
//! has no `Drop`:
//!
//! ```compile_fail
//! # use spanheap::{Gc, Trace};
//! #[derive(Trace)]
//! struct Node<'gc> { next: Option<Gc<'gc, Node<'gc>>> }
//! impl Drop for Node<'_> { fn drop(&mut self) {} } // conflicts with the derive
//! ```
//!
//! Put what needs a destructor into a field of a type of its own, which holds no `Gc`:
//!
//! ```
//! # use spanheap::{Gc, Heap, Trace};
//! #[derive(Trace)]
//! struct Socket { number: i32 }
//! impl Drop for Socket {
//!     fn drop(&mut self) { /* close it */ }
//! }
//!
//! #[derive(Trace)]
//! struct Client<'gc> { socket: Socket, peer: Option<Gc<'gc, Client<'gc>>> }
//! Heap::new().enter(|mc| mc.alloc(Client { socket: Socket { number: 3 }, peer: None }).socket.number);
//! ```
//!
//! # Memory and limits
//! A cycle begins by itself so as to end when the heap has grown by [`HeapBuilder::gc_percent`] (100) of
//! what the last one retained; and after two minutes without one ([`HeapBuilder::periodic_collection`]). One thread
//! collects; in large heaps more of them mark ([`HeapBuilder::mark_threads`]), and threads that allocate faster than
//! these mark help for a moment in the middle of an allocation. A program that knows when it is idle can
//! give the heap a little of its time: [`Heap::collect_for`].
//!
//! What values own elsewhere, such as the elements of a `Vec`, is not counted, unless the program accounts for it
//! ([`Heap::account`]), or takes it from the heap's pages by hand (`Heap::allocator`, behind the features
//! `allocator-api2-02` and `allocator-api2-04`).
//!
//! There are two limits, both on the memory that is ready for use, the heap's own tables included:
//!
//! - [`HeapBuilder::memory_limit`] is soft. Near it cycles begin earlier and free memory goes back; it is exceeded
//!   rather than that an allocation fails, and cycles that only a limit wants have half of the processor time at most.
//! - [`HeapBuilder::hard_limit`] is not exceeded by pages for objects.
//!
//! Each is a number of bytes or a [`MemoryLimit`], such as a part of what the control group allows, and can be changed
//! while the heap is in use. [`HeapBuilder::on_pressure`] is called when one is near, and may let go of something or
//! raise it; [`Heap::explain_live`] says which types hold the memory.
//!
//! A hard limit, or a system that gives no more, is an error value of [`Mutator::try_alloc`], and a panic of
//! [`Mutator::alloc`]. Nothing has changed then, and the heap goes on. Inside a closure nobody waits for
//! the collector, so the way on leads outside:
//!
//! ```
//! # use spanheap::{Collected, Heap, OutOfMemory};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let heap = Heap::builder().hard_limit(32 << 20).build()?;
//! let step = || heap.enter(|mc| {
//!     let buffer = mc.try_alloc_slice((0..1_000_000u32).map(u64::from))?; // 8 MB, garbage at the end
//!     Ok::<usize, OutOfMemory>(buffer.len())
//! });
//! for _ in 0..10 {
//!     let len = step().or_else(|full| match heap.collect() {
//!         Collected::Complete => step(), // once more, with what the cycle has freed
//!         Collected::Requested => Err(full),
//!     })?;
//!     assert_eq!(len, 1_000_000);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Pages that a cycle has emptied are used again, and what the heap does not expect to need goes back to the
//! system: between cycles, slowly if it is little and within seconds if it is much; also near a soft limit, and
//! before a hard one refuses anything. [`Heap::release_memory`] returns all of it at once, and
//! [`HeapBuilder::return_memory`] switches the background off.
//!
//! [`Heap::stats`] says what the heap holds and its pages are used for, when the next cycle is due, and the
//! longest time that any thread was held up, and why. [`Heap::explain_rss`] prints where the resident memory of
//! the process is, [`Heap::picture`] shows what each page is used for, and [`Heap::features`] what the system
//! offers.
//!
//! ```
//! # use spanheap::{Gc, Heap, Root, Rootable};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let heap = Heap::builder().memory_limit(128 << 20).build()?;
//! let image: Root<Rootable![[u32]]> = heap.enter(|mc| mc.root(mc.alloc_zeroed(4 << 20)));
//! assert_eq!(heap.stats().heap_bytes, 16 << 20);
//!
//! drop(image);
//! let _ = heap.release_memory(); // a cycle, and then everything that is free
//! let stats = heap.stats();
//! assert_eq!((stats.heap_bytes, stats.live_objects), (0, 0));
//! assert_eq!(stats.allocated_bytes, stats.freed_bytes);
//!
//! println!("{}", heap.explain_rss()); // what is left, and for what
//! # Ok(())
//! # }
//! ```
//!
//! Slices of zeros ([`Mutator::alloc_zeroed`], for [`Zeroable`] types) cost little where memory was never used, or
//! was returned: only what may be dirty is cleared.
//!
//! # When something seems wrong
//! A program without `unsafe` of its own needs none of this. A hand-written [`Trace`] does, and so does whoever
//! suspects this crate. Each can be switched while the heap lives, or by the environment variable `SPANHEAP_DEBUG`, if
//! the program asks for it ([`HeapBuilder::from_env`]):
//!
//! | setting | what it does |
//! |---|---|
//! | [`HeapBuilder::checkmark`] | verifies each cycle by a second mark while closures wait; ends the process with a report about the first object that was missed |
//! | [`HeapBuilder::verify_trace`] | the same, and names the type and the field that a wrong `Trace` leaves out |
//! | [`HeapBuilder::poison`] | fills what is freed |
//! | [`HeapBuilder::collect_every`], [`HeapBuilder::collect_continuously`] | cycles at every n-th allocation, or one after the other |
//! | [`Heap::verify`] | looks at the whole heap: do its structures agree? |
//! | [`HeapBuilder::report_faults`], [`HeapBuilder::record_sites`] | a use of a freed arena by unsafe code ends the process with one line that names the arena, and where it was freed; with the second one also the value's type, and where it was allocated |
//!
//! A closure that never ends keeps the collector from its next step, and memory grows: [`HeapBuilder::watchdog`]
//! names its thread. [`HeapBuilder::on_trace_panic`] and [`HeapBuilder::on_drop_panic`] tell of panics that were
//! contained; [`Stats`] counts them. [`HeapBuilder::trace_cycles`], or `SPANHEAP_DEBUG=gctrace=1`, writes a line for each
//! cycle that begins as that of Go's `gctrace=1` does; [`HeapBuilder::on_cycle`] gives the figures to the program.
//!
//! A process that was forked has no collector: there the heap can be read, and everything else panics. A
//! signal handler may not use a heap.
//!
//! # What it does not do yet
//! - `Gc<dyn Trait>`, and heaps of one thread whose values need not be `Send` and `Sync`.
//! - Growable containers of values that are not `Copy`, or have their pointers in changing places.
//! - Heap profiles and traces of events.
//! - Other systems than Linux on 64-bit processors.
//!
//! Threads that allocate help to mark in large heaps only; a small one may grow beyond its goal while more threads
//! are busy than there are processors.

// The expansion of `#[derive(Trace)]` says `::spanheap`, in this crate too.
extern crate self as spanheap;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod account;
#[cfg(any(feature = "allocator-api2-02", feature = "allocator-api2-04"))]
mod allocator;
mod arena;
mod attach;
mod buffer;
mod builder;
mod cell;
mod cleanup;
mod container;
mod ephemeron;
mod finalizer;
mod gc;
mod heap;
mod impls;
mod limits;
pub mod map;
mod mutator;
mod mutex;
mod once;
mod promote;
mod root;
mod rootable;
mod rss;
mod rwlock;
mod shared_arena;
mod stats;
mod trace;
mod vec;
mod verify;
mod weak;
mod weak_map;
mod zeroable;

pub use account::Account;
#[cfg(any(feature = "allocator-api2-02", feature = "allocator-api2-04"))]
pub use allocator::HeapAlloc;
pub use arena::{Arena, ArenaError, ArenaOptions};
pub use builder::{BuildError, HeapBuilder};
pub use cell::{GcCell, GcWord};
pub use cleanup::Cleanup;
pub use ephemeron::Ephemeron;
pub use finalizer::FinalizerQueue;
pub use gc::Gc;
pub use heap::{Collected, CollectedFor, Heap};
pub use map::GcHashMap;
pub use mutator::Mutator;
pub use mutex::{GcMutex, GcMutexGuard};
pub use once::GcOnce;
pub use promote::{Promote, PromoteError, Promotion};
pub use root::Root;
#[doc(hidden)]
pub use rootable::__DynRootable;
pub use rootable::Rootable;
pub use rss::Rss;
pub use rwlock::{GcRwLock, GcRwLockReadGuard, GcRwLockWriteGuard};
pub use shared_arena::{ArenaGc, ArenaWriter, SharedArena, SharedArenaBuilder};
pub use spanheap_core::collect::pressure::{LimitKind, Pressure, Response};
pub use spanheap_core::collect::{LimitError, MemoryLimit};
pub use spanheap_core::heap::OutOfMemory;
pub use spanheap_core::heap::hooks::{Delay, UserPanic};
pub use spanheap_core::heap::verify::Finding;
pub use spanheap_core::heap::{AlreadyFreed, ArenaError as SharedArenaError};
pub use spanheap_core::observe::{ArenaPicture, ClassPicture, PageState, PageTotals, Picture};
pub use spanheap_core::observe::{CycleArenas, CycleClock, CycleCpu, CycleReason, CycleTrace};
pub use spanheap_core::observe::{Live, LiveType};
pub use spanheap_core::os;
pub use spanheap_core::span::layout::Shape;
pub use spanheap_core::span::sites::EXIT_CODE as FAULT_EXIT_CODE;
pub use spanheap_core::span::sites::{AfterReport, InstallError, report_faults};
pub use spanheap_derive::{Promote, Trace};
pub use stats::{ArenaStats, LargeStats, SizeStats, Stats};
pub use trace::{Trace, Tracer};
pub use vec::GcVec;
pub use verify::VerifyReport;
pub use weak::{Weak, WeakRoot};
pub use weak_map::WeakMap;
pub use zeroable::Zeroable;

/// The examples of the README are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
