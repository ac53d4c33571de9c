//! The memory of records and tables: it comes from the Rust allocator, belongs to the process, and never goes back.
//!
//! A signal handler may be reading any of it, for a heap that is being dropped on another thread, so nothing of it
//! lies in a heap's own records. What a heap does not need any more goes to a stack of the process's, for the next one.
//! Both kinds are bounded: beyond [`MAX_BATCHES`] and [`MAX_BLOCKS`] nothing is recorded.
//!
//! Neither does this count as memory of a heap. It is there only for programs that look for an error.
//!
//! **Locking.** [`Rank::Sites`], for what a heap keeps for itself. What the process keeps needs none: in a forked child
//! it could be held for ever.

use super::link::{Link, Linked, Stack};
use super::objects::Block;
use super::records::Record;
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};

/// Records are made so many at a time.
const BATCH: usize = 30;

/// At most so many times: 262,000 chunks, with 36 MB.
const MAX_BATCHES: usize = 8738;

/// Blocks there are at most: 4 million objects, with 128 MiB.
const MAX_BLOCKS: usize = 1 << 15;

/// Records that were made together. It is there for ever.
struct Batch {
    next: Link<Batch>,
    records: [Record; BATCH],
}

impl Linked for Batch {
    fn next(&self) -> &Link<Batch> {
        &self.next
    }
}

/// All records that there are. Nothing is ever taken away.
static BATCHES: Stack<Batch> = Stack::new();

/// How many batches and blocks were made, or more.
static BATCHES_MADE: AtomicUsize = AtomicUsize::new(0);
static BLOCKS_MADE: AtomicUsize = AtomicUsize::new(0);

/// What no heap uses.
static FREE_RECORDS: Stack<Record> = Stack::new();
static FREE_BLOCKS: Stack<Block> = Stack::new();

/// The first of all records that is wanted, for a signal handler: in loops, because a chain of iterators takes
/// kibibytes of its small stack where nothing is optimised.
pub(super) fn find_record(is_wanted: impl Fn(&'static Record) -> bool) -> Option<&'static Record> {
    let mut next = BATCHES.top();
    while let Some(batch) = next {
        for record in &batch.records {
            if is_wanted(record) {
                return Some(record);
            }
        }
        next = batch.next.get(Ordering::Acquire);
    }
    None
}

/// What a heap has of both, and does not use.
pub(super) struct Memory {
    free: Lock<Free>,
}

struct Free {
    records: List<Record>,
    blocks: List<Block>,
}

/// A list that has one owner.
struct List<T: Linked>(Option<&'static T>);

impl<T: Linked> List<T> {
    fn pop(&mut self) -> Option<&'static T> {
        let first = self.0.take()?;
        self.0 = first.next().take();
        Some(first)
    }

    fn push(&mut self, element: &'static T) {
        // `Release`: a reader who has found the element in its last life follows this link, to something that others
        // have made. What he finds there he does not believe, but he may read it.
        element.next().set(self.0, Ordering::Release);
        self.0 = Some(element);
    }
}

impl Memory {
    /// Nothing yet.
    pub(super) const fn new() -> Memory {
        let free = Free { records: List(None), blocks: List(None) };
        Memory { free: Lock::new(Rank::Sites, free) }
    }

    /// A record of nobody's. `None`: there are too many, or there is no memory.
    pub(super) fn record(&self) -> Option<&'static Record> {
        let mut free = self.free.lock();
        if free.records.0.is_none() {
            free.records.0 = FREE_RECORDS.take_all();
        }
        if free.records.0.is_none() {
            let batch = allocate(&BATCHES_MADE, MAX_BATCHES, || Batch {
                next: Link::none(),
                records: [const { Record::new() }; BATCH],
            })?;
            batch.records.iter().for_each(|record| free.records.push(record));
            BATCHES.push(batch);
        }
        free.records.pop()
    }

    /// A block without entries, with the same exceptions.
    pub(super) fn block(&self) -> Option<&'static Block> {
        let mut free = self.free.lock();
        if free.blocks.0.is_none() {
            free.blocks.0 = FREE_BLOCKS.take_all();
        }
        let block = free.blocks.pop().or_else(|| allocate(&BLOCKS_MADE, MAX_BLOCKS, Block::new))?;
        drop(free);
        block.renew();
        Some(block)
    }

    /// A record that is nobody's now, and blocks that belong to the caller.
    pub(super) fn give_back(&self, record: &'static Record, blocks: Option<&'static Block>) {
        let mut free = self.free.lock();
        free.records.push(record);
        let mut blocks = List(blocks);
        while let Some(block) = blocks.pop() {
            free.blocks.push(block);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let free = self.free.get_mut();
        while let Some(record) = free.records.pop() {
            FREE_RECORDS.push(record);
        }
        while let Some(block) = free.blocks.pop() {
            FREE_BLOCKS.push(block);
        }
    }
}

/// Makes one more of what there may be `max` of. `None` when there are as many, or there is no memory.
fn allocate<T>(made: &AtomicUsize, max: usize, new: impl FnOnce() -> T) -> Option<&'static T> {
    // The first look keeps the counter from ever coming round.
    if made.load(Ordering::Relaxed) >= max || made.fetch_add(1, Ordering::Relaxed) >= max {
        return None;
    }
    // A vector, because unlike a box it can say that there is no memory.
    let mut one = Vec::new();
    one.try_reserve_exact(1).ok()?;
    one.push(new());
    one.leak().first()
}

/// Whether the record is one of those that a signal handler finds.
#[cfg(test)]
pub(super) fn is_known(record: &'static Record) -> bool {
    find_record(|known| core::ptr::eq(known, record)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_heap_has_used_serves_the_next_one() {
        let memory = Memory::new();
        let records: Vec<_> = (0..3 * BATCH).map(|_| memory.record().unwrap()).collect();
        assert!(records.iter().all(|record| is_known(record)));
        let blocks: Vec<_> = (0..10).map(|_| memory.block().unwrap()).collect();
        for (n, record) in records.iter().enumerate() {
            memory.give_back(record, blocks.get(n).copied());
        }
        drop(memory);
        // Other tests may be faster, but what there is is used before anything is made.
        let next = Memory::new();
        let again = next.record().unwrap();
        assert!(is_known(again));
        next.give_back(again, None);
    }

    #[test]
    fn no_more_are_made_than_there_may_be() {
        let made = AtomicUsize::new(0);
        assert!((0..3).all(|n| allocate(&made, 3, || n).copied() == Some(n)));
        assert!((0..9).all(|n| allocate(&made, 3, || n).is_none()));
        assert_eq!(made.into_inner(), 3);
    }

    #[test]
    fn a_block_comes_back_empty() {
        use super::super::objects::Object;
        use crate::addr::{Addr, Bytes};
        let memory = Memory::new();
        let block = memory.block().unwrap();
        let site = core::panic::Location::caller();
        let (start, bytes) = (Addr::new(64), Bytes::new(8));
        assert!(block.note(&Object { start, bytes, name: "x", is_slice: false, site }));
        memory.give_back(memory.record().unwrap(), Some(block));
        let again = memory.block().unwrap();
        assert!(core::ptr::eq(again, block));
        assert!(again.find(start).is_none());
    }
}
