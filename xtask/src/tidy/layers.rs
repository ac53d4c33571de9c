//! Rule `layer`: the modules of the core crate are a list, and each uses only what stands above it.
//!
//! The table [`LAYERS`] is the architecture. A module may name `crate::<module>`, however it spells
//! that (a `use` with or without braces, a path inside code or a macro, a chain of `super`), for
//! the rows above its own and for itself. What is allowed is thereby acyclic, and a reader can take
//! the modules one after the other.
//!
//! The root of the crate is exempt, being the place where all of them meet; so is test code. Names
//! that the root re-exports are not accepted as a path: `crate::Thing` would hide which layer is
//! used.

use super::tokens::{Kind, Token, starts_with_path_separator};
use super::{Finding, Source, Tree};
use std::collections::BTreeSet;

/// Where the layered crate lies.
pub(super) const CORE: &str = "crates/spanheap-core/src/";

/// The layers, bottom up: a module uses the ones before it.
pub(super) const LAYERS: [&str; 12] = [
    "fatal", "addr", "bitmap", "sync", "os", "offheap", "pages", "span", "heap", "collect",
    "mutator", "observe",
];

/// A module by the names on the way to it from the root, which itself is the empty path.
type ModulePath = Vec<String>;

/// Uses of higher layers, and modules without a layer.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let files: Vec<(&Source, ModulePath)> = tree
        .rust()
        .filter_map(|source| Some((source, module_of(source.path.strip_prefix(CORE)?))))
        .collect();
    let tests: BTreeSet<ModulePath> =
        files.iter().flat_map(|(source, module)| test_modules(source.tokens(), module)).collect();
    let is_test = |module: &ModulePath| {
        module.iter().any(|part| part == "tests")
            || (1..=module.len()).any(|n| tests.contains(&module[..n]))
    };
    files
        .iter()
        .filter(|(source, module)| !module.is_empty() && !is_test(module) && !is_test_file(source))
        .flat_map(|(source, module)| check_module(source, module))
        .collect()
}

/// The module that a file below the source folder is: `heap/mod.rs` and `heap.rs` are both `heap`.
fn module_of(path: &str) -> ModulePath {
    let mut parts: ModulePath =
        path.trim_end_matches(".rs").split('/').map(str::to_string).collect();
    if parts.last().is_some_and(|last| last == "mod") || parts == ["lib"] {
        parts.pop();
    }
    parts
}

fn check_module(source: &Source, module: &ModulePath) -> Vec<Finding> {
    let finding =
        |line, message| Finding { path: source.path.clone(), line, rule: "layer", message };
    let own = &module[0];
    let Some(row) = LAYERS.iter().position(|layer| layer == own) else {
        return vec![finding(1, format!("module `{own}` has no row in the table of layers"))];
    };
    let mut uses = Vec::new();
    find_uses(source.tokens(), module, &mut uses);
    let judge = |(line, name): (usize, String)| {
        let message = match LAYERS.iter().position(|layer| *layer == name) {
            Some(used) if used <= row => return None,
            Some(_) => format!("`{own}` may not use `{name}`, which is a higher layer"),
            None => format!("`crate::{name}` is no layer: name the module that it comes from"),
        };
        Some(finding(line, message))
    };
    uses.into_iter().filter_map(judge).collect()
}

/// Collects every top-level name that `tokens`, which stand in `module`, reach through a path.
fn find_uses(tokens: &[Token], module: &ModulePath, uses: &mut Vec<(usize, String)>) {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        if let Some(length) = test_item(&tokens[at..]) {
            at += length;
            continue;
        }
        if let [keyword, name, body, ..] = &tokens[at..]
            && keyword.is_ident("mod")
            && let (Some(name), Some(body)) = (name.ident(), body.braced())
        {
            find_uses(body, &[module.as_slice(), &[name.to_string()]].concat(), uses);
            at += 3;
            continue;
        }
        let begins_path = ["crate", "super", "self"].iter().any(|word| token.is_ident(word));
        if begins_path && starts_with_path_separator(&tokens[at + 1..]) {
            at += follow(&tokens[at..], module.clone(), uses);
            continue;
        }
        if let Some(inner) = token.inner() {
            find_uses(inner, module, uses);
        }
        at += 1;
    }
}

/// Follows the path at the start of `tokens`, which is seen from the module `base`, and records
/// each name by which it enters the root. Returns how many tokens the path has, its braces
/// included: what they hold is relative to the path before them.
fn follow(tokens: &[Token], mut base: ModulePath, uses: &mut Vec<(usize, String)>) -> usize {
    let mut at = 0;
    let mut has_entered = false;
    while let Some(token) = tokens.get(at) {
        match &token.kind {
            // Further names lead on inside what has been recorded, or inside the module's own
            // layer.
            _ if has_entered => {}
            Kind::Ident(word) if word == "crate" => base.clear(),
            Kind::Ident(word) if word == "super" => drop(base.pop()),
            Kind::Ident(word) if word == "self" => {}
            Kind::Ident(name) => {
                has_entered = true;
                if base.is_empty() {
                    uses.push((token.line, name.clone()));
                }
            }
            Kind::Punct('*') if base.is_empty() => uses.push((token.line, "*".to_string())),
            Kind::Brace(inner) => {
                for branch in inner.split(|token| token.is_punct(',')) {
                    follow(branch, base.clone(), uses);
                }
            }
            _ => {}
        }
        at += 1;
        if !starts_with_path_separator(&tokens[at..]) {
            break;
        }
        at += 2;
        // The arguments of a generic function, as in `name::<T>()`, are no part of the path.
        if tokens.get(at).is_some_and(|token| token.is_punct('<')) {
            break;
        }
    }
    at
}

/// Whether the whole file is test code: `#![cfg(test)]`.
fn is_test_file(source: &Source) -> bool {
    source
        .tokens()
        .windows(3)
        .any(|window| window[0].is_punct('#') && window[1].is_punct('!') && is_cfg_test(&window[2]))
}

/// Whether this is `[cfg(test)]` or `[cfg(all(test, ..))]`.
fn is_cfg_test(token: &Token) -> bool {
    let Kind::Bracket(inner) = &token.kind else { return false };
    let [cfg, condition] = inner.as_slice() else { return false };
    let requires_test = |condition: &[Token]| match condition {
        [test] => test.is_ident("test"),
        [all, list] if all.is_ident("all") => list.inner().is_some_and(|list| {
            list.split(|t| t.is_punct(',')).any(|c| matches!(c, [t] if t.is_ident("test")))
        }),
        _ => false,
    };
    cfg.is_ident("cfg") && condition.inner().is_some_and(requires_test)
}

/// The number of tokens of the item that `tokens` starts with, if its first attribute makes it test
/// code.
pub(super) fn test_item(tokens: &[Token]) -> Option<usize> {
    match tokens {
        [hash, attribute, ..] if hash.is_punct('#') && is_cfg_test(attribute) => {}
        _ => return None,
    }
    let mut at = 2;
    // Further attributes, then the visibility.
    while tokens.get(at).is_some_and(|token| token.is_punct('#')) {
        at += 2;
    }
    if tokens.get(at).is_some_and(|token| token.is_ident("pub")) {
        at += 1;
        at += usize::from(matches!(tokens.get(at), Some(Token { kind: Kind::Paren(_), .. })));
    }
    const WITH_BODY: [&str; 12] = [
        "mod",
        "fn",
        "impl",
        "trait",
        "struct",
        "enum",
        "union",
        "unsafe",
        "async",
        "extern",
        "macro_rules",
        "const",
    ];
    let word = tokens.get(at).and_then(Token::ident).unwrap_or("");
    let is_constant = word == "const" && !tokens.get(at + 1).is_some_and(|t| t.is_ident("fn"));
    let ends = |token: &Token| match token.kind {
        Kind::Punct(';') => true,
        Kind::Brace(_) => !is_constant && !["use", "static", "let", "type"].contains(&word),
        // Fields, variants and arms end with a comma, which means nothing in an item.
        Kind::Punct(',') => !WITH_BODY.contains(&word) && word != "use",
        _ => false,
    };
    Some(tokens[at..].iter().position(ends).map_or(tokens.len(), |last| at + last + 1))
}

/// The modules that `tokens` declare as test code and keep in files of their own.
fn test_modules(tokens: &[Token], module: &ModulePath) -> Vec<ModulePath> {
    let mut found = Vec::new();
    for at in 0..tokens.len() {
        let Some(length) = test_item(&tokens[at..]) else { continue };
        if let [.., keyword, name, end] = &tokens[at..at + length]
            && keyword.is_ident("mod")
            && end.is_punct(';')
            && let Some(name) = name.ident()
        {
            found.push([module.as_slice(), &[name.to_string()]].concat());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(file: &str, text: &str) -> Vec<String> {
        let path = format!("{CORE}{file}");
        check(&Tree::from_texts(&[(&path, text)])).into_iter().map(|f| f.message).collect()
    }

    const UP: [&str; 1] = ["`pages` may not use `heap`, which is a higher layer"];

    #[test]
    fn lower_layers_and_the_module_itself_may_be_used() {
        let text = "use crate::addr::Addr;\nuse crate::{bitmap, sync::{Lock, Rank}};\n\
                    use crate::pages::Chunk;\nfn a() { crate::fatal!(\"x\") }\n";
        assert!(messages("pages/mod.rs", text).is_empty());
    }

    #[test]
    fn a_higher_layer_is_found_in_every_spelling() {
        for text in [
            "use crate::heap::Heap;",
            "use crate::{addr::Addr, heap::{self, Heap}};",
            "fn a() { let b = crate::heap::new(); }",
            "macro_rules! m { () => { $crate::heap::new() } }",
            "fn a() { println!(\"{}\", crate::heap::SIZE); }",
            "use super::heap::Heap;",
            "mod inner { use super::super::heap::Heap; }",
            "use self::super::heap;",
            "fn a() { crate::addr::b::<crate::heap::Heap>(); }",
            "fn a() { if crate::addr::A { crate::heap::b() } }",
        ] {
            assert_eq!(messages("pages.rs", text), UP, "{text}");
        }
        assert_eq!(messages("pages/a/b.rs", "use super::super::super::heap::Heap;"), UP);
        assert_eq!(messages("pages/a.rs", "use super::{b, super::{addr, heap}};"), UP);
    }

    #[test]
    fn a_chain_that_stays_in_its_module_is_free() {
        assert!(messages("pages/a/b.rs", "use super::super::heap::Heap;").is_empty());
        assert!(messages("pages/a/b.rs", "use super::heap; use self::heap::X;").is_empty());
        assert!(messages("pages/a/b.rs", "use super::{c, super::{heap, d::{heap}}};").is_empty());
        assert!(messages("pages.rs", "pub(in crate::pages) fn a() {} use std::heap;").is_empty());
    }

    #[test]
    fn the_order_is_total_and_nobody_below_uses_the_observer() {
        for (row, lower) in LAYERS.iter().enumerate() {
            for higher in &LAYERS[row + 1..] {
                let file = format!("{lower}.rs");
                assert_eq!(
                    messages(&file, &format!("use crate::{higher}::A;")).len(),
                    1,
                    "{lower}"
                );
                let file = format!("{higher}.rs");
                assert!(messages(&file, &format!("use crate::{lower}::A;")).is_empty(), "{higher}");
            }
        }
    }

    #[test]
    fn a_module_needs_a_row_and_a_name_needs_its_module() {
        assert_eq!(messages("extra.rs", ""), ["module `extra` has no row in the table of layers"]);
        let hidden = ["`crate::Heap` is no layer: name the module that it comes from"];
        assert_eq!(messages("pages.rs", "use crate::Heap;"), hidden);
        assert_eq!(messages("pages.rs", "use crate::*;").len(), 1);
    }

    #[test]
    fn the_root_and_other_crates_are_exempt() {
        assert!(messages("lib.rs", "pub use crate::observe::X; mod extra;").is_empty());
        let tree = Tree::from_texts(&[("crates/spanheap/src/a.rs", "use crate::heap::X;")]);
        assert!(check(&tree).is_empty());
    }

    #[test]
    fn test_code_is_exempt_and_what_follows_it_is_not() {
        let test = "#[cfg(test)]\n#[allow(dead_code)]\nmod tests { use crate::heap::Heap; }\n";
        assert!(messages("pages.rs", test).is_empty());
        for item in [
            "#[cfg(test)]\nuse crate::{heap};\n",
            "#[cfg(all(test, unix))]\npub(crate) fn a() { crate::heap::b() }\n",
            "#[cfg(test)]\nconst A: u8 = { crate::heap::A };\n",
        ] {
            assert!(messages("pages.rs", item).is_empty(), "{item}");
            let followed = format!("{item}use crate::heap::Heap;\n");
            assert_eq!(messages("pages.rs", &followed), UP, "{item}");
        }
        let fields = "struct A {\n#[cfg(test)]\na: crate::heap::A,\nb: crate::heap::B,\n}\n";
        assert_eq!(messages("pages.rs", fields), UP);
        assert_eq!(messages("pages.rs", "#[cfg(not(test))]\nuse crate::heap::A;\n"), UP);
    }

    #[test]
    fn test_code_in_files_of_its_own_is_exempt() {
        let up = "use crate::heap::Heap;\n";
        assert!(messages("pages/tests.rs", up).is_empty());
        assert!(messages("pages/tests/more.rs", up).is_empty());
        assert!(messages("pages/model.rs", &format!("#![cfg(test)]\n{up}")).is_empty());
        let parent = format!("{CORE}pages/mod.rs");
        let child = format!("{CORE}pages/model.rs");
        let tree = Tree::from_texts(&[(&parent, "#[cfg(test)]\nmod model;\n"), (&child, up)]);
        assert!(check(&tree).is_empty());
        let tree = Tree::from_texts(&[(&parent, "mod model;\n"), (&child, up)]);
        assert_eq!(check(&tree).len(), 1);
    }
}
