//! A function to call once, later, on another thread: as two words, which fit in a record.
//!
//! The words are the address of what the function has captured, on the Rust heap, and that of the code that
//! calls or drops it.
//!
//! # Safety
//! A task owns what its function has captured; the words of a payload stand for the task, and are turned back
//! into it at most once.
#![allow(unsafe_code)]

use crate::span::specials::Payload;

/// What is done with a function that was kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Call,
    Forget,
}

/// Calls the function at the address, or drops it uncalled.
type Code = unsafe fn(captured: *mut (), how: Use);

/// A function to call once.
#[derive(Debug)]
pub struct Task {
    captured: *mut (),
    code: Code,
}

// SAFETY: `Task::new` demands that the function may move between threads.
unsafe impl Send for Task {}

/// # Safety
/// `captured` came from `Box::into_raw` of a box of an `F`, and is not used any more.
unsafe fn code<F: FnOnce()>(captured: *mut (), how: Use) {
    // SAFETY: the caller's promise.
    let function = unsafe { Box::from_raw(captured.cast::<F>()) };
    if how == Use::Call {
        function();
    }
}

impl Task {
    /// Keeps a function.
    pub fn new<F: FnOnce() + Send + 'static>(function: F) -> Task {
        Task { captured: Box::into_raw(Box::new(function)).cast(), code: code::<F> }
    }

    /// Calls it.
    pub fn run(self) {
        let task = core::mem::ManuallyDrop::new(self);
        // SAFETY: the box of `Task::new`, which the task, never used again, has owned.
        unsafe { (task.code)(task.captured, Use::Call) };
    }

    /// The task as two words.
    pub(crate) fn into_payload(self) -> Payload {
        let task = core::mem::ManuallyDrop::new(self);
        [task.captured.expose_provenance(), task.code as usize]
    }

    /// The task that [`Task::into_payload`] turned into words.
    ///
    /// # Safety
    /// The words came from there, and this is the first time.
    pub(crate) unsafe fn from_payload(payload: Payload) -> Task {
        let [captured, code] = payload;
        let code = core::ptr::with_exposed_provenance::<()>(code);
        // SAFETY: the word was made of such a function.
        let code = unsafe { core::mem::transmute::<*const (), Code>(code) };
        Task { captured: core::ptr::with_exposed_provenance_mut(captured), code }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // SAFETY: as in `run`; a task that was run or turned into words is not dropped.
        unsafe { (self.code)(self.captured, Use::Forget) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_task_is_called_once_or_dropped_uncalled() {
        let (calls, token) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
        let make = || {
            let (calls, token) = (calls.clone(), token.clone());
            Task::new(move || {
                calls.fetch_add(1, Ordering::Relaxed);
                drop(token);
            })
        };
        let payload = make().into_payload();
        assert_eq!((calls.load(Ordering::Relaxed), Arc::strong_count(&token)), (0, 2));
        // SAFETY: the words are new.
        unsafe { Task::from_payload(payload) }.run();
        assert_eq!((calls.load(Ordering::Relaxed), Arc::strong_count(&token)), (1, 1));
        drop(make());
        assert_eq!((calls.load(Ordering::Relaxed), Arc::strong_count(&token)), (1, 1));
        Task::new(|| ()).run();
    }
}
