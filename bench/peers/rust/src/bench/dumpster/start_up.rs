//! `start-up` for dumpster: a list, which is freed by a recursion along it.
//!
//! To take it apart in a loop the links would have to be cells, and to walk along cells one has to copy pointers,
//! which makes every object suspect and lets the detector recurse instead. So a short list is left to the recursion,
//! and a long one gets a thread with a deep stack.

use dumpster::Trace;

use super::Gc;
use crate::bench::start_up::{self, List};
use crate::bench::{Failure, Outcome, Result, STACK, on_stacks};
use crate::options::Params;

/// Bytes of stack for an object of the list.
const FRAME: usize = 1024;

#[derive(Trace)]
struct Node {
    number: u64,
    next: Option<Gc<Node>>,
}

type Last = Option<Gc<Node>>;

pub fn run(params: &Params) -> Result<Outcome> {
    match params.get("objects") as usize {
        0..4096 => start_up::run::<Last>(params),
        objects @ 4096..1_048_577 => {
            let stack = STACK + objects * FRAME;
            let outcomes = on_stacks(1, stack, |_| start_up::run::<Last>(params))?;
            outcomes.into_iter().next().ok_or_else(|| Failure::new("nothing was measured"))
        }
        _ => Err(Failure::not_applicable("it frees lists by recursion, and this one is too long")),
    }
}

impl List for Last {
    fn new(first: u64, objects: u64, _: &Params) -> Last {
        let numbers = (0..objects).map(|index| first.wrapping_add(index));
        numbers.fold(None, |next, number| Some(Gc::new(Node { number, next })))
    }

    fn sum(&self) -> u64 {
        let (mut sum, mut link) = (0_u64, self);
        while let Some(node) = link {
            sum = sum.wrapping_add(node.number);
            link = &node.next;
        }
        sum
    }
}
