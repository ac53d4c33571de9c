//! The workloads of `spanheap bench`, in the other ways to manage memory that a Rust program has.
//!
//! ```text
//! box            owned boxes on the system's allocator           no sharing, no cycles
//! box-mimalloc   the same on mimalloc                             what a fast malloc can do
//! rc             reference counts, one thread                     cycles are never freed
//! arc            atomic reference counts                          cycles are never freed
//! gc-arena       incremental mark and sweep, one thread           collects between closures
//! dumpster       counts and a detector of cycles, one thread
//! dumpster-sync  the same for several threads
//! bumpalo        a bump allocator                                 frees everything or nothing
//! ```
//! Each has a program of its own name, started as `PROGRAM WORKLOAD key=value ...`, `threads=N` among them. It
//! prints one line of JSON with the keys of the report of `spanheap bench --json`. What a system cannot know is left
//! out. A workload that a system cannot do, or not with these parameters, ends with exit code 3 and a sentence on
//! standard error.
//!
//! # Fairness
//! Sizes of objects, order of operations and checksums are those of `bench/WORKLOADS.md`. Each system is used as its
//! own documentation wants it to be used, and where there is a choice, the faster one is taken. What a program has
//! to do for its system (counting, borrowing, entering a closure) is in the times.
//! At the end nothing is torn down: a program that has its result does not free its trees one by one, and neither
//! does a collected one. So what lives at the end is forgotten, and all that dies before is freed by the system's
//! own means.
//!
//! # What is shared
//! Boxes, `Rc` and `Arc` differ in the pointer alone, and share the code of the workloads ([`bench::owned`]) through
//! a trait that the compiler sees through. gc-arena and dumpster have their own. Random numbers, the histogram and
//! what the system knows of the process are the very files of spanheap's program.

pub mod bench;
mod options;
#[allow(dead_code)]
#[path = "../../../../crates/spanheap-cli/src/process.rs"]
mod process;
mod program;
#[path = "../../../../crates/spanheap-cli/src/random.rs"]
mod random;

pub use bench::systems::{ARC, BOX, BOX_MIMALLOC, BUMPALO, DUMPSTER, DUMPSTER_SYNC, GC_ARENA, RC};
pub use program::main;
