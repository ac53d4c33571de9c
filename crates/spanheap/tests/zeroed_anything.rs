//! Zeroed slices are zeros, whatever the memory was before: objects of other types and sizes, values that were
//! dropped, poison, tiny objects, slices that a panic left unfinished, memory that went to the system and
//! came back, memory of a heap that is gone.

use spanheap::{Gc, Heap, Mutator, Root, Rootable, Trace};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[derive(Trace)]
struct Dropped([u64; 3]);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0 = [u64::MAX; 3];
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % n
    }
}

type Bytes = Root<Rootable![[u8]]>;

fn dirty(mc: &Mutator<'_>, random: &mut Random, held: &mut Vec<Bytes>) {
    match random.below(6) {
        0 => {
            mc.alloc(Dropped([0xa5a5; 3]));
        }
        1 => {
            mc.alloc_slice((0..random.below(2000)).map(|_| Dropped([0xa5a5; 3])));
        }
        2 => {
            mc.alloc(0xa5u8);
            mc.alloc(0xa5a5u16);
        }
        3 => {
            let len = 1 + random.below(500);
            let unfinished = AssertUnwindSafe(|| {
                let values =
                    (0..len).map(|i| if i + 1 < len { !0u64 } else { panic!("on purpose") });
                mc.alloc_slice(values);
            });
            assert!(catch_unwind(unfinished).is_err());
        }
        4 => {
            let len = random.below(3 << 20);
            held.push(mc.root(mc.alloc_slice((0..len).map(|_| 0xa5u8))));
        }
        _ => {
            let len = random.below(300);
            held.push(mc.root(mc.alloc_slice((0..len).map(|_| 0xa5u8))));
        }
    }
    while held.len() > 12 {
        held.swap_remove(random.below(held.len()));
    }
}

fn check(mc: &Mutator<'_>, random: &mut Random) {
    let len = match random.below(4) {
        0 => random.below(16),
        1 => random.below(400),
        2 => random.below(40_000),
        _ => random.below(5 << 20),
    };
    match random.below(3) {
        0 => assert!(mc.alloc_zeroed::<u8>(len).iter().all(|&byte| byte == 0), "{len} bytes"),
        1 => {
            // Slots of 24 bytes among others.
            let slice: Gc<'_, [[u64; 3]]> = mc.alloc_zeroed(len / 24);
            assert!(slice.iter().flatten().all(|&word| word == 0), "{len} bytes of triples");
        }
        _ => {
            let slice: Gc<'_, [Option<Gc<'_, u64>>]> = mc.alloc_zeroed(len / 8);
            assert!(slice.iter().all(Option::is_none), "{len} bytes of pointers");
        }
    }
}

#[test]
fn zeroed_slices_have_nothing_of_what_was_there() {
    std::panic::set_hook(Box::new(|info| {
        if info.payload().downcast_ref::<&str>() != Some(&"on purpose") {
            eprintln!("{info}");
        }
    }));
    for (seed, poison) in [(0x2e40, false), (0x2e41, true)] {
        println!("seed {seed:#x}, poison: {poison}");
        let mut random = Random(seed);
        for _ in 0..2 {
            let heap = Heap::builder().poison(poison).build().expect("a heap");
            let mut held = Vec::new();
            for _ in 0..200 {
                heap.enter(|mc| {
                    for _ in 0..random.below(12) {
                        dirty(mc, &mut random, &mut held);
                    }
                    check(mc, &mut random);
                });
                match random.below(40) {
                    0 => {
                        let _ = heap.collect();
                    }
                    1 => {
                        heap.release_memory();
                    }
                    _ => {}
                }
            }
        }
    }
}
