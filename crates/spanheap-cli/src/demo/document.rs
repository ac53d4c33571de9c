//! JSON documents as heap objects.
//!
//! ```text
//! Cache ── slots: [Option<Document>] ── Document ── root: Node
//!                                                        │ ▲
//!                    Value::Array ── Items ── [Node..] ◄─┤ │ parent
//!                    Value::Object ── [Member{key, Node}]◄┘ │
//!                                              └────────────┘
//! ```
//! Every node knows its parent, so every container lies on a cycle with each of its children: reference
//! counting could free none of this.
//!
//! # The three kinds of references
//! The demo uses what the library offers, each where it fits:
//! - plain `Gc` fields for what never changes (keys, strings, the member list of an object);
//! - [`GcCell`] for single references that change (a node's parent, a member's value): a load or a
//!   store, and the write barrier;
//! - [`GcMutex`] around a `Vec` for a list that changes its length (an array's items, the cache).
//!
//! A mutex and a `Vec` are four words; they live in an object of their own so that the other nodes,
//! strings mostly, stay at four words in all.
//!
//! # Who may change what
//! A document's tree changes only under its `editor` lock, and is as it was decoded whenever that
//! lock is free. Who does not hold the lock may still walk the tree while it changes: it then sees
//! each reference before or after a change, never anything else, and never a cycle among children,
//! because an edit never puts a node below itself. That walk is a service to the collector's tests:
//! a reference lost by a race would crash it.

use spanheap::{Gc, GcCell, GcMutex, Mutator, Root, Rootable, Trace};

/// What keeps all documents alive: the one rooted object.
#[derive(Trace)]
pub(super) struct Cache<'gc> {
    /// Slot `i` holds a copy of source `i % sources`, once it is filled.
    pub(super) slots: GcMutex<'gc, Vec<Option<Gc<'gc, Document<'gc>>>>>,
}

/// The root of everything.
pub(super) type CacheRoot = Root<Rootable![Cache<'_>]>;

/// A decoded document.
#[derive(Trace)]
pub(super) struct Document<'gc> {
    /// The index of the source that it was decoded from.
    pub(super) source: usize,
    /// The top of the tree; never changes.
    pub(super) root: Gc<'gc, Node<'gc>>,
    /// Held by whoever changes the tree, and by who needs it unchanged. Counts the edits.
    pub(super) editor: GcMutex<'gc, u64>,
}

/// One JSON value and its place in the tree.
#[derive(Trace)]
pub(super) struct Node<'gc> {
    /// The array or object that holds this node; none for a root.
    pub(super) parent: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
    /// What it is.
    pub(super) value: Value<'gc>,
}

/// A JSON value.
#[derive(Trace)]
pub(super) enum Value<'gc> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Gc<'gc, str>),
    Array(Gc<'gc, Items<'gc>>),
    /// Sorted by key, keys differ: what makes a lookup a binary search and the text canonical.
    Object(Gc<'gc, [Member<'gc>]>),
}

/// A number, kept exactly as the parser understood it.
#[derive(Clone, Copy, Debug, PartialEq, Trace)]
pub(super) enum Number {
    Unsigned(u64),
    Negative(i64),
    Float(f64),
}

/// The elements of an array.
#[derive(Trace)]
pub(super) struct Items<'gc> {
    pub(super) list: GcMutex<'gc, Vec<Gc<'gc, Node<'gc>>>>,
}

/// A key of an object, and its value.
#[derive(Trace)]
pub(super) struct Member<'gc> {
    pub(super) key: Gc<'gc, str>,
    pub(super) value: GcCell<'gc, Gc<'gc, Node<'gc>>>,
}

impl<'gc> Node<'gc> {
    /// How many children the node has; 0 for a scalar.
    pub(super) fn child_count(&self, mc: &Mutator<'gc>) -> usize {
        match &self.value {
            Value::Array(items) => items.list.lock(mc).len(),
            Value::Object(members) => members.len(),
            _ => 0,
        }
    }

    /// The child at `index`, in the order of the text. None if there are not that many.
    pub(super) fn child(&self, mc: &Mutator<'gc>, index: usize) -> Option<Gc<'gc, Node<'gc>>> {
        match &self.value {
            Value::Array(items) => items.list.lock(mc).get(index).copied(),
            Value::Object(members) => members.get(index).map(|member| member.value.get()),
            _ => None,
        }
    }

    /// Puts `child` at `index` and makes this node its parent. `this` is the node itself.
    ///
    /// # Panics
    /// When there is no such index: a child is replaced here, never added.
    pub(super) fn replace_child(
        this: Gc<'gc, Node<'gc>>,
        mc: &Mutator<'gc>,
        index: usize,
        child: Gc<'gc, Node<'gc>>,
    ) {
        match &this.value {
            Value::Array(items) => items.list.lock(mc)[index] = child,
            Value::Object(members) => members[index].value.set(mc, child),
            _ => unreachable!("a scalar has no children, so nobody asks to replace one"),
        }
        child.parent.set(mc, Some(this));
    }

    /// Adds all children to `stack`. The lock of an array is held for the copy only.
    fn push_children(&self, mc: &Mutator<'gc>, stack: &mut Vec<Gc<'gc, Node<'gc>>>) {
        match &self.value {
            Value::Array(items) => stack.extend(items.list.lock(mc).iter().copied()),
            Value::Object(members) => stack.extend(members.iter().map(|member| member.value.get())),
            _ => {}
        }
    }
}

/// Visits `root` and every node below it, parents first, with a stack of its own.
pub(super) fn walk<'gc>(
    mc: &Mutator<'gc>,
    root: Gc<'gc, Node<'gc>>,
    mut visit: impl FnMut(Gc<'gc, Node<'gc>>),
) {
    let mut stack = vec![root];
    while let Some(node) = stack.pop() {
        visit(node);
        node.push_children(mc, &mut stack);
    }
}

/// How many nodes of each kind a tree has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) nulls: usize,
    pub(super) bools: usize,
    pub(super) numbers: usize,
    pub(super) texts: usize,
    pub(super) arrays: usize,
    pub(super) objects: usize,
    /// Characters in keys and strings: counting them reads every byte.
    pub(super) characters: usize,
}

impl Census {
    /// Counts the nodes of the tree under `root`.
    pub(super) fn of<'gc>(mc: &Mutator<'gc>, root: Gc<'gc, Node<'gc>>) -> Census {
        let mut census = Census::default();
        walk(mc, root, |node| match &node.value {
            Value::Null => census.nulls += 1,
            Value::Bool(_) => census.bools += 1,
            Value::Number(_) => census.numbers += 1,
            Value::Text(text) => {
                census.texts += 1;
                census.characters += text.chars().count();
            }
            Value::Array(_) => census.arrays += 1,
            Value::Object(members) => {
                census.objects += 1;
                let keys = members.iter().map(|member| member.key.chars().count());
                census.characters += keys.sum::<usize>();
            }
        });
        census
    }

    /// All nodes together.
    pub(super) fn nodes(&self) -> usize {
        self.nulls + self.bools + self.numbers + self.texts + self.arrays + self.objects
    }

    /// The same count for a document outside the heap. The parser limits its depth.
    pub(super) fn of_json(json: &serde_json::Value) -> Census {
        let mut census = Census::default();
        let mut stack = vec![json];
        while let Some(json) = stack.pop() {
            match json {
                serde_json::Value::Null => census.nulls += 1,
                serde_json::Value::Bool(_) => census.bools += 1,
                serde_json::Value::Number(_) => census.numbers += 1,
                serde_json::Value::String(text) => {
                    census.texts += 1;
                    census.characters += text.chars().count();
                }
                serde_json::Value::Array(items) => {
                    census.arrays += 1;
                    stack.extend(items);
                }
                serde_json::Value::Object(members) => {
                    census.objects += 1;
                    let keys = members.keys().map(|key| key.chars().count());
                    census.characters += keys.sum::<usize>();
                    stack.extend(members.values());
                }
            }
        }
        census
    }
}
