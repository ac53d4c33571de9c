//! The files of the core that are about user arenas, and their mutants.

use super::{CUT, Edit, Module, family};

/// The chunks of user arenas, and the state of their spans.
pub(super) fn chunks() -> Vec<Module> {
    let chunk = family(
        "chunk",
        "span/chunk.rs",
        &[
            ("&*at.as_ptr::<AtomicU64>()", "crate::arenas::word(at)"),
            ("use super::sites::", "use crate::arenas::"),
            (
                "impl Chunk {\n    link!(",
                "impl Chunk {\n    pub fn new() -> Chunk {\n        let zero = || AtomicUsize::new(0);\n        \
                 let none = || AtomicPtr::new(ptr::null_mut());\n        let flag = || AtomicBool::new(false);\n        \
                 let count = || AtomicU64::new(0);\n        \
                 Chunk { base: zero(), end: zero(), low: zero(), high: zero(), beside: flag(), \
                 blackened: count(), paled: count(), clean: count(), escapes: count(), number: count(), \
                 owner: AtomicPtr::new(ptr::null_mut()), span: AtomicPtr::new(ptr::null_mut()), next: none(), \
                 next_partial: none(), newer: none(), older: none(), \
                 sites: ChunkSites }\n    }\n    link!(",
            ),
            (
                "    /// Calls `visit` with the pages on which bits\0ADDRESS_BITS <= 48);",
                "    pub fn count_bits(&self, _: Table) -> u64 {\n        0\n    }\n}\n",
            ),
        ],
        &[(
            "chunk_low_seen_relaxed",
            ("self.low.load(Ordering::Acquire)", "self.low.load(Ordering::Relaxed)"),
        )],
    );
    // Out of a file that is about all spans.
    let state = family(
        "span_state",
        "span/mod.rs",
        &[
            (
                "pub mod alone;\0    /// Whether the record describes a chunk of a user arena that has not been freed.",
                "use crate::arenas::{Span, State};\nuse crate::sync::atomic::Ordering;\nimpl Span {\n    \
                 /// Whether it is not freed.",
            ),
            (
                "    /// Whether the record describes a chunk of a user arena, in whatever state.\0    /// The arena of the chunk has been freed.",
                "    /// It is freed now.",
            ),
            (
                "    /// The memory of the chunk is about to go.\0        OwnedSpan { span }\n    }\n}\n",
                "}\n",
            ),
        ],
        &[],
    );
    [chunk, state, leases()].into_iter().flatten().collect()
}

/// Allocating in a chunk.
fn leases() -> Vec<Module> {
    family(
        "lease",
        "heap/user_arena/lease.rs",
        &[
            ("use crate::os::asan;", "use crate::arenas::asan;"),
            ("pub(super) fn begin", "pub fn begin"),
            ("pub(super) fn end", "pub fn end"),
            ("use crate::span::", "use super::super::span::"),
            ("crate::span::Generation::new(cycle).table()", "Table::Marks"),
            ("&*header.as_ptr::<AtomicU64>()", "crate::arenas::word(header)"),
            // There are no statics: a new one for each lease will do.
            (
                "static NOWHERE\0;",
                "fn nowhere() -> &'static AtomicUsize {\n    Box::leak(Box::new(AtomicUsize::new(0)))\n}",
            ),
            ("&NOWHERE", "nowhere()"),
            ("pub const fn none", "pub fn none"),
        ],
        &[
            (
                "lease_low_first",
                (
                    "        word.store(Header::new(ty, count).bits(), Ordering::Relaxed);",
                    "        self.low.store(at + need, Ordering::Release);\n        word.store(Header::new(ty, count).bits(), Ordering::Relaxed);",
                ),
            ),
            (
                "lease_low_relaxed",
                (
                    "self.low.store(at + need, Ordering::Release)",
                    "self.low.store(at + need, Ordering::Relaxed)",
                ),
            ),
            (
                "lease_high_stays",
                (
                    "unsafe { chunk.as_ref() }.set_high(Addr::new(start));",
                    "let _ = unsafe { chunk.as_ref() };",
                ),
            ),
            ("lease_white", ("if at >= self.black_to {", "if false {")),
            ("lease_marked_first", ("[Table::Scanned, marks]", "[marks, Table::Scanned]")),
        ],
    )
}

/// A user arena: who frees it, and who has leased its chunks.
pub(super) fn arenas() -> Vec<Module> {
    let arena = family(
        "user_arena",
        "heap/user_arena/mod.rs",
        &[
            ("mod bury;\0Waiting};", ""),
            ("use crate::heap::error::OutOfMemory;", "use crate::arenas::OutOfMemory;"),
            ("use crate::span::sites::{Allocated, ", "use crate::arenas::{"),
            ("use crate::span::", "use super::span::"),
            ("pub(super)", "pub"),
            ("\nenum Step", "\npub enum Step"),
            ("/// Whether `addr` lies in one of the pages", CUT),
        ],
        &[
            (
                "user_arena_freed_twice",
                (
                    "if inside.stage == Stage::Freed {\n            return Err(AlreadyFreed);",
                    "if false {\n            return Err(AlreadyFreed);",
                ),
            ),
            (
                "user_arena_not_flagged",
                ("unsafe { &*chunk.span() }.set_freed();", "let _ = unsafe { &*chunk.span() };"),
            ),
            ("user_arena_leased_twice", ("None => self.partial = next,", "None => {}")),
            (
                "user_arena_open_forever",
                ("Stage::Freed => Err(ArenaError::Freed),", "Stage::Freed => Ok(()),"),
            ),
        ],
    );
    let refill = family(
        "arena_refill",
        "heap/user_arena/refill.rs",
        &[
            (
                "use super::lease::\0\nimpl ArenaCore {",
                "use super::lease::Lease;\nuse super::{ArenaCore, ArenaError, MAX_CHUNK, Step, chunk_for, whole};\n\
                 use crate::addr::Bytes;\nuse crate::arenas::CHUNK_SHARE;\nuse spanheap_core::os::MOVE_UNIT;\nuse super::super::span::Chunk;\nuse core::ptr::NonNull;\nimpl ArenaCore {",
            ),
            ("\n    fn ", "\n    pub fn "),
        ],
        &[(
            "arena_refill_kept_unasked",
            (
                "inside.check_open()?;\n        // SAFETY: the record of a chunk",
                "// SAFETY: the record of a chunk",
            ),
        )],
    );
    [arena, refill].into_iter().flatten().collect()
}

/// What a signal handler reads about chunks of arenas.
pub(super) fn sites() -> Vec<Module> {
    const VISIBLE: Edit = ("pub(super) ", "pub(crate) ");
    let link =
        family("link", "span/sites/link.rs", &[VISIBLE, ("const fn none()", "fn none()")], &[]);
    let objects = family(
        "objects",
        "span/sites/objects.rs",
        &[
            VISIBLE,
            ("const ENTRIES: usize = \0;", "const ENTRIES: usize = 2;"),
            ("const fn new() -> Entry", "fn new() -> Entry"),
        ],
        &[
            ("objects_renewed_unfenced", ("fence(Ordering::Release);", "")),
            (
                "objects_start_relaxed",
                (
                    "start.store(object.start.get(), Ordering::Release)",
                    "start.store(object.start.get(), Ordering::Relaxed)",
                ),
            ),
            (
                "objects_entry_shared",
                (
                    "self.taken.fetch_add(1, Ordering::Relaxed)",
                    "{ let n = self.taken.load(Ordering::Relaxed); self.taken.store(n + 1, Ordering::Relaxed); n }",
                ),
            ),
        ],
    );
    // A name is more words of the same kind.
    let edits = [
        VISIBLE,
        ("const TRIES: usize = \0;", "const TRIES: usize = 1;"),
        ("const NAME_BYTES: usize = \0;", "const NAME_BYTES: usize = 0;"),
        ("thread: self.thread.load(Ordering::Relaxed)", "thread: 0"),
        ("self.name_len.load(Ordering::Relaxed)", "0u8"),
    ];
    let records = family(
        "records",
        "span/sites/records.rs",
        &edits,
        &[
            ("records_written_unfenced", ("fence(Ordering::Release);", "")),
            ("records_read_unfenced", ("fence(Ordering::Acquire);", "")),
            (
                "records_version_late",
                (
                    "store(version.wrapping_add(1) | 1, Ordering::Relaxed)",
                    "load(Ordering::Relaxed)",
                ),
            ),
        ],
    );
    // Records over the mutants of tables.
    let over = |name, objects| {
        let mut edits = edits.to_vec();
        edits.push(("super::objects::", objects));
        Module { name, source: "span/sites/records.rs", edits, mistake: None }
    };
    let over = vec![
        over("records_renewed_unfenced", "super::objects_renewed_unfenced::"),
        over("records_start_relaxed", "super::objects_start_relaxed::"),
        over("records_entry_shared", "super::objects_entry_shared::"),
    ];
    [link, objects, records, over].into_iter().flatten().collect()
}
