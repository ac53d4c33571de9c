//! The expansion of the derive of `Trace` contains an `unsafe impl`, and that of `Promote` does not. A crate that forbids unsafe code, and
//! asks for documentation of everything, can use it all the same.
#![forbid(unsafe_code)]
#![deny(warnings, missing_docs, unused_qualifications, unreachable_pub, clippy::pedantic)]

use spanheap::{Gc, Heap, Promote, Shape, Trace};

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

/// What is read.
#[derive(Promote)]
#[promote(into = Kept<'gc, <T as Promote<'gc>>::Promoted>)]
pub enum Read<'a, T> {
    /// A word.
    Word(&'a str, &'a [T]),
    /// The end.
    End {
        /// Where it is.
        at: usize,
        /// Why, which is no longer asked.
        #[deprecated]
        #[promote(clone)]
        why: Option<&'static str>,
    },
}

/// What is kept.
#[derive(Trace)]
pub enum Kept<'gc, T> {
    /// A word.
    Word(Gc<'gc, str>, Gc<'gc, [T]>),
    /// The end.
    End {
        /// Where it is.
        at: usize,
        /// Why, which is no longer asked.
        #[deprecated]
        why: Option<&'static str>,
    },
}

#[test]
fn derived_promotions_are_as_elsewhere() {
    Heap::new().enter(|mc| {
        let kept = mc.promote(Read::Word("word", &[1_u8, 2]));
        assert!(matches!(kept, Kept::Word(text, bytes) if text.len() == bytes.len() + 2));
    });
}

#[test]
fn derived_implementations_are_as_elsewhere() {
    assert_eq!(<Token<u8>>::SHAPE, Shape::NoScan);
    assert_eq!(<Handle<u8>>::SHAPE, Shape::NoScan);
    assert!(Handle::<u8>(None).0.is_none());
}
