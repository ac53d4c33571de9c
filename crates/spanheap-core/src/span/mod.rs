//! Spans.
pub mod layout;
pub mod tracer;
