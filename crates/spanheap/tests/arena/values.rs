//! What goes into an arena.

use crate::{PAGE, quiet, with_arena};
use spanheap::Gc;
use std::alloc::Layout;
use std::cell::Cell;

fn address<T: ?Sized>(value: &T) -> usize {
    std::ptr::from_ref(value).cast::<u8>().addr()
}

#[test]
fn values_are_what_was_put_in_and_overlap_nothing() {
    with_arena(|arena| {
        let mut numbers = Vec::new();
        for n in 0..50_000_u64 {
            let number: &mut u64 = arena.alloc(n);
            let byte: &mut u8 = arena.alloc(n as u8);
            let pair: &mut (u32, [u16; 3]) = arena.alloc((n as u32, [n as u16; 3]));
            *byte = byte.wrapping_add(1);
            numbers.push((number, byte, pair));
        }
        for (n, (number, byte, pair)) in numbers.iter().enumerate() {
            assert_eq!(**number, n as u64);
            assert_eq!(**byte, (n as u8).wrapping_add(1));
            assert_eq!(**pair, (n as u32, [n as u16; 3]));
        }
        assert_eq!(arena.used(), 50_000 * (8 + 8 + 16));
        assert!(arena.reserved() > arena.used() && arena.reserved() < 2 * arena.used() + PAGE);
    });
}

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(u8);

#[derive(Clone, Copy)]
#[repr(align(4096))]
struct OsPage(u8);

#[repr(align(65536))]
struct Vast(u8);

#[test]
fn alignment_is_honoured() {
    with_arena(|arena| {
        for n in 0..100 {
            arena.alloc(n);
            let lines = arena.alloc_slice_copy(&[Line(n); 3]);
            assert!(address(lines).is_multiple_of(64) && lines[2].0 == n);
            let page = arena.alloc(OsPage(n));
            assert!(address(page).is_multiple_of(4096) && page.0 == n);
        }
        let vast = arena.alloc_with(|| Vast(7));
        assert!(address(vast).is_multiple_of(65536) && vast.0 == 7);
        for shift in 0..=24 {
            let layout = Layout::from_size_align(100, 1 << shift).unwrap();
            let block = arena.alloc_layout(layout);
            assert!(block.as_ptr().addr().is_multiple_of(1 << shift), "{layout:?}");
            let none = Layout::from_size_align(0, 1 << shift).unwrap();
            assert!(arena.alloc_layout(none).as_ptr().addr().is_multiple_of(1 << shift));
        }
    });
}

#[test]
fn what_has_no_size_takes_no_space() {
    with_arena(|arena| {
        let unit: &mut () = arena.alloc(());
        let empty: &mut [u64] = arena.alloc_slice_copy(&[]);
        let units = arena.alloc_slice_fill_iter((0..1000).map(|_| ()));
        assert_eq!((*unit, empty.len(), units.len()), ((), 0, 1000));
        assert!(address(empty).is_multiple_of(8));
        assert_eq!(arena.alloc_str(""), "");
        assert_eq!(arena.alloc_slice_fill_default::<()>(usize::MAX).len(), usize::MAX);
        assert_eq!((arena.used(), arena.reserved()), (0, 0));
    });
}

#[test]
fn slices_and_strings() {
    with_arena(|arena| {
        assert_eq!(arena.alloc_str("héap"), "héap");
        assert_eq!(arena.alloc_slice_copy(&[1, 2, 3]), [1, 2, 3]);
        assert_eq!(arena.alloc_slice_clone(&[Cell::new(5), Cell::new(6)])[1].get(), 6);
        assert_eq!(arena.alloc_slice_fill_with(4, |n| n * n), [0, 1, 4, 9]);
        assert_eq!(arena.alloc_slice_fill_default::<Option<u8>>(2), [None, None]);
        let even = arena.alloc_slice_fill_iter((0..10_000).filter(|n| n % 2 == 0));
        assert!(even.iter().enumerate().all(|(index, &n)| n == 2 * index) && even.len() == 5000);
        // An iterator that uses the arena itself, and does not know its length.
        let words = "a few words of text".split(' ').map(|word| &*arena.alloc_str(word));
        assert_eq!(arena.alloc_slice_fill_iter(words).join(" "), "a few words of text");
        let before = arena.used();
        let three = arena.alloc_slice_fill_iter((0..9).filter(|n| n % 3 == 0));
        assert_eq!((&*three, arena.used() - before), (&[0, 3, 6][..], 16));
    });
}

/// An iterator whose hint is wrong in both directions is only slower.
#[test]
fn an_iterator_may_be_wrong_about_its_length() {
    struct Liar(usize, usize);
    impl Iterator for Liar {
        type Item = usize;
        fn next(&mut self) -> Option<usize> {
            self.0 = self.0.checked_sub(1)?;
            Some(self.0)
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (self.1, Some(self.1))
        }
    }
    with_arena(|arena| {
        for (real, told) in [(0, 5), (5, 0), (5, 3), (3, 5), (1000, 1)] {
            let slice = arena.alloc_slice_fill_iter(Liar(real, told));
            assert_eq!(slice.len(), real);
            assert!(slice.iter().rev().enumerate().all(|(n, &value)| n == value));
        }
    });
}

#[test]
fn large_values_have_pages_of_their_own_and_go_with_the_arena() {
    let heap = quiet();
    heap.enter(|mc| {
        mc.arena(|arena| {
            for mib in [1, 2, 3, 9, 30] {
                let bytes = arena.alloc_slice_fill_default::<u64>((mib << 20) / 8);
                bytes[0] = 1;
                bytes[(mib << 17) - 1] = 2;
                arena.alloc(mib);
            }
            assert!(arena.used() >= 45 << 20 && arena.reserved() < 60 << 20);
            arena.reset();
            assert_eq!(arena.used(), 0);
            assert!(arena.reserved() <= 8 << 20);
        });
    });
    assert!(heap.stats().manual_bytes <= 1 << 20, "{}", heap.stats().manual_bytes);
}

#[test]
fn a_reset_keeps_the_largest_chunk() {
    with_arena(|arena| {
        let mut reserved = 0;
        for round in 0..20 {
            for n in 0..3000_u64 {
                arena.alloc([n; 4]);
            }
            assert_eq!(arena.used(), 3000 * 32);
            arena.reset();
            assert_eq!(arena.used(), 0);
            if round > 1 {
                assert_eq!(arena.reserved(), reserved);
            }
            reserved = arena.reserved();
        }
        assert_eq!(reserved, 128 << 10);
        arena.reset();
        assert_eq!(arena.reserved(), reserved);
    });
}

#[test]
fn values_refer_to_each_other_in_circles() {
    struct Person<'a> {
        name: &'a str,
        friend: Cell<Option<&'a Person<'a>>>,
    }
    with_arena(|arena| {
        let person = |name: &str| {
            arena.alloc(Person { name: arena.alloc_str(name), friend: Cell::new(None) })
        };
        let (anna, ben) = (&*person("Anna"), &*person("Ben"));
        anna.friend.set(Some(ben));
        ben.friend.set(Some(anna));
        let names =
            |of: &Person| of.friend.get().and_then(|f| f.friend.get()).map(|f| f.name.len());
        assert_eq!(names(anna), Some(4));
    });
}

#[test]
fn arenas_nest_and_what_is_inside_may_refer_to_what_is_outside() {
    let heap = quiet();
    let sum = heap.enter(|mc| {
        mc.arena(|outer| {
            let mut kept = Vec::new();
            for n in 0..100_u64 {
                let base: &u64 = outer.alloc(n);
                let result = mc.arena(|inner| {
                    let references = inner.alloc_slice_fill_with(10, |_| base);
                    let sum: u64 = references.iter().copied().sum();
                    &*outer.alloc(sum)
                });
                kept.push(result);
            }
            kept.into_iter().sum::<u64>()
        })
    });
    assert_eq!(sum, 10 * 4950);
}

/// Arenas of one mutator may be exchanged when nothing is borrowed from either: each frees what it has then.
#[test]
fn arenas_may_be_exchanged() {
    quiet().enter(|mc| {
        mc.arena(|a| {
            a.alloc_drop(String::from("of the first"));
            mc.arena(|b| {
                b.alloc([7_u8; 20_000]);
                std::mem::swap(a, b);
                assert!(a.used() >= 20_000 && b.used() < 100);
                b.alloc(1);
            });
            assert!(a.used() >= 20_000);
            a.alloc_drop(vec![1, 2, 3]);
        });
    });
}

#[test]
fn a_value_is_built_in_its_place() {
    with_arena(|arena| {
        let table = arena.alloc_with(|| [3_u8; 1 << 20]);
        assert!(table.iter().all(|&byte| byte == 3));
        // `make` may use the arena.
        let outer = arena.alloc_with(|| (1, &*arena.alloc(2)));
        assert_eq!(*outer, (1, &2));
    });
}

#[test]
fn a_panic_of_the_closure_is_passed_on_and_the_heap_goes_on() {
    let heap = quiet();
    for round in 0..100 {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            heap.enter(|mc| {
                mc.arena(|arena| {
                    arena.alloc([round; 1000]);
                    std::panic::resume_unwind(Box::new(round));
                })
            })
        }));
        assert_eq!(*outcome.unwrap_err().downcast::<i32>().unwrap(), round);
    }
    assert!(heap.stats().manual_bytes <= PAGE);
    assert_eq!(heap.enter(|mc| mc.arena(|arena| *arena.alloc(5))), 5);
}

#[test]
fn an_arena_says_what_it_is() {
    let heap = quiet();
    heap.enter(|mc| {
        let options = spanheap::ArenaOptions::new().name("requests").limit(1 << 20);
        mc.arena_with(options, |arena| {
            assert_eq!(arena.limit(), Some(1 << 20));
            arena.alloc(1_u64);
            assert_eq!(format!("{arena:?}"), "Arena(requests: 8 of 8192 bytes used)");
        });
        mc.arena(|arena| assert_eq!(arena.limit(), None));
        // A `Gc` can be in it like everything else.
        let text: Gc<'_, str> = mc.alloc_str("in the heap");
        mc.arena(|arena| assert_eq!(&*arena.alloc((1, text)).1, "in the heap"));
    });
}
