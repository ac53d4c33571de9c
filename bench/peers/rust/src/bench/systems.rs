//! The systems, and which workloads each can do.
//!
//! Box on mimalloc is the same code as Box; its program has another global allocator.

use super::owned::{AtomicallyCounted, Boxes, Counted, Links};
use super::{Run, bump, dumpster, gc_arena, owned};

/// A way to manage memory.
pub struct System {
    /// The name of the program.
    pub name: &'static str,
    /// The name in the report.
    pub subject: &'static str,
    /// Whether it collects at a growth that can be set.
    pub has_gc_percent: bool,
    pub workloads: &'static [(&'static str, Run)],
}

/// The workloads that boxes and counted pointers have in common, and the cache of each.
const fn owned<P: Links>(lru: Run) -> [(&'static str, Run); 6] {
    [
        ("binary-trees", owned::binary_trees::<P>),
        ("gcbench", owned::gcbench::<P>),
        ("message-bus", owned::message_bus::<P>),
        ("lru", lru),
        ("spatial-index", owned::spatial_index::<P>),
        ("start-up", owned::start_up::<P>),
    ]
}

pub const BOX: &System = &System {
    name: "box",
    subject: "box-system",
    has_gc_percent: false,
    workloads: &owned::<Boxes>(owned::lru_boxes),
};

pub const BOX_MIMALLOC: &System = &System { name: "box-mimalloc", subject: "box-mimalloc", ..*BOX };

pub const RC: &System = &System {
    name: "rc",
    subject: "rc",
    has_gc_percent: false,
    workloads: &owned::<Counted>(owned::lru_rc),
};

pub const ARC: &System = &System {
    name: "arc",
    subject: "arc",
    has_gc_percent: false,
    workloads: &owned::<AtomicallyCounted>(owned::lru_arc),
};

pub const GC_ARENA: &System = &System {
    name: "gc-arena",
    subject: "gc-arena",
    has_gc_percent: true,
    workloads: &[
        ("binary-trees", gc_arena::binary_trees),
        ("gcbench", gc_arena::gcbench),
        ("message-bus", gc_arena::message_bus),
        ("lru", gc_arena::lru),
        ("marking", gc_arena::marking),
        ("start-up", gc_arena::start_up),
    ],
};

pub const DUMPSTER: &System = &System {
    name: "dumpster",
    subject: "dumpster",
    has_gc_percent: false,
    workloads: &[
        ("binary-trees", dumpster::unsync::binary_trees::run),
        ("gcbench", dumpster::unsync::gcbench::run),
        ("message-bus", dumpster::unsync::message_bus::run),
        ("lru", dumpster::unsync::lru),
        ("marking", dumpster::unsync::marking::run),
        ("start-up", dumpster::unsync::start_up::run),
    ],
};

pub const DUMPSTER_SYNC: &System = &System {
    name: "dumpster-sync",
    subject: "dumpster-sync",
    has_gc_percent: false,
    workloads: &[
        ("binary-trees", dumpster::sync::binary_trees::run),
        ("gcbench", dumpster::sync::gcbench::run),
        ("message-bus", dumpster::sync::message_bus::run),
        ("lru", dumpster::sync::lru),
        ("start-up", dumpster::sync::start_up::run),
    ],
};

pub const BUMPALO: &System = &System {
    name: "bumpalo",
    subject: "bumpalo",
    has_gc_percent: false,
    workloads: &[("binary-trees", bump::binary_trees)],
};
