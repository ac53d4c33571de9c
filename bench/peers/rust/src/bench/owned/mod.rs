//! Memory that is freed when its owner goes: `Box`, `Rc`, `Arc`.
//!
//! They do the same work with different pointers, so the workloads are written once, for a [`Pointer`]. It is a
//! choice at compile time: the code that runs is what one would write for each by hand.
//!
//! # What they cannot do
//! - A `Box` has one owner. Graphs with shared nodes cannot be made of it but by raw pointers, and there is no
//!   marking: the workload `marking` has no meaning for any of the three.
//! - `Rc` and `Arc` share, but free no cycles. No workload here leaves a cycle as garbage unless its owner takes it
//!   apart.
//! - Dropping a tree visits every node of it, at a time that the program has chosen; so does the drop of a
//!   message. That is what a collector saves, and what it has to be held against.
//!
//! The cache of `lru` is where they part: with boxes it is plain pointers and unsafe code, with counted pointers it
//! is safe. `Rc` cannot share its cache with other threads.
//!
//! Nodes that get their children after they were made (gcbench, top-down) have one owner at that time. An `Rc` or
//! `Arc` gives out `&mut` then ([`Pointer::exclusive`]), which is cheaper than a cell in each node.

mod binary_trees;
mod gcbench;
mod lru_boxes;
mod lru_counted;
mod message_bus;
mod spatial_index;
mod start_up;

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

pub use binary_trees::binary_trees;
pub use gcbench::gcbench;
pub use lru_boxes::lru_boxes;
pub use lru_counted::{lru_arc, lru_rc};
pub use message_bus::message_bus;
pub use spatial_index::{Links, spatial_index};
pub use start_up::start_up;

/// A pointer that owns what it points to, alone or with others.
pub trait Pointer: 'static {
    type To<T>: Deref<Target = T>;
    type Bytes: Deref<Target = [u8]>;

    fn new<T>(value: T) -> Self::To<T>;

    /// Access to what nobody else points to.
    fn exclusive<T>(pointer: &mut Self::To<T>) -> &mut T;

    /// So many equal bytes.
    fn bytes(byte: u8, count: usize) -> Self::Bytes;
}

/// `Box`
pub struct Boxes;

impl Pointer for Boxes {
    type To<T> = Box<T>;
    type Bytes = Box<[u8]>;

    #[inline(always)]
    fn new<T>(value: T) -> Box<T> {
        Box::new(value)
    }

    #[inline(always)]
    fn exclusive<T>(pointer: &mut Box<T>) -> &mut T {
        pointer
    }

    #[inline(always)]
    fn bytes(byte: u8, count: usize) -> Box<[u8]> {
        vec![byte; count].into_boxed_slice()
    }
}

macro_rules! counted {
    ($name:ident, $pointer:ident) => {
        #[doc = concat!("`", stringify!($pointer), "`")]
        pub struct $name;

        impl Pointer for $name {
            type To<T> = $pointer<T>;
            type Bytes = $pointer<[u8]>;

            #[inline(always)]
            fn new<T>(value: T) -> $pointer<T> {
                $pointer::new(value)
            }

            #[inline(always)]
            fn exclusive<T>(pointer: &mut $pointer<T>) -> &mut T {
                $pointer::get_mut(pointer).expect("a new object has one owner")
            }

            #[inline(always)]
            fn bytes(byte: u8, count: usize) -> $pointer<[u8]> {
                // Counts and bytes in one block, which is filled in place.
                std::iter::repeat_n(byte, count).collect()
            }
        }
    };
}

counted!(Counted, Rc);
counted!(AtomicallyCounted, Arc);
