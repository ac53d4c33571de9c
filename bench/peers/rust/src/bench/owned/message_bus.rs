//! `message-bus` for owned memory: the push that replaces a message frees it.

use super::Pointer;
use crate::bench::message_bus::{self, Bus, gone, left};
use crate::bench::{Outcome, Result};
use crate::options::Params;

struct Message<P: Pointer> {
    number: u64,
    payload: P::Bytes,
}

type Slot<P> = Option<<P as Pointer>::To<Message<P>>>;

struct Ring<P: Pointer>(Box<[Slot<P>]>);

pub fn message_bus<P: Pointer>(params: &Params) -> Result<Outcome> {
    message_bus::run::<Ring<P>>(params)
}

impl<P: Pointer> Bus for Ring<P> {
    fn new(window: usize, _: &Params) -> Ring<P> {
        Ring((0..window).map(|_| None).collect())
    }

    fn push(&mut self, number: u64, size: usize) -> u64 {
        let payload = P::bytes(number as u8, size);
        let message = P::new(Message { number, payload });
        let slot = (number % self.0.len() as u64) as usize;
        let old = self.0[slot].replace(message);
        old.map_or(0, |old| gone(old.number, &old.payload))
    }

    fn finish(self) -> u64 {
        let messages = self.0.iter().flatten();
        let sum = messages
            .fold(0_u64, |sum, message| sum.wrapping_add(left(message.number, &message.payload)));
        std::mem::forget(self);
        sum
    }
}
