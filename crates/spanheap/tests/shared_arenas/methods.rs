//! Every method of arenas, writers and pointers: what it does, and where it refuses.

use crate::{Node, collect, done, heap, object, refusal};
use spanheap::{
    ArenaGc, Collected, Gc, GcCell, Heap, Mutator, Root, Rootable, SharedArena, SharedArenaError,
    Trace,
};
use std::collections::HashSet;

/// The methods that arenas and writers have in common.
trait Target<'gc> {
    fn value<T: Trace + Send + Sync + 'gc>(&self, value: T) -> ArenaGc<'gc, T>;
    fn value_with<T: Trace + Send + Sync + 'gc>(&self, make: impl FnOnce() -> T)
    -> ArenaGc<'gc, T>;
    fn text(&self, text: &str) -> ArenaGc<'gc, str>;
    fn copy<T: Trace + Copy + Send + Sync + 'gc>(&self, values: &[T]) -> ArenaGc<'gc, [T]>;
    fn slice<T: Trace + Send + Sync + 'gc>(&self, values: Vec<T>) -> ArenaGc<'gc, [T]>;
    fn zeroed(&self, len: usize) -> ArenaGc<'gc, [GcCell<'gc, Option<ArenaGc<'gc, u64>>>]>;
}

struct ByArena<'gc, 'a>(&'a SharedArena, &'a Mutator<'gc>);

impl<'gc> Target<'gc> for ByArena<'gc, '_> {
    fn value<T: Trace + Send + Sync + 'gc>(&self, value: T) -> ArenaGc<'gc, T> {
        self.0.alloc(self.1, value)
    }
    fn value_with<T: Trace + Send + Sync + 'gc>(
        &self,
        make: impl FnOnce() -> T,
    ) -> ArenaGc<'gc, T> {
        self.0.alloc_with(self.1, make)
    }
    fn text(&self, text: &str) -> ArenaGc<'gc, str> {
        self.0.alloc_str(self.1, text)
    }
    fn copy<T: Trace + Copy + Send + Sync + 'gc>(&self, values: &[T]) -> ArenaGc<'gc, [T]> {
        self.0.alloc_copy(self.1, values)
    }
    fn slice<T: Trace + Send + Sync + 'gc>(&self, values: Vec<T>) -> ArenaGc<'gc, [T]> {
        self.0.alloc_slice(self.1, values)
    }
    fn zeroed(&self, len: usize) -> ArenaGc<'gc, [GcCell<'gc, Option<ArenaGc<'gc, u64>>>]> {
        self.0.alloc_zeroed(self.1, len)
    }
}

impl<'gc> Target<'gc> for spanheap::ArenaWriter<'gc, '_> {
    fn value<T: Trace + Send + Sync + 'gc>(&self, value: T) -> ArenaGc<'gc, T> {
        self.alloc(value)
    }
    fn value_with<T: Trace + Send + Sync + 'gc>(
        &self,
        make: impl FnOnce() -> T,
    ) -> ArenaGc<'gc, T> {
        self.alloc_with(make)
    }
    fn text(&self, text: &str) -> ArenaGc<'gc, str> {
        self.alloc_str(text)
    }
    fn copy<T: Trace + Copy + Send + Sync + 'gc>(&self, values: &[T]) -> ArenaGc<'gc, [T]> {
        self.alloc_copy(values)
    }
    fn slice<T: Trace + Send + Sync + 'gc>(&self, values: Vec<T>) -> ArenaGc<'gc, [T]> {
        self.alloc_slice(values)
    }
    fn zeroed(&self, len: usize) -> ArenaGc<'gc, [GcCell<'gc, Option<ArenaGc<'gc, u64>>>]> {
        self.alloc_zeroed(len)
    }
}

/// Values of all kinds: each is what was put in, aligned, at an address of its own.
fn values_of_all_kinds<'gc>(mc: &Mutator<'gc>, to: &impl Target<'gc>) {
    #[derive(Trace, Clone, Copy, PartialEq, Debug)]
    #[repr(align(64))]
    struct Line([u64; 8]);
    #[derive(Trace, Clone, Copy)]
    #[repr(align(32))]
    struct Aligned<'gc>(ArenaGc<'gc, u64>);

    let mut places = HashSet::new();
    let mut is_new = |place: *const ()| assert!(places.insert(place), "{place:?} twice");
    for round in 0..50_u64 {
        let number = to.value(round);
        let byte = to.value(round as u8);
        let line = to.value(Line([round; 8]));
        let nothing = to.value(());
        let object = mc.alloc(round);
        let node = to.value(Node::new(round));
        let made = to.value_with(|| [round; 100]);
        let text = to.text(&format!("round {round}"));
        let bytes = to.copy(&vec![round as u8; round as usize]);
        let numbers = to.slice((0..round).map(u128::from).collect());
        let pointers = to.copy(&vec![number; round as usize]);
        let objects = to.slice(vec![Some(object), None, Some(object)]);
        let aligned = to.value(Aligned(number));
        let many_aligned = to.copy(&[Aligned(number), Aligned(number)]);
        let units = to.copy(&[(); 5]);
        let cells = to.zeroed(round as usize);

        assert_eq!(number.get(mc), Some(&round));
        assert_eq!(byte.get(mc), Some(&(round as u8)));
        assert_eq!(line.get(mc), Some(&Line([round; 8])));
        assert_eq!(nothing.get(mc), Some(&()));
        assert_eq!(node.get(mc).map(Node::check), Some(round));
        assert_eq!(made.get(mc), Some(&[round; 100]));
        assert_eq!(text.get(mc), Some(format!("round {round}").as_str()));
        assert_eq!(bytes.get(mc), Some(vec![round as u8; round as usize].as_slice()));
        let numbers = numbers.get(mc).unwrap();
        assert!(numbers.iter().copied().eq((0..round).map(u128::from)));
        assert!(pointers.get(mc).unwrap().iter().all(|&pointer| pointer == number));
        assert_eq!(objects.get(mc).unwrap()[2].as_deref(), Some(&round));
        let aligned_value = aligned.get(mc).unwrap();
        assert!(aligned_value.0 == number && many_aligned.get(mc).unwrap()[1].0 == number);
        assert_eq!(units.get(mc).map(<[()]>::len), Some(5));
        let cells = cells.get(mc).unwrap();
        assert!(cells.len() == round as usize && cells.iter().all(|cell| cell.get().is_none()));
        cells.iter().for_each(|cell| cell.set(mc, Some(number)));
        assert_aligned([
            (line.as_ptr().cast(), 64),
            (aligned.as_ptr().cast(), 32),
            (many_aligned.as_ptr().cast(), 32),
            (numbers.as_ptr().cast(), align_of::<u128>()),
            (node.as_ptr().cast(), align_of::<Node<'_>>()),
            (made.as_ptr().cast(), 8),
        ]);
        let all = [
            number.as_ptr().cast::<()>(),
            byte.as_ptr().cast(),
            line.as_ptr().cast(),
            nothing.as_ptr(),
            node.as_ptr().cast(),
            made.as_ptr().cast(),
            text.as_ptr().cast(),
            bytes.as_ptr().cast(),
            pointers.as_ptr().cast(),
            objects.as_ptr().cast(),
            aligned.as_ptr().cast(),
            units.as_ptr().cast(),
        ];
        all.into_iter().for_each(&mut is_new);
    }
}

fn assert_aligned(places: [(*const (), usize); 6]) {
    for (place, align) in places {
        assert_eq!(place.addr() % align, 0, "{place:?}");
    }
}

#[test]
fn values_of_all_kinds_by_arena_and_by_writer() {
    let heap = heap();
    for _ in 0..3 {
        let arena = heap.shared_arena();
        heap.enter(|mc| values_of_all_kinds(mc, &ByArena(&arena, mc)));
        heap.enter(|mc| values_of_all_kinds(mc, &arena.writer(mc)));
        heap.enter(|mc| {
            // Both in turn, and two writers at once.
            let (one, other) = (arena.writer(mc), arena.writer(mc));
            values_of_all_kinds(mc, &one);
            values_of_all_kinds(mc, &ByArena(&arena, mc));
            values_of_all_kinds(mc, &other);
        });
        collect(&heap);
    }
}

#[test]
fn sizes_count_what_is_there() {
    let heap = heap();
    let arena = heap.shared_arena();
    assert_eq!((arena.used(), arena.reserved()), (0, 0), "the first value brings the first chunk");
    heap.enter(|mc| {
        let writer = arena.writer(mc);
        let mut last = 0;
        for count in 1..=1000_usize {
            writer.alloc(Node::new(1));
            let (used, reserved) = (arena.used(), arena.reserved());
            assert!(used >= count * size_of::<Node<'_>>() && used <= count * 48, "{used}");
            assert!(used >= last && reserved >= used && reserved % 4096 == 0);
            assert!(reserved <= 8192 || reserved <= 4 * used, "{reserved} for {used}");
            last = used;
        }
    });
    let used = arena.used();
    assert!(heap.stats().arenas.live_bytes >= used);
    arena.free();
    assert_eq!((arena.used(), arena.reserved()), (0, 0));
}

#[test]
fn an_arena_has_a_name_and_is_told_apart() {
    let heap = heap();
    let named = heap.shared_arena_builder().name("request 17").build();
    let nameless = heap.shared_arena();
    assert_eq!((named.name(), nameless.name()), ("request 17", ""));
    assert_ne!(named.number(), nameless.number());
    let shown = format!("{named:?}");
    assert!(shown.contains("request 17"), "{shown}");
    heap.enter(|mc| {
        let (a, b) = (named.alloc(mc, 1_u64), named.alloc(mc, 1_u64));
        assert!(a == a && a != b && ArenaGc::ptr_eq(a, a) && !ArenaGc::ptr_eq(a, b));
        assert_eq!(HashSet::from([a, a, b]).len(), 2);
        named.free();
        // Shown and compared without being looked at.
        assert_eq!(format!("{a:?}"), format!("ArenaGc({:#x})", a.as_ptr().addr()));
        assert_eq!(format!("{a:p}"), format!("{:p}", a.as_ptr()));
        assert!(a == a && a != b);
    });
    assert!(named.is_freed() && !nameless.is_freed());
}

#[test]
fn a_limit_is_that_of_the_arena() {
    let heap = heap();
    let arena = heap.shared_arena_builder().limit(100 << 10).build();
    heap.enter(|mc| {
        let writer = arena.writer(mc);
        let kept = writer.alloc_str("kept");
        let mut count = 0_usize;
        let error = loop {
            match writer.try_alloc([0_u64; 16]) {
                Ok(_) => count += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, SharedArenaError::LimitReached { .. }), "{error:?}");
        assert!(error.to_string().contains("limit"), "{error}");
        assert!(arena.reserved() <= 100 << 10);
        assert!(count * 128 > 60 << 10, "{count} values in {} bytes", arena.reserved());
        assert_eq!(kept.get(mc), Some("kept"));
        // A refusal changes nothing, and is no end of anything.
        assert!(writer.try_alloc_zeroed::<u8>(1 << 20).is_err());
        assert!(arena.try_alloc_copy(mc, &[0_u8; 200_000]).is_err());
        let heard = refusal(|| done(arena.alloc_zeroed::<u8>(mc, 1 << 20)));
        assert!(heard.contains("limit"), "{heard}");
    });
    // Other arenas have nothing to do with it.
    heap.enter(|mc| done(heap.shared_arena().alloc_zeroed::<u8>(mc, 1 << 20)));
    let none = heap.shared_arena_builder().limit(0).build();
    assert!(heap.enter(|mc| none.try_alloc(mc, 1_u64).is_err()));
}

#[test]
fn what_a_freed_arena_refuses() {
    let heap = heap();
    let arena = heap.shared_arena();
    heap.enter(|mc| done(arena.alloc(mc, 1_u64)));
    arena.free();
    heap.enter(|mc| {
        assert_eq!(arena.try_alloc(mc, 1_u64).err(), Some(SharedArenaError::Freed));
        assert_eq!(arena.try_alloc_with(mc, || 1_u64).err(), Some(SharedArenaError::Freed));
        assert_eq!(arena.try_alloc_str(mc, "text").err(), Some(SharedArenaError::Freed));
        assert_eq!(arena.try_alloc_copy(mc, &[1_u64]).err(), Some(SharedArenaError::Freed));
        assert_eq!(arena.try_alloc_slice(mc, [1_u64]).err(), Some(SharedArenaError::Freed));
        assert_eq!(arena.try_alloc_zeroed::<u64>(mc, 1).err(), Some(SharedArenaError::Freed));
        assert_eq!(arena.try_writer(mc).err(), Some(SharedArenaError::Freed));
        for heard in [
            refusal(|| done(arena.alloc(mc, 1_u64))),
            refusal(|| done(arena.alloc_with(mc, || 1_u64))),
            refusal(|| done(arena.alloc_str(mc, "text"))),
            refusal(|| done(arena.alloc_copy(mc, &[1_u64]))),
            refusal(|| done(arena.alloc_slice(mc, [1_u64]))),
            refusal(|| done(arena.alloc_zeroed::<u64>(mc, 1))),
            refusal(|| done(arena.writer(mc))),
        ] {
            assert_eq!(heard, "the arena has been freed");
        }
    });
}

#[test]
fn a_writer_notices_at_its_next_chunk_that_the_arena_was_freed() {
    let heap = heap();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let writer = arena.writer(mc);
        let before = writer.alloc(1_u64);
        assert_eq!(before.get(mc), Some(&1));
        arena.free();
        assert_eq!(before.get(mc), None);
        let error = loop {
            match writer.try_alloc([1_u64; 4]) {
                // What is allocated in a chunk of a freed arena is freed.
                Ok(value) => assert_eq!(value.get(mc), None),
                Err(error) => break error,
            }
        };
        assert_eq!(error, SharedArenaError::Freed);
    });
    collect(&heap);
}

#[test]
fn an_arena_is_used_with_mutators_of_its_own_heap() {
    let (one, other) = (heap(), heap());
    let arena = one.shared_arena();
    let told = format!("an arena of heap {} was used in a closure of heap ", "N");
    other.enter(|mc| {
        for heard in [
            refusal(|| done(arena.alloc(mc, 1_u64))),
            refusal(|| done(arena.try_alloc_str(mc, "text"))),
            refusal(|| done(arena.writer(mc))),
            refusal(|| done(arena.try_writer(mc))),
        ] {
            let digits = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "N");
            assert!(digits(&heard).replace("NN", "N").starts_with(&told), "{heard}");
        }
    });
    assert_eq!(arena.reserved(), 0);
    one.enter(|mc| assert_eq!(arena.alloc(mc, 1_u64).get(mc), Some(&1)));
}

#[test]
fn lengths_that_overflow_are_refused() {
    let heap = heap();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let writer = arena.writer(mc);
        for len in [usize::MAX, usize::MAX / 8, isize::MAX as usize, 1 << 60] {
            assert!(writer.try_alloc_zeroed::<u64>(len).is_err(), "{len}");
            assert!(arena.try_alloc_zeroed::<Option<ArenaGc<'_, u64>>>(mc, len).is_err(), "{len}");
        }
        assert_eq!(writer.alloc(7_u64).get(mc), Some(&7));
    });
}

/// An iterator that gives another number of values than it says.
struct Liar(usize, usize);

impl Iterator for Liar {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        self.1 = self.1.checked_sub(1)?;
        Some(1)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0, Some(self.0))
    }
}

impl ExactSizeIterator for Liar {}

#[test]
fn iterators_that_lie_or_panic_leave_nothing_half_made() {
    let heap = heap();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let writer = arena.writer(mc);
        let heard = refusal(|| done(writer.alloc_slice(Liar(3, 5))));
        assert_eq!(heard, "an iterator gave more values than its length, 3");
        let heard = refusal(|| done(arena.alloc_slice(mc, Liar(5, 3))));
        assert_eq!(heard, "an iterator gave 3 values, and its length was 5");
        let heard = refusal(|| {
            let values = (0..10_u32).map(|n| {
                assert!(n < 5, "the sixth");
                writer.alloc(Node::new(n.into()))
            });
            done(writer.alloc_slice(values));
        });
        assert_eq!(heard, "the sixth");
        let heard = refusal(|| done(writer.alloc_with(|| -> Node<'_> { panic!("no value") })));
        assert_eq!(heard, "no value");
        assert_eq!(writer.alloc_with(|| Node::new(8)).get(mc).map(Node::check), Some(8));
    });
    // The halves are not looked into, by cycles that verify and by none.
    for _ in 0..3 {
        collect(&heap);
    }
    assert!(heap.verify().is_ok());
}

#[test]
fn what_fills_a_slice_may_use_the_same_writer() {
    let heap = heap();
    let arena = heap.shared_arena();
    let kept: Root<Rootable![ArenaGc<'_, [ArenaGc<'_, [ArenaGc<'_, Node<'_>>]>]>]> =
        heap.enter(|mc| {
            let writer = arena.writer(mc);
            let row = |row: u32| {
                let node = |n: u32| writer.alloc(Node::new((100 * row + n).into()));
                writer.alloc_slice((0..20).map(node))
            };
            mc.root(mc.alloc(writer.alloc_slice((0..200).map(row))))
        });
    collect(&heap);
    heap.enter(|mc| {
        let rows = kept.get(mc).get(mc).unwrap();
        for (n, row) in rows.iter().enumerate() {
            for (m, node) in row.get(mc).unwrap().iter().enumerate() {
                assert_eq!(node.get(mc).unwrap().check(), (100 * n + m) as u64);
            }
        }
    });
}

#[test]
fn a_reference_stays_good_until_its_closure_ends() {
    let heap = heap();
    let arena = heap.shared_arena();
    let other = object(&heap, 5);
    heap.enter(|mc| {
        let node = arena.alloc(mc, Node::leading(1, Some(other.get(mc)), None));
        let text = arena.alloc_str(mc, "a text").get(mc).unwrap();
        let held = node.get(mc).unwrap();
        arena.free();
        assert!(node.get(mc).is_none());
        assert_eq!(heap.collect(), Collected::Requested);
        assert_eq!((held.check(), text), (1, "a text"));
        assert_eq!(held.object.get().unwrap().check(), 5);
        held.object.set(mc, None);
    });
    collect(&heap);
}

#[test]
fn a_pointer_fits_where_a_gc_fits() {
    assert_eq!(size_of::<ArenaGc<'_, u64>>(), size_of::<usize>());
    assert_eq!(size_of::<Option<ArenaGc<'_, u64>>>(), size_of::<usize>());
    assert_eq!(size_of::<ArenaGc<'_, str>>(), size_of::<Gc<'_, str>>());
    fn shared<T: Send + Sync>() {}
    shared::<SharedArena>();
    shared::<ArenaGc<'_, u64>>();
    let heap = Heap::new();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let cell = GcCell::new(Some(arena.alloc(mc, 1_u64)));
        let first = cell.get();
        let second = arena.alloc(mc, 2_u64);
        assert_eq!(cell.swap(mc, Some(second)), first);
        assert_eq!(cell.compare_exchange(mc, first, None), Err(Some(second)));
        assert_eq!(cell.compare_exchange(mc, Some(second), first), Ok(Some(second)));
        assert_eq!(cell.take(mc), first);
        assert_eq!(cell.fetch_update(mc, |held| held.is_none().then_some(first)), Ok(None));
        assert_eq!(cell.into_inner().and_then(|value| value.get(mc)), Some(&1));
    });
}
