//! [`Trace`](crate::Trace) for the types of the standard library.
//!
//! | file | types |
//! |---|---|
//! | `leaves` | numbers, strings, times, function pointers, atomics: nothing to find |
//! | `inline` | values that hold their parts in themselves: `Option`, tuples, arrays, ranges |
//! | `owned` | values that own memory elsewhere: `Box` and the collections |
//! | `cells` | `Cell`, `RefCell`, `Mutex` and friends, for contents without pointers only; `Arc` |
//!
//! `Rc` is missing on purpose: an object is dropped on another thread than the one that made it, and any
//! thread of the heap may reach it. Use `Arc`.

mod cells;
mod inline;
mod leaves;
mod owned;

#[cfg(test)]
mod tests;
