//! Rule `dead-path`: documents name files that exist.
//!
//! Looked at are all Markdown files, and the essays at the heads of Rust files. In them,
//! - a name in backticks that looks like a path of the repository exists: it has a slash in it, or
//!   ends like a file of ours. It may be relative to the root, to the document's folder, or to its
//!   crate's root or source folder;
//! - the target of a relative link exists, relative to the document's folder.
//!
//! Absolute paths (they belong to the operating system), addresses on the web, names with wildcards
//! or placeholders, build output and files of Go's own sources are not paths of the repository.
//! Blocks of code are not searched: they show commands and output.

use super::{Finding, Source, Tree};

/// A name that ends like this is a file of the repository, also without a slash.
const ENDINGS: [&str; 4] = [".rs", ".md", ".toml", ".json"];
/// Folders and files that are named without being in the repository.
const FOREIGN: [(&str, &str); 2] = [("target/", ""), ("", ".go")];
/// Material that lies beside the repository on some machines and not inside it.
const OUTSIDE: &str = "../shared";

/// Paths in documents that lead nowhere.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.sources().flat_map(|source| check_document(tree, source)).collect()
}

fn check_document(tree: &Tree, source: &Source) -> Vec<Finding> {
    let is_markdown = source.path.ends_with(".md");
    let lines: Vec<&str> = match is_markdown {
        true => source.text.lines().collect(),
        false if source.is_rust() => source.head(),
        false => return Vec::new(),
    };
    let folder = source.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let bases = bases(tree, folder);
    let mut findings = Vec::new();
    for (number, line) in prose(&lines) {
        let (spans, rest) = split_code(line);
        let named = spans.iter().filter_map(|span| as_path(span)).filter(|path| {
            path.starts_with(OUTSIDE) || !bases.iter().any(|base| leads_somewhere(tree, base, path))
        });
        let linked = link_targets(&rest)
            .into_iter()
            .filter_map(|target| as_link(target, is_markdown))
            .filter(|path| {
                let base = if path.starts_with('/') { "" } else { folder };
                path.starts_with(OUTSIDE) || !leads_somewhere(tree, base, path)
            });
        for path in named.chain(linked) {
            let message = match path.starts_with(OUTSIDE) {
                true => format!("`{path}` lies outside the repository"),
                false => format!("`{path}` does not exist"),
            };
            let path = source.path.clone();
            findings.push(Finding { path, line: number, rule: "dead-path", message });
        }
    }
    findings
}

/// The lines, numbered from one, that are not in a fenced block of code.
fn prose<'a>(lines: &[&'a str]) -> Vec<(usize, &'a str)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (number, line) in (1..).zip(lines) {
        if line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~") {
            fenced = !fenced;
        } else if !fenced {
            found.push((number, *line));
        }
    }
    found
}

/// The code spans of a line, and the line without them.
fn split_code(line: &str) -> (Vec<&str>, String) {
    let (mut spans, mut rest) = (Vec::new(), String::new());
    let mut left = line;
    while let Some(open) = left.find('`') {
        rest.push_str(&left[..open]);
        let after = left[open..].trim_start_matches('`');
        let fence = &left[open..left.len() - after.len()];
        match after.find(fence) {
            Some(close) => {
                spans.push(after[..close].trim());
                left = &after[close + fence.len()..];
            }
            // A span that goes on in the next line: no path does.
            None => left = after,
        }
    }
    rest.push_str(left);
    (spans, rest)
}

/// What a code span names, if that looks like a path of the repository.
fn as_path(span: &str) -> Option<&str> {
    // A place in a file: `name.rs:12`.
    let span = match span.rsplit_once(':') {
        Some((path, line)) if !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()) => path,
        _ => span,
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let has_shape = (span.contains('/') || ENDINGS.iter().any(|ending| span.ends_with(ending)))
        && span.chars().all(is_plain)
        && !span.starts_with(['/', '-']);
    let is_foreign =
        FOREIGN.iter().any(|(start, end)| span.starts_with(start) && span.ends_with(end));
    // `1/2`, `bytes/8`: arithmetic. `.rs`, `./`: an ending, and a folder that needs no proof.
    let last = span.trim_end_matches('/').rsplit('/').next().unwrap_or("");
    let is_number = last.chars().all(|c| c.is_ascii_digit() || c == '.');
    let is_ending = ENDINGS.contains(&span);
    let is_above = span.starts_with("..") && last == "..";
    (has_shape && !is_foreign && !is_ending && (!is_number || is_above)).then_some(span)
}

/// The targets of the inline links and link definitions of a line.
fn link_targets(line: &str) -> Vec<&str> {
    let inline = line.match_indices("](").filter_map(|(at, open)| {
        let target = &line[at + open.len()..];
        target.find(')').map(|end| &target[..end])
    });
    let definition = line
        .trim_start()
        .strip_prefix('[')
        .and_then(|line| line.split_once("]: "))
        .filter(|(name, _)| !name.contains(['[', ']']))
        .map(|(_, target)| target);
    inline.chain(definition).collect()
}

/// The file that a link leads to, if it is a relative one. Links in Rust essays usually name items;
/// there only what looks like a file is one.
fn as_link(target: &str, is_markdown: bool) -> Option<&str> {
    let target = target.trim().trim_start_matches('<');
    let target = target.split([' ', '>', '#']).next().unwrap_or("");
    if target.is_empty() || target.contains("::") || target.starts_with("mailto:") {
        return None;
    }
    let is_web = target.contains("://");
    let is_file = is_markdown || as_path(target).is_some();
    (!is_web && is_file).then_some(target)
}

/// The folders that a path in backticks may start from, for a document in `folder`.
fn bases(tree: &Tree, folder: &str) -> Vec<String> {
    let mut bases = vec![String::new(), folder.to_string()];
    let mut above = folder;
    while !above.is_empty() {
        if tree.exists(&format!("{above}/Cargo.toml")) {
            bases.push(above.to_string());
            bases.push(format!("{above}/src"));
            break;
        }
        above = above.rsplit_once('/').map_or("", |(above, _)| above);
    }
    bases
}

/// Whether `path`, seen from the folder `base`, is a file or folder of the tree.
fn leads_somewhere(tree: &Tree, base: &str, path: &str) -> bool {
    let mut parts: Vec<&str> = Vec::new();
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                if parts.pop().is_none() {
                    return false;
                }
            }
            part => parts.push(part),
        }
    }
    tree.exists(&parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages for a document in `docs/`, beside a small workspace.
    fn messages(text: &str) -> Vec<String> {
        messages_in("docs/a.md", text)
    }

    fn messages_in(path: &str, text: &str) -> Vec<String> {
        let tree = Tree::from_texts(&[
            (path, text),
            ("docs/b.md", ""),
            ("README.md", ""),
            ("crates/x/Cargo.toml", ""),
            ("crates/x/src/lib.rs", ""),
            ("crates/x/src/heap/mod.rs", ""),
        ]);
        check(&tree).into_iter().map(|f| format!("{}: {}", f.line, f.message)).collect()
    }

    #[test]
    fn a_name_in_backticks_that_looks_like_a_path_exists() {
        let good = "`README.md`, `docs/b.md`, `b.md`, `crates/x/src/heap/`, `crates/x/src/lib.rs:12`, ``docs``";
        assert!(messages(good).is_empty(), "{:?}", messages(good));
        assert_eq!(
            messages("one\n`docs/c.md` and `docs/b.md`\n"),
            ["2: `docs/c.md` does not exist"]
        );
        assert_eq!(messages("`missing.rs`"), ["1: `missing.rs` does not exist"]);
        assert_eq!(messages("`src/heap`"), ["1: `src/heap` does not exist"]);
        assert_eq!(messages("`../../x`"), ["1: `../../x` does not exist"]);
    }

    #[test]
    fn other_names_in_backticks_are_free() {
        let free = "`a b/c`, `/proc/self/smaps`, `https://a.b/c.md`, `src/*.rs`, `<name>/x`, `n/8`, `1/2`, \
                    `mod::x`, `target/debug/x`, `runtime/mheap.go`, `.rs`, `a::b`, `--flag/x`, docs/c.md";
        assert!(messages(free).is_empty(), "{:?}", messages(free));
    }

    #[test]
    fn the_essay_of_a_rust_file_starts_from_its_crate_too() {
        let path = "crates/x/src/heap/a.rs";
        assert!(
            messages_in(path, "//! `src/lib.rs`, `heap/mod.rs`, `mod.rs`, `docs/b.md`\n")
                .is_empty()
        );
        assert_eq!(
            messages_in(path, "//! A.\n//! `heap/b.rs`\n"),
            ["2: `heap/b.rs` does not exist"]
        );
        assert!(messages_in(path, "//! A.\n\n/// `heap/b.rs`\nfn a() {}\n").is_empty());
    }

    #[test]
    fn a_relative_link_leads_somewhere() {
        let good = "[b](b.md), [r](../README.md#top \"t\"), [w](https://a.b/c), [h](#x), [m](mailto:a@b)\n\
                    [def]: b.md\n";
        assert!(messages(good).is_empty(), "{:?}", messages(good));
        assert_eq!(messages("[c](c.md)"), ["1: `c.md` does not exist"]);
        assert_eq!(messages("[c]: c.md"), ["1: `c.md` does not exist"]);
        // Links start from the document, whatever lies in the root.
        assert_eq!(messages("[r](README.md)"), ["1: `README.md` does not exist"]);
    }

    #[test]
    fn links_to_items_are_free_in_essays() {
        let path = "crates/x/src/lib.rs";
        assert!(messages_in(path, "//! [a](Heap), [b](crate::heap::Heap)\n").is_empty());
        assert_eq!(messages_in(path, "//! [a](gone.md)\n"), ["1: `gone.md` does not exist"]);
    }

    #[test]
    fn code_is_not_searched() {
        assert!(messages("```\n`docs/c.md` [c](c.md)\n```\n").is_empty());
        assert!(messages("`slice[i](c.md)`\n").is_empty());
        assert_eq!(messages("```\n```\n`docs/c.md`\n"), ["3: `docs/c.md` does not exist"]);
    }

    #[test]
    fn material_beside_the_repository_is_not_named() {
        let outside = format!("`{OUTSIDE}/x.md` [x]({OUTSIDE}/x.md)\n");
        let message = format!("1: `{OUTSIDE}/x.md` lies outside the repository");
        assert_eq!(messages(&outside), [message.clone(), message]);
    }
}
