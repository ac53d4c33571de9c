//! [`Trace`]: how the collector finds the pointers of a type.
//!
//! # Safety
//! Nothing unsafe is done here; the trait is unsafe to implement. Its six promises are what marking
//! relies on: a pointer that is not reported is an object that is freed while it is in use.

use spanheap_core::span::layout::Shape;
pub use spanheap_core::span::tracer::Tracer;

/// A type whose values may live in a heap: the collector can find every [`Gc`](crate::Gc) in them.
///
/// Write `#[derive(Trace)]`; it is always right. See the crate documentation for what may be derived.
///
/// # Safety
/// An implementation by hand promises:
/// 1. `trace` reports every `Gc` that the value holds, directly or through memory that it owns, each time.
/// 2. `SHAPE` is the truth about the layout of the type: [`Shape::NoScan`] only if no value ever holds
///    a `Gc`; [`Shape::Words`] only if exactly these words hold `Gc`s or null at all times.
/// 3. The type holds no borrow but of `'static` data (other than through `Gc`), and if it may hold a
///    `Gc` it does not implement `Drop`.
/// 4. What `trace` reads changes only under a lock that `trace` takes, or atomically.
/// 5. `LEAF` is true only if `Self: 'static`.
/// 6. `NULLABLE` is true only if `None` of `Option<Self>` has null where `Self` has its pointer.
///
/// A type that is `'static` holds no `Gc`, and everybody relies on it: a `Gc` carries the lifetime
/// of the closure that it was made in, which is never `'static`. So an implementation for a type
/// without parameters has nothing to report, and may find that it is never asked.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not implement `Trace`, so it cannot live in a spanheap heap",
    label = "the collector does not know where the pointers in `{Self}` are",
    note = "add `#[derive(Trace)]` to the type; for a foreign type that holds no `Gc`, put it in a field marked `#[trace(leaf)]`"
)]
pub unsafe trait Trace {
    /// Where the pointers of a value lie.
    const SHAPE: Shape = Shape::Opaque;

    /// Whether `Option<Self>` keeps the shape of `Self`, with null where the pointer would be. True for
    /// `Gc`, which is never null.
    const NULLABLE: bool = false;

    /// Whether the type is `'static`, and so holds no `Gc`, as far as its parameters alone tell.
    ///
    /// This is what collections ask for about their elements instead of the shape: a type's shape
    /// depends on its fields, so for a type that owns a collection of itself, as trees do, the
    /// shape would depend on itself, and the compiler refuses that.
    const LEAF: bool = false;

    /// Whether the implementation is right by construction: derived, or one of this crate's, and so are those of
    /// all fields. Then [`HeapBuilder::verify_trace`](crate::HeapBuilder::verify_trace) does not look for
    /// pointers that it misses, and cannot mistake a number for one. What memory elsewhere holds does not count.
    const EXACT: bool = false;

    /// Reports every `Gc` in the value.
    ///
    /// It is called in the midst of a collection: on threads of the collector's, and inside of any allocation in any
    /// closure, since a thread that allocates may have to mark for a while. So it may lock what only other `trace`
    /// functions and short sections lock, and *must not wait for a lock that somebody holds while he allocates*, or
    /// while he waits for another closure: he may be the one who traces. Such a wait would never end, and
    /// nobody would tell. It may not enter a heap, allocate in one or collect: that
    /// panics. A panic in it is contained; the cycle then retains everything.
    fn trace(&self, tracer: &mut Tracer<'_>);
}
