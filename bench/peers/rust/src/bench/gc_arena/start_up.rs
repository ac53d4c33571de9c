//! `start-up` for gc-arena: an arena, a list in it, and its end.

use std::time::Instant;

use gc_arena::{Arena, Collect, Gc, Rootable};

use super::pace;
use crate::bench::{Failure, Figure, Outcome, Result, Times};
use crate::options::Params;
use crate::process;

#[derive(Collect)]
#[collect(no_drop)]
struct Node<'gc> {
    number: u64,
    next: Option<Gc<'gc, Node<'gc>>>,
}

type List = Arena<Rootable![Option<Gc<'_, Node<'_>>>]>;

pub fn start_up(params: &Params) -> Result<Outcome> {
    if params.threads > 1 {
        return Err(Failure::new("start-up runs on one thread"));
    }
    let [rounds, objects] = ["rounds", "objects"].map(|key| params.get(key));
    let (mut times, mut checksum) = (Times::default(), 0_u64);
    let (mut first, mut resident) = (0, 0);
    let before = process::resident();
    let mut after_first = 0;
    for round in 0..rounds {
        let started = Instant::now();
        let arena = List::new(|mc| {
            let list =
                |next, index| Some(Gc::new(mc, Node { number: round.wrapping_add(index), next }));
            (0..objects).fold(None, list)
        });
        pace(arena.metrics(), params);
        checksum = checksum.wrapping_add(arena.mutate(|_, root| sum(*root)));
        let mut time = started.elapsed();
        if round == 0 {
            resident = process::resident().saturating_sub(before);
        }
        let dropped = Instant::now();
        drop(arena);
        time += dropped.elapsed();
        times.record(time);
        if round == 0 {
            first = time.as_nanos() as u64;
            after_first = process::resident();
        }
    }
    let figures = vec![
        Figure::count("first_round_ns", first),
        Figure::count("first_resident_bytes", resident),
        Figure::count("grown_resident_bytes", process::resident().saturating_sub(after_first)),
    ];
    Ok(Outcome { checksum, latency: Some(("round", times)), figures })
}

fn sum<'gc>(mut link: Option<Gc<'gc, Node<'gc>>>) -> u64 {
    let mut sum = 0_u64;
    while let Some(node) = link {
        sum = sum.wrapping_add(node.number);
        link = node.next;
    }
    sum
}
