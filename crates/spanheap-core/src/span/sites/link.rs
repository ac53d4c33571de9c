//! Pointers to what is there for ever, and stacks of such things, without locks.
//!
//! What a signal handler reads must be readable at any moment. So the records and tables of this directory are never
//! given back to the allocator, they are recycled; and a pointer to one is null or good.
//!
//! A [`Stack`] is pushed to, and emptied as a whole. Without taking single elements there is no need to compare a
//! head that may have gone and come back in the meantime (the ABA problem).
//!
//! # Safety
//! - L1. A [`Link`] is null, or came from a `&'static T`.
#![allow(unsafe_code)]

use crate::sync::atomic::{AtomicPtr, Ordering};
use core::ptr;

/// A pointer to something that is there for ever, or to nothing. Others may change it.
pub(super) struct Link<T: Sync + 'static>(AtomicPtr<T>);

impl<T: Sync + 'static> Link<T> {
    /// To nothing.
    pub(super) const fn none() -> Link<T> {
        Link(AtomicPtr::new(ptr::null_mut()))
    }

    fn raw(target: Option<&'static T>) -> *mut T {
        target.map_or(ptr::null_mut(), |target| ptr::from_ref(target).cast_mut())
    }

    fn target(raw: *mut T) -> Option<&'static T> {
        // SAFETY: L1.
        unsafe { raw.as_ref() }
    }

    /// What it points to.
    pub(super) fn get(&self, order: Ordering) -> Option<&'static T> {
        Link::target(self.0.load(order))
    }

    /// Lets it point elsewhere.
    pub(super) fn set(&self, target: Option<&'static T>, order: Ordering) {
        self.0.store(Link::raw(target), order);
    }

    /// Takes what it points to, and leaves nothing.
    pub(super) fn take(&self) -> Option<&'static T> {
        Link::target(self.0.swap(ptr::null_mut(), Ordering::AcqRel))
    }

    /// Lets it point to `target` if it still points to `before`. Else says what it points to.
    pub(super) fn replace(
        &self,
        before: Option<&'static T>,
        target: &'static T,
    ) -> Result<(), Option<&'static T>> {
        let (old, new) = (Link::raw(before), Link::raw(Some(target)));
        let result = self.0.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire);
        result.map(|_| ()).map_err(Link::target)
    }
}

/// What has a link to the next one of its kind.
pub(super) trait Linked: Sync + Sized + 'static {
    /// The link.
    fn next(&self) -> &Link<Self>;
}

/// A stack of what nobody uses.
pub(super) struct Stack<T: Linked>(Link<T>);

impl<T: Linked> Stack<T> {
    /// An empty one.
    pub(super) const fn new() -> Stack<T> {
        Stack(Link::none())
    }

    /// Puts one element on top, which belongs to the caller.
    pub(super) fn push(&self, element: &'static T) {
        let mut top = self.0.get(Ordering::Acquire);
        loop {
            // `Release`: as in `memory.rs`, somebody may still follow this link who came by it in another list.
            element.next().set(top, Ordering::Release);
            match self.0.replace(top, element) {
                Ok(()) => return,
                Err(now) => top = now,
            }
        }
    }

    /// The topmost element, if there is any. Those above, which are linked, stay.
    pub(super) fn top(&self) -> Option<&'static T> {
        self.0.get(Ordering::Acquire)
    }

    /// Takes all elements: the topmost, from which the others follow. They belong to the caller.
    pub(super) fn take_all(&self) -> Option<&'static T> {
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::atomic::AtomicUsize;

    struct Element {
        next: Link<Element>,
        holders: AtomicUsize,
    }

    impl Linked for Element {
        fn next(&self) -> &Link<Element> {
            &self.next
        }
    }

    fn element() -> &'static Element {
        Box::leak(Box::new(Element { next: Link::none(), holders: AtomicUsize::new(0) }))
    }

    #[test]
    fn a_link_is_replaced_only_if_it_is_what_was_expected() {
        let (link, a, b) = (Link::none(), element(), element());
        assert!(link.replace(None, a).is_ok());
        assert!(link.replace(None, b).is_err_and(|now| ptr::eq(now.unwrap(), a)));
        assert!(link.replace(Some(a), b).is_ok());
        assert!(ptr::eq(link.take().unwrap(), b));
        assert!(link.get(Ordering::Relaxed).is_none());
    }

    #[test]
    fn an_element_has_one_owner_at_a_time() {
        static STACK: Stack<Element> = Stack::new();
        const THREADS: usize = 4;
        const EACH: usize = 16;
        let total = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        STACK.push(element());
                    }
                    for _ in 0..2000 {
                        let mut rest = STACK.take_all();
                        while let Some(mine) = rest {
                            assert_eq!(mine.holders.fetch_add(1, Ordering::Relaxed), 0);
                            rest = mine.next.take();
                            mine.holders.fetch_sub(1, Ordering::Relaxed);
                            STACK.push(mine);
                        }
                    }
                });
            }
        });
        let mut rest = STACK.take_all();
        while let Some(element) = rest {
            total.fetch_add(1, Ordering::Relaxed);
            rest = element.next.take();
        }
        assert_eq!(total.into_inner(), THREADS * EACH);
        assert!(STACK.top().is_none());
    }
}
