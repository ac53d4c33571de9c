//! What Go tests its arenas with, as far as it can be asked here: values of every size fill a chunk and are what was
//! put in; what a value leads to lives as long as it must; memory that held pointers and now holds numbers
//! retains nothing.

use crate::{Mortal, Tally, collect, heap, settle};
use spanheap::{ArenaGc, ArenaWriter, Gc, Heap, Root, Rootable, Trace};

/// Values of one type, until a chunk of 8 MiB is full and then some; all of them are there until the arena is freed.
fn fill<T, F>(name: &str, make: F)
where
    T: Trace + Copy + PartialEq + Send + Sync + 'static,
    F: Fn(usize) -> T,
{
    let heap = Heap::builder().gc_percent_off().poison(true).build().unwrap();
    let arena = heap.shared_arena();
    let kept: Root<Rootable![Vec<ArenaGc<'_, T>>]> = heap.enter(|mc| {
        let writer = arena.writer(mc);
        let count = ((9 << 20) / size_of::<T>().max(64)).max(2);
        mc.root(mc.alloc((0..count).map(|n| writer.alloc(make(n))).collect()))
    });
    for free in [false, true] {
        collect(&heap);
        heap.enter(|mc| {
            for (n, value) in kept.get(mc).iter().enumerate() {
                let expected = (!free).then(|| make(n));
                assert!(value.get(mc).copied() == expected, "{name} number {n}");
            }
        });
        if !free {
            arena.free();
        }
    }
    drop(kept);
    settle(&heap);
}

#[test]
fn values_of_every_size_fill_chunks() {
    fill("a byte", |n| n as u8);
    fill("a word", |n| n as u64);
    fill("nothing", |_| ());
    fill("a small array", |n| [n as u64; 3]);
    fill("a page", |n| [n as u64; 1024]);
    fill("a quarter of a mebibyte", |n| [n as u8; 256 << 10]);
}

#[test]
fn slices_of_every_size_are_what_was_put_in() {
    let heap = heap();
    let arena = heap.shared_arena();
    let kept: Root<Rootable![Vec<ArenaGc<'_, [u32]>>]> = heap.enter(|mc| {
        let writer = arena.writer(mc);
        let slice = |len: usize| writer.alloc_slice((0..len as u32).map(|n| n ^ len as u32));
        let lens = (0..20).map(|bits| 1_usize << bits).flat_map(|len| [len - 1, len, len + 1]);
        mc.root(mc.alloc(lens.chain([3 << 20]).map(slice).collect()))
    });
    collect(&heap);
    heap.enter(|mc| {
        for slice in kept.get(mc).iter() {
            let slice = slice.get(mc).unwrap();
            assert!((0..).zip(slice).all(|(n, &value)| value == n ^ slice.len() as u32));
        }
    });
}

#[test]
fn what_a_value_leads_to_lives_as_long_as_the_value_is_reached() {
    // By free, and by the death of the handle.
    for explicit in [true, false] {
        let (heap, tally) = (heap(), Tally::default());
        let arena = heap.shared_arena();
        let kept: Root<Rootable![ArenaGc<'_, [Gc<'_, Mortal>]>]> = heap.enter(|mc| {
            let writer = arena.writer(mc);
            mc.root(mc.alloc(writer.alloc_slice((0..100).map(|_| tally.object(mc)))))
        });
        for _ in 0..3 {
            collect(&heap);
        }
        assert_eq!(tally.get(), 0);
        match explicit {
            true => arena.free(),
            false => drop(arena),
        }
        collect(&heap);
        tally.wait_for(100);
        heap.enter(|mc| assert!(kept.get(mc).get(mc).is_none()));
    }
}

#[test]
fn numbers_where_pointers_were_retain_nothing() {
    let (heap, tally) = (heap(), Tally::default());
    let fill = |make: &dyn Fn(&ArenaWriter<'_, '_>)| {
        let arena = heap.shared_arena();
        heap.enter(|mc| {
            let writer = arena.writer(mc);
            while arena.used() < 24 << 20 {
                make(&writer);
            }
        });
        arena
    };
    let numbers: Vec<u64> = {
        let object: Root<Rootable![Mortal]> = heap.enter(|mc| mc.root(tally.object(mc)));
        let at = heap.enter(|mc| object.get(mc).as_ptr().addr()) as u64;
        let pointers = heap.shared_arena();
        heap.enter(|mc| {
            let writer = pointers.writer(mc);
            while pointers.used() < 24 << 20 {
                writer.alloc_copy(&[object.get(mc); 100]);
            }
        });
        pointers.free();
        settle(&heap);
        vec![at; 100]
    };
    // The same pages, and the same address, as numbers: beside pointers, and for themselves.
    let arena = fill(&|writer| {
        writer.alloc_copy(&numbers);
    });
    collect(&heap);
    tally.wait_for(1);
    arena.free();
    settle(&heap);
}
