//! The page heap: spans of pages, cut into objects of one size class.
//!
//! This layer turns the pages that [`crate::pages`] hands out into spans that hold objects. It decides how
//! large an object slot is and how many slots a span has ([`size_class`]). It stands above the page
//! allocator and below the collector: it is called by both sides and calls neither.

pub mod size_class;
