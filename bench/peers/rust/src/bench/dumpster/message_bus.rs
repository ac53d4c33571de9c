//! `message-bus` for dumpster. The ring is the program's own, and each message has one owner, so it is freed by the
//! push that replaces it.

use dumpster::Trace;

use super::Gc;
use crate::bench::message_bus::{self, Bus, gone, left};
use crate::bench::{Outcome, Result};
use crate::options::Params;

#[derive(Trace)]
struct Message {
    number: u64,
    payload: Gc<[u8]>,
}

struct Ring(Box<[Option<Gc<Message>>]>);

pub fn run(params: &Params) -> Result<Outcome> {
    message_bus::run::<Ring>(params)
}

impl Bus for Ring {
    fn new(window: usize, _: &Params) -> Ring {
        Ring((0..window).map(|_| None).collect())
    }

    fn push(&mut self, number: u64, size: usize) -> u64 {
        // From a vector: the way of the crate that fills a block at once, with one copy. Its `collect` does the same.
        let payload = Gc::from(vec![number as u8; size]);
        let message = Gc::new(Message { number, payload });
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
