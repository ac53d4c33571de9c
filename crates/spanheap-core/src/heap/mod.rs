//! The page heap: spans of pages, cut into objects of one size class.
//!
//! This layer turns the pages that [`crate::pages`] hands out into spans that hold objects. It
//! decides how large an object's slot is and how many slots a span has ([`size_class`]). It stands
//! above the page allocator, which it calls, and below the collector, which calls it.

pub mod size_class;
