//! The expansion of the derive contains an `unsafe impl`. A crate that forbids unsafe code, and
//! asks for documentation of everything, can use it all the same.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unused_qualifications, unreachable_pub, clippy::pedantic)]

use spanheap::{Shape, Trace};

/// A type as anybody would write it.
#[derive(Trace)]
pub enum Token<T> {
    /// A word.
    Word(String, T),
    /// The end.
    End {
        /// Where it is.
        at: usize,
        /// Why, which is no longer asked.
        #[deprecated]
        #[trace(leaf)]
        why: Option<&'static str>,
    },
}

/// A generic handle.
#[derive(Trace)]
#[trace(leaf)]
pub struct Handle<T>(Option<T>);

#[test]
fn derived_implementations_are_as_elsewhere() {
    assert_eq!(<Token<u8>>::SHAPE, Shape::NoScan);
    assert_eq!(<Handle<u8>>::SHAPE, Shape::NoScan);
    assert!(Handle::<u8>(None).0.is_none());
}
