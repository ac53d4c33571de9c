//! What the expansion of `#[derive(Trace)]` and of `Rootable!` refers to. Not for anybody else, and
//! without any promise from one version to the next.

pub use spanheap_core::span::layout::Shape;
pub use spanheap_derive::unelide_lifetimes;

/// Implemented for all types that cannot hold a [`Gc`](crate::Gc): its lifetime is never `'static`.
///
/// The expansion calls the function for every leaf field. A trait, so that the call begins and ends
/// with the field's type in the user's source, which is then what the compiler's message
/// underlines.
pub trait AssertStatic {
    /// Compiles only for a type that is `'static`.
    #[inline(always)]
    fn assert_static() {}
}

impl<T: ?Sized + 'static> AssertStatic for T {}

/// Implemented for all types that implement `Drop`, and by the derive for types that must not: for
/// a type that is both, the compiler finds two implementations, and its message tells this name.
///
/// A destructor runs when the collector has found the object dead, and the objects that it points
/// to may be gone by then.
pub trait TypesThatHoldGcMustNotImplementDrop {}

#[expect(drop_bounds, reason = "the bound is meant literally: it asks for an `impl Drop`")]
impl<T: Drop + ?Sized> TypesThatHoldGcMustNotImplementDrop for T {}
