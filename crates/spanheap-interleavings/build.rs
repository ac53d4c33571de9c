//! Takes the files under test out of `spanheap-core`, for compilation against other atomics.
//!
//! Each [`Module`] is one file with its heading and its own tests left out, and with *edits*: exact
//! pieces of text, each with what stands in its place. Edits of the correct code only shrink constants, so
//! that there is less to explore, and name the checker's types. A *mutant* has one more edit, which makes
//! the mistake that a test is there to find.
//!
//! An edit of correct code whose text is not found fails the build. A mutant whose mistake finds no place
//! is the correct code, so its test fails, and a warning names the line: whoever changes such a line changes the
//! edit, too. To put another file under test, add a row to [`modules`], and a `code!` line
//! where its test is. What is about user arenas is in `build/arenas.rs`.

#[path = "build/arenas.rs"]
mod arenas;

use std::path::{Path, PathBuf};
use std::{env, fs};

/// A piece of text, and what stands in its place wherever it is found. A piece with `\0` in it is all from where
/// the text before that is found first to where the text behind it follows.
type Edit = (&'static str, &'static str);

/// A file of the core, edited.
struct Module {
    /// What the generated file is called.
    name: &'static str,
    /// Below the core's `src`.
    source: &'static str,
    edits: Vec<Edit>,
    /// What is wrong with a mutant.
    mistake: Option<Edit>,
}

/// What every file may have, and need not: the checker's constructors are not `const`. (Arrays of constants are
/// made by a function, too: [`arrays`].)
const EVERYWHERE: [Edit; 3] = [
    ("pub const fn new() -> ", "pub fn new() -> "),
    ("pub const fn new(rank", "pub fn new(rank"),
    ("pub(super) const fn new() -> ", "pub(super) fn new() -> "),
];

/// A module and its mutants.
fn family(
    name: &'static str,
    source: &'static str,
    edits: &[Edit],
    mutants: &[(&'static str, Edit)],
) -> Vec<Module> {
    let module = |name, mistake| Module { name, source, edits: edits.to_vec(), mistake };
    let mutants = mutants.iter().map(|&(name, mistake)| module(name, Some(mistake)));
    std::iter::once(module(name, None)).chain(mutants).collect()
}

fn modules() -> Vec<Module> {
    let all = [
        locks(),
        weight(),
        collector(),
        grey(),
        upgrading(),
        rings(),
        crew(),
        registry(),
        spans(),
        arenas::chunks(),
        arenas::arenas(),
        arenas::sites(),
    ];
    all.into_iter().flatten().collect()
}

/// The lock of one word, what is built on it, and the alarm.
fn locks() -> Vec<Module> {
    let lock = family(
        "lock",
        "sync/mod.rs",
        &[
            ("mod alarm;\0use core::cell::UnsafeCell;", "use crate::checker::UnsafeCell;"),
            (
                "pub mod atomic {\0\n}\n",
                "pub(crate) mod atomic {\n    pub(crate) use crate::checker::AtomicU32;\n    \
                 pub(crate) use loom::sync::atomic::Ordering;\n}\n",
            ),
        ],
        &[],
    );
    let rank = family(
        "rank",
        "sync/rank.rs",
        // The checker's threads are one thread of the system, so ranks per thread say nothing.
        &[("#[cfg(debug_assertions)]", "#[cfg(any())]"), ("#[cfg(not(debug_assertions))]\n", "")],
        &[],
    );
    let futex = family(
        "futex",
        "sync/futex.rs",
        &[
            ("const SPINS: u32 = \0;", "const SPINS: u32 = 1;"),
            (
                "use std::time::Duration;",
                "use crate::checker::{wait, wake};\nuse std::time::Duration;",
            ),
            ("/// Sleeps while `word` is", CUT),
        ],
        &[
            ("futex_unlock_relaxed", ("swap(0, Ordering::Release)", "swap(0, Ordering::Relaxed)")),
            (
                "futex_lock_relaxed",
                ("exchange(0, 1, Ordering::Acquire", "exchange(0, 1, Ordering::Relaxed"),
            ),
            ("futex_slow_relaxed", ("swap(2, Ordering::Acquire)", "swap(2, Ordering::Relaxed)")),
            (
                "futex_nobody_woken",
                ("swap(0, Ordering::Release) == 2", "swap(0, Ordering::Release) == 3"),
            ),
            (
                "futex_same_sequence",
                ("fetch_add(1, Ordering::Release)", "fetch_add(0, Ordering::Release)"),
            ),
        ],
    );
    let alarm = family(
        "alarm",
        "sync/alarm.rs",
        &[],
        &[(
            "alarm_rung_before",
            (
                "*self.rung.lock() = true;\n        self.condition.notify_all();",
                "self.condition.notify_all();\n        *self.rung.lock() = true;",
            ),
        )],
    );
    let profile = family("profile", "sync/no_profile.rs", &[], &[]);
    [lock, rank, profile, futex, alarm].into_iter().flatten().collect()
}

/// What makes mutators ring for the collector.
fn weight() -> Vec<Module> {
    let outside = family("outside", "heap/outside.rs", &[], &[]);
    let weight = family(
        "weight",
        "heap/central/weight.rs",
        &[],
        &[
            ("weight_never_rearmed", ("self.triggered.swap(false, Ordering::Acquire);\n", "")),
            (
                "weight_rearmed_relaxed",
                ("swap(false, Ordering::Acquire)", "swap(false, Ordering::Relaxed)"),
            ),
            (
                "weight_rearmed_by_store",
                (
                    "swap(false, Ordering::Acquire);",
                    "store(false, Ordering::SeqCst);\n        \
                     crate::sync::atomic::fence(Ordering::SeqCst);",
                ),
            ),
            (
                "weight_rearmed_late",
                (
                    "self.triggered.swap(false, Ordering::Acquire);\n        self.is_triggered()",
                    "let is_triggered = self.is_triggered();\n        \
                     self.triggered.swap(false, Ordering::Acquire);\n        is_triggered",
                ),
            ),
            (
                "weight_rung_relaxed",
                ("swap(true, Ordering::Release)", "swap(true, Ordering::Relaxed)"),
            ),
            (
                "weight_rung_early",
                (
                    "let grown = self.outside.grow(bytes);\n        self.ring_if_triggered();",
                    "self.ring_if_triggered();\n        let grown = self.outside.grow(bytes);",
                ),
            ),
            (
                "weight_moved_silently",
                (
                    "        if self.is_here() {\n            self.alarm.ring();\n        }\n    }\n\n    /// Rings the alarm if",
                    "    }\n\n    /// Rings the alarm if",
                ),
            ),
        ],
    );
    [outside, weight].into_iter().flatten().collect()
}

/// What mutators and the collector share.
fn collector() -> Vec<Module> {
    let phase = family("phase", "collect/phase.rs", &[], &[]);
    let control = family("control", "collect/control.rs", &[], &[]);
    let gap = family("gap", "collect/gap.rs", &[], &[]);
    let buffer = family(
        "buffer",
        "collect/buffer.rs",
        &[("pub const CAPACITY: usize = \0;", "pub const CAPACITY: usize = 2;")],
        &[
            ("buffer_push_relaxed", ("len + 1, Ordering::Release", "len + 1, Ordering::Relaxed")),
            ("buffer_steal_relaxed", ("load(Ordering::Acquire)", "load(Ordering::Relaxed)")),
            ("buffer_still_taken", ("core::mem::take(&mut *taken)", "*taken")),
        ],
    );
    let roots = family(
        "roots",
        "collect/roots.rs",
        &[
            ("const SHARDS: usize = \0;", "const SHARDS: usize = 1;"),
            ("const CHUNK: usize = \0;", "const CHUNK: usize = 1;"),
            ("use std::sync::Arc;", "use loom::sync::Arc;"),
        ],
        &[("roots_trimmed_early", ("strong_count(record) == 1", "strong_count(record) <= 2"))],
    );
    [phase, control, gap, buffer, roots].into_iter().flatten().collect()
}

/// The grey queue.
fn grey() -> Vec<Module> {
    family(
        "grey",
        "collect/grey.rs",
        &[],
        &[
            (
                "grey_settled_unlocked",
                (
                    "let mut inner = self.inner.lock();\n        if inner.rescan ||",
                    "let is_rescan_due = self.inner.lock().rescan;\n        let mut inner = self.inner.lock();\n        if is_rescan_due ||",
                ),
            ),
            (
                "grey_emptied_unlocked",
                (
                    "let Some(block) = inner.take() else {",
                    "let Some(block) = inner.take() else {\n                drop(inner);",
                ),
            ),
            (
                "grey_appended_late",
                (
                    "self.mark_and_append(&mut inner, os, memory, target, &mut mark);\n                }\n            }\n            Stage::Undecided | Stage::Decided",
                    "drop(inner);\n                    let is_new = mark(target);\n                    inner = self.inner.lock();\n                    if is_new {\n                        self.append(&mut inner, os, memory, target);\n                    }\n                }\n            }\n            Stage::Undecided | Stage::Decided",
                ),
            ),
            (
                "grey_appended_twice",
                ("if mark(target) && !self.append(", "mark(target);\n        if !self.append("),
            ),
            (
                "grey_taken_in_late",
                (
                    "Stage::Marking => {\n                for",
                    "Stage::Marking | Stage::Decided => {\n                for",
                ),
            ),
            ("grey_entries_ignored", (" || inner.filled.is_some() {", " {")),
            (
                "grey_decided_late",
                (
                    "        inner.stage = if decides",
                    "        drop(inner);\n        let mut inner = self.inner.lock();\n        inner.stage = if decides",
                ),
            ),
            (
                "grey_decided_ignored",
                ("Stage::Decided => return Retained::Decided,", "Stage::Decided => {}"),
            ),
        ],
    )
}

/// Who asks the grey queue what is dead.
fn upgrading() -> Vec<Module> {
    // What a closure of the marking phase does; the collector's part wants a whole heap.
    family(
        "weak",
        "collect/weak.rs",
        &[
            (
                "use super::Collector;\0Tracer<'_>) {}\n",
                "use super::grey::Retained;\nuse super::{Collector, mark};\nuse crate::addr::Addr;\n\
                 use crate::span::Generation;\nuse crate::sync::atomic::{AtomicUsize, Ordering};\n",
            ),
            ("    /// Does what the decision asks for\0    }\n}\n", "}\n"),
        ],
        &[
            ("weak_one_look", ("if again == target { target }", "if true { target }")),
            (
                "weak_decided_blindly",
                ("Retained::Decided if !is_marked() =>", "Retained::Decided if true =>"),
            ),
        ],
    )
}

/// Pages in a worker's hands, where others can take some.
fn rings() -> Vec<Module> {
    family(
        "page_ring",
        "collect/page_ring.rs",
        &[("pub const ENTRIES: usize = \0;", "pub const ENTRIES: usize = 2;")],
        &[
            ("ring_push_relaxed", ("tail + 1, Ordering::Release", "tail + 1, Ordering::Relaxed")),
            (
                "ring_steal_relaxed",
                (
                    "let there = self.tail.load(Ordering::Acquire)",
                    "let there = self.tail.load(Ordering::Relaxed)",
                ),
            ),
            (
                "ring_tail_first",
                (
                    "self.entries[tail % ENTRIES].store(page.get(), Ordering::Relaxed);\n        self.tail.store(tail + 1, Ordering::Release);",
                    "self.tail.store(tail + 1, Ordering::Release);\n        self.entries[tail % ENTRIES].store(page.get(), Ordering::Relaxed);",
                ),
            ),
            (
                "ring_advance_unchecked",
                (
                    "self.head.compare_exchange(head, next, Ordering::AcqRel, Ordering::Acquire).map(drop)",
                    "Ok(self.head.store(next, Ordering::Release))",
                ),
            ),
            ("ring_overfull", (" == ENTRIES {", " == ENTRIES + 1 {")),
            (
                "ring_read_late",
                (
                    "loot[..count].iter().for_each(|&page| take(page));",
                    "(head..head + count).for_each(|at| take(Addr::new(self.entries[at % ENTRIES].load(Ordering::Relaxed))));",
                ),
            ),
        ],
    )
}

/// Who is at work, and when nothing is left to do.
fn crew() -> Vec<Module> {
    family(
        "crew",
        "collect/crew.rs",
        &[("    /// Bounds the shared queue, below\0}\n}\n", "}\n")],
        &[
            (
                "crew_busy_ignored",
                ("while inner.queue.is_empty() && inner.busy > 0 {", "while false {"),
            ),
            ("crew_queue_ignored", ("inner.queue.is_empty()\n    }\n", "true\n    }\n")),
            (
                "crew_joined_late",
                (
                    "        inner.busy += usize::from(joins);",
                    "        drop(inner);\n        self.inner.lock().busy += usize::from(joins);",
                ),
            ),
            (
                "crew_helped_late",
                (
                    "                inner.busy += 1;",
                    "                drop(inner);\n                self.inner.lock().busy += 1;",
                ),
            ),
            (
                "crew_told_late",
                (
                    "inner.tally.add(tally);\n        inner.busy -= 1;",
                    "inner.busy -= 1;\n        drop(inner);\n        let mut inner = self.inner.lock();\n        inner.tally.add(tally);",
                ),
            ),
            ("crew_left_silently", ("if inner.busy == 0 {", "if false {")),
            (
                "crew_stopped_late",
                (
                    "self.inner.lock().stop = true;\n        self.changed.notify_all();",
                    "self.changed.notify_all();\n        self.inner.lock().stop = true;",
                ),
            ),
        ],
    )
}

/// State counters, grace periods, and who may use caches.
fn registry() -> Vec<Module> {
    family(
        "registry",
        "collect/registry.rs",
        &[],
        &[
            (
                "registry_leave_relaxed",
                (
                    "debug_assert!(state % 2 == 1, \"a mutator left twice\");\n        self.state.store(state + 1, Ordering::Release);",
                    "self.state.store(state + 1, Ordering::Relaxed);",
                ),
            ),
            (
                "registry_enter_relaxed",
                (
                    "debug_assert!(state % 2 == 0, \"a mutator entered twice\");\n        self.state.store(state + 1, Ordering::Release);",
                    "self.state.store(state + 1, Ordering::Relaxed);",
                ),
            ),
            (
                "registry_look_relaxed",
                (
                    "record.state.load(Ordering::Acquire) != awaited",
                    "record.state.load(Ordering::Relaxed) != awaited",
                ),
            ),
            (
                "registry_note_relaxed",
                (
                    "let state = record.state.load(Ordering::Acquire);",
                    "let state = record.state.load(Ordering::Relaxed);",
                ),
            ),
            ("registry_inside_ignored", ("|record| !record.is_inside()", "|_| true")),
            (
                "registry_inside_relaxed",
                (
                    "self.state.load(Ordering::Acquire) % 2 == 1",
                    "self.state.load(Ordering::Relaxed) % 2 == 1",
                ),
            ),
            ("registry_caches_unlocked", ("let _locked = self.cache_lock.lock();", "")),
            ("registry_no_fence", ("fence.heavy();", "let _ = fence;")),
        ],
    )
}

/// Who owns a span.
fn spans() -> Vec<Module> {
    let list = family("list", "span/list.rs", &[], &[]);
    let set = family(
        "set",
        "span/set.rs",
        &[("pub(crate) const fn new() -> Backlog", "pub(crate) fn new() -> Backlog")],
        &[
            ("set_home_ignored", ("!is_here || ", "")),
            ("set_generation_ignored", (" || record.generation() == lists.generation", "")),
            (
                "set_finish_relaxed",
                (
                    "fetch_sub(Backlog::SWEEPER, Ordering::Release)",
                    "fetch_sub(Backlog::SWEEPER, Ordering::Relaxed)",
                ),
            ),
            (
                "set_clear_relaxed",
                (
                    "self.state.load(Ordering::Acquire) == 0",
                    "self.state.load(Ordering::Relaxed) == 0",
                ),
            ),
        ],
    );
    [list, set].into_iter().flatten().collect()
}

/// In place of a piece of text: the file ends before it.
const CUT: &str = "\0";

impl Module {
    /// The edited text of `source`.
    fn text(&self, source: &str) -> String {
        let tests = source.find("#[cfg(test)]\nmod tests").unwrap_or(source.len());
        let is_head = |line: &&str| line.starts_with("//!") || line.starts_with("#![");
        let lines = source[..tests].lines().filter(|line| !is_head(line));
        let mut text: String = lines.flat_map(|line| [line, "\n"]).collect();
        for (from, to) in EVERYWHERE {
            text = text.replace(from, to);
        }
        for (from, to) in &self.edits {
            text = replaced(&text, from, to).unwrap_or_else(|| {
                panic!("{} has changed: the test `{}` looks for {from:?}", self.source, self.name)
            });
        }
        if let Some((from, to)) = self.mistake {
            match replaced(&text, from, to) {
                Some(mutant) => text = mutant,
                None => {
                    println!("cargo::warning={}: {} looks for {from:?}", self.source, self.name)
                }
            }
        }
        arrays(text)
    }
}

/// `text` with one edit made; `None` if it finds nothing.
fn replaced(text: &str, from: &str, to: &str) -> Option<String> {
    let Some((first, last)) = from.split_once('\0') else {
        let at = text.find(from)?;
        return Some(if to == CUT { text[..at].to_string() } else { text.replace(from, to) });
    };
    let at = text.find(first)?;
    let behind = at + first.len();
    let end = behind + text[behind..].find(last)? + last.len();
    Some([&text[..at], to, &text[end..]].concat())
}

/// Arrays of one constant, made by a function that need not be one.
fn arrays(mut text: String) -> String {
    const BEGIN: &str = "[const { ";
    while let Some((before, rest)) = text.split_once(BEGIN) {
        let (value, rest) = rest.split_once(" }; ").expect("the length follows");
        let (_, rest) = rest.split_once(']').expect("the array ends");
        text = format!("{before}core::array::from_fn(|_| {value}){rest}");
    }
    text
}

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let core = manifest.join("../spanheap-core/src");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("set by cargo"));
    println!("cargo::rerun-if-changed=build.rs");
    for module in modules() {
        let path: &Path = &core.join(module.source);
        println!("cargo::rerun-if-changed={}", path.display());
        let source = fs::read_to_string(path).expect("a file of the core");
        fs::write(out.join(module.name).with_extension("rs"), module.text(&source)).expect("room");
    }
}
