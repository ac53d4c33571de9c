//! [`GcCell`]: a pointer field that can change.
//!
//! The cell is one atomic word. Loading it is a plain load; storing looks at one flag of the closure and
//! is a plain store when no cycle runs. While one does, the pointer that is overwritten goes to the collector, which
//! must not lose what the snapshot could reach through it; and while one begins, the store is an exchange.
//!
//! # Safety
//! - C1. The word is null or a `Gc` (or a pointer that is its like: `Weak`, `ArenaGc`) of the closure that looks, by
//!   the brand: whoever stored it had the object that holds the cell, and so the same heap. It was stored as the type
//!   that it is loaded as, since the cell is invariant in `W`.
#![allow(unsafe_code)]

use crate::gc::{Gc, Invariant};
use crate::mutator::Mutator;
use crate::shared_arena::ArenaGc;
use crate::trace::{Trace, Tracer};
use crate::weak::Weak;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicUsize, Ordering};
use spanheap_core::addr::Addr;
use spanheap_core::span::layout::Shape;

mod sealed {
    pub trait Sealed {}
    impl<T> Sealed for super::Gc<'_, T> {}
    impl<T> Sealed for Option<super::Gc<'_, T>> {}
    impl<T> Sealed for super::ArenaGc<'_, T> {}
    impl<T> Sealed for Option<super::ArenaGc<'_, T>> {}
    impl<T> Sealed for super::Weak<'_, T> {}
    impl<T> Sealed for Option<super::Weak<'_, T>> {}
}

/// What fits in a [`GcCell`]: `Gc<'gc, T>`, [`Weak<'gc, T>`](Weak) and [`ArenaGc<'gc, T>`](ArenaGc), and `Option`s of
/// these, for sized `T`.
pub trait GcWord<'gc>: Copy + sealed::Sealed {
    #[doc(hidden)]
    fn to_addr(self) -> Addr;
    /// # Safety
    /// `addr` came from `to_addr` of the same type, and the object is valid in `'gc`.
    #[doc(hidden)]
    unsafe fn from_addr(addr: Addr) -> Self;
}

/// Implements [`GcWord`] for a pointer that is one word and never null, and for an `Option` of it.
macro_rules! words {
    ($($pointer:ident),*) => {$(
        impl<'gc, T> GcWord<'gc> for $pointer<'gc, T> {
            #[inline]
            fn to_addr(self) -> Addr {
                self.addr()
            }

            #[inline]
            unsafe fn from_addr(addr: Addr) -> Self {
                // SAFETY: the address of a pointer is not null.
                let pointer = unsafe { NonNull::new_unchecked(addr.as_ptr()) };
                // SAFETY: the caller says that it is the address of such an object, value or handle, and valid.
                unsafe { $pointer::from_pointer(pointer) }
            }
        }

        impl<'gc, T> GcWord<'gc> for Option<$pointer<'gc, T>> {
            #[inline]
            fn to_addr(self) -> Addr {
                self.map_or(Addr::NULL, $pointer::addr)
            }

            #[inline]
            unsafe fn from_addr(addr: Addr) -> Self {
                // SAFETY: as above, unless there is none.
                NonNull::new(addr.as_ptr()).map(|pointer| unsafe { $pointer::from_pointer(pointer) })
            }
        }
    )*};
}

words! { Gc, ArenaGc, Weak }

/// A field of an object that holds a `Gc<'gc, T>` or an `Option<Gc<'gc, T>>`, or another [`GcWord`], and can be changed
/// by any thread that has the object.
#[repr(transparent)]
pub struct GcCell<'gc, W> {
    word: AtomicUsize,
    /// Invariant in `W`: what is put in through one type is taken out through the same. With a cell that
    /// could be viewed as one of a wider type, a pointer of that type could be smuggled in.
    _holds: PhantomData<fn(W) -> W>,
    _brand: Invariant<'gc>,
}

// SAFETY: the word is atomic; sharing the cell shares what it points to, so `W` decides.
unsafe impl<W: Send + Sync> Send for GcCell<'_, W> {}
// SAFETY: as above.
unsafe impl<W: Send + Sync> Sync for GcCell<'_, W> {}

impl<'gc, W: GcWord<'gc>> GcCell<'gc, W> {
    /// A cell that holds `value`.
    #[inline]
    pub fn new(value: W) -> GcCell<'gc, W> {
        let word = AtomicUsize::new(value.to_addr().get());
        GcCell { word, _holds: PhantomData, _brand: PhantomData }
    }

    /// What the cell holds.
    #[inline]
    pub fn get(&self) -> W {
        // Acquire: the object that is found was published by the store that is read.
        let addr = Addr::new(self.word.load(Ordering::Acquire));
        // SAFETY: C1.
        unsafe { W::from_addr(addr) }
    }

    /// Makes the cell hold `value`.
    #[inline]
    pub fn set(&self, mc: &Mutator<'gc>, value: W) {
        // SAFETY: `mc` is the mutator of the closure that has both the cell and `value`, by the brand.
        unsafe { mc.core().write(&self.word, value.to_addr()) };
    }

    /// Makes the cell hold `value` and returns what it held, and no other thread comes in between.
    ///
    /// It is an atomic exchange in every phase, for which the processor waits until earlier stores are done, and which
    /// later loads wait for. Where nobody else changes the cell, because the caller holds a lock, [`GcCell::get`]
    /// followed by [`GcCell::set`] costs less.
    #[inline]
    pub fn swap(&self, mc: &Mutator<'gc>, value: W) -> W {
        // SAFETY: as in `set`.
        let old = unsafe { mc.core().swap(&self.word, value.to_addr()) };
        // SAFETY: C1; and what was overwritten is retained by the barrier, if a cycle runs.
        unsafe { W::from_addr(old) }
    }

    /// Makes the cell hold `new` if it holds `current`, which is the same object or also nothing; returns what
    /// it held. Another thread cannot come in between.
    ///
    /// Objects are compared, not their contents. While the closure holds `current`, no other object can
    /// take its place.
    ///
    /// # Errors
    /// What the cell holds, when that is not `current`.
    #[inline]
    pub fn compare_exchange(&self, mc: &Mutator<'gc>, current: W, new: W) -> Result<W, W> {
        let (expected, new) = (current.to_addr(), new.to_addr());
        // SAFETY: as in `set`; the closure holds `current`, too.
        match unsafe { mc.core().compare_exchange(&self.word, expected, new) } {
            Ok(_) => Ok(current),
            // SAFETY: C1.
            Err(found) => Err(unsafe { W::from_addr(found) }),
        }
    }

    /// Makes the cell hold what `f` returns for what it holds, and returns what it held; `None` of `f` leaves
    /// the cell alone. If another thread comes in between, `f` is called again.
    ///
    /// # Errors
    /// What the cell holds, when `f` has returned `None` for it.
    pub fn fetch_update(
        &self,
        mc: &Mutator<'gc>,
        mut f: impl FnMut(W) -> Option<W>,
    ) -> Result<W, W> {
        let mut held = self.get();
        while let Some(new) = f(held) {
            match self.compare_exchange(mc, held, new) {
                Ok(old) => return Ok(old),
                Err(other) => held = other,
            }
        }
        Err(held)
    }

    /// Makes the cell hold `value` and returns what it held: [`GcCell::swap`] by the name that
    /// [`Cell`](core::cell::Cell) gives it.
    #[inline]
    pub fn replace(&self, mc: &Mutator<'gc>, value: W) -> W {
        self.swap(mc, value)
    }

    /// Empties the cell and returns what it held.
    #[inline]
    pub fn take(&self, mc: &Mutator<'gc>) -> W
    where
        W: Default,
    {
        self.swap(mc, W::default())
    }

    /// What the cell holds; the cell is not in a heap, or is not any more.
    #[inline]
    pub fn into_inner(self) -> W {
        self.get()
    }
}

/// Many cells that lie next to each other: `GcCell::fill(&table, mc, None)`. The phase of the collector is looked at
/// once for all of them. Cells change one after the other, and another thread may see some of them changed and others
/// not, or come in between with a store of its own.
impl<'gc, W: GcWord<'gc>> GcCell<'gc, W> {
    /// Makes all cells hold `value`.
    ///
    /// ```
    /// # use spanheap::{Gc, GcCell, Heap};
    /// Heap::new().enter(|mc| {
    ///     let table: Gc<'_, [GcCell<'_, Option<Gc<'_, u64>>>]> = mc.alloc_zeroed(100);
    ///     GcCell::fill(&table, mc, Some(mc.alloc(7)));
    ///     GcCell::fill(&table[10..], mc, None);
    ///     assert_eq!(table.iter().filter_map(|cell| cell.get()).map(|seven| *seven).sum::<u64>(), 70);
    /// });
    /// ```
    pub fn fill(cells: &[Self], mc: &Mutator<'gc>, value: W) {
        let value = value.to_addr();
        // SAFETY: as in `set`.
        unsafe { mc.core().write_all(cells.iter().map(|cell| (&cell.word, value))) };
    }

    /// Makes each cell hold the value that has its place in `values`.
    ///
    /// # Panics
    /// When there are not as many values as cells.
    #[track_caller]
    pub fn copy_from_slice(cells: &[Self], mc: &Mutator<'gc>, values: &[W]) {
        assert_same_length(cells.len(), values.len());
        let values = values.iter().map(|value| value.to_addr());
        // SAFETY: as in `set`.
        unsafe { mc.core().write_all(cells.iter().map(|cell| &cell.word).zip(values)) };
    }

    /// Makes each cell hold what the cell that has its place in `from` holds. If some of `from` are among `cells`,
    /// use [`GcCell::copy_within`].
    ///
    /// # Panics
    /// When there are not as many of the one as of the other.
    #[track_caller]
    pub fn copy_from_cells(cells: &[Self], mc: &Mutator<'gc>, from: &[Self]) {
        assert_same_length(cells.len(), from.len());
        let values = from.iter().map(|cell| cell.get().to_addr());
        // SAFETY: as in `set`; what a cell holds the closure has by loading it.
        unsafe { mc.core().write_all(cells.iter().map(|cell| &cell.word).zip(values)) };
    }

    /// Copies what the cells of a range hold to as many cells from `to` on, which may be among them: as
    /// [`slice::copy_within`] does.
    ///
    /// # Panics
    /// When the range or the place to copy it to is not inside of `cells`.
    #[track_caller]
    pub fn copy_within(
        cells: &[Self],
        mc: &Mutator<'gc>,
        from: impl core::ops::RangeBounds<usize>,
        to: usize,
    ) {
        use core::ops::Bound;
        // Bounds that overflow are outside of any cells.
        let next = |at: usize| at.checked_add(1).expect("the range ends behind the last number");
        let first = match from.start_bound() {
            Bound::Included(&first) => first,
            Bound::Excluded(&before) => next(before),
            Bound::Unbounded => 0,
        };
        let behind = match from.end_bound() {
            Bound::Included(&last) => next(last),
            Bound::Excluded(&behind) => behind,
            Bound::Unbounded => cells.len(),
        };
        let source = &cells[first..behind];
        let target = &cells[to..];
        assert!(source.len() <= target.len(), "{} cells are copied to {to}", source.len());
        let pairs = target.iter().zip(source).map(|(to, from)| (&to.word, from));
        let loaded = |(to, from): (_, &Self)| (to, from.get().to_addr());
        // Each is read before it is written over.
        if to <= first {
            // SAFETY: as in `copy_from_cells`.
            unsafe { mc.core().write_all(pairs.map(loaded)) };
        } else {
            // SAFETY: as above.
            unsafe { mc.core().write_all(pairs.rev().map(loaded)) };
        }
    }
}

#[inline]
#[track_caller]
fn assert_same_length(cells: usize, values: usize) {
    assert!(cells == values, "{values} values are copied to {cells} cells");
}

impl<'gc, W: GcWord<'gc> + Default> Default for GcCell<'gc, W> {
    fn default() -> GcCell<'gc, W> {
        GcCell::new(W::default())
    }
}

impl<'gc, W: GcWord<'gc> + fmt::Debug> fmt::Debug for GcCell<'gc, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A graph may have cycles, so what the cell points to is not followed.
        write!(f, "GcCell({:#x})", self.word.load(Ordering::Relaxed))
    }
}

// SAFETY: the one word is reported; it holds null or a pointer at all times and changes only atomically.
unsafe impl<W> Trace for GcCell<'_, W> {
    const SHAPE: Shape = Shape::Words(1);
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        let target = Addr::new(self.word.load(Ordering::Acquire));
        // SAFETY: E1, E2: the word holds null or a `Gc` of the closure's heap, where the cell is too.
        unsafe { tracer.edge_unchecked(target) };
    }
}
