//! Reading documents: paths, lookups, the way up.
//!
//! A query makes a random descent from the root, writes down the path as a JSON pointer (RFC 6901),
//! and then asks three independent questions about it: does looking the pointer up in the heap lead
//! to the same object; does climbing by the parents lead back to the root in as many steps; and
//! does the source have the same value at that pointer, according to `serde_json`.

use serde_json::Value as Json;
use spanheap::{Gc, Mutator};

use super::document::{Document, Node, Number, Value};
use super::sources::Source;
use crate::failure::{Failure, Result};
use crate::random::Random;

/// A node found by a random descent, and how it was reached.
pub(super) struct Place<'gc> {
    pub(super) node: Gc<'gc, Node<'gc>>,
    /// The path as a JSON pointer; empty for the root.
    pub(super) pointer: String,
    /// How many steps lead from the root to it.
    pub(super) depth: usize,
}

/// Goes down from `root` at random to a node without children.
pub(super) fn descend<'gc>(
    mc: &Mutator<'gc>,
    root: Gc<'gc, Node<'gc>>,
    random: &mut Random,
) -> Place<'gc> {
    let mut place = Place { node: root, pointer: String::new(), depth: 0 };
    loop {
        // Between the count and the choice another thread may have shortened the list.
        let count = place.node.child_count(mc);
        if count == 0 {
            return place;
        }
        let index = random.below(count);
        let Some(child) = place.node.child(mc, index) else { return place };
        place.pointer.push('/');
        match &place.node.value {
            Value::Object(members) => push_escaped(&mut place.pointer, &members[index].key),
            _ => place.pointer.push_str(&index.to_string()),
        }
        place.node = child;
        place.depth += 1;
    }
}

/// `~` and `/` have a meaning in a pointer, so they are written `~0` and `~1` in a key.
fn push_escaped(pointer: &mut String, key: &str) {
    for c in key.chars() {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}

/// The node at a JSON pointer.
pub(super) fn lookup<'gc>(
    mc: &Mutator<'gc>,
    root: Gc<'gc, Node<'gc>>,
    pointer: &str,
) -> Option<Gc<'gc, Node<'gc>>> {
    let mut node = root;
    for step in pointer.split('/').skip(1) {
        node = match &node.value {
            Value::Array(_) => node.child(mc, step.parse().ok()?)?,
            Value::Object(members) => {
                let key = step.replace("~1", "/").replace("~0", "~");
                let found = members.binary_search_by(|member| (*member.key).cmp(key.as_str()));
                members[found.ok()?].value.get()
            }
            _ => return None,
        };
    }
    Some(node)
}

/// Climbs from `node` to the node without a parent. Returns that and the number of steps; gives
/// up, with a count above `limit`, when there are more.
pub(super) fn climb<'gc>(node: Gc<'gc, Node<'gc>>, limit: usize) -> (Gc<'gc, Node<'gc>>, usize) {
    let mut top = node;
    let mut steps = 0;
    while let Some(parent) = top.parent.get() {
        top = parent;
        steps += 1;
        if steps > limit {
            break;
        }
    }
    (top, steps)
}

/// One query, with all its checks. Holds the editor's lock, so that the answers are exact.
pub(super) fn check<'gc>(
    mc: &Mutator<'gc>,
    document: Gc<'gc, Document<'gc>>,
    source: &Source,
    random: &mut Random,
) -> Result<()> {
    let _editor = document.editor.lock(mc);
    let place = descend(mc, document.root, random);
    let wrong = |what| {
        Err(Failure::new(format!("{}: at pointer \"{}\": {what}", source.name, place.pointer)))
    };
    match lookup(mc, document.root, &place.pointer) {
        None => return wrong("nothing is found"),
        Some(found) if !Gc::ptr_eq(found, place.node) => return wrong("another node is found"),
        Some(_) => {}
    }
    let (top, steps) = climb(place.node, place.depth);
    if !Gc::ptr_eq(top, document.root) || steps != place.depth {
        return wrong("the parents do not lead to the root");
    }
    match source.value.pointer(&place.pointer) {
        Some(json) if same(&place.node.value, json) => Ok(()),
        _ => wrong("the value is not the source's"),
    }
}

/// Whether a node without children is the same as a value outside the heap.
fn same(value: &Value<'_>, json: &Json) -> bool {
    match (value, json) {
        (Value::Null, Json::Null) => true,
        (Value::Bool(a), Json::Bool(b)) => a == b,
        (Value::Text(a), Json::String(b)) => **a == **b,
        (Value::Number(Number::Unsigned(a)), Json::Number(b)) => b.as_u64() == Some(*a),
        (Value::Number(Number::Negative(a)), Json::Number(b)) => b.as_i64() == Some(*a),
        (Value::Number(Number::Float(a)), Json::Number(b)) => b.is_f64() && b.as_f64() == Some(*a),
        (Value::Array(_), Json::Array(b)) => b.is_empty(),
        (Value::Object(_), Json::Object(b)) => b.is_empty(),
        _ => false,
    }
}
