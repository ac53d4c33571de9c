//! Filling a heap with objects of exactly one size, and telling two halves of them apart.
//!
//! An object is a link of a list, `[next | words]`, so nothing else is needed to hold it: a table of
//! pointers would weigh half as much as the smallest objects. There are two sets of [`HEADS`] lists, one for
//! the half that stays and one for the half that goes; which set an object joins is decided when it is
//! made. Freeing a half is dropping its root. (Many lists and not one, because a list is marked from its
//! head, each step a miss of the cache.)
//!
//! The size is a parameter of the type, so there is one instance of everything here for each size, behind
//! the function pointer of a [`Kind`].

use spanheap::{Gc, GcCell, Heap, Root, Rootable, Trace};

use crate::failure::{Failure, Result};

/// Lists of a half.
const HEADS: usize = 64;
/// Bytes that are allocated in one closure.
const BATCH_BYTES: usize = 256 << 10;

/// An object of `8 + 8 * WORDS` bytes.
#[derive(Trace)]
struct Link<'gc, const WORDS: usize> {
    next: GcCell<'gc, Option<Gc<'gc, Link<'gc, WORDS>>>>,
    words: [u64; WORDS],
}

type Head<'gc, const WORDS: usize> = GcCell<'gc, Option<Gc<'gc, Link<'gc, WORDS>>>>;

/// Objects that are held by a root.
pub(super) trait Held {
    /// Checks that all objects are as they were made, and returns how many there are.
    fn verify(&self, heap: &Heap) -> Result<u64>;
}

/// The two halves of a fill.
pub(super) struct Halves {
    pub(super) kept: Box<dyn Held>,
    pub(super) doomed: Box<dyn Held>,
}

/// Makes so many objects; the function says which of them, by number, belong to the half that goes.
type Fill = fn(&Heap, u64, &mut dyn FnMut(u64) -> bool) -> Result<Halves>;

/// A size of objects.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    /// In bytes.
    pub(super) size: usize,
    pub(super) fill: Fill,
}

/// Whether a class of this name holds the objects that are made here.
pub(super) fn is_ours(type_name: &str) -> bool {
    type_name.starts_with(concat!(module_path!(), "::Link<"))
}

type HeadsRoot<const WORDS: usize> = Root<Rootable![[Head<'_, WORDS>]]>;

struct Lists<const WORDS: usize> {
    heads: HeadsRoot<WORDS>,
}

impl<const WORDS: usize> Lists<WORDS> {
    fn new(heap: &Heap) -> Result<Lists<WORDS>> {
        let heads = heap.enter(|mc| {
            let heads = mc.try_alloc_slice((0..HEADS).map(|_| Head::<WORDS>::new(None)));
            heads.map(|heads| mc.root(heads))
        });
        Ok(Lists { heads: heads? })
    }
}

impl<const WORDS: usize> Held for Lists<WORDS> {
    fn verify(&self, heap: &Heap) -> Result<u64> {
        heap.enter(|mc| {
            let mut count = 0;
            for head in self.heads.get(mc).iter() {
                let mut link = head.get();
                while let Some(this) = link {
                    if this.words.iter().any(|&word| word != this.words[0]) {
                        return Err(Failure::new("an object is not what it was made as"));
                    }
                    count += 1;
                    link = this.next.get();
                }
            }
            Ok(count)
        })
    }
}

fn fill<const WORDS: usize>(
    heap: &Heap,
    count: u64,
    is_doomed: &mut dyn FnMut(u64) -> bool,
) -> Result<Halves> {
    let (kept, doomed) = (Lists::<WORDS>::new(heap)?, Lists::<WORDS>::new(heap)?);
    let batch = (BATCH_BYTES / size_of::<Link<'_, WORDS>>()).max(1);
    let mut made = 0;
    while made < count {
        let end = count.min(made + batch as u64);
        heap.enter(|mc| -> Result<()> {
            let (kept, doomed) = (kept.heads.get(mc), doomed.heads.get(mc));
            for number in made..end {
                let heads = if is_doomed(number) { doomed } else { kept };
                let head = &heads[number as usize / 2 % HEADS];
                let next = GcCell::new(head.get());
                let link = mc.try_alloc(Link { next, words: [number; WORDS] })?;
                head.set(mc, Some(link));
            }
            Ok(())
        })?;
        made = end;
    }
    Ok(Halves { kept: Box::new(kept), doomed: Box::new(doomed) })
}

macro_rules! kinds {
    ($($size:literal)*) => {
        [$(Kind { size: $size, fill: fill::<{ $size / 8 - 1 }> }),*]
    };
}

/// Every size of slots, and three of objects that have pages for themselves.
pub(super) fn kinds() -> Vec<Kind> {
    kinds![
        16 24 32 48 64 80 96 112 128 144 160 176 192 208 224 240 256 288 320 352 384 416 448 480
        512 576 640 704 768 896 1024 1152 1280 1408 1536 1792 2048 2304 2688 3072 3200 3456 4096
        4864 5376 6144 6528 6784 6912 8192 9472 9728 10240 10880 12288 13568 14336 16384 18432
        19072 20480 21760 24576 27264 28672 32768
        40960 65536 262144
    ]
    .to_vec()
}

#[cfg(test)]
mod tests {
    use spanheap::Heap;
    use spanheap_core::span::size_class::{MIN_SLOT_SIZE, SizeClass};

    use super::{Link, is_ours, kinds};

    #[test]
    fn every_slot_size_is_there() {
        let sizes: Vec<usize> = kinds().iter().map(|kind| kind.size).collect();
        let slots =
            SizeClass::all().map(|class| class.size()).filter(|&size| size >= MIN_SLOT_SIZE);
        let slots: Vec<usize> = slots.map(|size| size.get()).collect();
        assert_eq!(sizes[..slots.len()], slots);
        assert!(sizes[slots.len()..].iter().all(|&size| size > 32 << 10), "{sizes:?}");
        assert_eq!(size_of::<Link<'_, 1>>(), 16);
    }

    #[test]
    fn halves_are_what_was_asked_for() {
        let heap = Heap::builder().gc_percent_off().build().expect("memory");
        for kind in kinds() {
            let halves = (kind.fill)(&heap, 10, &mut |number| number % 5 == 0).expect("memory");
            let counts = [halves.kept, halves.doomed].map(|half| half.verify(&heap));
            assert_eq!(counts.map(|count| count.expect("intact")), [8, 2], "{}", kind.size);
        }
        // All large objects are of one class.
        let classes = heap.picture().classes;
        let ours = classes.iter().filter(|class| is_ours(class.type_name));
        assert_eq!(ours.count(), kinds().len() - 2, "{classes:?}");
    }
}
