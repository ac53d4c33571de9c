//! What an arena refuses, and that nothing has changed then.

use crate::{PAGE, quiet, with_arena};
use spanheap::{ArenaError, ArenaOptions, Heap};
use std::alloc::Layout;
use std::panic::{AssertUnwindSafe, catch_unwind};

#[test]
fn sizes_that_overflow_are_errors() {
    with_arena(|arena| {
        let too_large = |error: Option<ArenaError>| assert_eq!(error, Some(ArenaError::TooLarge));
        too_large(arena.try_alloc_slice_fill_with(usize::MAX, |n| n).err());
        too_large(arena.try_alloc_slice_fill_default::<u16>(usize::MAX / 2).err());
        too_large(arena.try_alloc_slice_fill_default::<[u64; 32]>(1 << 60).err());
        too_large(arena.try_alloc_slice_fill_iter((0..u64::MAX).map(|n| n as u32)).err());
        too_large(
            arena
                .try_alloc_drop_slice((0..usize::MAX).map(|_| String::new()))
                .err()
                .or(Some(ArenaError::TooLarge)),
        );
        assert_eq!((arena.used(), arena.reserved()), (0, 0));
        // As large as a layout can be, with any alignment.
        for shift in 0..=62 {
            let align = 1_usize << shift;
            let layout = Layout::from_size_align(isize::MAX as usize - (align - 1), align).unwrap();
            let error = arena.try_alloc_layout(layout).unwrap_err();
            assert!(matches!(error, ArenaError::Heap(_)), "{layout:?}: {error}");
        }
        assert_eq!(
            (arena.used(), arena.reserved()),
            (0, PAGE),
            "a record was taken and given back"
        );
        arena.alloc(1);
    });
}

#[test]
fn a_limit_holds_to_the_page_and_chunks_fit_themselves_to_it() {
    let heap = quiet();
    for limit in [0, 1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE, 100 * PAGE + 17, 4 << 20] {
        heap.enter(|mc| {
            mc.arena_with(ArenaOptions::new().limit(limit), |arena| {
                let mut count = 0;
                let error = loop {
                    match arena.try_alloc([1_u64; 8]) {
                        Ok(_) => count += 1,
                        Err(error) => break error,
                    }
                };
                assert!(arena.reserved() <= limit);
                assert_eq!(arena.reserved(), limit / PAGE * PAGE, "all of it can be used");
                assert_eq!(arena.used(), count * 64);
                let chunks = 12;
                assert!(arena.reserved() - arena.used() < chunks * 128, "{arena:?}");
                let ArenaError::Limit { requested, reserved, limit: told, arena: name } = error
                else {
                    panic!("{error}")
                };
                assert_eq!(
                    (requested, reserved, told, name),
                    (PAGE, arena.reserved(), limit, "an arena")
                );
                // Nor can a value with pages of its own get around it.
                assert!(arena.try_alloc_slice_fill_default::<u8>(3 << 20).is_err());
                arena.reset();
                assert_eq!(arena.try_alloc(1_u8).is_ok(), limit >= PAGE);
            });
        });
    }
}

#[test]
fn large_values_count_for_the_limit() {
    let heap = quiet();
    heap.enter(|mc| {
        mc.arena_with(ArenaOptions::new().limit(10 << 20), |arena| {
            let largest = || arena.try_alloc_slice_fill_default::<u8>(4 << 20).is_ok();
            assert_eq!([largest(), largest(), largest()], [true, true, false]);
            assert_eq!(arena.reserved(), (8 << 20) + PAGE);
            arena.reset();
            assert_eq!(arena.reserved(), PAGE);
            assert!(arena.try_alloc_slice_fill_default::<u8>(9 << 20).is_ok());
        });
    });
}

#[test]
fn alloc_panics_where_try_alloc_refuses() {
    let heap = quiet();
    heap.enter(|mc| {
        mc.arena_with(ArenaOptions::new().limit(PAGE).name("a small one"), |arena| {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                for n in 0..PAGE {
                    arena.alloc(n);
                }
            }));
            let text = *outcome.unwrap_err().downcast::<String>().unwrap();
            assert!(
                text.starts_with("no room in a small one: need 8192 bytes more than 8192"),
                "{text}"
            );
            assert!(arena.used() > PAGE - 100);
        });
    });
}

#[test]
fn the_heaps_hard_limit_holds_for_arenas_and_is_an_error() {
    let heap = Heap::builder().hard_limit(16 << 20).build().unwrap();
    for _ in 0..3 {
        heap.enter(|mc| {
            mc.arena(|arena| {
                let error = loop {
                    if let Err(error) = arena.try_alloc([0_u64; 64]) {
                        break error;
                    }
                };
                assert!(matches!(error, ArenaError::Heap(_)), "{error}");
                assert!(error.to_string().contains("of limit"), "{error}");
                assert!(std::error::Error::source(&error).is_some());
                // Chunks became smaller before the end.
                assert!(arena.used() > 10 << 20, "{arena:?}");
            });
        });
        let _ = heap.release_memory();
    }
}
