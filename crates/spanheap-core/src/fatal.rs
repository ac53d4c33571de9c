//! The end of a process whose heap is broken.
//!
//! Corruption is not an error that a caller could handle: unwinding would run destructors over a heap
//! that cannot be trusted. [`fatal`] writes what is known and aborts. It does not allocate.

use core::fmt;
use std::io::Write;

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
