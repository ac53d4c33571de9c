//! The adversary: objects that are always on the move.
//!
//! A fixed number of tokens lies in shared cells and locked bags. Each thread takes tokens out, so that for a
//! while only its closure knows them, and puts them somewhere else: into a cell that the collector has
//! scanned already, into a bag, or through a new object. A collector that misses a deletion, allocates
//! in the wrong colour or ends too early loses a token.

use crate::{Random, canary, modes, on_threads, rounds};
use spanheap::{Collected, Gc, GcCell, GcMutex, Heap, Mutator, Root, Rootable, Trace};

const PLACES: usize = 64;
const THREADS: u64 = 3;

#[derive(Trace)]
struct Token {
    id: u64,
    canary: u64,
}

type Slot<'gc> = GcCell<'gc, Option<Gc<'gc, Token>>>;

#[derive(Trace)]
struct Place<'gc> {
    slot: Slot<'gc>,
    bag: GcMutex<'gc, Vec<Gc<'gc, Token>>>,
}

#[derive(Trace)]
struct Board<'gc> {
    places: Gc<'gc, [GcCell<'gc, Gc<'gc, Place<'gc>>>]>,
}

fn new_place<'gc>(mc: &Mutator<'gc>, token: Option<Gc<'gc, Token>>) -> Gc<'gc, Place<'gc>> {
    mc.alloc(Place { slot: GcCell::new(token), bag: GcMutex::new(Vec::new()) })
}

/// Takes tokens out of random places and puts them into others.
fn shuffle<'gc>(mc: &Mutator<'gc>, board: &Board<'gc>, random: &mut Random) {
    let mut hand: Vec<Gc<'gc, Token>> = Vec::new();
    for _ in 0..=random.below(20) {
        let place = board.places[random.below(PLACES)].get();
        match random.below(6) {
            0 | 1 => hand.extend(place.slot.swap(mc, None)),
            2 => hand.extend(place.bag.lock(mc).pop()),
            3 => {
                let token = hand.pop();
                hand.extend(place.slot.swap(mc, token));
            }
            4 => {
                if let Some(token) = hand.pop() {
                    place.bag.lock(mc).push(token);
                }
            }
            _ => pass_through(mc, place, &mut hand),
        }
        dawdle(random);
        for token in &hand {
            assert_eq!(token.canary, canary(token.id), "a token in hand was freed");
        }
    }
    while let Some(token) = hand.pop() {
        let place = board.places[random.below(PLACES)].get();
        if random.one_in(2) {
            place.bag.lock(mc).push(token);
        } else {
            hand.extend(place.slot.swap(mc, Some(token)));
        }
    }
}

/// Lets the collector get on, now and then: what goes wrong goes wrong when a closure spans its steps.
fn dawdle(random: &mut Random) {
    if random.one_in(10) {
        std::thread::sleep(std::time::Duration::from_micros(random.below(60) as u64));
    }
}

/// Moves everything in hand and in a place through a new object, which is garbage right after.
fn pass_through<'gc>(
    mc: &Mutator<'gc>,
    place: Gc<'gc, Place<'gc>>,
    hand: &mut Vec<Gc<'gc, Token>>,
) {
    let fresh = new_place(mc, hand.pop());
    hand.extend(place.slot.swap(mc, None));
    hand.append(&mut place.bag.lock(mc));
    fresh.bag.lock(mc).append(hand);
    hand.extend(fresh.slot.swap(mc, None));
    let mut all = fresh.bag.lock(mc);
    place.bag.lock(mc).append(&mut all);
}

fn count_tokens(heap: &Heap, board: &Root<Rootable![Board<'_>]>) -> Vec<u64> {
    let mut ids = heap.enter(|mc| {
        let board = board.get(mc);
        let mut ids = Vec::new();
        for cell in board.places.iter() {
            let place = cell.get();
            let bag = place.bag.lock(mc);
            for token in place.slot.get().iter().chain(bag.iter()) {
                assert_eq!(token.canary, canary(token.id));
                ids.push(token.id);
            }
        }
        ids
    });
    ids.sort_unstable();
    ids
}

#[test]
fn no_token_is_lost_on_the_move() {
    for (mode, builder) in modes() {
        let seed = 77;
        println!("tokens: {mode}, seed {seed}");
        let heap = builder.build().unwrap();
        let board: Root<Rootable![Board<'_>]> = heap.enter(|mc| {
            let places = mc.alloc_slice((0..PLACES).map(|id| {
                let id = id as u64;
                let token = mc.alloc(Token { id, canary: canary(id) });
                GcCell::new(new_place(mc, Some(token)))
            }));
            mc.root(mc.alloc(Board { places }))
        });
        on_threads(THREADS, |thread| {
            let mut random = Random::new(seed + thread);
            for _ in 0..4000 * rounds() {
                heap.enter(|mc| shuffle(mc, &board.get(mc), &mut random));
            }
        });
        let all: Vec<u64> = (0..PLACES as u64).collect();
        assert_eq!(count_tokens(&heap, &board), all, "{mode}");
        assert_eq!(heap.collect(), Collected::Complete);
        assert_eq!(count_tokens(&heap, &board), all, "{mode}");
        // The board, its slice, the places and the tokens.
        assert_eq!(heap.stats().live_objects, 2 + 2 * PLACES as u64, "{mode}");
    }
}
