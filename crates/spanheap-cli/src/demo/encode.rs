//! From heap objects back to JSON text, and the comparison with the source.
//!
//! [`View`] pairs a node with the mutator that is needed to look into its lists, and is `Serialize`;
//! `serde_json` does the writing: escapes and the shortest exact form of a float are its business. The
//! recursion is as deep as the document, and the decoder limits that.

use serde::ser::{Serialize, SerializeMap, Serializer};
use spanheap::{Gc, Mutator};

use super::document::{Census, Document, Node, Number, Value};
use super::sources::Source;
use crate::failure::{Failure, Result};

/// A node, to be serialised with everything below it.
struct View<'a, 'gc> {
    mc: &'a Mutator<'gc>,
    node: Gc<'gc, Node<'gc>>,
}

impl Serialize for View<'_, '_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let View { mc, node } = *self;
        match &node.value {
            Value::Null => to.serialize_unit(),
            Value::Bool(value) => to.serialize_bool(*value),
            Value::Number(Number::Unsigned(value)) => to.serialize_u64(*value),
            Value::Number(Number::Negative(value)) => to.serialize_i64(*value),
            Value::Number(Number::Float(value)) => to.serialize_f64(*value),
            Value::Text(text) => to.serialize_str(text),
            Value::Array(items) => {
                // A copy: writing may take long, and others may want to read the same list.
                let list = items.list.lock(mc).clone();
                to.collect_seq(list.into_iter().map(|node| View { mc, node }))
            }
            Value::Object(members) => {
                let mut map = to.serialize_map(Some(members.len()))?;
                for member in members.iter() {
                    map.serialize_entry(&*member.key, &View { mc, node: member.value.get() })?;
                }
                map.end()
            }
        }
    }
}

/// The canonical text of the tree under `node`.
pub(super) fn text<'gc>(mc: &Mutator<'gc>, node: Gc<'gc, Node<'gc>>) -> Result<String> {
    serde_json::to_string(&View { mc, node })
        .map_err(|error| Failure::new(format!("a document cannot be written: {error}")))
}

/// Compares a document with its source: node counts, text, and the value that the text means.
/// Holds the editor's lock meanwhile.
pub(super) fn verify<'gc>(
    mc: &Mutator<'gc>,
    document: Gc<'gc, Document<'gc>>,
    source: &Source,
) -> Result<()> {
    let differs = |what: &str| Failure::new(format!("{}: {what} differs", source.name));
    let _editor = document.editor.lock(mc);
    let census = Census::of(mc, document.root);
    if census != source.census {
        return Err(differs(&format!("the count of nodes, {census:?}, {:?}", source.census)));
    }
    let text = text(mc, document.root)?;
    if text != source.canonical {
        return Err(differs("the text"));
    }
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(value) if value == source.value => Ok(()),
        _ => Err(differs("the value")),
    }
}
