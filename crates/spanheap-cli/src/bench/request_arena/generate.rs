//! The document that every request decodes: an order, as services pass them on, the same in every run.
//!
//! Ten kibibytes of it are about three hundred objects, containers lie six deep in each other, and every kind of value
//! is there, some strings with escapes and some beyond ASCII. The last string is as long as it takes to have the
//! length that was asked for, to the byte.
//!
//! ```text
//! {"id", "customer": {"name", "address": {..}}, "lines": [{"title", "options": [{"choice": {..}}, ..]}, ..], "note"}
//! 1                  2                   3               2 3                   4 5          6
//! ```

use crate::random::Random;

/// The smallest document that has all its parts.
pub(super) const MIN_LENGTH: u64 = 2048;
/// The largest that makes sense for a request.
pub(super) const MAX_LENGTH: u64 = 64 << 20;

/// Where the choices begin.
const SEED: u64 = 7;

const WORDS: [&str; 32] = [
    "oak",
    "walnut",
    "folding",
    "table",
    "with",
    "brass",
    "fittings",
    "for",
    "small",
    "rooms",
    "and",
    "balconies",
    "weatherproof",
    "varnish",
    "assembled",
    "in",
    "minutes",
    "caf\u{e9}",
    "gr\u{f6}\u{df}er",
    "chair",
    "upholstered",
    "linen",
    "of",
    "natural",
    "colour",
    "drawer",
    "silent",
    "runners",
    "delivered",
    "flat",
    "to",
    "the",
];

/// What a string may have that is not written as it is.
const ESCAPED: [&str; 4] = ["\\n", "\\\"", "\\u20ac", "\\t"];

/// A document of exactly `length` bytes, at least [`MIN_LENGTH`].
pub(super) fn document(length: usize) -> String {
    let mut random = Random::new(SEED);
    let mut text = String::with_capacity(length);
    text.push_str(r#"{"id": "#);
    text.push_str(&(1_000_000 + random.below(1_000_000)).to_string());
    text.push_str(r#", "priority": null, "customer": {"name": "#);
    words(&mut text, &mut random, 3);
    text.push_str(r#", "verified": true, "address": {"street": "#);
    words(&mut text, &mut random, 4);
    text.push_str(r#", "city": "#);
    words(&mut text, &mut random, 1);
    text.push_str(r#", "position": [52.520008, 13.404954]}}, "lines": ["#);
    let tail = r#"], "note": ""}"#;
    let mut number = 0;
    loop {
        let start = text.len();
        if number > 0 {
            text.push_str(", ");
        }
        line(&mut text, &mut random, number);
        // One more would be too long; but a document without lines is none.
        if number > 0 && text.len() + tail.len() > length {
            text.truncate(start);
            break;
        }
        number += 1;
    }
    let (end, close) = tail.split_at(tail.len() - 2);
    text.push_str(end);
    let filler = length.saturating_sub(text.len() + close.len());
    text.extend("thank you. ".chars().cycle().take(filler));
    text.push_str(close);
    text
}

/// A line of the order.
fn line(text: &mut String, random: &mut Random, number: usize) {
    text.push_str(&format!(r#"{{"number": {number}, "title": "#));
    words(text, random, 14);
    text.push_str(r#", "description": "#);
    words(text, random, 90);
    let (units, cents, count) = (random.below(900) + 10, random.below(100), random.below(9) + 1);
    text.push_str(&format!(r#", "price": {units}.{cents:02}, "count": {count}, "tags": ["#));
    for tag in 0..3 {
        text.push_str(if tag > 0 { ", " } else { "" });
        words(text, random, 1);
    }
    text.push_str(r#"], "gift": "#);
    text.push_str(if random.below(4) == 0 { "true" } else { "false" });
    text.push_str(r#", "options": ["#);
    for option in 0..2 {
        text.push_str(if option > 0 { ", " } else { "" });
        text.push_str(r#"{"name": "#);
        words(text, random, 6);
        let surcharge = random.below(4000) as f64 / 100.0;
        text.push_str(&format!(r#", "choice": {{"value": {}, "surcharge": "#, random.below(50)));
        text.push_str(&format!("{surcharge}}}}}"));
    }
    text.push_str("]}");
}

/// A string of so many words. One in sixteen has an escape behind it.
fn words(text: &mut String, random: &mut Random, count: usize) {
    text.push('"');
    for index in 0..count {
        text.push_str(if index > 0 { " " } else { "" });
        text.push_str(WORDS[random.below(WORDS.len())]);
        if random.below(16) == 0 {
            text.push_str(ESCAPED[random.below(ESCAPED.len())]);
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::super::decode::decode;
    use super::super::document::{Census, Scratch, Value};
    use super::super::places::{Boxes, InBoxes};
    use super::{MIN_LENGTH, document};

    fn decoded(text: &str) -> Value<InBoxes> {
        decode(text, &mut Boxes, &mut Scratch::new()).expect("JSON")
    }

    #[test]
    fn the_document_is_what_the_workload_asks_for() {
        let text = document(10 << 10);
        assert_eq!(text.len(), 10 << 10);
        assert_eq!(text, document(10 << 10), "the same in every run");
        let census = Census::of(&Boxes, &decoded(&text));
        assert_eq!(census.depth, 6);
        assert!((280..=320).contains(&census.objects), "{census:?}");
        for part in ["true", "false", "null", ".", "\\n", "\\u20ac", "\u{e9}"] {
            assert!(text.contains(part), "{part}");
        }
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON for others, too");
    }

    #[test]
    fn a_document_has_the_length_that_was_asked_for() {
        for length in (MIN_LENGTH as usize..6000).step_by(97).chain([100_000, 1 << 20]) {
            let text = document(length);
            assert_eq!(text.len(), length);
            assert_eq!(Census::of(&Boxes, &decoded(&text)).depth, 6, "{length}");
        }
    }
}
