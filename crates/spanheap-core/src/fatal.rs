//! The end of a process whose heap is broken; and panics of the user's that must not end a thread of ours.
//!
//! Corruption is not an error that a caller could handle: unwinding would run destructors over a heap
//! that cannot be trusted. [`fatal`] writes what is known and aborts. It does not allocate.
//!
//! # Safety
//! One system call that reads a constant.
#![allow(unsafe_code)]

use core::any::Any;
use core::fmt;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Reports corruption on standard error, in lines that start with `spanheap:`, and aborts.
#[cold]
pub fn fatal(what: fmt::Arguments<'_>) -> ! {
    let mut out = std::io::stderr();
    let _ = writeln!(out, "spanheap: fatal: {what}");
    let _ = writeln!(
        out,
        "spanheap: the heap is corrupt; likely causes: a wrong hand-written `Trace`, unsafe code that \
         wrote through a stale pointer, or a bug in spanheap. Checkmark mode names the first bad edge."
    );
    std::process::abort()
}

/// Reports a mistake and aborts, where nothing may be called that takes a lock or allocates: in what turns out
/// to be a signal handler.
#[cold]
pub(crate) fn fatal_in_signal(what: &'static str) -> ! {
    for part in ["spanheap: fatal: ", what, "\n"] {
        // SAFETY: the bytes are there for the whole call, which reads them and is allowed in a handler. If it
        // fails, there is nobody left to tell.
        let _ = unsafe { libc::write(2, part.as_ptr().cast(), part.len()) };
    }
    std::process::abort()
}

/// Runs our own code, on whatever thread. User code that panics is contained further down ([`contain`]); a panic that
/// gets here is a bug, and leaves a heap that could neither be trusted nor dropped. So it ends the process, and
/// `who` says what has happened.
pub(crate) fn or_die<R>(who: &'static str, run: impl FnOnce() -> R) -> R {
    struct Unwinding(&'static str);

    impl Drop for Unwinding {
        fn drop(&mut self) {
            fatal(format_args!("{} has panicked", self.0));
        }
    }

    let unwinding = Unwinding(who);
    let result = run();
    core::mem::forget(unwinding);
    result
}

/// Calls code of the user's, a destructor or a trace function; `None` when it has panicked.
pub(crate) fn contain<R>(run: impl FnOnce() -> R) -> Option<R> {
    contain_with(run, |_| {})
}

/// The same, and `tell` sees what it panicked with.
///
/// The payload is dropped here, and that is the user's code too. If it panics in turn, the second payload is
/// leaked: somewhere there has to be an end.
pub(crate) fn contain_with<R>(
    run: impl FnOnce() -> R,
    tell: impl FnOnce(&(dyn Any + Send)),
) -> Option<R> {
    let payload = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => return Some(result),
        Err(payload) => payload,
    };
    tell(&*payload);
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        core::mem::forget(second);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_29_unwinding_through_it_ends_the_process_and_nothing_else_does() {
        or_die("nobody", || ());
        // SAFETY: the child does nothing but fail.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let _ = catch_unwind(|| {
                // No panic hook: it would print, under a lock that another thread may have held.
                or_die("the test", || std::panic::resume_unwind(Box::new(())))
            });
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(1) };
        }
        let mut status = 0;
        // SAFETY: waits for the child that was just made.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGABRT, "{status}");
    }
}
