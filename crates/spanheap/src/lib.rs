//! A garbage-collected heap for Rust.
mod trace;
pub use trace::{Trace, Tracer};
