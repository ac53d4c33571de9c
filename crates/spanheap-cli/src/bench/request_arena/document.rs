//! A decoded document, wherever it lies: the same values, and the same walk, for every kind of memory.
//!
//! A value is three words, in all kinds of memory. Strings and the contents of arrays and of objects are
//! allocated; numbers, truth values and null lie in their container. So an *object*, in the sense of the figures, is
//! a string, a key, or the contents of a container.
//!
//! ```text
//! Object ──> [Member | Member | ..]            Array ──> [Value | Value | ..]
//!               │ key ──> "price"                            │
//!               └ value: Number(1.5)                         └ Text ──> "blue"
//! ```
//! A [`Kind`] says what pointers a document is made of, a [`Place`] makes them and looks through them. They are two
//! since the first is part of a type that lies in memory, and the second borrows what allocates. A document without
//! destructors costs nothing to drop.
//!
//! # The checksum
//! [`sum`] visits every value and reads every byte of every string. The program for Go has the same function;
//! whoever has another sum has another document.

use std::mem;

use spanheap::Trace;

/// What pointers a document is made of.
pub(super) trait Kind: Sized {
    /// A string.
    type Text;
    /// The values of an array.
    type Array;
    /// The members of an object.
    type Object;
}

/// A JSON value.
#[derive(Trace)]
pub(super) enum Value<K: Kind> {
    Null,
    Bool(bool),
    Number(f64),
    Text(K::Text),
    Array(K::Array),
    /// Members in the order of the text.
    Object(K::Object),
}

/// A key of an object, and its value.
#[derive(Clone, Copy, Trace)]
pub(super) struct Pair<T, V> {
    pub(super) key: T,
    pub(super) value: V,
}

/// A member of an object.
pub(super) type Member<K> = Pair<<K as Kind>::Text, Value<K>>;

/// Plain pointers make plain values.
impl<K: Kind<Text: Copy, Array: Copy, Object: Copy>> Clone for Value<K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Kind<Text: Copy, Array: Copy, Object: Copy>> Copy for Value<K> {}

/// Memory for documents.
pub(super) trait Place {
    /// What its documents are made of.
    type Kind: Kind;

    /// Copies a string.
    fn text(&mut self, text: &str) -> Text<Self>;
    /// Moves the values from the index `from` on to an array, and takes them off the list.
    fn array(&mut self, values: &mut Vec<Value<Self::Kind>>, from: usize) -> Array<Self>;
    /// The same for the members of an object.
    fn object(&mut self, members: &mut Vec<Member<Self::Kind>>, from: usize) -> Object<Self>;
}

/// Memory that can be read.
pub(super) trait Look: Place {
    /// Looks at a string.
    fn read<'a>(&self, text: &'a Text<Self>) -> &'a str;
    /// Looks at the values of an array.
    fn values<'a>(&self, array: &'a Array<Self>) -> &'a [Value<Self::Kind>];
    /// Looks at the members of an object.
    fn members<'a>(&self, object: &'a Object<Self>) -> &'a [Member<Self::Kind>];
}

pub(super) type Text<P> = <<P as Place>::Kind as Kind>::Text;
pub(super) type Array<P> = <<P as Place>::Kind as Kind>::Array;
pub(super) type Object<P> = <<P as Place>::Kind as Kind>::Object;

/// Looks at every value of a document and every byte of its strings.
pub(super) fn sum<P: Look>(place: &P, value: &Value<P::Kind>) -> u64 {
    add(place, 0, value)
}

fn add<P: Look>(place: &P, sum: u64, value: &Value<P::Kind>) -> u64 {
    match value {
        Value::Null => mix(sum, 1),
        Value::Bool(value) => mix(sum, 2 + u64::from(*value)),
        Value::Number(number) => mix(mix(sum, 4), number.to_bits()),
        Value::Text(text) => add_text(mix(sum, 5), place.read(text)),
        Value::Array(array) => {
            let values = place.values(array);
            let sum = mix(mix(sum, 6), values.len() as u64);
            values.iter().fold(sum, |sum, value| add(place, sum, value))
        }
        Value::Object(object) => {
            let members = place.members(object);
            let sum = mix(mix(sum, 7), members.len() as u64);
            members.iter().fold(sum, |sum, member| {
                add(place, add_text(sum, place.read(&member.key)), &member.value)
            })
        }
    }
}

fn add_text(sum: u64, text: &str) -> u64 {
    let sum = mix(sum, text.len() as u64);
    let mut words = text.as_bytes().chunks_exact(8);
    let sum = words.by_ref().fold(sum, |sum, word| mix(sum, word_of(word)));
    words.remainder().iter().fold(sum, |sum, &byte| mix(sum, u64::from(byte)))
}

/// Up to eight bytes as a number.
fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

fn mix(sum: u64, word: u64) -> u64 {
    (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// How many objects a document is, and how deep its containers lie in each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) objects: u64,
    pub(super) depth: u64,
}

impl Census {
    pub(super) fn of<P: Look>(place: &P, value: &Value<P::Kind>) -> Census {
        let (own, inner) = match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => return Census::default(),
            Value::Text(_) => return Census { objects: 1, depth: 0 },
            Value::Array(array) => {
                let values = place.values(array);
                (1, Census::over(values.iter().map(|value| Census::of(place, value))))
            }
            Value::Object(object) => {
                let members = place.members(object);
                let inner = members.iter().map(|member| Census::of(place, &member.value));
                (1 + members.len() as u64, Census::over(inner))
            }
        };
        Census { objects: own + inner.objects, depth: 1 + inner.depth }
    }

    fn over(parts: impl Iterator<Item = Census>) -> Census {
        parts.fold(Census::default(), |sum, part| Census {
            objects: sum.objects + part.objects,
            depth: sum.depth.max(part.depth),
        })
    }
}

/// Lists for what is not complete yet, which are used again for the next document.
pub(super) struct Scratch<K: Kind> {
    pub(super) values: Vec<Value<K>>,
    pub(super) members: Vec<Member<K>>,
    /// A string with its escapes replaced.
    pub(super) unescaped: String,
}

impl<K: Kind> Scratch<K> {
    pub(super) fn new() -> Scratch<K> {
        Scratch { values: Vec::new(), members: Vec::new(), unescaped: String::new() }
    }

    /// Lends the lists for documents of another kind: one that differs in a lifetime alone is meant. What is left in
    /// them is dropped.
    pub(super) fn lend<Other: Kind, R>(&mut self, f: impl FnOnce(&mut Scratch<Other>) -> R) -> R {
        let mut lent = mem::replace(self, Scratch::new()).recycle();
        let result = f(&mut lent);
        *self = lent.recycle();
        result
    }

    /// The same memory for other elements. The standard library keeps the memory of a list that is collected into
    /// one of elements of equal size.
    fn recycle<Other: Kind>(mut self) -> Scratch<Other> {
        self.values.clear();
        self.members.clear();
        let empty = "a list that has been cleared has no elements";
        Scratch {
            values: self.values.into_iter().map(|_| unreachable!("{empty}")).collect(),
            members: self.members.into_iter().map(|_| unreachable!("{empty}")).collect(),
            unescaped: self.unescaped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::places::{Boxes, InBoxes};
    use super::{Census, Scratch, sum};
    use crate::bench::request_arena::decode::decode;

    fn sum_of(text: &str) -> u64 {
        sum(&Boxes, &decode(text, &mut Boxes, &mut Scratch::new()).expect("JSON"))
    }

    #[test]
    fn the_checksum_sees_every_change() {
        let text = r#"{"a": [1, true, null, "a long string with words"], "b": {"c": "d"}}"#;
        let original = sum_of(text);
        assert_eq!(original, sum_of(&text.replace(": ", ":").replace(", ", ",")));
        for (from, to) in [
            ("1", "2"),
            ("true", "false"),
            ("null", "0"),
            ("long", "lost"),
            ("words", "word"),
            ("\"c\"", "\"C\""),
            ("\"d\"", "\"\""),
            ("{\"c\": \"d\"}", "[\"c\", \"d\"]"),
            ("[1,", "[1,1,"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(text, changed, "{from}");
            assert_ne!(original, sum_of(&changed), "{from} is not seen");
        }
    }

    #[test]
    fn objects_are_strings_keys_and_containers() {
        for (text, objects, depth) in [
            ("1", 0, 0),
            ("\"a\"", 1, 0),
            ("[]", 1, 1),
            ("{}", 1, 1),
            ("[1, 2, [\"a\", \"b\"]]", 4, 2),
            ("{\"a\": 1, \"b\": [{\"c\": null}, {}], \"d\": \"e\"}", 9, 3),
        ] {
            let value = decode(text, &mut Boxes, &mut Scratch::new()).expect("JSON");
            assert_eq!(Census::of(&Boxes, &value), Census { objects, depth }, "{text}");
        }
    }

    #[test]
    fn recycled_lists_keep_their_memory() {
        let mut scratch = Scratch::<InBoxes>::new();
        scratch.values.reserve(100);
        scratch.members.reserve(100);
        let memory = (scratch.values.as_ptr(), scratch.members.as_ptr());
        scratch.lend::<InBoxes, _>(|lent| assert_eq!(lent.values.as_ptr(), memory.0));
        assert_eq!((scratch.values.as_ptr(), scratch.members.as_ptr()), memory);
        assert!(scratch.values.capacity() >= 100 && scratch.members.capacity() >= 100);
    }
}
