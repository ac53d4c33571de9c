//! [`ArenaOptions`]: a limit and a name.

/// Settings for an arena: see [`Mutator::arena_with`](crate::Mutator::arena_with).
#[derive(Clone, Copy, Debug)]
#[must_use = "settings are given to `Mutator::arena_with`"]
pub struct ArenaOptions {
    pub(super) limit: usize,
    pub(super) name: &'static str,
}

impl ArenaOptions {
    /// No limit, and no name.
    pub const fn new() -> ArenaOptions {
        ArenaOptions { limit: usize::MAX, name: "an arena" }
    }

    /// The arena may have this many bytes of memory, as [`Arena::reserved`](crate::Arena::reserved) counts them: in whole
    /// pages of 8 KiB. Whoever needs more gets an error, or a panic.
    pub const fn limit(self, bytes: usize) -> ArenaOptions {
        ArenaOptions { limit: bytes, ..self }
    }

    /// What the arena is called in errors, panics, and when it is printed.
    pub const fn name(self, name: &'static str) -> ArenaOptions {
        ArenaOptions { name, ..self }
    }
}

impl Default for ArenaOptions {
    fn default() -> ArenaOptions {
        ArenaOptions::new()
    }
}
