//! The documents that the demo works on, as they are outside the heap.
//!
//! A source has its text (what the threads decode again and again), its `serde_json::Value`, its
//! canonical text, and the count of its nodes. The last three are the truth that what comes out of
//! the heap is held against; they are made once, by a well-tried parser, with the ordinary allocator.
//!
//! Canonical text is compact and has the members of every object sorted by key. Everything a user can
//! get wrong about a file is found here, before any thread starts.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::document::Census;
use crate::failure::{Failure, Result};

/// One JSON document.
pub(super) struct Source {
    /// Where it comes from, for messages.
    pub(super) name: String,
    /// The document as it was written.
    pub(super) text: Cow<'static, str>,
    /// The document as `serde_json` understands it.
    pub(super) value: Value,
    /// The document written back: compact, keys sorted.
    pub(super) canonical: String,
    /// How many values of each kind it has.
    pub(super) census: Census,
}

/// Documents that come with the program: see `data/mdn-data/README.md` for origin and licence.
const EMBEDDED: [(&str, &str); 6] = [
    ("properties.json", include_str!("../../data/mdn-data/properties.json")),
    ("syntaxes.json", include_str!("../../data/mdn-data/syntaxes.json")),
    ("selectors.json", include_str!("../../data/mdn-data/selectors.json")),
    ("units.json", include_str!("../../data/mdn-data/units.json")),
    ("inheritance.json", include_str!("../../data/mdn-data/inheritance.json")),
    ("l10n-css.json", include_str!("../../data/mdn-data/l10n-css.json")),
];

/// Reads and checks `files`, or takes the embedded documents if there are none.
pub(super) fn load(files: &[PathBuf]) -> Result<Vec<Source>> {
    if files.is_empty() {
        return EMBEDDED
            .iter()
            .map(|&(name, text)| Source::new(name.to_owned(), Cow::Borrowed(text)))
            .collect();
    }
    files.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Source> {
    let name = path.display().to_string();
    let bytes = std::fs::read(path)
        .map_err(|error| Failure::new(format!("{name}: cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let position = error.utf8_error().valid_up_to();
        Failure::new(format!("{name}: not UTF-8 at byte {position}"))
    })?;
    Source::new(name, Cow::Owned(text))
}

impl Source {
    pub(super) fn new(name: String, text: Cow<'static, str>) -> Result<Source> {
        if text.trim_ascii().is_empty() {
            return Err(Failure::new(format!("{name}: is empty, a JSON document was expected")));
        }
        let mut value: Value = serde_json::from_str(&text)
            .map_err(|error| Failure::new(format!("{name}: malformed JSON: {error}")))?;
        // Nothing to do unless some crate of the build asks for maps in order of appearance.
        value.sort_all_objects();
        let canonical = value.to_string();
        let census = Census::of_json(&value);
        Ok(Source { name, text, value, canonical, census })
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::{EMBEDDED, Source, load};

    #[test]
    fn the_embedded_documents_are_sound_and_not_trivial() {
        let sources = load(&[]).expect("embedded documents parse");
        assert_eq!(sources.len(), EMBEDDED.len());
        assert!(sources.iter().any(|source| !source.text.is_ascii()), "some go beyond ASCII");
        assert!(sources.iter().map(|source| source.text.len()).sum::<usize>() > 500_000);
    }

    #[test]
    fn canonical_text_sorts_keys_and_keeps_the_last_of_equal_ones() {
        let text = r#" { "b": [1, 2.50], "a": {"z": null, "y": true}, "b": -7 } "#;
        let source = Source::new("test".into(), Cow::Borrowed(text)).expect("valid");
        assert_eq!(source.canonical, r#"{"a":{"y":true,"z":null},"b":-7}"#);
    }

    #[test]
    fn bad_documents_are_named_with_their_place() {
        for (text, expected) in [
            ("", "d: is empty, a JSON document was expected"),
            (" \n", "d: is empty, a JSON document was expected"),
            ("[1,", "d: malformed JSON: EOF while parsing a value at line 1 column 3"),
            ("[] x", "d: malformed JSON: trailing characters at line 1 column 4"),
        ] {
            let error = Source::new("d".into(), Cow::Borrowed(text)).err().expect("refused");
            assert_eq!(error.to_string(), expected);
        }
    }
}
