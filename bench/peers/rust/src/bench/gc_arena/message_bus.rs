//! `message-bus` for gc-arena: an incremental step behind each push, in the time of the push.
//!
//! The ring is divided into segments. A store into an object that was marked makes the collector look at all of it
//! again; with the whole window in one object, each push while a cycle marks would cost a walk over the window.

use gc_arena::lock::Lock;
use gc_arena::{Arena, Collect, Gc, Mutation, Rootable};

use super::pace;
use crate::bench::message_bus::{self, Bus, gone, left};
use crate::bench::{Outcome, Result};
use crate::options::Params;

/// Slots of a segment.
const SEGMENT: usize = 64;

#[derive(Collect)]
#[collect(no_drop)]
struct Message {
    number: u64,
    payload: Box<[u8]>,
}

type Slot<'gc> = Lock<Option<Gc<'gc, Message>>>;
type Segments<'gc> = Box<[Gc<'gc, [Slot<'gc>; SEGMENT]>]>;

struct Ring {
    arena: Arena<Rootable![Segments<'_>]>,
    window: usize,
}

pub fn message_bus(params: &Params) -> Result<Outcome> {
    message_bus::run::<Ring>(params)
}

impl Bus for Ring {
    fn new(window: usize, params: &Params) -> Ring {
        let arena = Arena::new(|mc| {
            let segment = |_| Gc::new(mc, std::array::from_fn(|_| Lock::new(None)));
            (0..window.div_ceil(SEGMENT)).map(segment).collect()
        });
        pace(arena.metrics(), params);
        Ring { arena, window }
    }

    fn push(&mut self, number: u64, size: usize) -> u64 {
        let slot = (number % self.window as u64) as usize;
        let gone = self.arena.mutate(|mc, segments| push(mc, segments, slot, number, size));
        self.arena.collect_debt();
        gone
    }

    fn finish(self) -> u64 {
        let sum = self.arena.mutate(|_, segments| {
            let messages = segments.iter().flat_map(|segment| segment.iter()).filter_map(Lock::get);
            messages.fold(0_u64, |sum, message| {
                sum.wrapping_add(left(message.number, &message.payload))
            })
        });
        std::mem::forget(self);
        sum
    }
}

fn push<'gc>(
    mc: &Mutation<'gc>,
    segments: &'gc Segments<'gc>,
    slot: usize,
    number: u64,
    size: usize,
) -> u64 {
    let payload = vec![number as u8; size].into_boxed_slice();
    let message = Gc::new(mc, Message { number, payload });
    let slot = Gc::write(mc, segments[slot / SEGMENT])[slot % SEGMENT].unlock();
    let old = slot.replace(Some(message));
    old.map_or(0, |old| gone(old.number, &old.payload))
}
