//! Rule `inventory`: `SAFETY.md` lists where unsafe code is, and the list is true.
//!
//! A reviewer wants to know where to look, and a reader of a change wants to see that it adds
//! unsafe code. So the document has a table, between two marks, of every source file with unsafe
//! code outside its tests: how many blocks, `unsafe impl`s, and definitions of unsafe functions and
//! traits. The table is printed by `cargo xtask unsafe-inventory`, and `--write` puts it into the
//! document.
//!
//! What is counted are tokens: code inside a macro's body counts once, however often it is used,
//! and so does code that a derive writes into other crates.

use super::layers::test_item;
use super::tokens::{Kind, Token};
use super::{Finding, Source, Tree};

/// The document that holds the table.
pub(crate) const DOCUMENT: &str = "SAFETY.md";
/// The line before the table.
const BEGIN: &str = "<!-- inventory: cargo xtask unsafe-inventory --write -->\n";
/// The line behind it.
const END: &str = "<!-- end of inventory -->\n";

/// Unsafe code of one file.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Count {
    blocks: usize,
    impls: usize,
    definitions: usize,
}

/// A document whose table is not the one that would be printed.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let Some(document) = tree.source(DOCUMENT) else { return Vec::new() };
    let message = match replace(&document.text, &table(tree)) {
        Some(text) if text == document.text => return Vec::new(),
        Some(_) => "the table is out of date: run `cargo xtask unsafe-inventory --write`",
        None => "the marks around the inventory of unsafe code are missing",
    };
    let line = document.text.lines().take_while(|line| *line != BEGIN.trim_end()).count() + 1;
    let (path, message) = (document.path.clone(), message.to_string());
    vec![Finding { path, line, rule: "inventory", message }]
}

/// The document with `table` between the marks; nothing when it has no marks.
pub(crate) fn replace(document: &str, table: &str) -> Option<String> {
    let (head, rest) = document.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}{table}{END}{tail}"))
}

/// The inventory of all sources below `crates`, as a Markdown table.
pub(crate) fn table(tree: &Tree) -> String {
    let mut text =
        String::from("| file | blocks | impls | fns and traits |\n|---|---:|---:|---:|\n");
    let mut sum = Count::default();
    let mut files: Vec<(&str, Count)> = tree
        .rust()
        .filter(|source| is_shipped(source))
        .map(|source| (source.path.as_str(), count(source.tokens())))
        .filter(|(_, count)| *count != Count::default())
        .collect();
    files.sort_by_key(|(path, _)| *path);
    for (path, count) in files {
        sum.add(count);
        text += &row(&format!("`{path}`"), count);
    }
    text += &row("all", sum);
    text
}

fn row(name: &str, count: Count) -> String {
    let Count { blocks, impls, definitions } = count;
    format!("| {name} | {blocks} | {impls} | {definitions} |\n")
}

/// Whether the file is part of what users compile, and not of a test.
fn is_shipped(source: &Source) -> bool {
    let in_source = source.path.starts_with("crates/") && source.path.contains("/src/");
    in_source && !source.path.ends_with("/tests.rs") && !source.path.contains("/tests/")
}

impl Count {
    fn add(&mut self, other: Count) {
        self.blocks += other.blocks;
        self.impls += other.impls;
        self.definitions += other.definitions;
    }
}

/// Counts what `tokens` hold outside of test code.
fn count(tokens: &[Token]) -> Count {
    let mut sum = Count::default();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if let Some(length) = test_item(&tokens[at..]) {
            at += length;
            continue;
        }
        if token.is_ident("unsafe") {
            sum.add(one(&tokens[at + 1..]));
        }
        if let Some(inner) = token.inner() {
            sum.add(count(inner));
        }
        at += 1;
    }
    sum
}

/// What the keyword before `rest` makes unsafe.
fn one(rest: &[Token]) -> Count {
    let nothing = Count::default();
    match rest.first().map(|token| &token.kind) {
        Some(Kind::Brace(_)) => Count { blocks: 1, ..nothing },
        Some(Kind::Ident(word)) if word == "impl" => Count { impls: 1, ..nothing },
        Some(Kind::Ident(word)) if word == "trait" => Count { definitions: 1, ..nothing },
        // `fn name`, also behind `extern "C"`; `fn (` is the type of a pointer.
        _ => {
            let behind = rest.iter().take(3).skip_while(|token| !token.is_ident("fn")).nth(1);
            let is_definition = behind.is_some_and(|token| matches!(token.kind, Kind::Ident(_)))
                || matches!(rest, [_, _, keyword, name, ..]
                        if keyword.is_ident("fn") && name.ident().is_some());
            Count { definitions: usize::from(is_definition), ..nothing }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODE: &str = "//! A.\nunsafe impl Send for A {}\nunsafe trait T {}\n\
                        unsafe fn a(f: unsafe fn(u8)) { unsafe { b(); unsafe { c() } } }\n\
                        unsafe extern \"C\" fn d() {}\n\
                        #[cfg(test)]\nmod tests { fn t() { unsafe { e() } } }\n";

    const TABLE: &str = "| file | blocks | impls | fns and traits |\n|---|---:|---:|---:|\n\
                         | `crates/x/src/a.rs` | 2 | 1 | 3 |\n| all | 2 | 1 | 3 |\n";

    #[test]
    fn every_kind_is_counted_outside_of_tests() {
        let tree = Tree::from_texts(&[
            ("crates/x/src/a.rs", CODE),
            ("crates/x/src/none.rs", "//! N.\n"),
            ("crates/x/src/tests.rs", CODE),
            ("crates/x/tests/t.rs", CODE),
            ("xtask/src/a.rs", CODE),
        ]);
        assert_eq!(table(&tree), TABLE);
    }

    #[test]
    fn a_table_is_replaced_between_its_marks() {
        let old = format!("Text.\n{BEGIN}| old |\n{END}More.\n");
        let new = format!("Text.\n{BEGIN}{TABLE}{END}More.\n");
        assert_eq!(replace(&old, TABLE), Some(new));
        assert_eq!(replace("Text.\n", TABLE), None);
    }

    #[test]
    fn an_old_table_and_missing_marks_are_findings() {
        let messages = |document: &str| -> Vec<(usize, String)> {
            let tree = Tree::from_texts(&[(DOCUMENT, document), ("crates/x/src/a.rs", CODE)]);
            check(&tree).into_iter().map(|f| (f.line, f.message)).collect()
        };
        assert!(messages(&format!("A.\n{BEGIN}{TABLE}{END}")).is_empty());
        let old = messages(&format!("A.\n{BEGIN}{END}"));
        assert_eq!(old.len(), 1);
        assert!(old[0].0 == 2 && old[0].1.contains("out of date"), "{old:?}");
        assert!(messages("A.\n")[0].1.contains("missing"));
    }
}
