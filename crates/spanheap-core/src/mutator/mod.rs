//! A thread's handle on a heap: entering and leaving closures, allocating, the write barrier.
//!
//! # The contract of the runtime API
//! Whoever builds on this layer keeps these promises; the safe crate keeps them by its types.
//!
//! - U1. Pointers into the heap are used between [`Mutator::enter`] and the [`Mutator::leave`] that ends
//!   the outermost closure, and not kept beyond it other than as roots or in objects.
//! - U2. An object is initialised before it is published with [`Mutator::publish`], and published before its
//!   address is stored anywhere or the mutator allocates again.
//! - U3. A pointer field of a published object changes only through [`Mutator::write`], or inside a
//!   container whose lock is held after [`Mutator::container_barrier`] was obeyed.
//! - U4. The description of a type is true: size, alignment, shape, trace and drop function.
//! - U5. Pointers are stored only in objects of the heap that they point into.
//!
//! Who breaks U1, U2 or U4 reads or writes memory that is no object's. A build for AddressSanitizer with `--cfg
//! spanheap_asan` reports that where it happens: see `os::asan`, and SAFETY.md for what is reported.
//!
//! The write barrier is in `barrier`. What lies in user arenas follows the same contract, with the differences that
//! `arena` states: A1 to A4.
//!
//! # Colour
//! What a closure does is fixed by the phase word that it read when it began: whether stores buffer,
//! whether new objects are buffered (grey) or come from black runs.
//!
//! # Safety
//! Memory that is handed out is uninitialised and belongs to the caller alone.
#![allow(unsafe_code)]

mod account;
mod arena;
mod barrier;
mod chunks;
mod heap;
mod weak;

pub use account::OutsideMemory;
pub use arena::{ArenaOptions, ArenaWriter, UserArena};
pub use barrier::{ContainerBarrier, Shading};
pub use heap::{Heap, NewHeapError, Pages};

use crate::addr::{Addr, Bytes, WORD_BYTES};
use crate::collect::registry::{MutatorRecord, tint};
use crate::collect::roots::RootRecord;
use crate::collect::{Collector, Phase, PhaseWord};
use crate::heap::cache::{SpanCache, Tint};
use crate::heap::stall::Cause;
use crate::heap::{ManualSpan, OutOfMemory, zero};
use crate::os::asan;
use crate::span::alone;
use crate::span::lookup::Lookup;
use crate::span::{Counting, Generation, Layout, TypeInfo};
use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

/// A thread's handle on a heap. It stays on its thread.
pub struct Mutator {
    /// The caches of `record`, which are where they are as long as it is.
    caches: NonNull<SpanCache>,
    /// Whether stores buffer what they overwrite.
    buffers: Cell<bool>,
    /// Whether new objects are buffered.
    grey: Cell<bool>,
    /// Whether a store that buffers has to be an exchange.
    exchanges: Cell<bool>,
    /// The number of the heap.
    number: u64,
    collector: Arc<Collector>,
    record: Arc<MutatorRecord>,
    /// How many closures are open, one inside the other.
    depth: Cell<u32>,
    /// The phase word that the outermost closure read.
    word: Cell<PhaseWord>,
    tint: Cell<Tint>,
    /// Why the last allocation that failed did.
    refusal: Cell<Option<OutOfMemory>>,
    _stays_on_its_thread: PhantomData<*const ()>,
}

/// A slot for a slice.
#[derive(Clone, Copy, Debug)]
pub struct SliceSlot {
    /// Where the first element goes.
    pub start: NonNull<u8>,
    /// The word that says how many elements are initialised, if the object has one. It says 0 now.
    pub counter: Option<NonNull<usize>>,
}

impl Mutator {
    pub(crate) fn new(collector: Arc<Collector>, record: Arc<MutatorRecord>) -> Mutator {
        Mutator {
            caches: NonNull::from(record.caches()),
            buffers: Cell::new(false),
            grey: Cell::new(false),
            exchanges: Cell::new(false),
            number: collector.central().number(),
            collector,
            record,
            depth: Cell::new(0),
            word: Cell::new(PhaseWord::NEVER),
            tint: Cell::new(Tint { black: false, generation: Generation::FIRST }),
            refusal: Cell::new(None),
            _stays_on_its_thread: PhantomData,
        }
    }

    /// The number of the heap in this process.
    #[inline]
    pub fn heap_number(&self) -> u64 {
        self.number
    }

    /// The span caches; inside a closure.
    #[inline(always)]
    fn caches(&self) -> &SpanCache {
        // SAFETY: they are the record's, in a box that it keeps as long as it lives, and the record is kept here.
        // Inside a closure they are this thread's (K1).
        unsafe { self.caches.as_ref() }
    }

    /// Whether a closure is open.
    #[inline]
    pub fn is_inside(&self) -> bool {
        self.depth.get() > 0
    }

    /// Begins a closure. Closures nest; only the outermost one counts for the collector.
    ///
    /// # Panics
    /// When the heap has been dropped, and in a trace function.
    #[inline]
    pub fn enter(&self) {
        alone::assert_free("enter a heap");
        let depth = self.depth.get();
        if depth == 0 {
            self.record.publish_inside();
            self.collector.fence().light();
            let word = self.collector.word();
            if word != self.word.get() {
                self.change_phase(word);
            }
        }
        self.depth.set(depth + 1);
    }

    /// Takes notice of another phase than that of the last closure.
    #[cold]
    #[inline(never)]
    fn change_phase(&self, mut word: PhaseWord) {
        if !self.collector.central().is_here() && !word.is_closed() {
            self.go_on_elsewhere(word);
            return;
        }
        while word.is_gated() && !word.is_closed() {
            self.record.publish_outside();
            self.wake_collector();
            self.collector.control().wait_at_gate();
            self.record.publish_inside();
            self.collector.fence().light();
            word = self.collector.word();
        }
        if word.is_closed() {
            self.record.publish_outside();
            panic!("the heap has been dropped: a mutator cannot enter it any more");
        }
        let begun = Instant::now();
        self.record.change_phase(self.collector.central(), word);
        self.word.set(word);
        self.buffers.set(word.phase() != Phase::Idle);
        self.exchanges.set(matches!(word.phase(), Phase::ArmingA | Phase::ArmingB));
        self.grey.set(word.phase() == Phase::ArmingB);
        self.tint.set(tint(word));
        self.collector.central().stalls().record(Cause::PhaseChange, begun);
    }

    /// Takes notice of another phase in a process that was forked from the heap's. There is no collector for which
    /// anything would have to be done; and who had given our caches back when the other threads vanished may
    /// have been in the midst of it.
    #[cold]
    fn go_on_elsewhere(&self, word: PhaseWord) {
        self.record.caches().forget();
        self.word.set(word);
        self.buffers.set(false);
        self.grey.set(false);
    }

    /// Ends the closure that was begun last.
    ///
    /// # Panics
    /// When no closure is open.
    #[inline]
    pub fn leave(&self) {
        let depth = self.depth.get();
        assert!(depth > 0, "a mutator leaves a closure that it has not entered");
        self.depth.set(depth - 1);
        if depth == 1 {
            if !self.record.buffer.is_empty() {
                self.flush();
            }
            self.record.publish_outside();
            self.collector.fence().light();
            if self.collector.control().is_awaiting_leave() {
                self.has_left();
            }
        }
    }

    /// Does what those have asked for who wanted to hear of mutators that leave.
    #[cold]
    fn has_left(&self) {
        if !self.collector.central().is_here() {
            return;
        }
        let collector_waits = self.collector.control().take_leave();
        if self.collector.bury_on_leaving() {
            return;
        }
        self.wake_collector();
        if collector_waits {
            self.let_collector_act();
        }
    }

    /// Waits for a moment if the collector has waited for long, and nobody is inside now: see
    /// [`collect::gap`](crate::collect::gap).
    fn let_collector_act(&self) {
        let collector = &*self.collector;
        if collector.registry().counts().1 > 0 {
            return;
        }
        let begun = Instant::now();
        let worked = |gap| self.record.worked_in(gap);
        if collector.control().gap().wait(worked) {
            collector.central().stalls().record(Cause::PhaseChange, begun);
        }
    }

    #[cold]
    fn wake_collector(&self) {
        if !self.collector.central().is_here() {
            return;
        }
        self.collector.central().alarm().ring();
    }

    #[cold]
    #[inline(never)]
    fn flush(&self) {
        if !self.collector.central().is_here() {
            self.record.buffer.discard();
            return;
        }
        let begun = Instant::now();
        self.collector.flush(&self.record, self.word.get());
        self.collector.central().stalls().record(Cause::Flush, begun);
    }

    /// A slot for one value of `ty`: uninitialised, large enough and aligned.
    ///
    /// # Errors
    /// When the hard limit or the system does not allow more memory.
    ///
    /// # Safety
    /// A closure is open; U2 and U4.
    #[inline(always)]
    pub unsafe fn alloc(&self, ty: &'static TypeInfo) -> Result<NonNull<u8>, OutOfMemory> {
        // SAFETY: the same contract.
        match unsafe { self.find_slot(ty) } {
            Some(slot) => Ok(slot),
            None => Err(self.refusal()),
        }
    }

    /// [`Mutator::alloc`] in the form that costs the caller's code least. `None`: [`Mutator::refusal`] says why.
    ///
    /// # Safety
    /// As [`Mutator::alloc`].
    #[inline(always)]
    pub unsafe fn find_slot(&self, ty: &'static TypeInfo) -> Option<NonNull<u8>> {
        debug_assert!(self.is_inside());
        let Some(slot) = self.caches().bump(ty) else { return self.alloc_slowly(ty) };
        debug_assert!(slot.is_aligned(ty.align) && !slot.is_null());
        asan::permit(slot, Bytes::new(ty.size));
        // SAFETY: objects do not lie at address 0.
        Some(unsafe { NonNull::new_unchecked(slot.as_ptr()) })
    }

    /// All that is rare in an allocation.
    #[cold]
    #[inline(never)]
    fn alloc_slowly(&self, ty: &'static TypeInfo) -> Option<NonNull<u8>> {
        let (central, caches) = (self.collector.central(), self.caches());
        let slot = caches.alloc(central, ty, self.tint.get());
        let slot = slot
            .or_else(|refused| self.after(refused, |caches, tint| caches.alloc(central, ty, tint)));
        match slot {
            Ok(slot) => {
                debug_assert!(slot.is_aligned(ty.align));
                asan::permit(slot, Bytes::new(ty.size));
                NonNull::new(slot.as_ptr())
            }
            Err(refused) => {
                self.refusal.set(Some(refused));
                None
            }
        }
    }

    /// Why the last allocation of this mutator that failed did.
    ///
    /// # Panics
    /// When none has.
    #[cold]
    #[inline(never)]
    pub fn refusal(&self) -> OutOfMemory {
        self.refusal.get().expect("an allocation was refused")
    }

    /// An allocation was refused, or paused so that this mutator marks for a while: then it is made again. So it is if
    /// there were pages that the mutator has kept for its next arenas.
    #[cold]
    #[inline(never)]
    fn after<T>(
        &self,
        refused: OutOfMemory,
        again: impl FnOnce(&SpanCache, Tint) -> Result<T, OutOfMemory>,
    ) -> Result<T, OutOfMemory> {
        let caches = self.caches();
        if caches.purse().take_pause() {
            self.collector.assist(caches.purse(), self.word.get());
        } else if !caches.chunk_pool().give_back(self.collector.central()) {
            return Err(refused);
        }
        again(caches, self.tint.get())
    }

    /// Like [`Mutator::alloc`], and the slot is all zeros. Memory that is known to be zero is not written to.
    ///
    /// # Errors
    /// As [`Mutator::alloc`].
    ///
    /// # Safety
    /// As [`Mutator::alloc`].
    pub unsafe fn alloc_zeroed(&self, ty: &'static TypeInfo) -> Result<NonNull<u8>, OutOfMemory> {
        // SAFETY: the same contract.
        let slot = unsafe { self.alloc(ty) }?;
        // SAFETY: the slot is new and holds a value of `ty`.
        unsafe { zero::clear(Addr::of(slot.as_ptr()), Bytes::new(ty.size)) };
        Ok(slot)
    }

    /// Like [`Mutator::alloc_slice`], and the elements are all zeros. Memory that is known to be zero is not
    /// written to.
    ///
    /// # Errors
    /// As [`Mutator::alloc_slice`].
    ///
    /// # Safety
    /// As [`Mutator::alloc_slice`].
    pub unsafe fn alloc_slice_zeroed(
        &self,
        ty: &'static TypeInfo,
        len: usize,
    ) -> Result<SliceSlot, OutOfMemory> {
        // SAFETY: the same contract.
        let slot = unsafe { self.alloc_slice(ty, len) }?;
        // SAFETY: the slot is new and holds `len` values of `ty`, whose size together does not overflow.
        unsafe { zero::clear(Addr::of(slot.start.as_ptr()), Bytes::new(ty.size * len)) };
        Ok(slot)
    }

    /// A manual span: whole pages, `bytes` long at least, at a multiple of `align`. The collector leaves it alone.
    ///
    /// # Errors
    /// When the hard limit or the system does not allow more memory.
    ///
    /// # Panics
    /// When no closure is open, or `align` is not a power of two.
    pub fn alloc_manual(&self, bytes: Bytes, align: usize) -> Result<ManualSpan, OutOfMemory> {
        assert!(self.is_inside(), "manual spans are allocated inside closures");
        assert!(align.is_power_of_two(), "an alignment is a power of two, not {align}");
        let central = self.collector.central();
        central.assert_here();
        central.alloc_manual(bytes, align, self.record.caches().local_pages())
    }

    /// Frees a manual span.
    ///
    /// # Panics
    /// When no closure is open: the heap could be dropped meanwhile, or be gone. When the span belongs to
    /// another heap.
    ///
    /// # Safety
    /// Nobody uses its memory any more.
    pub unsafe fn free_manual(&self, span: ManualSpan) {
        assert!(self.is_inside(), "a manual span is freed outside of a closure");
        let central = self.collector.central();
        central.assert_here();
        assert!(span.heap() == central.number(), "{span:?} does not belong to this heap");
        // SAFETY: the caller's promise; the span is this heap's.
        unsafe { central.free_manual(span) };
    }

    /// A slot for a slice of `len` values of `ty`. Words behind the last element that the collector
    /// could take for pointers are zero.
    ///
    /// # Errors
    /// As [`Mutator::alloc`]; also when the size of the slice overflows.
    ///
    /// # Safety
    /// As [`Mutator::alloc`]. If there is a counter, it is set to the number of elements when they are
    /// initialised.
    #[inline(always)]
    pub unsafe fn alloc_slice(
        &self,
        ty: &'static TypeInfo,
        len: usize,
    ) -> Result<SliceSlot, OutOfMemory> {
        debug_assert!(self.is_inside());
        let at_hand = ty.slice_extent(len).and_then(|(used, wanted)| {
            let (slot, bytes) = self.caches().bump_slice(ty, wanted)?;
            Some((slot, bytes, used))
        });
        let (slot, bytes, used) = match at_hand {
            Some(found) => found,
            None => self.alloc_slice_slowly(ty, len)?,
        };
        let end = slot + bytes;
        asan::permit(slot, used);
        if let Layout::Words { .. } = ty.slice_layout() {
            let rest = slot + used;
            asan::permit(rest, end.bytes_since(rest));
            if rest < end {
                // SAFETY: the rest of the slot is ours.
                unsafe { rest.as_ptr::<u8>().write_bytes(0, end.bytes_since(rest).get()) };
            }
        }
        let mut counter = None;
        if ty.slice_counting() == Counting::Trailer {
            let trailer = end - Bytes::new(WORD_BYTES);
            asan::permit(trailer, Bytes::new(WORD_BYTES));
            let trailer = trailer.as_ptr::<usize>();
            // SAFETY: the slot is ours, a multiple of 8 bytes long, and has room for the trailer.
            unsafe { trailer.write(0) };
            counter = NonNull::new(trailer);
        }
        // SAFETY: objects do not lie at address 0.
        let start = unsafe { NonNull::new_unchecked(slot.as_ptr()) };
        Ok(SliceSlot { start, counter })
    }

    /// All that is rare in the allocation of a slice. The slot, its size, and the bytes of the values.
    #[cold]
    #[inline(never)]
    fn alloc_slice_slowly(
        &self,
        ty: &'static TypeInfo,
        len: usize,
    ) -> Result<(Addr, Bytes, Bytes), OutOfMemory> {
        let central = self.collector.central();
        let too_large = || self.collector.out_of_memory(Bytes::new(usize::MAX));
        let (used, wanted) = ty.slice_extent(len).ok_or_else(too_large)?;
        let (slot, bytes) = match self.caches().alloc_slice(central, ty, wanted, self.tint.get()) {
            Ok(found) => found,
            Err(refused) => {
                self.after(refused, |caches, tint| caches.alloc_slice(central, ty, wanted, tint))?
            }
        };
        Ok((slot, bytes, used))
    }

    /// Says that a new object is initialised.
    ///
    /// # Safety
    /// `object` came from this mutator's [`Mutator::alloc`] or [`Mutator::alloc_slice`] in the open closure,
    /// and holds what its description says.
    #[inline(always)]
    pub unsafe fn publish(&self, object: NonNull<u8>) {
        if self.grey.get() {
            // SAFETY: the same contract.
            unsafe { self.publish_grey(object) };
        }
    }

    /// [`Mutator::publish`] in the arming phase in which new objects are buffered.
    ///
    /// # Safety
    /// As [`Mutator::publish`].
    #[cold]
    #[inline(never)]
    unsafe fn publish_grey(&self, object: NonNull<u8>) {
        // SAFETY: S1, S2: a new object of the open closure, by the caller's promise.
        unsafe { self.shade(Addr::of(object.as_ptr())) };
    }

    /// Records how long the thread has waited for the lock of a container.
    pub fn record_container_wait(&self, begun: Instant) {
        self.collector.central().stalls().record(Cause::Container, begun);
    }

    /// Enters an object into the root table. It is retained as long as somebody holds the record.
    ///
    /// # Safety
    /// `object` is an object of this heap that the open closure holds.
    pub unsafe fn root(&self, object: NonNull<u8>) -> Arc<RootRecord> {
        debug_assert!(self.is_inside());
        self.collector.central().assert_here();
        let object = Addr::of(object.as_ptr());
        self.assert_own(object);
        self.collector.roots().enter(self.record.shard, self.heap_number(), object)
    }

    /// What `addr` is to this heap. It may be any number: an address inside an object, on a free page, in
    /// another heap, of the kernel, or none at all. No memory of the heap is looked at.
    ///
    /// - An object of this heap that the open closure holds is found, by the address of any of its bytes,
    ///   whatever other threads allocate, sweep and free meanwhile.
    /// - That an object is found says that its slot was taken at some moment of the call, and not that the
    ///   object is complete or reachable: a mutator takes slots before it fills them, and objects that die
    ///   stay until they are swept. So a number does not become a pointer by being found.
    /// - Another heap is only named, not looked into, and may be gone when the answer is read.
    ///
    /// # Panics
    /// When no closure is open: the heap could be dropped meanwhile.
    pub fn find_object(&self, addr: Addr) -> Lookup {
        assert!(self.is_inside(), "an address is looked up outside of a closure");
        self.collector.central().assert_here();
        self.collector.central().find_object(addr)
    }
}

impl Drop for Mutator {
    fn drop(&mut self) {
        // A mutator that is dropped inside its closure (a panic in code that does not unwind through
        // `leave`) still leaves, or no cycle would ever end.
        if self.depth.replace(1) > 0 {
            self.leave();
        }
        // Elsewhere, the list of mutators may be locked for ever.
        if !self.collector.central().is_here() {
            return;
        }
        self.collector.registry().detach(&self.record, self.collector.central());
    }
}
