//! What the expansion of `#[derive(Trace)]` and of `Rootable!` refers to. Not for anybody else, and
//! without any promise from one version to the next.
//!
//! Nothing that a check of the derive rests on is in here: a program can say that the crate is elsewhere, and
//! have something else there.

pub use spanheap_core::span::layout::Shape;
pub use spanheap_derive::unelide_lifetimes;
