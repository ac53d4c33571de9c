//! [`LiveData`]: a set of objects of mixed sizes, held at a chosen number of bytes and renewed steadily.
//!
//! ```text
//! roots: segment, segment ..      a segment: slots -> Item { number, payload }
//! ```
//! Growing adds segments; shrinking drops the roots of the newest ones, and with each some 300 KiB of
//! objects. Renewing replaces random items by others of other sizes, so that free slots of all sizes lie
//! between objects, as in a program that has run for a while. Every item can be checked: its payload is a
//! stretch of one pattern that begins where its number says.
//!
//! Sizes follow what heaps look like: most objects are small, most bytes are in the others.

use std::sync::Arc;

use spanheap::{Gc, GcCell, Heap, Mutator, OutOfMemory, Root, Rootable, Trace};

use crate::failure::{Failure, Result};
use crate::random::Random;

/// Items of a segment.
const SLOTS: usize = 128;
/// The largest payload. Larger than any slot, so that large objects occur.
const MAX_PAYLOAD: usize = 128 << 10;
/// The part of the pattern that may stand in front of a payload.
const PHASES: usize = 251;

#[derive(Trace)]
struct Item<'gc> {
    number: u64,
    payload: Gc<'gc, [u8]>,
}

type Slot<'gc> = GcCell<'gc, Option<Gc<'gc, Item<'gc>>>>;

type SlotsRoot = Root<Rootable![[Slot<'_>]]>;

struct Segment {
    slots: SlotsRoot,
    bytes: u64,
}

/// Objects of mixed sizes, held by roots.
pub(crate) struct LiveData {
    heap: Heap,
    segments: Vec<Segment>,
    bytes: u64,
    made: u64,
    random: Random,
    pattern: Arc<[u8]>,
}

impl LiveData {
    /// No objects. What is made later follows from `seed`.
    pub(crate) fn new(heap: &Heap, seed: u64) -> LiveData {
        LiveData {
            heap: heap.clone(),
            segments: Vec::new(),
            bytes: 0,
            made: 0,
            random: Random::new(seed),
            pattern: (0..MAX_PAYLOAD + PHASES).map(|index| (index % PHASES) as u8).collect(),
        }
    }

    /// Bytes of live objects.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a segment.
    pub(crate) fn add_segment(&mut self) -> Result<()> {
        let LiveData { heap, random, pattern, made, .. } = self;
        let segment = heap.enter(|mc| -> Result<Segment> {
            let slots = mc.try_alloc_slice((0..SLOTS).map(|_| Slot::new(None)))?;
            let mut bytes = 0;
            for slot in slots.iter() {
                let item = item(mc, pattern, random, *made)?;
                *made += 1;
                bytes += weight(item);
                slot.set(mc, Some(item));
            }
            Ok(Segment { slots: mc.root(slots), bytes })
        })?;
        self.bytes += segment.bytes;
        self.segments.push(segment);
        Ok(())
    }

    /// Adds segments until there are `bytes` or more.
    pub(crate) fn grow_to(&mut self, bytes: u64) -> Result<()> {
        while self.bytes < bytes {
            self.add_segment()?;
        }
        Ok(())
    }

    /// Drops the newest segments as long as there are `bytes` without them.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        while let Some(last) = self.segments.last() {
            if self.bytes - last.bytes < bytes {
                return;
            }
            self.bytes -= last.bytes;
            self.segments.pop();
        }
    }

    /// Drops the oldest segment.
    pub(crate) fn drop_oldest(&mut self) {
        if !self.segments.is_empty() {
            self.bytes -= self.segments.remove(0).bytes;
        }
    }

    /// Replaces random items until `bytes` of new ones have been made, and checks what it replaces. One
    /// closure, so `bytes` should be small.
    pub(crate) fn renew(&mut self, bytes: u64) -> Result<()> {
        if self.segments.is_empty() {
            return Ok(());
        }
        let mut renewed = 0;
        let LiveData { heap, segments, random, pattern, made, bytes: total, .. } = self;
        heap.enter(|mc| {
            while renewed < bytes {
                let segment = random.below(segments.len());
                let segment = &mut segments[segment];
                let slot = &segment.slots.get(mc)[random.below(SLOTS)];
                let new = item(mc, pattern, random, *made)?;
                *made += 1;
                let old = slot.swap(mc, Some(new));
                let lost = old.map_or(Ok(0), |old| check(old, pattern).map(|()| weight(old)))?;
                renewed += weight(new);
                segment.bytes = segment.bytes + weight(new) - lost;
                *total = *total + weight(new) - lost;
            }
            Ok(())
        })
    }

    /// Drops about one of two items, at random.
    pub(crate) fn thin(&mut self) {
        let LiveData { heap, segments, random, bytes: total, .. } = self;
        for segment in segments {
            heap.enter(|mc| {
                for slot in segment.slots.get(mc).iter().filter(|_| random.below(2) == 0) {
                    let lost = slot.swap(mc, None).map_or(0, weight);
                    segment.bytes -= lost;
                    *total -= lost;
                }
            });
        }
    }

    /// Checks every item and returns how many there are.
    pub(crate) fn verify(&self) -> Result<u64> {
        let mut count = 0;
        for segment in &self.segments {
            self.heap.enter(|mc| -> Result<()> {
                for item in segment.slots.get(mc).iter().filter_map(GcCell::get) {
                    check(item, &self.pattern)?;
                    count += 1;
                }
                Ok(())
            })?;
        }
        Ok(count)
    }
}

/// A new item of random size.
fn item<'gc>(
    mc: &Mutator<'gc>,
    pattern: &[u8],
    random: &mut Random,
    number: u64,
) -> std::result::Result<Gc<'gc, Item<'gc>>, OutOfMemory> {
    let first = (number % PHASES as u64) as usize;
    let payload = mc.try_alloc_copy(&pattern[first..first + payload_bytes(random)])?;
    mc.try_alloc(Item { number, payload })
}

/// What an item weighs, in bytes: itself, its payload and its slot.
fn weight(item: Gc<'_, Item<'_>>) -> u64 {
    (size_of::<Item<'_>>() + size_of::<usize>() + item.payload.len()) as u64
}

fn check(item: Gc<'_, Item<'_>>, pattern: &[u8]) -> Result<()> {
    let first = (item.number % PHASES as u64) as usize;
    if item.payload[..] == pattern[first..first + item.payload.len()] {
        return Ok(());
    }
    Err(Failure::new(format!("object {} is not what it was made as", item.number)))
}

/// A random size: a range first, then a size of that range.
fn payload_bytes(random: &mut Random) -> usize {
    let (low, high) = match random.below(100) {
        0..50 => (16, 128),
        50..80 => (128, 1 << 10),
        80..95 => (1 << 10, 8 << 10),
        95..99 => (8 << 10, 32 << 10),
        _ => (32 << 10, MAX_PAYLOAD),
    };
    low + random.below(high - low)
}

#[cfg(test)]
mod tests {
    use spanheap::Heap;

    use super::{LiveData, SLOTS};

    #[test]
    fn it_grows_shrinks_and_stays_what_it_was() {
        let heap = Heap::new();
        let mut data = LiveData::new(&heap, 5);
        data.grow_to(4 << 20).expect("memory");
        let full = data.verify().expect("intact");
        assert_eq!(full % SLOTS as u64, 0);
        assert!((4 << 20..6 << 20).contains(&data.bytes()), "{}", data.bytes());
        for _ in 0..20 {
            data.renew(100_000).expect("intact");
        }
        let _ = heap.collect();
        assert_eq!(data.verify().expect("intact"), full);
        data.thin();
        let left = data.verify().expect("intact");
        assert!((full / 3..full * 2 / 3).contains(&left), "{left} of {full}");
        data.shrink_to(1 << 20);
        assert!((1 << 20..2 << 20).contains(&data.bytes()), "{}", data.bytes());
        data.drop_oldest();
        data.shrink_to(0);
        assert_eq!((data.bytes(), data.verify().expect("intact")), (0, 0));
        for _ in 0..2 {
            let _ = heap.collect();
        }
        assert_eq!(heap.stats().live_objects, 0);
    }
}
