//! User arenas: what a new value looks like to those who mark, and freeing against everybody else.
//!
//! The files are the core's: chunks and leases, the arena with its lock, and the state of a chunk's span. Grace
//! periods are those of the core's registry. The memory of a chunk is a few words of the checker's ([`Ground`]), and
//! so are the two words of its side tables; the collector's parts are written down here again.
//!
//! # Safety
//! Grounds, chunks and spans live until the threads of a program have been joined.
#![allow(unsafe_code)]

use crate::addr::{Addr, AddrRange, Bytes, GRANULE_BYTES};
use crate::checker::{Lock, ProcessBarrier, Watched, explore};
use crate::mutant;
use crate::sync::Rank;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use loom::thread;
use std::alloc::{Layout as Memory, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Bytes of a ground, and its alignment.
const GROUND: usize = 4096;

/// Where the chunk begins in its ground: at a word of the side tables; and how long it is, which is two of them.
const BEGIN: usize = 1024;
const LENGTH: usize = 2048;

/// Words at each end of the chunk that somebody looks at.
const WORDS: usize = 4;

/// The memory of a chunk, with its side tables: real addresses, at which only the place of this record stands, and the
/// words that the checker watches.
pub(crate) struct HeapArena {
    at: Addr,
    words: [AtomicU64; 2 * WORDS],
    marks: AtomicU64,
    scanned: AtomicU64,
}

/// A ground until this is dropped.
pub(crate) struct Ground(NonNull<HeapArena>);

// SAFETY: everything in a ground is atomic.
unsafe impl Send for Ground {}
// SAFETY: as above.
unsafe impl Sync for Ground {}

impl Ground {
    fn layout() -> Memory {
        Memory::from_size_align(GROUND, GROUND).expect("a power of two")
    }

    fn new() -> Ground {
        // SAFETY: the layout has a size.
        let at = unsafe { alloc_zeroed(Ground::layout()) };
        let record = HeapArena {
            at: Addr::new(at as usize),
            words: core::array::from_fn(|_| AtomicU64::new(0)),
            marks: AtomicU64::new(0),
            scanned: AtomicU64::new(0),
        };
        let record = NonNull::from(Box::leak(Box::new(record)));
        // SAFETY: the ground is new, and has room and the alignment for a pointer.
        unsafe { at.cast::<*const HeapArena>().write(record.as_ptr()) };
        Ground(record)
    }

    fn record(&self) -> &HeapArena {
        // SAFETY: it lives as long as this.
        unsafe { self.0.as_ref() }
    }

    fn range(&self) -> AddrRange {
        AddrRange::at(self.record().at + Bytes::new(BEGIN), Bytes::new(LENGTH))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let at = self.record().at.as_ptr();
        // SAFETY: it was made in `new`, and no thread is left that knows it.
        unsafe { dealloc(at, Ground::layout()) };
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// The record of the ground in which `addr` lies.
fn ground_of(addr: Addr) -> *const HeapArena {
    // SAFETY: every address that is asked for lies in a ground that lives.
    unsafe { addr.align_down(GROUND).as_ptr::<*const HeapArena>().read() }
}

/// The word of memory at `addr`.
pub(crate) fn word(addr: Addr) -> &'static AtomicU64 {
    // SAFETY: as in `ground_of`; nobody keeps the reference longer than his thread lives.
    let ground = unsafe { &*ground_of(addr) };
    let from_begin = (addr.get() % GROUND - BEGIN) / 8;
    let from_end = (BEGIN + LENGTH - addr.get() % GROUND) / 8;
    let index = if from_begin < WORDS { from_begin } else { 2 * WORDS - from_end };
    &ground.words[index]
}

impl HeapArena {
    /// The word with the bit of `addr` in a table, and that bit.
    pub(crate) unsafe fn bit(&self, table: Table, addr: Addr) -> (&AtomicU64, u64) {
        let bit = 1 << (addr.granule_in_arena() % 64);
        match table {
            Table::Scanned => (&self.scanned, bit),
            Table::Marks => (&self.marks, bit),
        }
    }
}

/// The side tables.
#[derive(Clone, Copy)]
pub(crate) enum Table {
    Scanned,
    Marks,
}

/// From an address to its ground.
pub(crate) mod map {
    pub(crate) fn find(addr: crate::addr::Addr) -> *const super::HeapArena {
        super::ground_of(addr)
    }
}

/// Bits of large values, of which there are none here.
pub(crate) mod bits {
    pub(crate) fn set(_: super::Table, _: crate::addr::Addr) {
        unreachable!("no chunk beside");
    }
}

/// The sanitizer, which is not there.
pub(crate) mod asan {
    pub(crate) fn permit(_: crate::addr::Addr, _: crate::addr::Bytes) {}
}

/// Which part of a large arena its next chunk is: there are none.
pub(crate) const CHUNK_SHARE: usize = 32;

/// Where the pointers of a value are: nobody asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout;

/// A line of a side table: nobody asks.
pub(crate) struct Line;

/// What kind of value it is.
#[derive(Debug)]
#[repr(align(16))]
pub(crate) struct TypeInfo {
    pub size: usize,
    pub align: usize,
}

impl TypeInfo {
    pub(crate) fn layout(&self) -> Layout {
        Layout
    }

    pub(crate) fn slice_layout(&self) -> Layout {
        Layout
    }
}

/// A value of one word.
static WORD: TypeInfo = TypeInfo { size: 8, align: 8 };

/// Why there is no memory: nobody asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutOfMemory;

/// Nobody has asked for reports here; what they need is tested in `records`.
pub(crate) struct ChunkSites;
pub(crate) struct Sites;
pub(crate) struct Freed;
pub(crate) struct End;

impl End {
    pub(crate) fn now(_: u64, _: &str, _: Freed) -> End {
        End
    }
}

impl Sites {
    pub(crate) fn is_asked(&self) -> bool {
        false
    }

    pub(crate) fn free(&self, _: &ChunkSites, _: AddrRange, _: &End) {}
}

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "out of memory")
    }
}

/// What a span is used for, with the core's numbers.
pub(crate) enum State {
    Arena = 3,
    Freed = 4,
}

/// A span record as far as chunks use it.
pub(crate) struct Span {
    pub(crate) state: AtomicU8,
}

impl Span {
    fn new() -> Span {
        Span { state: AtomicU8::new(State::Arena as u8) }
    }
}

crate::code! { span_state }

/// Arenas, with the given versions of the files.
macro_rules! world {
    ($world:ident, $chunk:ident, $lease:ident, $arena:ident, $refill:ident) => {
        #[allow(unused, private_interfaces, clippy::all)]
        mod $world {
            pub(crate) mod span {
                pub(crate) use crate::arenas::{
                    HeapArena, Layout, Line, Span, Table, TypeInfo, bits, map,
                };
                pub(crate) use chunk::Chunk;
                pub(crate) mod chunk {
                    include!(concat!(env!("OUT_DIR"), "/", stringify!($chunk), ".rs"));
                }
            }
            pub(crate) mod user_arena {
                pub(crate) mod lease {
                    include!(concat!(env!("OUT_DIR"), "/", stringify!($lease), ".rs"));
                }
                mod refill {
                    include!(concat!(env!("OUT_DIR"), "/", stringify!($refill), ".rs"));
                }
                pub use lease::{Colour, Lease};
                include!(concat!(env!("OUT_DIR"), "/", stringify!($arena), ".rs"));
            }
            pub(crate) use span::Chunk;
            pub(crate) use user_arena::{ArenaCore, ArenaError, Colour, Lease, Step};
        }
    };
}

world!(real, chunk, lease, user_arena, arena_refill);
world!(low_relaxed, chunk, lease_low_relaxed, user_arena, arena_refill);
world!(low_seen_relaxed, chunk_low_seen_relaxed, lease, user_arena, arena_refill);
world!(low_first, chunk, lease_low_first, user_arena, arena_refill);
world!(high_stays, chunk, lease_high_stays, user_arena, arena_refill);
world!(white, chunk, lease_white, user_arena, arena_refill);
world!(marked_first, chunk, lease_marked_first, user_arena, arena_refill);
world!(freed_twice, chunk, lease, user_arena_freed_twice, arena_refill);
world!(not_flagged, chunk, lease, user_arena_not_flagged, arena_refill);
world!(leased_twice, chunk, lease, user_arena_leased_twice, arena_refill);
world!(open_forever, chunk, lease, user_arena_open_forever, arena_refill);
world!(kept_unasked, chunk, lease, user_arena, arena_refill_kept_unasked);

/// A chunk that lies in a ground.
macro_rules! chunk_in {
    ($world:ident, $ground:expr) => {{
        let chunk = $world::Chunk::new();
        chunk.describe($ground.range(), 1, std::ptr::null_mut(), false);
        chunk
    }};
}

/// A writer makes a value and a leaf and hands out pointers to them; a marker that has got one of these finds the
/// value complete, with its header, and sees that the other one is a leaf. Another thread walks over all headers
/// below `low`, and finds each.
macro_rules! shows_values {
    ($world:ident) => {
        explore(3, || {
            use $world::{Colour, Lease};
            let ground = Ground::new();
            let chunk = chunk_in!($world, ground);
            let places = [AtomicUsize::new(0), AtomicUsize::new(0)];
            let shared = Arc::new((ground, chunk, places, Watched::new()));
            let writer = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let mut lease = Lease::none(Colour::White);
                    lease.begin(NonNull::from(&shared.1));
                    let value = lease.take_scanned(&WORD, 8, 1).expect("there is room");
                    shared.3.touch();
                    shared.2[0].store(value.as_ptr() as usize, Ordering::Release);
                    let leaf = lease.take_leaf(16, 16).expect("there is room");
                    let leaf = Addr::new(leaf.as_ptr() as usize);
                    // What would be a header if it stood elsewhere.
                    word(leaf).store((&raw const WORD) as u64 >> 4, Ordering::Relaxed);
                    shared.2[1].store(leaf.get(), Ordering::Release);
                    lease.end();
                })
            };
            let walker = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let below = shared.1.low().bytes_since(shared.1.range().base());
                    let mut found = 0;
                    // SAFETY: the ground stays.
                    unsafe {
                        shared.1.for_each_value(|_| {
                            found += GRANULE_BYTES;
                            true
                        });
                    }
                    assert!(found >= below.get(), "a header is missing");
                })
            };
            let value = Addr::new(shared.2[0].load(Ordering::Acquire));
            if !value.is_null() {
                // SAFETY: the ground stays, and the value is marked now.
                let found = unsafe { shared.1.value_at(value.align_down(GRANULE_BYTES)) };
                let found = found.expect("the value has its header");
                assert!(found.start == value && found.count == 1);
                assert!(std::ptr::eq(found.ty, &WORD));
                shared.3.look();
            }
            let leaf = Addr::new(shared.2[1].load(Ordering::Acquire));
            if !leaf.is_null() {
                // SAFETY: as above.
                let found = unsafe { shared.1.value_at(leaf.align_down(GRANULE_BYTES)) };
                assert!(found.is_none(), "a leaf is taken for a value");
                assert!(shared.1.high() <= leaf, "a leaf lies where others may be put");
            }
            writer.join().expect("it ends");
            walker.join().expect("it ends");
        })
    };
}

/// A closure of the marking phase makes a value, while a marker scans what is marked and not scanned, and then
/// marks the value. It scans no value that is not complete, and finds the value marked.
macro_rules! blackens {
    ($world:ident) => {
        explore(8, || {
            use $world::{Colour, Lease};
            let ground = Ground::new();
            let chunk = chunk_in!($world, ground);
            let shared = Arc::new((ground, chunk, AtomicUsize::new(0), Watched::new()));
            let writer = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let mut lease = Lease::none(Colour::Black(1));
                    lease.begin(NonNull::from(&shared.1));
                    let value = lease.take_scanned(&WORD, 8, 1).expect("there is room");
                    shared.3.touch();
                    shared.2.store(value.as_ptr() as usize, Ordering::Release);
                })
            };
            let record = shared.0.record();
            let marks = record.marks.load(Ordering::SeqCst);
            if marks & !record.scanned.load(Ordering::SeqCst) != 0 {
                shared.3.look();
            }
            let value = Addr::new(shared.2.load(Ordering::Acquire));
            if !value.is_null() {
                // SAFETY: the ground stays.
                let (word, bit) = unsafe { record.bit(Table::Marks, value) };
                assert!(word.fetch_or(bit, Ordering::SeqCst) & bit != 0, "a round is dirtied");
            }
            writer.join().expect("it ends");
        })
    };
}

/// A closure reads a value if the arena is not freed. Somebody frees it and puts it onto a list; the collector,
/// if it finds it there, waits for a grace period and takes the memory.
macro_rules! takes_memory {
    ($world:ident, $registry:ident, $fence:expr, $early:expr) => {
        explore(4, || {
            let registry = crate::collect::$registry::Registry::new();
            let record = registry.attach().expect("it is open");
            let ground = Ground::new();
            let chunk = chunk_in!($world, ground);
            let arena = $world::ArenaCore::new(1, 1, "".into(), None);
            let shared = Arc::new((chunk, Span::new(), arena, registry, Watched::new(), ground));
            let freed = Arc::new(Lock::new(Rank::UserArenas, false));
            shared.0.set_span(&raw const shared.1 as *mut Span);
            shared.2.keep(NonNull::from(&shared.0)).expect("it is open");
            let fence: ProcessBarrier = $fence;
            let closure = {
                let shared = shared.clone();
                thread::spawn(move || {
                    record.publish_inside();
                    fence.light();
                    if shared.1.is_open_arena() {
                        shared.4.look();
                    }
                    record.publish_outside();
                })
            };
            let owner = {
                let (shared, freed) = (shared.clone(), freed.clone());
                thread::spawn(move || {
                    shared.2.free(&Sites, Freed, |taken| taken).expect("nobody else frees it");
                    *freed.lock() = true;
                })
            };
            if $early {
                shared.3.begin_grace(&fence);
            }
            if *freed.lock() {
                if !$early {
                    shared.3.begin_grace(&fence);
                }
                while !shared.3.is_grace_over() {
                    thread::yield_now();
                }
                shared.4.touch();
            }
            closure.join().expect("it ends");
            owner.join().expect("it ends");
        })
    };
}

/// Two threads free an arena: one of them has freed it, and gets its chunks. A third one has got a chunk for it
/// meanwhile: either it may not keep that, or the chunk has been freed with the others.
macro_rules! frees_once {
    ($world:ident) => {
        explore(8, || {
            let ground = Ground::new();
            let chunk = chunk_in!($world, ground);
            let arena = $world::ArenaCore::new(1, 1, "".into(), None);
            let shared = Arc::new((chunk, Span::new(), arena, ground));
            shared.0.set_span(&raw const shared.1 as *mut Span);
            let others = [(); 2].map(|()| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let freed = shared.2.free(&Sites, Freed, |taken| taken);
                    assert!(shared.2.is_freed());
                    freed.map(|taken| taken.chunks.is_some())
                })
            });
            let kept = shared.2.keep(NonNull::from(&shared.0)).is_ok();
            let freed = others.map(|other| other.join().expect("it ends"));
            let winners: Vec<bool> = freed.into_iter().flatten().collect();
            assert_eq!(winners, [kept], "one of them has freed what the arena had");
            assert_eq!(shared.1.is_open_arena(), !kept, "what it had is flagged");
        })
    };
}

/// Two threads lease the one chunk of an arena, while a third one frees it. Nobody has the chunk at the same
/// time as somebody else, and nobody leases anything afterwards.
macro_rules! leases_once {
    ($world:ident) => {
        explore(3, || {
            use $world::{ArenaCore, ArenaError, Colour, Lease, Step};
            let ground = Ground::new();
            let chunk = chunk_in!($world, ground);
            let arena = ArenaCore::new(1, 1, "".into(), None);
            let shared = Arc::new((chunk, Span::new(), arena, Watched::new(), ground));
            shared.0.set_span(&raw const shared.1 as *mut Span);
            shared.2.keep(NonNull::from(&shared.0)).expect("it is open");
            let mut lease = Lease::none(Colour::White);
            shared.2.lease(&mut lease, NonNull::from(&shared.0)).expect("it is open");
            shared.2.end_lease(&mut lease);
            const UNIT: Bytes = Bytes::new(8192);
            let others = [(); 2].map(|()| {
                let shared = shared.clone();
                thread::spawn(move || {
                    let mut lease = Lease::none(Colour::White);
                    match shared.2.begin_refill(&mut lease, Bytes::new(16), (UNIT, UNIT)) {
                        Ok(Step::Done) => {
                            lease.take_scanned(&WORD, 8, 1).expect("there is room");
                            shared.3.touch();
                            shared.2.end_lease(&mut lease);
                        }
                        Ok(Step::Get(..)) => {}
                        Err(error) => assert_eq!(error, ArenaError::Freed),
                    }
                })
            });
            shared.2.free(&Sites, Freed, |taken| taken).expect("nobody else frees it");
            let refused = shared.2.begin_refill(&mut lease, Bytes::new(16), (UNIT, UNIT)).err();
            assert_eq!(refused, Some(ArenaError::Freed), "a freed arena takes no values");
            for other in others {
                other.join().expect("it ends");
            }
            let refused = shared.2.begin_refill(&mut lease, Bytes::new(16), (UNIT, UNIT)).err();
            assert_eq!(refused, Some(ArenaError::Freed), "a freed arena takes no values");
        })
    };
}

#[test]
fn markers_and_walkers_see_complete_values() {
    shows_values!(real);
}

mutant!(a_relaxed_end_of_values_is_found, "a header is missing", shows_values!(low_relaxed));

mutant!(
    a_relaxed_look_at_the_end_of_values_is_found,
    "a header is missing",
    shows_values!(low_seen_relaxed)
);

mutant!(
    an_end_of_values_before_the_header_is_found,
    "a header is missing",
    shows_values!(low_first)
);

mutant!(
    leaves_that_do_not_move_the_beginning_of_leaves_are_found,
    "a leaf lies where others may be put",
    shows_values!(high_stays)
);

#[test]
fn values_of_the_marking_phase_are_black_before_anybody_knows_them() {
    blackens!(real);
}

mutant!(white_values_of_the_marking_phase_are_found, "a round is dirtied", blackens!(white));

mutant!(marking_before_scanned_is_found, "Causality violation", blackens!(marked_first));

#[test]
fn memory_goes_when_nobody_can_read_it() {
    takes_memory!(real, registry, ProcessBarrier::WHOLE, false);
}

mutant!(
    an_arena_that_is_freed_without_a_flag_is_found,
    "Causality violation",
    takes_memory!(not_flagged, registry, ProcessBarrier::WHOLE, false)
);

mutant!(
    a_grace_period_that_began_before_the_arena_was_freed_is_found,
    "Causality violation",
    takes_memory!(real, registry, ProcessBarrier::WHOLE, true)
);

mutant!(
    a_flag_that_is_read_without_the_light_barrier_is_found,
    "Causality violation",
    takes_memory!(real, registry, ProcessBarrier::HALF, false)
);

#[test]
fn an_arena_is_freed_once_with_all_that_it_has() {
    frees_once!(real);
}

mutant!(
    freeing_twice_is_found,
    "one of them has freed what the arena had",
    frees_once!(freed_twice)
);

mutant!(
    a_chunk_that_a_freed_arena_keeps_is_found,
    "one of them has freed what the arena had",
    frees_once!(kept_unasked)
);

#[test]
fn a_chunk_is_leased_by_one_and_by_nobody_when_it_is_freed() {
    leases_once!(real);
}

mutant!(a_chunk_that_stays_on_offer_is_found, "Causality violation", leases_once!(leased_twice));

mutant!(
    a_freed_arena_that_takes_values_is_found,
    "a freed arena takes no values",
    leases_once!(open_forever)
);
