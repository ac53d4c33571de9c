//! Rule `table`: tables in documents that repeat what the code says.
//!
//! `ARCHITECTURE.md` has the lock order and the layers of the core crate, and the head of the core's
//! root has the layers as well. A copy that is wrong is worse than none, so each is compared with
//! its original: the variants of `Rank`, in the order of their declaration, and the table of rule
//! `layer`, as far as its modules exist.
//!
//! An essay that says which file is what (a table whose header begins with `file` or `module`) names each
//! module that its file declares, and no other; tests need no row, and the file itself may have one.
//!
//! A table is known by the first word of its header. The names are the backticked words of its first
//! column, row by row.

use super::layers::{CORE, LAYERS, test_item};
use super::tokens::{Kind, Token};
use super::{Finding, Source, Tree};

/// The document.
const DOCUMENT: &str = "ARCHITECTURE.md";
/// Where the lock order is.
const RANKS: &str = "crates/spanheap-core/src/sync/rank.rs";

/// Tables that differ from the code.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let layers: Vec<&str> = LAYERS.into_iter().filter(|layer| has_module(tree, layer)).collect();
    let mut findings = Vec::new();
    if let Some(document) = tree.source(DOCUMENT) {
        findings.extend(compare(document, &document.text, "layer", &layers));
        if let Some(ranks) = tree.source(RANKS) {
            findings.extend(compare(document, &document.text, "rank", &variants(ranks.tokens())));
        }
    }
    if let Some(root) = tree.source(&format!("{CORE}lib.rs")) {
        let head = root.head().join("\n");
        // A root without the table leaves it to the document.
        if !first_column(&head, "layer").1.is_empty() {
            findings.extend(compare(root, &head, "layer", &layers));
        }
    }
    findings.extend(tree.rust().flat_map(check_files));
    findings
}

/// Findings if the essay's table of files differs from the modules that the file declares.
fn check_files(source: &Source) -> Vec<Finding> {
    let declared = modules(source.tokens());
    if declared.is_empty() {
        return Vec::new();
    }
    let head = source.head().join("\n");
    let tables = ["file", "module"].map(|header| first_column(&head, header));
    let Some((line, listed)) = tables.into_iter().find(|(_, listed)| !listed.is_empty()) else {
        return Vec::new();
    };
    let own = source.path.rsplit('/').next().and_then(|name| name.strip_suffix(".rs"));
    let finding = |message| Finding { path: source.path.clone(), line, rule: "table", message };
    let missing = declared.iter().filter(|name| !listed.contains(name));
    let missing = missing.map(|name| format!("the table of files has no row for `{name}`"));
    let known = |name: &str| declared.contains(&name) || Some(name) == own;
    let unknown = listed.iter().filter(|name| !known(name));
    let unknown =
        unknown.map(|name| format!("the table of files names `{name}`, which is no module"));
    missing.chain(unknown).map(finding).collect()
}

/// The names of the modules that are declared and have files of their own, tests left out.
fn modules(tokens: &[Token]) -> Vec<&str> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if let Some(length) = test_item(&tokens[at..]) {
            at += length;
            continue;
        }
        if let [keyword, name, end, ..] = &tokens[at..]
            && keyword.is_ident("mod")
            && end.is_punct(';')
        {
            names.extend(name.ident());
        }
        at += 1;
    }
    names
}

fn has_module(tree: &Tree, layer: &str) -> bool {
    tree.exists(&format!("{CORE}{layer}.rs")) || tree.exists(&format!("{CORE}{layer}/mod.rs"))
}

/// A finding if the table of `text` whose header begins with `header` does not list `names`.
fn compare(source: &Source, text: &str, header: &str, names: &[&str]) -> Option<Finding> {
    let (line, listed) = first_column(text, header);
    if listed == names {
        return None;
    }
    let message = format!(
        "the table of each `{header}` lists [{}], the code [{}]",
        listed.join(" "),
        names.join(" ")
    );
    Some(Finding { path: source.path.clone(), line, rule: "table", message })
}

/// The backticked words in the first column of the first table whose header begins with `header`,
/// and the line of the header.
fn first_column<'a>(text: &'a str, header: &str) -> (usize, Vec<&'a str>) {
    let first_cell = |line: &'a str| line.trim().strip_prefix('|')?.split('|').next();
    let mut lines = (1..).zip(text.lines());
    let is_header = |line| first_cell(line).is_some_and(|cell| cell.trim() == header);
    let Some((number, _)) = lines.find(|(_, line)| is_header(line)) else { return (1, Vec::new()) };
    let rows = lines.map_while(|(_, line)| first_cell(line));
    let names = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    (number, names.collect())
}

/// The names of the variants of the first public enum.
fn variants(tokens: &[Token]) -> Vec<&str> {
    let body = tokens.windows(3).find_map(|window| match window {
        [keyword, name, body] if keyword.is_ident("enum") && name.is_ident("Rank") => body.braced(),
        _ => None,
    });
    let is_name = |token: &&Token| matches!(token.kind, Kind::Ident(_));
    body.unwrap_or_default()
        .split(|token| token.is_punct(','))
        .filter_map(|variant| variant.iter().find(is_name)?.ident())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANK: &str =
        "//! R.\n/// D.\n#[derive(Clone)]\npub enum Rank {\n/// A.\nLow,\n/// B.\nHigh,\n}\n";

    fn findings(document: &str, root: &str) -> Vec<String> {
        let tree = Tree::from_texts(&[
            (DOCUMENT, document),
            (RANKS, RANK),
            ("crates/spanheap-core/src/lib.rs", root),
            ("crates/spanheap-core/src/addr.rs", ""),
            ("crates/spanheap-core/src/sync/mod.rs", ""),
        ]);
        check(&tree).into_iter().map(|f| format!("{}:{}: {}", f.path, f.line, f.message)).collect()
    }

    const LAYERS_TABLE: &str = "| layer | what |\n|---|---|\n| `addr`, `sync` | `not` this |\n";
    const RANKS_TABLE: &str = "| rank | what |\n|---|---|\n| `Low` | a |\n| `High` | b |\n";

    #[test]
    fn true_tables_pass() {
        let document = format!("# A\n{LAYERS_TABLE}\nText.\n\n{RANKS_TABLE}");
        assert!(findings(&document, "//! Root.\n").is_empty());
        let root = "//! | layer | what |\n//! |---|---|\n//! | [`addr`], [`sync`] | x |\n";
        assert!(findings(&document, root).is_empty());
    }

    #[test]
    fn another_order_and_a_missing_name_are_findings() {
        let swapped = "| rank | what |\n|---|---|\n| `High` | a |\n| `Low` | b |\n";
        assert_eq!(
            findings(&format!("{LAYERS_TABLE}\n{swapped}"), ""),
            [format!(
                "{DOCUMENT}:5: the table of each `rank` lists [High Low], the code [Low High]"
            )]
        );
        let short = "| layer | what |\n|---|---|\n| `addr` | x |\n";
        assert_eq!(
            findings(&format!("{short}\n{RANKS_TABLE}"), ""),
            [format!("{DOCUMENT}:1: the table of each `layer` lists [addr], the code [addr sync]")]
        );
        assert_eq!(findings(RANKS_TABLE, "").len(), 1);
    }

    #[test]
    fn a_table_of_files_names_each_module_and_no_other() {
        let check = |text: &str| -> Vec<String> {
            let tree = Tree::from_texts(&[("crates/a/src/heap/mod.rs", text)]);
            check(&tree).into_iter().map(|f| format!("{}: {}", f.line, f.message)).collect()
        };
        let table = "//! H.\n//! | file | what |\n//! |---|---|\n//! | `mod`, [`a`] | x |\n//! | `b` | y |\n";
        let code = "pub(crate) mod a;\nmod b;\n#[cfg(test)]\nmod tests;\nmod inner { }\n";
        assert!(check(&format!("{table}\n{code}")).is_empty());
        assert!(check(&format!("//! H.\n\n{code}")).is_empty());
        assert_eq!(
            check(&format!("{table}\nmod a;\nmod c;\n")),
            [
                "2: the table of files has no row for `c`",
                "2: the table of files names `b`, which is no module"
            ]
        );
    }

    #[test]
    fn the_root_is_compared_if_it_has_the_table() {
        let document = format!("{LAYERS_TABLE}\n{RANKS_TABLE}");
        let root = "//! Root.\n//! | layer | what |\n//! |---|---|\n//! | `sync` | x |\n";
        assert_eq!(findings(&document, root).len(), 1);
    }
}
