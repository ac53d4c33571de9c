//! Values with destructors in arenas.

use crate::quiet;
use spanheap::{ArenaOptions, Heap};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

/// Says when it is dropped, and may panic then.
struct Noted<'a> {
    number: u32,
    log: &'a RefCell<Vec<u32>>,
    panics: bool,
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.log.borrow_mut().push(self.number);
        if self.panics {
            resume_unwind(Box::new(self.number));
        }
    }
}

fn noted(log: &RefCell<Vec<u32>>, number: u32) -> Noted<'_> {
    Noted { number, log, panics: false }
}

fn panicking(log: &RefCell<Vec<u32>>, number: u32) -> Noted<'_> {
    Noted { number, log, panics: true }
}

#[test]
fn fault_56_destructors_run_in_reverse_at_the_end_and_at_a_reset() {
    let log = RefCell::new(Vec::new());
    quiet().enter(|mc| {
        mc.arena(|arena| {
            for number in 0..5 {
                assert_eq!(arena.alloc_drop(noted(&log, number)).number, number);
                arena.alloc([0_u8; 3000]);
            }
            arena.reset();
            assert_eq!(log.take(), [4, 3, 2, 1, 0]);
            arena.reset();
            assert_eq!(log.take(), []);
            arena.alloc_drop_with(|| noted(&log, 7));
            arena.alloc_drop_slice((10..13).map(|number| noted(&log, number)));
            assert_eq!(arena.try_alloc_drop(noted(&log, 8)).map(|n| n.number), Ok(8));
        });
    });
    assert_eq!(log.take(), [8, 10, 11, 12, 7]);
}

#[test]
fn destructors_run_when_the_closure_panics() {
    let log = RefCell::new(Vec::new());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        quiet().enter(|mc| {
            mc.arena(|arena| {
                arena.alloc_drop(noted(&log, 1));
                // This panic is not the one that goes on.
                arena.alloc_drop(panicking(&log, 2));
                arena.alloc_drop(noted(&log, 3));
                resume_unwind(Box::new("the closure"));
            })
        })
    }));
    assert_eq!(*outcome.unwrap_err().downcast::<&str>().unwrap(), "the closure");
    assert_eq!(log.take(), [3, 2, 1]);
}

#[test]
fn a_destructor_that_panics_keeps_no_other_from_running() {
    let heap = quiet();
    let log = RefCell::new(Vec::new());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        heap.enter(|mc| {
            mc.arena(|arena| {
                for number in 0..10 {
                    let panics = number % 3 == 1;
                    arena.alloc_drop(Noted { number, log: &log, panics });
                }
            })
        })
    }));
    assert_eq!(*outcome.unwrap_err().downcast::<u32>().unwrap(), 7, "the first one goes on");
    assert_eq!(log.take(), [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    // The same at a reset, after which the arena is empty and can be used.
    heap.enter(|mc| {
        mc.arena(|arena| {
            let owned = Rc::new(());
            arena.alloc_drop(owned.clone());
            let numbers = (20..24).map(|number| Noted { number, log: &log, panics: number == 21 });
            arena.alloc_drop_slice(numbers);
            let outcome = catch_unwind(AssertUnwindSafe(|| arena.reset()));
            assert_eq!(*outcome.unwrap_err().downcast::<u32>().unwrap(), 21);
            assert_eq!(log.take(), [20, 21, 22, 23]);
            assert_eq!((Rc::strong_count(&owned), arena.used()), (1, 0));
            arena.alloc_drop(noted(&log, 1));
        })
    });
    assert_eq!(log.take(), [1]);
}

/// What a panic carries may panic when it is dropped.
#[test]
fn a_panic_that_nobody_is_told_of_is_let_go_of() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new("a bomb"));
        }
    }
    struct Thrower;
    impl Drop for Thrower {
        fn drop(&mut self) {
            resume_unwind(Box::new(Bomb));
        }
    }
    let log = RefCell::new(Vec::new());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        quiet().enter(|mc| {
            mc.arena(|arena| {
                arena.alloc_drop(noted(&log, 1));
                arena.alloc_drop(Thrower);
                arena.alloc_drop(Thrower);
                arena.alloc_drop(panicking(&log, 2));
            })
        })
    }));
    assert_eq!(*outcome.unwrap_err().downcast::<u32>().unwrap(), 2);
    assert_eq!(log.take(), [2, 1]);
}

#[test]
fn a_slice_whose_iterator_panics_drops_what_it_has() {
    let log = RefCell::new(Vec::new());
    quiet().enter(|mc| {
        mc.arena(|arena| {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                arena.alloc_drop_slice((0..5).map(|number| match number {
                    3 => resume_unwind(Box::new(())),
                    _ => noted(&log, number),
                }));
            }));
            assert!(outcome.is_err());
            assert_eq!(log.take(), []);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                arena.alloc_drop_with(|| -> String { resume_unwind(Box::new(())) });
            }));
            assert!(outcome.is_err());
            arena.alloc_drop(noted(&log, 9));
        })
    });
    assert_eq!(log.take(), [9, 0, 1, 2]);
}

#[test]
fn iterators_that_lie_about_their_length_are_found_out() {
    struct Liar(usize);
    impl Iterator for Liar {
        type Item = String;
        fn next(&mut self) -> Option<String> {
            self.0 = self.0.checked_sub(1)?;
            Some("owned".repeat(self.0))
        }
        fn size_hint(&self) -> (usize, Option<usize>) {
            (3, Some(3))
        }
    }
    impl ExactSizeIterator for Liar {}
    quiet().enter(|mc| {
        mc.arena(|arena| {
            for (real, said) in [(2, "gave 2 values"), (3, ""), (4, "gave more values")] {
                let outcome =
                    catch_unwind(AssertUnwindSafe(|| arena.alloc_drop_slice(Liar(real)).len()));
                match outcome {
                    Ok(len) => assert_eq!((len, said), (3, "")),
                    Err(panic) => {
                        let text = panic.downcast::<String>().unwrap();
                        assert!(!said.is_empty() && text.contains(said), "{text}");
                    }
                }
            }
        });
    });
}

#[test]
fn a_value_that_is_refused_is_dropped_at_once() {
    let log = RefCell::new(Vec::new());
    quiet().enter(|mc| {
        mc.arena_with(ArenaOptions::new().limit(0), |arena| {
            assert!(arena.try_alloc_drop(noted(&log, 1)).is_err());
            assert_eq!(log.take(), [1]);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                arena.alloc_drop(noted(&log, 2));
            }));
            assert!(outcome.is_err());
            assert_eq!(log.take(), [2]);
        });
    });
}

/// A destructor may use the heap, outer arenas and arenas of its own.
#[test]
fn destructors_use_what_outlives_their_arena() {
    struct Closing<'a, 'gc, 'env> {
        mc: &'a spanheap::Mutator<'gc>,
        outer: &'a spanheap::Arena<'env>,
        kept: &'a Cell<Option<&'a str>>,
        text: spanheap::Gc<'gc, str>,
    }
    impl Drop for Closing<'_, '_, '_> {
        fn drop(&mut self) {
            let length = self.mc.arena(|own| own.alloc_str(&self.text).len());
            let text = format!("{}{length}{}", &*self.text, *self.mc.alloc(5));
            self.kept.set(Some(self.outer.alloc_str(&text)));
        }
    }
    let heap = Heap::builder().collect_continuously(true).checkmark(true).build().unwrap();
    for _ in 0..50 {
        heap.enter(|mc| {
            mc.arena(|outer| {
                let outer = &*outer;
                let kept = Cell::new(None);
                mc.arena(|inner| {
                    let text = mc.alloc_str("text");
                    inner.alloc_drop(Closing { mc, outer, kept: &kept, text });
                });
                assert_eq!(kept.get(), Some("text45"));
            });
        });
    }
}

/// Values without a size have destructors, too; and aligned ones, behind their links.
#[test]
fn destructors_of_values_of_all_sizes() {
    thread_local! {
        static DROPPED: Cell<u32> = const { Cell::new(0) };
    }
    struct Empty;
    impl Drop for Empty {
        fn drop(&mut self) {
            DROPPED.set(DROPPED.get() + 1);
        }
    }
    #[repr(align(128))]
    struct Aligned(u8);
    impl Drop for Aligned {
        fn drop(&mut self) {
            assert!(std::ptr::from_ref(self).addr() % 128 == 0 && self.0 == 3);
            DROPPED.set(DROPPED.get() + 1);
        }
    }
    struct Large([u8; 5 << 20]);
    impl Drop for Large {
        fn drop(&mut self) {
            assert!(self.0.iter().all(|&byte| byte == 9));
            DROPPED.set(DROPPED.get() + 1);
        }
    }
    quiet().enter(|mc| {
        mc.arena(|arena| {
            arena.alloc_drop(Empty);
            arena.alloc_drop_slice([(); 1000].map(|()| Empty));
            assert!(std::ptr::from_mut(arena.alloc_drop(Aligned(3))).addr() % 128 == 0);
            arena.alloc_drop_slice([Aligned(3), Aligned(3)]);
            arena.alloc_drop_with(|| Large([9; 5 << 20]));
        })
    });
    assert_eq!(DROPPED.get(), 1 + 1000 + 1 + 2 + 1);
}

#[test]
fn of_a_slice_several_elements_panic_and_the_others_are_dropped() {
    // A slice that is dropped as a whole ends the process at the second panic.
    let log = RefCell::new(Vec::new());
    let heap = Heap::new();
    let outcome = heap.enter(|mc| {
        catch_unwind(AssertUnwindSafe(|| {
            mc.arena(|arena| {
                arena.alloc_drop(noted(&log, 100));
                let elements = (0..6).map(|n| match n {
                    1 | 3 | 4 => panicking(&log, n),
                    _ => noted(&log, n),
                });
                arena.alloc_drop_slice(elements.collect::<Vec<_>>());
            });
        }))
    });
    let first = outcome.unwrap_err().downcast::<u32>().expect("the panic of an element");
    assert_eq!((*first, log.into_inner()), (1, vec![0, 1, 2, 3, 4, 5, 100]));
}
