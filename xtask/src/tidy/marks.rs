//! Rules `unfinished` and `machine-path`: what a finished file does not say, in any text file.
//!
//! `unfinished`: marks of work left behind. They are either done, or an entry of the issue tracker.
//! `machine-path`: folders of the computer on which somebody worked; nobody else has them.
//!
//! The searched words are put together from pieces, so that this file does not find itself.

use super::{Finding, Source, Tree};

/// Marks of unfinished work: found as whole words.
const UNFINISHED: [&str; 6] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("db", "g!"),
];

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: [&str; 3] =
    [concat!("/wo", "rk/"), concat!("/tmp", "/wt"), concat!("/ro", "ot/")];

/// Marks and machine paths in every text file.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.sources().flat_map(check_source).collect()
}

fn check_source(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut report = |line, rule, message| {
        findings.push(Finding { path: source.path.clone(), line, rule, message });
    };
    for (number, line) in (1..).zip(source.text.lines()) {
        for mark in UNFINISHED.iter().filter(|mark| has_word(line, mark)) {
            report(number, "unfinished", format!("`{mark}`: finish it, or open an issue"));
        }
        for path in MACHINE_PATHS.iter().filter(|path| has_root(line, path)) {
            report(number, "machine-path", format!("`{path}` exists on one machine only"));
        }
    }
    findings
}

/// Whether `word` stands in `line` without letters, digits or underscores beside it.
fn has_word(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let after = &line[at + word.len()..];
        // The marks that end in `!` are calls of macros: what follows them is free.
        let open = !word.ends_with('!') && after.starts_with(is_part);
        !line[..at].ends_with(is_part) && !open
    })
}

/// Whether the absolute path `root` starts somewhere in `line`: not behind the name of another
/// folder.
fn has_root(line: &str, root: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || "_.-".contains(c);
    line.match_indices(root).any(|(at, _)| !line[..at].ends_with(is_part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<&'static str> {
        check(&Tree::from_texts(&[("a.txt", text)])).into_iter().map(|f| f.rule).collect()
    }

    #[test]
    fn each_mark_is_found_in_any_text_file() {
        for mark in UNFINISHED {
            assert_eq!(rules(&format!("x\n// {mark}(): later\n")), ["unfinished"], "{mark}");
            assert_eq!(rules(&format!("{mark}\n")), ["unfinished"], "{mark}");
        }
    }

    #[test]
    fn longer_words_are_not_marks() {
        for mark in UNFINISHED {
            assert!(rules(&format!("A_{mark}\nmy{mark}\n")).is_empty(), "{mark}");
        }
        assert!(rules(&format!("mktemp name.{0}{0}\n", UNFINISHED[2])).is_empty());
        assert!(rules("[lints]\ntodo = \"deny\"\ndbg_macro = \"deny\"\n").is_empty());
    }

    #[test]
    fn each_machine_path_is_found() {
        for path in MACHINE_PATHS {
            assert_eq!(rules(&format!("see {path}x\n")), ["machine-path"], "{path}");
            assert_eq!(rules(&format!("file://{path}x `{path}`\n")), ["machine-path"], "{path}");
        }
    }

    #[test]
    fn folders_of_the_same_name_elsewhere_are_free() {
        for path in MACHINE_PATHS {
            assert!(rules(&format!("docs{path}x\n")).is_empty(), "{path}");
        }
        assert!(rules("the /proc/self/smaps of it; a root/ of words\n").is_empty());
    }

    #[test]
    fn a_finding_names_its_line() {
        let text = format!("one\ntwo\n{}\n", UNFINISHED[0]);
        let findings = check(&Tree::from_texts(&[("a.md", &text)]));
        assert_eq!(findings.iter().map(|f| f.line).collect::<Vec<_>>(), [3]);
    }
}
