//! `message-bus`: a large live window, and how long a single push takes.
//!
//! A bus keeps the last `window` messages of `size` bytes, in a ring. Each push makes a new message
//! and drops the oldest. Throughput is easy here; what the workload is about is the *slowest* push: a
//! collector that stops its threads, or makes one of them pay for the whole window, shows up in it.
//! It is Pusher's benchmark, as Gabriel Scherer's comparison of languages made it known.
//!
//! ```text
//! push n:   payload = size bytes, all equal to n mod 256
//!           ring[n mod window] = Message { n, payload }
//! ```
//! **Each push is one `enter`**, and its time is taken outside, so entering, allocating, assisting the
//! collector and the write barrier are all in it. The clock costs some tens of nanoseconds of each.
//! The filling of the ring is measured as well.
//!
//! `collection=off` is the same loop with a collector that never begins: what its slowest push takes is the machine's
//! doing, and what the others are held against. With `continuous=on` one cycle follows the other; beside much
//! live data there would be none otherwise while a million messages pass. `live` bytes of other objects, of
//! mixed sizes, are made before the first push and checked after the last; they are in all figures but the
//! push times.
//!
//! With a `rate`, so many messages per second are *due*, evenly. The thread waits for each by looking at the clock,
//! and the time of a push is from when it was due: one that begins late because another took long counts as late, as
//! it does for those who wait for it. Without, the next push begins when one is done, and a slow one hides those that
//! would have been due meanwhile.
//!
//! `push_own_.._us` are the times less what the thread waited for a processor ([`super::run_queue`]): the part that the
//! heap can be blamed for. Where collector and program have two processors and a third thread wants one, the collector
//! is why there is none free.
//!
//! With several threads, each has a bus of its own in the common heap, with its share of the window and
//! of the messages. The checksum is the sum of `n + (last byte)` over messages that were pushed out,
//! and of `n` and all bytes over those that are left.

use std::time::{Duration, Instant};

use spanheap::{Gc, GcCell, Heap, Mutator, Root, Rootable, Trace};

use super::histogram::Histogram;
use super::params::{Key, Params};
use super::report::{Figure, PERCENTILES};
use super::run_queue::RunQueue;
use super::{Outcome, Work, Workload, in_threads, share};
use crate::failure::{Failure, Result};
use crate::live_data::LiveData;

pub(super) const WORKLOAD: Workload = Workload {
    name: "message-bus",
    keys: &[
        Key { name: "window", default: 200_000, min: 1, max: u64::MAX },
        Key { name: "messages", default: 1_000_000, min: 1, max: u64::MAX },
        Key { name: "size", default: 1024, min: 1, max: u64::MAX },
        Key { name: "live", default: 0, min: 0, max: u64::MAX },
        Key { name: "collection", default: 1, min: 0, max: 1 },
        Key { name: "continuous", default: 0, min: 0, max: 1 },
        Key { name: "rate", default: 0, min: 0, max: 1_000_000_000 },
    ],
    footprint,
    settings: |params, builder| {
        let builder = builder.collect_continuously(params.get("continuous") == 1);
        if params.get("collection") == 0 { builder.gc_percent_off() } else { builder }
    },
    run: Work::OnHeap(run),
};

#[derive(Trace)]
struct Message<'gc> {
    number: u64,
    payload: Gc<'gc, [u8]>,
}

/// The ring: an object without pointers of its own but the one to the slots, so that a root can
/// name it.
#[derive(Trace)]
struct Bus<'gc> {
    ring: Gc<'gc, [GcCell<'gc, Option<Gc<'gc, Message<'gc>>>>]>,
}

/// A full window. Fewer messages than that need less, but the ring is allocated whole.
fn footprint(params: &Params) -> Option<u64> {
    let [window, messages, size] = ["window", "messages", "size"].map(|key| params.get(key));
    let message = size.checked_add(size_of::<Message<'_>>() as u64)?;
    let slots = window.checked_mul(size_of::<usize>() as u64)?;
    // Overflow of the product is refused even if few messages are pushed: it is a typing error.
    window.checked_mul(message)?;
    // Without a collector nothing goes.
    let kept = if params.get("collection") == 0 { messages } else { window.min(messages) };
    kept.checked_mul(message)?.checked_add(slots)?.checked_add(params.get("live"))
}

fn run(heap: &Heap, params: &Params) -> Result<Outcome> {
    let window = params.get("window");
    if (params.threads as u64) > window {
        return Err(Failure::new(format!(
            "a window of {window} cannot be shared by {} threads",
            params.threads
        )));
    }
    if (1..params.threads as u64).contains(&params.get("rate")) {
        return Err(Failure::new("each thread must have one push per second at least"));
    }
    if params.get("collection") == 0 && params.get("continuous") == 1 {
        return Err(Failure::new("collection is off and continuous is on: it cannot be both"));
    }
    let mut live = LiveData::new(heap, 1);
    live.grow_to(params.get("live"))?;
    let load = Load {
        window,
        messages: params.get("messages"),
        size: params.get("size") as usize,
        rate: params.get("rate"),
        threads: params.threads,
    };
    let sent = load.measure(heap)?;
    live.verify()?;
    let own = |(name, part)| {
        Figure::real(&format!("push_own_{name}_us"), sent.own.quantile(part) as f64 / 1e3)
    };
    let figures = PERCENTILES.map(own).into();
    Ok(Outcome { checksum: sent.checksum, latency: Some(("push", sent.times)), figures })
}

/// How much is sent, and by whom.
pub(super) struct Load {
    pub(super) window: u64,
    pub(super) messages: u64,
    pub(super) size: usize,
    /// Pushes per second; 0 is as fast as it goes.
    pub(super) rate: u64,
    pub(super) threads: usize,
}

impl Load {
    /// Sends everything.
    pub(super) fn measure(&self, heap: &Heap) -> Result<Sent> {
        let results = in_threads(self.threads, |index| {
            let window = share(self.window, self.threads, index);
            let messages = share(self.messages, self.threads, index);
            let pace = Pace::new(share(self.rate, self.threads, index));
            drive(heap, window as usize, messages, self.size, &pace)
        })?;
        let mut all = Sent::default();
        results.iter().for_each(|sent| all.add(sent));
        Ok(all)
    }
}

/// What came of it, on one bus or on several.
#[derive(Default)]
pub(super) struct Sent {
    pub(super) checksum: u64,
    /// The time of each push.
    pub(super) times: Histogram,
    /// The same without what was waiting for a processor.
    pub(super) own: Histogram,
}

impl Sent {
    fn add(&mut self, other: &Sent) {
        self.checksum = self.checksum.wrapping_add(other.checksum);
        self.times.merge(&other.times);
        self.own.merge(&other.own);
    }
}

type BusRoot = Root<Rootable![Bus<'_>]>;

/// When the pushes of a thread begin.
struct Pace {
    started: Instant,
    rate: u64,
}

impl Pace {
    fn new(rate: u64) -> Pace {
        Pace { started: Instant::now(), rate }
    }

    /// Waits until a push is due, if it is not yet. Returns when it was; without a rate, that is now.
    fn wait_for(&self, number: u64) -> Instant {
        let mut now = Instant::now();
        if self.rate == 0 {
            return now;
        }
        let nanos = u128::from(number) * 1_000_000_000 / u128::from(self.rate);
        let due = self.started + Duration::from_nanos(nanos as u64);
        while now < due {
            std::hint::spin_loop();
            now = Instant::now();
        }
        due
    }
}

/// One bus: all its pushes, and its part of the checksum.
fn drive(heap: &Heap, window: usize, messages: u64, size: usize, pace: &Pace) -> Result<Sent> {
    let bus = heap.enter(|mc| -> Result<BusRoot> {
        let slots = (0..window).map(|_| GcCell::new(None));
        let ring = mc.try_alloc_slice(slots)?;
        Ok(mc.root(mc.try_alloc(Bus { ring })?))
    })?;
    let mut sent = Sent::default();
    let mut run_queue = RunQueue::new();
    for number in 0..messages {
        let started = pace.wait_for(number);
        let gone = heap.enter(|mc| push(mc, bus.get(mc), number, size))?;
        let time = started.elapsed();
        sent.times.record(time.as_nanos() as u64);
        sent.own.record(run_queue.own_part(time).as_nanos() as u64);
        sent.checksum = sent.checksum.wrapping_add(gone);
    }
    let left = heap.enter(|mc| {
        let ring = bus.get(mc).ring;
        ring.iter().filter_map(GcCell::get).fold(0_u64, |sum, message| {
            let bytes: u64 = message.payload.iter().map(|&byte| u64::from(byte)).sum();
            sum.wrapping_add(message.number).wrapping_add(bytes)
        })
    });
    sent.checksum = sent.checksum.wrapping_add(left);
    Ok(sent)
}

/// Puts a new message in the ring. Returns what the one that it replaces adds to the checksum.
fn push<'gc>(mc: &Mutator<'gc>, bus: Gc<'gc, Bus<'gc>>, number: u64, size: usize) -> Result<u64> {
    let bytes = std::iter::repeat_n(number as u8, size);
    let payload = mc.try_alloc_slice(bytes)?;
    let message = mc.try_alloc(Message { number, payload })?;
    let slot = &bus.ring[(number % bus.ring.len() as u64) as usize];
    let old = slot.swap(mc, Some(message));
    Ok(old.map_or(0, |old| {
        // A message has at least one byte: `size` is at least 1.
        old.number.wrapping_add(u64::from(old.payload[old.payload.len() - 1]))
    }))
}
