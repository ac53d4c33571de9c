//! [`Weak`]: a pointer that does not keep its object alive.
//!
//! A `Weak` points to a *handle*, a small object that the heap makes for the first weak pointer to an object and
//! that all weak pointers to it share. So a `Weak` is copied, compared and stored like a [`Gc`], and
//! when the object dies, all of them are cleared at one moment. For an unsized object the `Weak` carries the
//! length, too.
//!
//! What upgrading has to do with a collection cycle is said in `spanheap_core::collect`.
//!
//! # Safety
//! - W1. The first word of the pointer in a `Weak<'gc, T>` is the address of a handle in the heap of the closure
//!   branded `'gc`; the rest, if there is any, is the metadata of the object that the handle was made for, a `T`.
//!   So the address in the handle, if there is one, makes a valid pointer together with it.
#![allow(unsafe_code)]

use crate::gc::{Gc, Invariant};
use crate::mutator::Mutator;
use crate::root::RootedPointer;
use crate::rootable::Rootable;
use crate::trace::{Trace, Tracer};
use core::fmt;
use core::hash::{Hash, Hasher};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use spanheap_core::addr::Addr;
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::heap::OutOfMemory;
use spanheap_core::span::layout::Shape;
use std::sync::Arc;

/// The same pointer with another address.
fn with_addr<T: ?Sized>(pointer: NonNull<T>, addr: NonNull<u8>) -> NonNull<T> {
    let mut pointer = pointer;
    // SAFETY: a pointer begins with its address, whether it is one word or two (a constant in `gc.rs` does not
    // compile otherwise), and is never null here.
    unsafe { core::ptr::from_mut(&mut pointer).cast::<NonNull<u8>>().write(addr) };
    pointer
}

/// A pointer to an object that may die: made by [`Mutator::downgrade`], followed by [`Weak::upgrade`].
///
/// One word for sized types, two for slices and `str`. `Option<Weak<T>>` is as large as `Weak<T>`. It may be stored
/// wherever a [`Gc`] may, in a [`GcCell`](crate::GcCell) too, and like a `Gc` it cannot leave its closure:
/// outside, there is [`WeakRoot`].
///
/// Two weak pointers are equal if they were made for the same object, also when it is dead by now. Values of
/// type `T` are not compared.
///
/// ```
/// use spanheap::{Gc, Heap, Trace, Weak};
///
/// #[derive(Trace)]
/// struct Child<'gc> {
///     parent: Weak<'gc, String>,
/// }
///
/// let heap = Heap::new();
/// let child = heap.enter(|mc| {
///     let parent = mc.alloc(String::from("parent"));
///     let child = mc.alloc(Child { parent: mc.downgrade(parent) });
///     assert_eq!(child.parent.upgrade(mc).unwrap().as_str(), "parent");
///     mc.root::<spanheap::Rootable![Child<'_>]>(child)
/// });
/// let _ = heap.collect();
/// heap.enter(|mc| assert!(child.get(mc).parent.upgrade(mc).is_none()));
/// ```
///
/// # When an object is dead
/// A collection cycle decides it, for all objects at one moment: what nothing but weak pointers leads to is dead
/// from then on, for everybody and for ever. An upgrade before that moment keeps the object alive through
/// this cycle. An object that is revived by a [`FinalizerQueue`](crate::FinalizerQueue) was dead: its weak
/// pointers stay empty, and new ones can be made.
///
/// A value of less than 16 bytes without pointers shares its memory with others that were made at about the same
/// time, and dies with the last of them. A value without any bytes has an address like any other.
#[repr(transparent)]
pub struct Weak<'gc, T: ?Sized> {
    /// The address of the handle, with the metadata of the target.
    pointer: NonNull<T>,
    _brand: Invariant<'gc>,
}

impl<T: ?Sized> Clone for Weak<'_, T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Weak<'_, T> {}

// SAFETY: a weak pointer gives out a `Gc`, and may be where one may be.
unsafe impl<T: ?Sized + Send + Sync> Send for Weak<'_, T> {}
// SAFETY: as above.
unsafe impl<T: ?Sized + Send + Sync> Sync for Weak<'_, T> {}

impl<'gc, T: ?Sized> Weak<'gc, T> {
    /// Makes a weak pointer of its pointer.
    ///
    /// # Safety
    /// W1.
    pub(crate) unsafe fn from_pointer(pointer: NonNull<T>) -> Weak<'gc, T> {
        Weak { pointer, _brand: PhantomData }
    }

    /// The address of the handle.
    #[inline]
    pub(crate) fn addr(self) -> Addr {
        Addr::of(self.pointer.as_ptr())
    }

    /// The object, if it is alive. It stays so as long as the closure is open.
    ///
    /// Most of the time this is a load. While a cycle marks, the object is looked up among the marks, and
    /// handed to the collector if it has none yet.
    #[inline]
    pub fn upgrade(self, mc: &Mutator<'gc>) -> Option<Gc<'gc, T>> {
        // SAFETY: W1: a handle begins with the word; this closure holds it.
        let handle = unsafe { self.pointer.cast::<AtomicUsize>().as_ref() };
        // SAFETY: `mc` is that of the open closure, by the brand.
        let target = unsafe { mc.core().upgrade(handle) };
        let target = with_addr(self.pointer, NonNull::new(target.as_ptr())?);
        // SAFETY: G1: the object is alive, and from here on held; W1: it is a `T` with this metadata.
        Some(unsafe { Gc::from_pointer(target) })
    }

    /// Whether two weak pointers were made for the same object.
    #[inline]
    pub fn ptr_eq(a: Weak<'gc, T>, b: Weak<'gc, T>) -> bool {
        a.addr() == b.addr()
    }
}

impl<T: ?Sized> PartialEq for Weak<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.addr() == other.addr()
    }
}

impl<T: ?Sized> Eq for Weak<'_, T> {}

impl<T: ?Sized> Hash for Weak<'_, T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.addr().get().hash(state);
    }
}

impl<T: ?Sized> fmt::Debug for Weak<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(Weak)")
    }
}

// SAFETY: the one pointer, to the handle, is reported; it is the first word, never null, and never changes.
// `NonNull` promises that `None` is null there.
unsafe impl<T: ?Sized> Trace for Weak<'_, T> {
    const SHAPE: Shape = Shape::Words(1);
    const EXACT: bool = true;
    const NULLABLE: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        // SAFETY: E1, E2: by W1 this is the address of an object, in the one heap of the brand.
        unsafe { tracer.edge(self.addr()) };
    }
}

impl<'gc> Mutator<'gc> {
    /// A weak pointer to an object. The first one to an object allocates a handle of 16 bytes and a record, the
    /// others share these.
    ///
    /// # Panics
    /// When there is no memory: see [`Mutator::try_downgrade`].
    #[inline]
    #[track_caller]
    pub fn downgrade<T: ?Sized>(&self, object: Gc<'gc, T>) -> Weak<'gc, T> {
        match self.try_downgrade(object) {
            Ok(weak) => weak,
            Err(error) => panic!("{error}"),
        }
    }

    /// A weak pointer to an object, if there is room for its handle.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`].
    pub fn try_downgrade<T: ?Sized>(
        &self,
        object: Gc<'gc, T>,
    ) -> Result<Weak<'gc, T>, OutOfMemory> {
        // SAFETY: the object is this heap's, by the brand, and this closure holds it.
        let handle = unsafe { self.core().downgrade(object.addr()) }?;
        let pointer = with_addr(object.pointer(), handle.cast());
        // SAFETY: W1: the handle is that of the object, whose metadata the pointer keeps.
        Ok(unsafe { Weak::from_pointer(pointer) })
    }

    /// Keeps a weak pointer beyond the closure: see [`WeakRoot`].
    pub fn root_weak<R: for<'a> Rootable<'a>>(
        &self,
        weak: Weak<'gc, <R as Rootable<'gc>>::Root>,
    ) -> WeakRoot<R> {
        // SAFETY: the handle is an object of this closure's heap, by W1.
        let record = unsafe { self.core().root(weak.pointer.cast()) };
        WeakRoot { record, pointer: RootedPointer::erase::<R>(weak.pointer), _type: PhantomData }
    }
}

/// A [`Weak`] outside of closures: it retains the handle, and not the object.
///
/// ```
/// use spanheap::{Heap, Rootable, WeakRoot};
///
/// let heap = Heap::new();
/// let (weak, strong): (WeakRoot<Rootable![str]>, _) = heap.enter(|mc| {
///     let name = mc.alloc_str("a name of some length");
///     (mc.root_weak(mc.downgrade(name)), mc.root::<Rootable![str]>(name))
/// });
/// let _ = heap.collect();
/// assert_eq!(heap.enter(|mc| weak.upgrade(mc).map(|name| name.len())), Some(21));
/// drop(strong);
/// let _ = heap.collect();
/// assert!(heap.enter(|mc| weak.upgrade(mc).is_none()));
/// ```
pub struct WeakRoot<R: for<'a> Rootable<'a>> {
    record: Arc<RootRecord>,
    pointer: RootedPointer,
    /// Invariant in `R`, as in `Root`.
    _type: PhantomData<fn(R) -> R>,
}

// SAFETY: as for `Root`.
unsafe impl<R: for<'a> Rootable<'a>> Send for WeakRoot<R> {}
// SAFETY: as for `Root`.
unsafe impl<R: for<'a> Rootable<'a>> Sync for WeakRoot<R> {}

impl<R: for<'a> Rootable<'a>> WeakRoot<R> {
    /// The weak pointer, for an open closure of its heap.
    ///
    /// # Panics
    /// When the closure belongs to another heap.
    #[track_caller]
    pub fn get<'gc>(&self, mc: &Mutator<'gc>) -> Weak<'gc, <R as Rootable<'gc>>::Root> {
        let (own, other) = (self.record.heap(), mc.core().heap_number());
        assert!(
            own == other,
            "a weak root of heap {own} was opened in a closure of heap {other}: open it in its own"
        );
        // SAFETY: O1, and the heap is that of the closure.
        let pointer = unsafe { self.pointer.restore::<R>() };
        // SAFETY: W1: the handle is retained by the root, and from here on by the closure.
        unsafe { Weak::from_pointer(pointer) }
    }

    /// The object, if it is alive.
    ///
    /// # Panics
    /// As [`WeakRoot::get`].
    #[track_caller]
    pub fn upgrade<'gc>(&self, mc: &Mutator<'gc>) -> Option<Gc<'gc, <R as Rootable<'gc>>::Root>> {
        self.get(mc).upgrade(mc)
    }
}

impl<R: for<'a> Rootable<'a>> Clone for WeakRoot<R> {
    fn clone(&self) -> WeakRoot<R> {
        WeakRoot { record: self.record.clone(), pointer: self.pointer, _type: PhantomData }
    }
}

impl<R: for<'a> Rootable<'a>> fmt::Debug for WeakRoot<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WeakRoot(in heap {})", self.record.heap())
    }
}
