//! All kernels against the scalar one, and patterns against a twin that goes from object to object.
//!
//! # Safety
//! Pages are memory of the test, which nobody else writes.
#![allow(unsafe_code)]

use super::*;
use crate::addr::{GRANULE_BYTES, PAGE_BITMAP_WORDS, PAGE_BYTES, WORD_BYTES};
use crate::span::size_class::{CLASS_COUNT, SizeClass};
use crate::tests::{Random, steps};
use std::collections::BTreeSet;

/// A page, aligned like one.
#[repr(align(8192))]
struct Page([usize; PAGE_WORDS]);

/// A word with few ones, half of them, many, all or none.
fn bits(random: &mut Random) -> u64 {
    let mut any = || random.next() << 24 ^ random.next();
    match any() % 8 {
        0 => 0,
        1 => u64::MAX,
        2 => any() & any() & any() & any(),
        3 => any() | any() | any(),
        4 => any() & any(),
        5 => 1 << (any() % 64),
        _ => any(),
    }
}

fn gathered(kernel: Kernel, base: Addr, mask: &WordMask) -> Vec<usize> {
    let mut found = Found::new();
    // What was there must not matter.
    found.values.fill(MaybeUninit::new(0xdead));
    // SAFETY: the words of a page of the test.
    unsafe { kernel.gather(base, mask, &mut found) };
    found.values().to_vec()
}

#[test]
fn every_kernel_finds_what_the_scalar_one_finds_on_random_pages() {
    let mut random = Random::new(0x6a7);
    let mut page = Box::new(Page([0; PAGE_WORDS]));
    let (mut expected, mut found) = (Found::new(), Found::new());
    let vectors: Vec<Kernel> = Kernel::all().skip(1).collect();
    let pages = steps(1_000_000, 20_000_000);
    for round in 0..pages {
        // Some new words each time; the page as a whole changes in a few dozen rounds.
        for _ in 0..2 {
            let (at, present) = (random.below(16), bits(&mut random));
            for (bit, word) in page.0[at * 64..][..64].iter_mut().enumerate() {
                *word = if present >> bit & 1 == 1 { random.next() as usize | 1 } else { 0 };
            }
        }
        let mask: WordMask = core::array::from_fn(|_| bits(&mut random));
        let base = Addr::of(&raw const page.0);
        // SAFETY: all words of the page can be read.
        unsafe { Kernel::SCALAR.gather(base, &mask, &mut expected) };
        for &kernel in &vectors {
            // SAFETY: as above.
            unsafe { kernel.gather(base, &mask, &mut found) };
            assert_eq!(found.values(), expected.values(), "{kernel:?}, page {round}");
        }
    }
}

#[test]
fn the_scalar_kernel_finds_the_words_of_the_mask_that_are_not_zero() {
    let mut random = Random::new(0x5ca1);
    for _ in 0..300 {
        let mut page = Box::new(Page([0; PAGE_WORDS]));
        page.0.iter_mut().for_each(|word| *word = random.below(3) * random.next() as usize);
        let mask: WordMask = core::array::from_fn(|_| bits(&mut random));
        let is_asked = |at: usize| mask[at / 64] >> (at % 64) & 1 == 1;
        let there = page.0.iter().enumerate().filter(|&(at, &word)| is_asked(at) && word != 0);
        let expected: Vec<usize> = there.map(|(_, &word)| word).collect();
        let base = Addr::of(&raw const page.0);
        assert_eq!(gathered(Kernel::SCALAR, base, &mask), expected);
    }
}

/// Two pages, of which the second may not be touched, end where the mask does: a kernel that reads more than it is
/// asked for ends the process.
#[test]
fn no_kernel_touches_a_word_that_is_not_asked_for() {
    let bytes = 2 * PAGE_BYTES;
    // SAFETY: a new mapping.
    let memory = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        libc::mmap(core::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    assert_ne!(memory, libc::MAP_FAILED);
    let base = Addr::of(memory.cast_const());
    let behind = base.get() + PAGE_BYTES;
    // SAFETY: the second half of the mapping.
    assert_eq!(unsafe { libc::mprotect(behind as *mut _, PAGE_BYTES, libc::PROT_NONE) }, 0);
    for words in 1..=64 {
        // The last words of the page that may be read, at every position in a vector.
        let start = Addr::new(behind - words * WORD_BYTES);
        // SAFETY: a word of the first page.
        unsafe { start.as_ptr::<usize>().write(words) };
        let mut mask: WordMask = [0; 16];
        mask[0] = u64::MAX >> (64 - words);
        for kernel in Kernel::all() {
            assert_eq!(gathered(kernel, start, &mask)[0], words, "{kernel:?}");
        }
    }
    // SAFETY: the mapping of above, which nobody uses any more.
    assert_eq!(unsafe { libc::munmap(memory, bytes) }, 0);
}

#[test]
fn a_pattern_expands_to_the_words_that_a_walk_over_the_objects_visits() {
    let mut random = Random::new(0xe49a);
    let sizes: BTreeSet<usize> = (2..CLASS_COUNT)
        .filter_map(SizeClass::from_index)
        .map(|class| class.size().get())
        .filter(|&size| size <= 512)
        .collect();
    assert!(sizes.contains(&24) && sizes.contains(&512) && sizes.contains(&16));
    for _ in 0..steps(300, 10_000) {
        for &size in &sizes {
            let words = size / WORD_BYTES;
            let period = if random.one_in(2) { 0 } else { 1 + random.below(words) as u32 };
            let length = if period == 0 { words } else { period as usize };
            let mask = bits(&mut random) & u64::MAX >> (64 - length);
            let pattern = Pattern::new(size, mask, period).expect("short enough");
            let (mut objects, mut expected) = ([0u64; PAGE_BITMAP_WORDS], [0u64; 16]);
            let chosen = bits(&mut random);
            for slot in 0..PAGE_BYTES / size {
                if chosen.rotate_left(slot as u32 * 7) & 1 == 0 {
                    continue;
                }
                let granule = slot * size / GRANULE_BYTES;
                objects[granule / 64] |= 1 << (granule % 64);
                let steps = if period == 0 { 1 } else { words / length };
                for word in (0..steps * length).filter(|word| mask >> (word % length) & 1 == 1) {
                    let at = slot * words + word;
                    expected[at / 64] |= 1 << (at % 64);
                }
            }
            assert_eq!(pattern.expand(&objects), expected, "size {size}, period {period}");
        }
    }
}

#[test]
fn slots_that_are_too_short_or_too_long_have_no_pattern() {
    for size in [0, 8, 12, 15, 17, 20, 520, 1024] {
        assert_eq!(Pattern::new(size, 1, 0), None, "{size}");
    }
}

#[test]
fn kernels_are_found_by_their_names() {
    assert_eq!(Kernel::named("scalar"), Some(Kernel::SCALAR));
    assert_eq!(Kernel::named("abacus"), None);
    for kernel in Kernel::all() {
        assert_eq!(Kernel::named(kernel.name()), Some(kernel));
    }
    assert_eq!(Kernel::best(), Kernel::best());
    assert!(Kernel::all().any(|kernel| kernel == Kernel::best()));
}
