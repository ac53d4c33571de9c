//! The thread-local side of attaching: which mutator a thread uses for which heap.
//!
//! Entries of heaps that are gone are thrown out when the thread attaches to another one; what they keep
//! until then is a small record, not the heap's memory.

use spanheap_core::mutator::{Heap as CoreHeap, Mutator as CoreMutator};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Weak};

struct Entry {
    number: u64,
    heap: Weak<CoreHeap>,
    /// Counted, because a nested closure may change the list while an outer one uses its mutator.
    mutator: Rc<CoreMutator>,
}

thread_local! {
    static ATTACHED: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with the calling thread's mutator for `heap`, attaching the thread if it is not yet.
#[inline]
pub(crate) fn with_mutator<R>(heap: &Arc<CoreHeap>, f: impl FnOnce(&CoreMutator) -> R) -> R {
    let known = ATTACHED.try_with(|list| find(&mut list.borrow_mut(), heap.number()));
    let mutator = match known {
        Ok(Some(mutator)) => mutator,
        Ok(None) => attach(heap),
        // The thread is ending and has no thread-locals any more: attached for this closure only.
        Err(_) => Rc::new(heap.attach()),
    };
    f(&mutator)
}

#[inline]
fn find(list: &mut [Entry], number: u64) -> Option<Rc<CoreMutator>> {
    let at = list.iter().position(|entry| entry.number == number)?;
    // Who was the last one to enter is looked at first.
    if at != 0 {
        list.swap(0, at);
    }
    Some(list[0].mutator.clone())
}

#[cold]
fn attach(heap: &Arc<CoreHeap>) -> Rc<CoreMutator> {
    let mutator = Rc::new(heap.attach());
    let entry =
        Entry { number: heap.number(), heap: Arc::downgrade(heap), mutator: mutator.clone() };
    let dead: Vec<Entry> = ATTACHED.with(|list| {
        let mut list = list.borrow_mut();
        let dead = list.extract_dead();
        list.push(entry);
        dead
    });
    // Dropped here, where the list is not borrowed any more.
    drop(dead);
    mutator
}

/// Taking out the entries of heaps that are gone.
trait ExtractDead {
    fn extract_dead(&mut self) -> Vec<Entry>;
}

impl ExtractDead for Vec<Entry> {
    fn extract_dead(&mut self) -> Vec<Entry> {
        let (alive, dead) =
            std::mem::take(self).into_iter().partition(|entry| entry.heap.strong_count() > 0);
        *self = alive;
        dead
    }
}

/// Whether the calling thread is, or may be, inside a closure of `heap`. A thread that is ending and has no
/// thread-locals any more cannot tell, and whoever asks must not make it wait for itself.
pub(crate) fn is_inside(heap: &Arc<CoreHeap>) -> bool {
    ATTACHED
        .try_with(|list| {
            let list = list.borrow();
            let entry = list.iter().find(|entry| entry.number == heap.number());
            entry.is_some_and(|entry| entry.mutator.is_inside())
        })
        .unwrap_or(true)
}
