//! The systems, and which workloads each can do.
//!
//! Box on mimalloc is the same code as Box; its program has another global allocator.

use super::owned::{AtomicallyCounted, Boxes, Counted, Pointer};
use super::{Run, bump, dumpster, gc_arena, owned};

/// A way to manage memory.
pub struct System {
    pub name: &'static str,
    /// Whether it collects at a growth that can be set.
    pub has_gc_percent: bool,
    pub workloads: &'static [(&'static str, Run)],
}

/// The workloads that boxes and counted pointers have in common.
const fn common<P: Pointer>() -> [(&'static str, Run); 3] {
    [
        ("binary-trees", owned::binary_trees::<P>),
        ("gcbench", owned::gcbench::<P>),
        ("message-bus", owned::message_bus::<P>),
    ]
}

pub const BOX: &System =
    &System { name: "box", has_gc_percent: false, workloads: &common::<Boxes>() };

pub const BOX_MIMALLOC: &System = &System { name: "box-mimalloc", ..*BOX };

pub const RC: &System =
    &System { name: "rc", has_gc_percent: false, workloads: &common::<Counted>() };

pub const ARC: &System =
    &System { name: "arc", has_gc_percent: false, workloads: &common::<AtomicallyCounted>() };

pub const GC_ARENA: &System = &System {
    name: "gc-arena",
    has_gc_percent: true,
    workloads: &[
        ("binary-trees", gc_arena::binary_trees),
        ("gcbench", gc_arena::gcbench),
        ("message-bus", gc_arena::message_bus),
    ],
};

pub const DUMPSTER: &System = &System {
    name: "dumpster",
    has_gc_percent: false,
    workloads: &[
        ("binary-trees", dumpster::unsync::binary_trees::run),
        ("gcbench", dumpster::unsync::gcbench::run),
        ("message-bus", dumpster::unsync::message_bus::run),
    ],
};

pub const DUMPSTER_SYNC: &System = &System {
    name: "dumpster-sync",
    has_gc_percent: false,
    workloads: &[
        ("binary-trees", dumpster::sync::binary_trees::run),
        ("gcbench", dumpster::sync::gcbench::run),
        ("message-bus", dumpster::sync::message_bus::run),
    ],
};

pub const BUMPALO: &System = &System {
    name: "bumpalo",
    has_gc_percent: false,
    workloads: &[("binary-trees", bump::binary_trees)],
};
