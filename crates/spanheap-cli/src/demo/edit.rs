//! Changing documents, and changing them back.
//!
//! An edit holds the document's editor lock from before its first change until everything is undone,
//! so whoever takes the lock sees the document as decoded. In between, the counts are checked: an edit
//! that loses a subtree to the collector would be found here and not only at the end.
//!
//! Two edits exist. *Swap* exchanges two subtrees that lie anywhere in the tree, neither below the
//! other. *Append* decodes a few small new trees, adds them to an array, and cuts them off again: old
//! objects come to point at young ones, which then become garbage.
//!
//! When the heap has no room, nothing has been changed yet: what an edit allocates comes first. Any
//! other error ends the demo, and the document stays as it is.

use spanheap::{Gc, Mutator};

use super::document::{Census, Document, Node, Value};
use super::sources::Source;
use super::{decode, query};
use crate::failure::{Failure, Result};
use crate::random::Random;

/// What *append* adds: one of each kind.
const ADDITION: &str = r#"{"added": [null, true, 1, -1, 0.5, "text", [], {}]}"#;
/// The number of nodes in it.
const ADDITION_NODES: usize = 10;

/// A place that holds a node: the child at `index` of `holder`.
#[derive(Clone, Copy)]
struct Slot<'gc> {
    holder: Gc<'gc, Node<'gc>>,
    index: usize,
    node: Gc<'gc, Node<'gc>>,
}

/// Makes one random edit and undoes it.
pub(super) fn make<'gc>(
    mc: &Mutator<'gc>,
    document: Gc<'gc, Document<'gc>>,
    source: &Source,
    random: &mut Random,
) -> Result<()> {
    let mut edits = document.editor.lock(mc);
    *edits += 1;
    if random.below(2) == 0 {
        swap(mc, document, source, random)
    } else {
        append(mc, document, source, random)
    }
}

/// Exchanges two random subtrees, looks, and exchanges them back.
fn swap<'gc>(
    mc: &Mutator<'gc>,
    document: Gc<'gc, Document<'gc>>,
    source: &Source,
    random: &mut Random,
) -> Result<()> {
    let (Some(a), Some(b)) = (slot(mc, document, random), slot(mc, document, random)) else {
        return Ok(());
    };
    // A subtree may not move below itself. Equal slots are excluded by the same test.
    if is_below(a.node, b.node) || is_below(b.node, a.node) {
        return Ok(());
    }
    Node::replace_child(a.holder, mc, a.index, b.node);
    Node::replace_child(b.holder, mc, b.index, a.node);
    count(mc, document, source, 0, "after a swap")?;
    Node::replace_child(a.holder, mc, a.index, a.node);
    Node::replace_child(b.holder, mc, b.index, b.node);
    count(mc, document, source, 0, "after a swap was undone")
}

/// Adds new nodes to a random array, looks, and takes them away.
fn append<'gc>(
    mc: &Mutator<'gc>,
    document: Gc<'gc, Document<'gc>>,
    source: &Source,
    random: &mut Random,
) -> Result<()> {
    let Some(array) = array_above(query::descend(mc, document.root, random).node) else {
        return Ok(());
    };
    let Value::Array(items) = &array.value else { return Ok(()) };
    let copies = 1 + random.below(4);
    let added = (0..copies)
        .map(|_| decode::tree(mc, ADDITION, &source.name))
        .collect::<Result<Vec<_>>>()?;
    let before = items.list.lock(mc).len();
    for node in added {
        node.parent.set(mc, Some(array));
        items.list.lock(mc).push(node);
    }
    count(mc, document, source, copies * ADDITION_NODES, "with an addition")?;
    items.list.lock(mc).truncate(before);
    Ok(())
}

/// Compares the number of nodes with what it must be now.
fn count<'gc>(
    mc: &Mutator<'gc>,
    document: Gc<'gc, Document<'gc>>,
    source: &Source,
    added: usize,
    when: &str,
) -> Result<()> {
    let expected = source.census.nodes() + added;
    let found = Census::of(mc, document.root).nodes();
    if found == expected {
        return Ok(());
    }
    Err(Failure::new(format!("{}: {found} nodes {when}, not {expected}", source.name)))
}

/// A random slot, at a random height: some way up from a random leaf. None in a scalar document.
fn slot<'gc>(
    mc: &Mutator<'gc>,
    document: Gc<'gc, Document<'gc>>,
    random: &mut Random,
) -> Option<Slot<'gc>> {
    let place = query::descend(mc, document.root, random);
    let mut node = place.node;
    for _ in 0..random.below(place.depth.max(1)) {
        node = node.parent.get()?;
    }
    let holder = node.parent.get()?;
    let index = (0..holder.child_count(mc))
        .find(|&index| holder.child(mc, index).is_some_and(|child| Gc::ptr_eq(child, node)))?;
    Some(Slot { holder, index, node })
}

/// Whether `node` is `other` or lies below it.
fn is_below<'gc>(node: Gc<'gc, Node<'gc>>, other: Gc<'gc, Node<'gc>>) -> bool {
    let mut next = Some(node);
    while let Some(node) = next {
        if Gc::ptr_eq(node, other) {
            return true;
        }
        next = node.parent.get();
    }
    false
}

/// The nearest array at or above `node`.
fn array_above<'gc>(node: Gc<'gc, Node<'gc>>) -> Option<Gc<'gc, Node<'gc>>> {
    let mut node = node;
    while !matches!(node.value, Value::Array(_)) {
        node = node.parent.get()?;
    }
    Some(node)
}
