//! An array that takes long to mark, in which pointers move from where marking has not been to where it has.
//!
//! The array is scanned from its beginning to its end. So each thread takes a token out of a random place, more often
//! from the far end, and puts it down nearer to the beginning, or the other way round: a collector that trusts
//! what it finds when it comes by loses tokens, and finds others twice. Checkmark mode compares each cycle with a second
//! mark while nobody is inside; the tokens' canaries and their number are checked besides.
//!
//! The array has 16 MiB here, and 1 GiB with `SPANHEAP_LONG=1`, which is zero pages for the most part.

use crate::{Random, canary, on_threads};
use spanheap::{Collected, Gc, GcCell, Heap, Root, Rootable, Trace};

#[derive(Trace)]
struct Token {
    id: u64,
    canary: u64,
}

type Slot<'gc> = GcCell<'gc, Option<Gc<'gc, Token>>>;
type Array = Root<Rootable![[Slot<'_>]]>;

const TOKENS: usize = 500;
const THREADS: u64 = 2;
/// The least number of cycles that have to end while tokens move.
const CYCLES: u64 = 12;

/// Takes tokens from some places and puts them into others, which are empty or give up theirs.
fn shuffle<'gc>(
    mc: &spanheap::Mutator<'gc>,
    array: Gc<'gc, [Slot<'gc>]>,
    at: &mut [usize],
    random: &mut Random,
) {
    for _ in 0..200 {
        let which = random.below(at.len());
        let Some(token) = array[at[which]].swap(mc, None) else {
            panic!("the token {which} is not at {}, where this thread has put it", at[which])
        };
        assert_eq!(token.canary, canary(token.id), "a token was freed");
        // Mostly to the other half. Each thread has the places of its own remainder, so none is taken.
        let half = array.len() / 2;
        let place = match at[which] < half {
            true if !random.one_in(8) => half + random.below(half),
            _ => random.below(half),
        };
        let place = place - place % THREADS as usize + at[which] % THREADS as usize;
        let instead = array[place].swap(mc, Some(token));
        if let Some(other) = instead {
            // A place that another token of this thread has: they change places.
            let holder = at.iter().position(|&taken| taken == place).expect("one of ours");
            assert!(array[at[which]].swap(mc, Some(other)).is_none());
            at[holder] = at[which];
        }
        at[which] = place;
    }
}

/// The ids of all tokens that lie in the array, in order.
fn tokens(heap: &Heap, array: &Array) -> Vec<u64> {
    let mut ids: Vec<u64> = heap
        .enter(|mc| array.get(mc).iter().filter_map(GcCell::get).map(|token| token.id).collect());
    ids.sort_unstable();
    ids
}

#[test]
fn fault_67_a_large_array_is_marked_while_its_pointers_move() {
    let long = std::env::var_os("SPANHEAP_LONG").is_some_and(|value| value != "0");
    let len = if long { 1 << 27 } else { 1 << 21 };
    let seed = 67;
    println!("large array: {len} slots, seed {seed}");
    let builder = Heap::builder().poison(true).checkmark(true).collect_continuously(true);
    let heap = builder.build().unwrap();
    let array: Array = heap.enter(|mc| {
        let array: Gc<'_, [Slot<'_>]> = mc.alloc_zeroed(len);
        for id in 0..TOKENS {
            array[id].set(mc, Some(mc.alloc(Token { id: id as u64, canary: canary(id as u64) })));
        }
        mc.root(array)
    });
    let begun = heap.stats().cycles;
    on_threads(THREADS, |thread| {
        let mut random = Random::new(seed + thread);
        let mut at: Vec<usize> = (thread as usize..TOKENS).step_by(THREADS as usize).collect();
        while heap.stats().cycles < begun + CYCLES {
            for _ in 0..20 {
                heap.enter(|mc| shuffle(mc, array.get(mc), &mut at, &mut random));
            }
        }
    });
    let all: Vec<u64> = (0..TOKENS as u64).collect();
    assert_eq!(tokens(&heap, &array), all);
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!(tokens(&heap, &array), all);
    let stats = heap.stats();
    assert_eq!(stats.live_objects, 1 + TOKENS as u64);
    assert!(stats.verified_objects >= (1 + TOKENS as u64) * CYCLES, "{stats:?}");
}
