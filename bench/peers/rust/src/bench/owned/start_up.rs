//! `start-up` for owned memory: a list, which is taken apart in a loop.

use super::Pointer;
use crate::bench::start_up::{self, List};
use crate::bench::{Outcome, Result};
use crate::options::Params;

struct Node<P: Pointer> {
    number: u64,
    next: Option<P::To<Node<P>>>,
}

struct Last<P: Pointer>(Option<P::To<Node<P>>>);

pub fn start_up<P: Pointer>(params: &Params) -> Result<Outcome> {
    start_up::run::<Last<P>>(params)
}

impl<P: Pointer> List for Last<P> {
    fn new(first: u64, objects: u64, _: &Params) -> Last<P> {
        let numbers = (0..objects).map(|index| first.wrapping_add(index));
        Last(numbers.fold(None, |next, number| Some(P::new(Node { number, next }))))
    }

    fn sum(&self) -> u64 {
        let (mut sum, mut link) = (0_u64, &self.0);
        while let Some(node) = link {
            sum = sum.wrapping_add(node.number);
            link = &node.next;
        }
        sum
    }
}

impl<P: Pointer> Drop for Last<P> {
    fn drop(&mut self) {
        let mut link = self.0.take();
        while let Some(mut node) = link {
            link = P::exclusive(&mut node).next.take();
        }
    }
}
