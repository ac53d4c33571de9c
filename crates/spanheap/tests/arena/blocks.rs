//! The allocator: a random program of blocks against a model that knows their contents; and the collections of both
//! versions of the trait.
//!
//! # Safety
//! Blocks are read and written while the model has them, with the layouts that the allocator was told, and given back once.
#![allow(unsafe_code)]

use crate::{quiet, with_arena};
use allocator_api2_02::alloc::Allocator as _;
use allocator_api2_02::boxed::Box as Box02;
use allocator_api2_02::vec::Vec as Vec02;
use allocator_api2_04::vec::Vec as Vec04;
use proptest::prelude::*;
use spanheap::Arena;
use std::alloc::Layout;
use std::ptr::NonNull;

#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate { size: usize, shift: u32, zeroed: bool },
    Free { which: usize },
    Resize { which: usize, size: usize, shift: u32, zeroed: bool },
    Value,
}

fn size() -> impl Strategy<Value = usize> {
    prop_oneof![
        8 => 0..200_usize,
        3 => 0..20_000_usize,
        1 => (2_usize << 20) - 5000..(2_usize << 20) + 5000,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (size(), 0..14_u32, any::<bool>())
            .prop_map(|(size, shift, zeroed)| Step::Allocate { size, shift, zeroed }),
        // Mostly the newest ones, which are the ones that something is done about.
        3 => (0..4_usize).prop_map(|which| Step::Free { which }),
        1 => any::<usize>().prop_map(|which| Step::Free { which }),
        4 => (0..4_usize, size(), 0..14_u32, any::<bool>())
            .prop_map(|(which, size, shift, zeroed)| Step::Resize { which, size, shift, zeroed }),
        1 => Just(Step::Value),
    ]
}

/// A block with a byte that fills it.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    byte: u8,
}

impl Block {
    /// Fills a block that came from the allocator, of which the first bytes are `kept`.
    fn take(from: NonNull<[u8]>, layout: Layout, kept: Option<(u8, usize)>, byte: u8) -> Block {
        let start = from.cast::<u8>();
        assert!(start.as_ptr().addr().is_multiple_of(layout.align()));
        assert!(from.len() >= layout.size());
        let mut block = Block { start, layout, byte };
        if let Some((old, len)) = kept {
            assert!(block.bytes()[..len].iter().all(|&byte| byte == old), "contents were lost");
        }
        block.bytes().fill(byte);
        block
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the model has the block, and it is filled.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }

    fn check(&mut self) {
        let byte = self.byte;
        assert!(self.bytes().iter().all(|&found| found == byte), "a block was written over");
    }
}

fn assert_zero(from: NonNull<[u8]>, beyond: usize, to: usize) {
    for index in beyond..to {
        // SAFETY: the block is that long, and was zeroed there.
        assert_eq!(unsafe { from.cast::<u8>().add(index).read() }, 0);
    }
}

/// One step; `None` when it has nothing to work on.
fn run(arena: &Arena<'_>, held: &mut Vec<Block>, step: Step, byte: u8) {
    let newest = |held: &Vec<Block>, which: usize| {
        held.len().checked_sub(1).map(|last| last - which % held.len())
    };
    match step {
        Step::Allocate { size, shift, zeroed } => {
            let layout = Layout::from_size_align(size, 1 << shift).unwrap();
            let found = match zeroed {
                true => (&arena).allocate_zeroed(layout).unwrap(),
                false => (&arena).allocate(layout).unwrap(),
            };
            if zeroed {
                assert_zero(found, 0, size);
            }
            held.push(Block::take(found, layout, None, byte));
        }
        Step::Free { which } => {
            let Some(at) = newest(held, which) else { return };
            let mut block = held.remove(at);
            block.check();
            // SAFETY: the model had it.
            unsafe { (&arena).deallocate(block.start, block.layout) };
        }
        Step::Resize { which, size, shift, zeroed } => {
            let Some(at) = newest(held, which) else { return };
            let mut block = held.remove(at);
            block.check();
            let old = block.layout;
            let layout = Layout::from_size_align(size, 1 << shift).unwrap();
            // SAFETY: the model had it.
            let found = unsafe {
                match (size >= old.size(), zeroed) {
                    (true, true) => (&arena).grow_zeroed(block.start, old, layout),
                    (true, false) => (&arena).grow(block.start, old, layout),
                    (false, _) => (&arena).shrink(block.start, old, layout),
                }
            };
            let found = found.unwrap();
            if zeroed {
                assert_zero(found, old.size(), size);
            }
            let kept = Some((block.byte, old.size().min(size)));
            held.push(Block::take(found, layout, kept, byte));
        }
        Step::Value => {
            let value = arena.alloc([byte; 24]);
            let layout = Layout::new::<[u8; 24]>();
            held.push(Block { start: NonNull::from(value).cast(), layout, byte });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_keep_their_contents(steps in prop::collection::vec(step(), 1..120)) {
        quiet().enter(|mc| {
            mc.arena(|arena| {
                for _ in 0..2 {
                    let mut held = Vec::new();
                    for (number, &step) in steps.iter().enumerate() {
                        run(arena, &mut held, step, number as u8 | 1);
                        let bytes: usize = held.iter().map(|block| block.layout.size()).sum();
                        assert!(arena.used() >= bytes && arena.reserved() >= arena.used());
                    }
                    held.iter_mut().for_each(Block::check);
                    arena.reset();
                    assert_eq!(arena.used(), 0);
                }
            });
        });
    }
}

#[test]
fn collections_of_both_versions_grow_at_the_top_without_moving() {
    with_arena(|arena| {
        let arena = &*arena;
        let mut numbers = Vec02::new_in(arena);
        numbers.push(0_u64);
        let start = numbers.as_ptr();
        (1..500).for_each(|n| numbers.push(n));
        assert_eq!(numbers.as_ptr(), start, "it is alone at the top of a chunk of 8 KiB");
        assert_eq!(arena.used(), 8 * numbers.capacity());
        numbers.truncate(10);
        numbers.shrink_to_fit();
        assert_eq!((numbers.as_ptr(), arena.used()), (start, 80));
        drop(numbers);
        assert_eq!(arena.used(), 0, "the last block is given back");

        let mut words: Vec04<&str, &Arena<'_>> = Vec04::new_in(arena);
        words.extend(
            "a vector in an arena, of words in the arena".split(' ').map(|w| &*arena.alloc_str(w)),
        );
        assert_eq!(words.join(" "), "a vector in an arena, of words in the arena");
        let boxed = Box02::new_in(String::from("a destructor in a box"), arena);
        assert_eq!(boxed.len(), 21);
    });
}

/// What has pages of its own goes back when a collection outgrows it.
#[test]
fn a_collection_that_grows_leaves_no_large_blocks_behind() {
    with_arena(|arena| {
        let arena = &*arena;
        let mut bytes = Vec02::new_in(arena);
        for n in 0..64 << 20 {
            bytes.push(n as u8);
        }
        assert!(bytes.iter().enumerate().all(|(n, &byte)| n as u8 == byte));
        assert!(arena.reserved() <= (64 << 20) + (8 << 20), "{arena:?}");
    });
}

#[test]
fn an_allocator_refuses_by_an_error() {
    quiet().enter(|mc| {
        mc.arena_with(spanheap::ArenaOptions::new().limit(1 << 20), |arena| {
            let mut bytes: Vec02<u8, &Arena<'_>> = Vec02::new_in(arena);
            assert!(bytes.try_reserve(2 << 20).is_err());
            assert!(bytes.try_reserve(100_000).is_ok());
        });
    });
}
