//! The table of classes: which sizes and types hold the pages, and how much of them is free.
//!
//! Rows are sorted by the bytes that are free in the spans of the class, so that what fragments the heap stands
//! first.

use spanheap::ClassPicture;

use crate::output::bytes;

/// The headings of the columns.
pub(super) const HEADINGS: [&str; 7] =
    ["slot", "spans", "pages", "objects", "free slots", "free", "type"];

/// The longest name of a type that is shown whole.
const MAX_NAME: usize = 44;

/// The rows of the table, at most `limit`, and how many there are besides.
pub(super) fn rows(classes: &[ClassPicture], limit: usize) -> (Vec<[String; 7]>, usize) {
    let free_bytes = |class: &ClassPicture| class.pages.bytes() - class.object_bytes;
    let mut sorted: Vec<&ClassPicture> = classes.iter().collect();
    sorted.sort_by_key(|class| (std::cmp::Reverse(free_bytes(class)), class.class));
    let rows = sorted.iter().take(limit).map(|class| row(class)).collect();
    (rows, sorted.len().saturating_sub(limit))
}

fn row(class: &ClassPicture) -> [String; 7] {
    [
        class.slot.map_or_else(|| "large".to_owned(), |slot| format!("{} B", slot.get())),
        class.spans.to_string(),
        bytes(class.pages.bytes().get() as u64),
        class.objects.to_string(),
        class.free_slots().to_string(),
        format!("{:.1} %", class.free_percent()),
        short(class.type_name),
    ]
}

/// A type's name without the paths of modules, and not too long.
pub(super) fn short(name: &str) -> String {
    let mut out = String::new();
    // Where the present identifier begins in `out`; a `::` behind it takes it back.
    let mut begin = 0;
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("::") {
            out.truncate(begin);
            rest = behind;
            continue;
        }
        out.push(c);
        if !(c.is_alphanumeric() || c == '_') {
            begin = out.len();
        }
        rest = &rest[c.len_utf8()..];
    }
    if out.chars().count() > MAX_NAME {
        out = out.chars().take(MAX_NAME - 1).chain(['…']).collect();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn names_lose_their_paths() {
        for (name, expected) in [
            ("u8", "u8"),
            ("spanheap_cli::demo::document::Node", "Node"),
            ("core::option::Option<spanheap::gc::Gc<a::b::Node>>", "Option<Gc<Node>>"),
            ("(alloc::string::String, &[core::cell::Cell<u64>])", "(String, &[Cell<u64>])"),
        ] {
            assert_eq!(short(name), expected);
        }
        assert_eq!(short(&"long".repeat(40)).chars().count(), super::MAX_NAME);
    }
}
