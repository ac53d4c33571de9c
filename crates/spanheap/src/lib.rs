//! A garbage-collected heap for Rust.

// The expansion of `#[derive(Trace)]` says `::spanheap`, in this crate too.
extern crate self as spanheap;

#[doc(hidden)]
#[path = "private.rs"]
pub mod __private;
mod impls;
mod rootable;
mod trace;

#[doc(hidden)]
pub use rootable::__DynRootable;
pub use rootable::Rootable;
pub use spanheap_core::span::layout::Shape;
pub use spanheap_derive::Trace;
pub use trace::{Trace, Tracer};
