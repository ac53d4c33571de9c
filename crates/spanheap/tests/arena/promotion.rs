//! What leaves an arena.
