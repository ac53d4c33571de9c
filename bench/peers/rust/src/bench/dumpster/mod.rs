//! dumpster: reference counts, and a detector that frees cycles.
//!
//! A `Gc` is cloned and dropped like an `Rc` or `Arc`. A drop that leaves other owners notes the object; from time
//! to time (when more pointers were dropped than there are left) dumpster walks from all noted objects along
//! everything that they reach, and frees those whose counts are explained by each other. There are two, one for a
//! single thread and one for several, with the same interface. The workloads are written once and compiled for both.
//!
//! # What it cannot do
//! - There is no way to write through a `Gc`; a field that changes is a `RefCell` or a `Mutex`, and one that is set
//!   once, as the children in gcbench, a `OnceCell` or `OnceLock`. There are no weak pointers.
//! - What `box`, `rc` and `arc` free, it frees at the same moment, for the same price and that of its notes; the
//!   detector has something to do only where pointers are copied.
//! - The walk is recursive: it needs as much stack as the graph is deep.

pub mod sync;
pub mod unsync;
