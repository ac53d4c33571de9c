//! The manager's own records: memory that is neither managed by the collector nor by the Rust
//! allocator.
//!
//! The heap may one day *be* the Rust allocator, and must be able to describe itself when memory is
//! short, so its records come straight from [`Os`](crate::os::Os):
//!
//! * [`Persistent`]: bump allocation; everything is given back at once, at the end.
//! * [`FixedPool`]: objects of one type that come and go, on top of it.
//! * [`ReservedArray`]: a table as large as the address space needs, with memory only where it is
//!   used; several that belong together lie in one [`ArraySpace`].
//! * [`AddrRanges`]: a set of address ranges, in such a table.
//!
//! None of them keeps a reference to the `Os`: the owner of the records has one and lends it to
//! each call. Therefore none gives its memory back when dropped; owners call `release`, and the
//! simulated system tells those who forget.

mod fixed;
mod persistent;
mod ranges;
mod reserved;

pub use fixed::{FixedPool, Fresh};
pub use persistent::Persistent;
pub use ranges::AddrRanges;
pub use reserved::{ArraySize, ArraySpace, ReservedArray, Zeroable};
