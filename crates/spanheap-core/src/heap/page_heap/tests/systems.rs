//! The page heap on systems of many kinds: physical pages from half of ours to a block of a mutator's own
//! pages, memory that comes back as zeros and memory that does not, and every call refused once.
#![allow(unsafe_code)]

use super::*;
use crate::os::sim::SimBuilder;

const PAGE_SIZES: [usize; 6] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 512 << 10];

fn system(page_size: usize, zero: bool) -> SimBuilder {
    SimOs::builder().page_size(Bytes::new(page_size)).zero_after_unused(zero)
}

#[test]
fn on_systems_of_every_kind() {
    let mut random = Random::new(0x5157);
    for page_size in PAGE_SIZES {
        for zero in [true, false] {
            for contiguous in [0, 512 << 20] {
                let sim = system(page_size, zero).contiguous(Bytes::new(contiguous)).build();
                run_random(Bench::simulated(sim, None).unwrap(), 120, &mut random);
            }
        }
    }
}

/// A program that returns memory and takes it again, in spans of all kinds. Returns how often it was refused.
fn returning(bench: &mut Bench, random: &mut Random) -> usize {
    let mut refused = 0;
    for round in 0..3 {
        for step in 0..6 {
            let done = match step % 3 {
                0 => bench.alloc(SizeClass::from_index(2 + random.below(66)), 0, PAGE_BYTES),
                1 => bench.alloc(None, 1 + random.below(20), PAGE_BYTES << random.below(4)),
                _ => bench.alloc_manual(1 + random.below(70), PAGE_BYTES),
            };
            refused += usize::from(done.is_err());
            bench.check();
        }
        // In the second round everything goes, and side tables go with it.
        let keep = usize::from(round != 1);
        while bench.spans.len() > keep {
            let index = random.below(bench.spans.len());
            bench.soil(index, random);
            bench.free(index);
        }
        while bench.manual.len() > keep {
            bench.free_manual(0);
        }
        for local in &bench.local {
            bench.heap.take_back(&bench.os, &bench.memory, local);
        }
        bench.scavenge(random);
        bench.heap.scavenge_all(&bench.os);
        bench.check();
    }
    refused
}

#[test]
fn whatever_call_is_refused_when_memory_is_taken_again_nothing_is_lost() {
    for page_size in PAGE_SIZES {
        for zero in [true, false] {
            let quiet = system(page_size, zero).build();
            let mut bench = Bench::simulated(quiet.clone(), None).unwrap();
            assert_eq!(returning(&mut bench, &mut Random::new(0xfa11)), 0);
            bench.check_pages();
            bench.end();
            for call in 1..=quiet.calls() {
                let failing = system(page_size, zero).fail_call(call).build();
                let mut random = Random::new(0xfa11);
                let Ok(mut bench) = Bench::simulated(failing.clone(), None) else {
                    failing.assert_all_released();
                    continue;
                };
                returning(&mut bench, &mut random);
                failing.set_fail_call(None);
                assert_eq!(returning(&mut bench, &mut random), 0, "call {call} of {page_size}");
                bench.end();
            }
        }
    }
}
