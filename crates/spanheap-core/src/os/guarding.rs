//! Making memory fault on purpose: what `fault` and `guard` are for, and what `guard` answers.
//!
//! Both take a range that is Ready or Prepared, return the memory behind it, and leave it Reserved. They
//! differ in what they cost and in what they promise.
//!
//! | | [`Os::fault`](super::Os::fault) | [`Os::guard`](super::Os::guard) |
//! |---|---|---|
//! | an access afterwards | faults, always | faults, or reads zeros: the answer says which |
//! | can be refused | yes | no |
//! | costs mappings | up to two per range, without a bound of ours | none with guard markers, else up to two per range within the heap's share |
//! | back to Prepared | [`Os::map`](super::Os::map), for any category | [`Os::unguard`](super::Os::unguard) |
//! | meant for | whole regions and tables, few of them; undoing `map` | pages in the midst of accessible memory, any number of them |
//!
//! So `fault` is for the owner of a region who wants it back as it was after `reserve`, and can live with a
//! refusal. `guard` is for memory that has been given up while pointers into it may still exist in
//! programs with errors (user arenas): its purpose is to find such errors, it is called in places that
//! cannot fail, and there may be a hundred thousand of these ranges.
//!
//! # The three means of `guard`
//! 1. **Markers**, where the system has them (Linux 6.13): a mark in the page tables, for each page,
//!    without any change of mappings.
//! 2. **Protection**: the range is made inaccessible as a mapping of its own. The heap's
//!    [share](super::splits) of the process's mappings bounds how many there are.
//! 3. **Policy**: the memory is returned and nobody may use the range, but the processor does not watch.
//!    A read finds zeros. What an erroneous write puts there is dropped in `unguard`, so memory is
//!    zeroed when it is used again whatever happened in between.
//!
//! A range of which parts were guarded by different means, or in different calls, can be unguarded in one
//! call, and a guarded range in parts. (A part of a protected range costs mappings, too; that is why
//! `unguard` can be refused.)

/// What an access to a range does after [`Os::guard`](super::Os::guard).
#[must_use = "an access may not fault"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guarding {
    /// It faults.
    Faults,
    /// A read finds zeros: the system refused to watch, or the heap has used up its share of mappings.
    ReadsZero,
}
