//! `start-up` for gc-arena: an arena, a list in it, and its end.

use gc_arena::{Arena, Collect, Gc, Rootable};

use super::pace;
use crate::bench::start_up::{self, List};
use crate::bench::{Outcome, Result};
use crate::options::Params;

#[derive(Collect)]
#[collect(no_drop)]
struct Node<'gc> {
    number: u64,
    next: Option<Gc<'gc, Node<'gc>>>,
}

type Last = Arena<Rootable![Option<Gc<'_, Node<'_>>>]>;

pub fn start_up(params: &Params) -> Result<Outcome> {
    start_up::run::<Last>(params)
}

impl List for Last {
    fn new(first: u64, objects: u64, params: &Params) -> Last {
        let arena = Arena::new(|mc| {
            let numbers = (0..objects).map(|index| first.wrapping_add(index));
            numbers.fold(None, |next, number| Some(Gc::new(mc, Node { number, next })))
        });
        pace(Last::metrics(&arena), params);
        arena
    }

    fn sum(&self) -> u64 {
        self.mutate(|_, last| {
            let (mut sum, mut link) = (0_u64, *last);
            while let Some(node) = link {
                sum = sum.wrapping_add(node.number);
                link = node.next;
            }
            sum
        })
    }
}
