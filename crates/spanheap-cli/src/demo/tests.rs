//! The demo's parts by themselves: what goes into the heap comes out again.
//!
//! Documents are made up from a fixed seed, beside a few chosen ones with everything that is easy to
//! get wrong: escapes, equal keys, numbers at the ends of their ranges, keys with `/` and `~`.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};
use spanheap::Heap;

use super::sources::Source;
use super::{decode, edit, encode, query};
use crate::random::Random;

fn source(text: &str) -> Source {
    Source::new("test".into(), Cow::Owned(text.to_owned())).expect("a valid document")
}

/// A random document, at most `depth` deep.
fn random_json(random: &mut Random, depth: usize) -> Json {
    match random.below(if depth == 0 { 6 } else { 9 }) {
        0 => Json::Null,
        1 => Json::Bool(random.below(2) == 0),
        2 => Json::from(random.below(usize::MAX) as u64),
        3 => Json::from(-(random.below(1 << 40) as i64)),
        4 => Json::from(random.below(1 << 50) as f64 / 1e7),
        5 => Json::from("a~/\"\\\u{1}\u{e9}\u{1f600}".repeat(random.below(4))),
        6 => (0..random.below(6)).map(|_| random_json(random, depth - 1)).collect(),
        _ => {
            let count = random.below(6);
            let member = |i| (format!("k/{i}~"), random_json(random, depth - 1));
            Json::Object((0..count).map(member).collect::<Map<_, _>>())
        }
    }
}

#[test]
fn documents_survive_the_heap() {
    let heap = Heap::builder().build().expect("a heap without options");
    let chosen = [
        "null",
        "[]",
        "{}",
        "\"\"",
        r#"[18446744073709551615, -9223372036854775808, 0, -0.0, 1e300, 5e-324, 0.1]"#,
        r#"{"b": 1, "a": {"b": [1], "b": [2, 3]}, "b": 2, "": {}}"#,
        r#"{"~1": {"/": {"~0": ["\ud83d\ude00\n"]}}}"#,
    ];
    for text in chosen {
        let source = source(text);
        heap.enter(|mc| {
            let document = decode::document(mc, &source, 0).expect("decodes");
            encode::verify(mc, document, &source).expect("is as it was");
        });
    }
}

#[test]
fn random_documents_survive_edits_and_answer_queries() {
    let heap = Heap::builder().build().expect("a heap without options");
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let source = source(&random_json(&mut random, 5).to_string());
        heap.enter(|mc| {
            let document = decode::document(mc, &source, 0).expect("decodes");
            for _ in 0..20 {
                edit::make(mc, document, &source, &mut random)
                    .and_then(|()| query::check(mc, document, &source, &mut random))
                    .unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
            }
            encode::verify(mc, document, &source).expect("is as it was");
        });
    }
}

#[test]
fn a_difference_is_noticed() {
    let heap = Heap::builder().build().expect("a heap without options");
    let (one, other) = (source(r#"{"a": [1, 2]}"#), source(r#"{"a": [1, 3]}"#));
    let longer = source(r#"{"a": [1, 2, 3]}"#);
    heap.enter(|mc| {
        let document = decode::document(mc, &one, 0).expect("decodes");
        let text = encode::verify(mc, document, &other).expect_err("differs").to_string();
        assert_eq!(text, "test: the text differs");
        let text = encode::verify(mc, document, &longer).expect_err("differs").to_string();
        assert!(text.starts_with("test: the count of nodes"), "{text}");
    });
}

#[test]
fn nesting_beyond_the_limit_is_an_error_and_not_an_overflow() {
    let heap = Heap::builder().build().expect("a heap without options");
    let text = "[".repeat(100_000);
    heap.enter(|mc| {
        let error = decode::tree(mc, &text, "deep").err().expect("refused").to_string();
        assert!(error.starts_with("deep: malformed JSON: recursion limit exceeded"), "{error}");
    });
}
