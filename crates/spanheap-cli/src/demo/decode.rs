//! From JSON text straight into heap objects.
//!
//! `serde_json` parses; a [`DeserializeSeed`] carries the mutator down into the nested values, so no
//! tree is built outside the heap first. Children are complete before their parent is allocated,
//! and learn of it right after: one store through a `GcCell` for each.
//!
//! The parser refuses more than 128 nested containers, so neither it nor the recursion here can
//! exhaust the stack.
//!
//! # Out of memory
//! A visitor can only fail with the parser's error type, which has a text and no more. The heap's
//! own error is put aside in `exhausted` and found there when parsing has failed; the caller then
//! reports it and not the parser's remark about a line and column, which would mislead.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use spanheap::{Gc, GcCell, GcMutex, Mutator, OutOfMemory};

use super::document::{Document, Items, Member, Node, Number, Value};
use super::sources::Source;
use crate::failure::{Failure, Result};

/// Decodes `source`, which has the given index, into a new document.
pub(super) fn document<'gc>(
    mc: &Mutator<'gc>,
    source: &Source,
    index: usize,
) -> Result<Gc<'gc, Document<'gc>>> {
    let root = tree(mc, &source.text, &source.name)?;
    let document = Document { source: index, root, editor: GcMutex::new(0) };
    mc.try_alloc(document).map_err(|error| exhausted(&source.name, &error))
}

/// Decodes `text`, which messages call `name`, into a tree of its own.
pub(super) fn tree<'gc>(mc: &Mutator<'gc>, text: &str, name: &str) -> Result<Gc<'gc, Node<'gc>>> {
    let memory = Cell::new(None);
    let decoder = Decoder { mc, exhausted: &memory };
    let mut parser = serde_json::Deserializer::from_str(text);
    let outcome = decoder.deserialize(&mut parser).and_then(|root| parser.end().map(|()| root));
    match (outcome, memory.take()) {
        (_, Some(error)) => Err(exhausted(name, &error)),
        (Ok(root), None) => Ok(root),
        (Err(error), None) => Err(Failure::new(format!("{name}: malformed JSON: {error}"))),
    }
}

/// The one error for "this does not fit".
pub(super) fn exhausted(name: &str, error: &OutOfMemory) -> Failure {
    Failure::exhausted(&format!("{name}: does not fit in the heap"), error)
}

/// Decodes one value into a node.
#[derive(Clone, Copy)]
struct Decoder<'a, 'gc> {
    mc: &'a Mutator<'gc>,
    exhausted: &'a Cell<Option<OutOfMemory>>,
}

impl<'gc> Decoder<'_, 'gc> {
    /// Turns the heap's refusal into the parser's error, keeping the former.
    fn keep<T, E: Error>(self, outcome: std::result::Result<T, OutOfMemory>) -> Outcome<T, E> {
        outcome.map_err(|error| {
            self.exhausted.set(Some(error));
            E::custom("out of memory")
        })
    }

    fn node<E: Error>(self, value: Value<'gc>) -> Outcome<Gc<'gc, Node<'gc>>, E> {
        self.keep(self.mc.try_alloc(Node { parent: GcCell::new(None), value }))
    }
}

type Outcome<T, E> = std::result::Result<T, E>;

impl<'de, 'gc> DeserializeSeed<'de> for Decoder<'_, 'gc> {
    type Value = Gc<'gc, Node<'gc>>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Outcome<Self::Value, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de, 'gc> Visitor<'de> for Decoder<'_, 'gc> {
    type Value = Gc<'gc, Node<'gc>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Outcome<Self::Value, E> {
        self.node(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Outcome<Self::Value, E> {
        self.node(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Outcome<Self::Value, E> {
        self.node(Value::Number(Number::Unsigned(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Outcome<Self::Value, E> {
        self.node(Value::Number(Number::Negative(value)))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Outcome<Self::Value, E> {
        self.node(Value::Number(Number::Float(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Outcome<Self::Value, E> {
        let text = self.keep(self.mc.try_alloc_str(value))?;
        self.node(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Outcome<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(child) = access.next_element_seed(self)? {
            list.push(child);
        }
        let children = list.clone();
        let items = self.keep(self.mc.try_alloc(Items { list: GcMutex::new(list) }))?;
        let node = self.node(Value::Array(items))?;
        for child in children {
            child.parent.set(self.mc, Some(node));
        }
        Ok(node)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Outcome<Self::Value, A::Error> {
        let mut members: Vec<(Gc<'gc, str>, Gc<'gc, Node<'gc>>)> = Vec::new();
        while let Some(key) = access.next_key_seed(Key(self))? {
            members.push((key, access.next_value_seed(self)?));
        }
        // Of equal keys the last one counts. The sort is stable, so after reversing, the last one
        // is the first of its equals, which is the one that `dedup` keeps.
        members.reverse();
        members.sort_by_key(|(key, _)| *key);
        members.dedup_by_key(|(key, _)| *key);
        let children: Vec<_> = members.iter().map(|&(_, child)| child).collect();
        let members =
            members.into_iter().map(|(key, child)| Member { key, value: GcCell::new(child) });
        let members = self.keep(self.mc.try_alloc_slice(members))?;
        let node = self.node(Value::Object(members))?;
        for child in children {
            child.parent.set(self.mc, Some(node));
        }
        Ok(node)
    }
}

/// Decodes a key. JSON has only strings there.
struct Key<'a, 'gc>(Decoder<'a, 'gc>);

impl<'de, 'gc> DeserializeSeed<'de> for Key<'_, 'gc> {
    type Value = Gc<'gc, str>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Outcome<Self::Value, D::Error> {
        parser.deserialize_str(self)
    }
}

impl<'gc> Visitor<'_> for Key<'_, 'gc> {
    type Value = Gc<'gc, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, value: &str) -> Outcome<Self::Value, E> {
        self.0.keep(self.0.mc.try_alloc_str(value))
    }
}
