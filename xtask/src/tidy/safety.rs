//! Rule `safety`: unsafe code answers for itself, and its file says what is trusted.
//!
//! 1. Every unsafe block and every unsafe `impl` has a comment that starts with the word that
//!    clippy also looks for: directly above it, above the statement that it is part of, or inside
//!    the block. Unlike clippy, this rule also sees macros that are defined and never used.
//! 2. In a crate whose root denies `unsafe_code`, a file with unsafe code says
//!    `#![allow(unsafe_code)]`, so that one search lists the files to audit.
//! 3. The head of such a file has a section `# Safety`: what the file relies on, and what it
//!    promises.
//!
//! The type of an unsafe function (a pointer to one) is no unsafe code; calling it is.

use super::tokens::{Kind, Token};
use super::{Finding, Source, Tree};

/// The word that opens an answer.
const ANSWER: &str = "SAFETY:";

/// Unanswered unsafe code, and files that hide it.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust().flat_map(|source| check_source(tree, source)).collect()
}

fn check_source(tree: &Tree, source: &Source) -> Vec<Finding> {
    let finding = |line, message: &str| Finding {
        path: source.path.clone(),
        line,
        rule: "safety",
        message: message.to_string(),
    };
    let mut scan = Scan { lines: source.text.lines().collect(), first: None, unanswered: vec![] };
    scan.walk(source.tokens(), &[]);
    let mut findings: Vec<Finding> = scan
        .unanswered
        .iter()
        .map(|(line, what)| {
            finding(*line, &format!("{what} without a `{ANSWER}` comment above it"))
        })
        .collect();
    if let Some(first) = scan.first {
        if root_denies_unsafe(tree, source) && !has_inner_lint(source.tokens(), &["allow"]) {
            let message = "unsafe code in a file without `#![allow(unsafe_code)]` at its top";
            findings.push(finding(first, message));
        }
        let is_heading = |line: &&str| line.trim().trim_start_matches('#').trim() == "Safety";
        if !source.head().iter().any(|line| line.trim().starts_with('#') && is_heading(line)) {
            let message = "unsafe code in a file whose head has no section `# Safety`";
            findings.push(finding(first, message));
        }
    }
    findings
}

/// One pass over the tokens of a file.
struct Scan<'a> {
    lines: Vec<&'a str>,
    /// The line of the first unsafe code.
    first: Option<usize>,
    /// What has no answer, and where.
    unanswered: Vec<(usize, &'static str)>,
}

impl Scan<'_> {
    /// `above`: lines over which a comment also answers for what is found in `tokens`, because
    /// `tokens` are part of an expression that starts there.
    fn walk(&mut self, tokens: &[Token], above: &[usize]) {
        let mut start = None;
        for (at, token) in tokens.iter().enumerate() {
            let statement = *start.get_or_insert(token.line);
            if token.is_ident("unsafe") {
                let places = [above, &[statement, token.line]].concat();
                self.judge(token, &tokens[at + 1..], &places);
            }
            match &token.kind {
                Kind::Brace(inner) => {
                    self.walk(inner, &[]);
                    if !continues(tokens.get(at + 1)) {
                        start = None;
                    }
                }
                Kind::Paren(inner) | Kind::Bracket(inner) => {
                    self.walk(inner, &[above, &[statement]].concat());
                    // An attribute ends here, but what it is attached to has begun with it.
                }
                Kind::Punct(';' | ',') => start = None,
                _ => {}
            }
        }
    }

    /// Looks at what follows the keyword, and for the comment where one is due.
    fn judge(&mut self, keyword: &Token, rest: &[Token], places: &[usize]) {
        let Some(next) = rest.first() else { return };
        let due = match &next.kind {
            Kind::Brace(_) => Some("an unsafe block"),
            Kind::Ident(word) if word == "impl" => Some("an unsafe `impl`"),
            _ if is_function_type(rest) => return,
            // A function or a trait states its contract under a heading of its own, which clippy
            // demands.
            _ => None,
        };
        self.first.get_or_insert(keyword.line);
        let Some(what) = due else { return };
        let inside = next.braced().is_some() && self.is_answered_within(keyword.line, next.end);
        if !inside && !places.iter().any(|line| self.is_answered_above(*line)) {
            self.unanswered.push((keyword.line, what));
        }
    }

    /// Whether the comments and attributes that end on the line before `line` hold an answer.
    fn is_answered_above(&self, line: usize) -> bool {
        self.lines[..line - 1]
            .iter()
            .rev()
            .map(|text| text.trim_start())
            .take_while(|text| text.starts_with("//") || text.starts_with("#["))
            .any(|text| text.starts_with("//") && text.contains(ANSWER))
    }

    /// Whether a comment in these lines, both included, holds an answer.
    fn is_answered_within(&self, first: usize, last: usize) -> bool {
        self.lines[first - 1..last]
            .iter()
            .any(|text| text.split_once("//").is_some_and(|(_, comment)| comment.contains(ANSWER)))
    }
}

/// Whether `next` goes on with the statement that the brace before it was part of.
fn continues(next: Option<&Token>) -> bool {
    next.is_some_and(|token| match &token.kind {
        Kind::Ident(word) => word == "else",
        Kind::Punct(c) => ['.', '?', '='].contains(c),
        _ => false,
    })
}

/// Whether the tokens behind `unsafe` are `fn (` or `extern "C" fn (`: a type, not a definition.
fn is_function_type(rest: &[Token]) -> bool {
    let rest = match rest {
        [keyword, Token { kind: Kind::Literal, .. }, rest @ ..] if keyword.is_ident("extern") => {
            rest
        }
        [keyword, rest @ ..] if keyword.is_ident("extern") => rest,
        rest => rest,
    };
    matches!(rest, [keyword, Token { kind: Kind::Paren(_), .. }, ..] if keyword.is_ident("fn"))
}

/// Whether the root of the crate that `source` is a module of denies unsafe code. Tests and
/// benchmarks are crates of their own.
fn root_denies_unsafe(tree: &Tree, source: &Source) -> bool {
    let Some((folder, _)) = source.path.rsplit_once("src/") else { return false };
    ["lib.rs", "main.rs"].iter().any(|root| {
        tree.source(&format!("{folder}src/{root}"))
            .is_some_and(|root| has_inner_lint(root.tokens(), &["deny", "forbid"]))
    })
}

/// Whether the file has `#![level(.., unsafe_code, ..)]` for one of the levels.
fn has_inner_lint(tokens: &[Token], levels: &[&str]) -> bool {
    tokens.windows(3).any(|window| match window {
        [hash, bang, Token { kind: Kind::Bracket(inner), .. }]
            if hash.is_punct('#') && bang.is_punct('!') =>
        {
            matches!(inner.as_slice(), [level, lints]
                if level.ident().is_some_and(|level| levels.contains(&level))
                    && lints.inner().is_some_and(|l| l.iter().any(|l| l.is_ident("unsafe_code"))))
        }
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "//! What.\n//!\n//! # Safety\n//! Trusted.\n#![allow(unsafe_code)]\n";

    fn messages(body: &str) -> Vec<String> {
        let text = format!("{HEAD}{body}");
        let root = "//! Root.\n#![deny(unsafe_code)]\n";
        let tree = Tree::from_texts(&[("a/src/lib.rs", root), ("a/src/b.rs", &text)]);
        check(&tree).into_iter().map(|f| format!("{}: {}", f.line - 5, f.message)).collect()
    }

    #[test]
    fn a_block_needs_an_answer() {
        let unanswered = ["3: an unsafe block without a `SAFETY:` comment above it"];
        assert_eq!(messages("fn a() {\n\n    unsafe { b() }\n}\n"), unanswered);
        assert_eq!(messages("fn a() {\n    // Fine.\n    unsafe { b() }\n}\n"), unanswered);
        assert_eq!(messages("// SAFETY: no.\nfn a() {\n    unsafe { b() }\n}\n"), unanswered);
        assert_eq!(messages("// SAFETY: no.\n\nstatic A: u8 = unsafe { b() };\n"), unanswered);
    }

    #[test]
    fn an_answer_stands_above_the_block_or_its_statement_or_inside() {
        for body in [
            "// SAFETY: yes.\nunsafe { b() }",
            "// SAFETY: yes,\n// in two lines.\n#[cfg(unix)]\nlet x = unsafe { b() };",
            "let y = 1;\n// SAFETY: yes.\nlet x =\n    c(1, &[unsafe { b() }]);",
            "if c {\n}\n// SAFETY: yes.\nlet A { x } = unsafe { b() };",
            "match c {\n    A { .. } => 1,\n    // SAFETY: yes.\n    B { .. } => unsafe { b() },\n}",
            "unsafe {\n    // SAFETY: yes.\n    b()\n}",
            "unsafe { b() } // SAFETY: yes.",
        ] {
            let body = format!("fn a() {{\n{body}\n}}\n");
            assert!(messages(&body).is_empty(), "{body}: {:?}", messages(&body));
        }
    }

    #[test]
    fn the_answer_of_one_statement_is_not_that_of_the_next() {
        let body = "fn a() {\n// SAFETY: yes.\nunsafe { b() };\nunsafe { c() };\n}\n";
        assert_eq!(messages(body), ["4: an unsafe block without a `SAFETY:` comment above it"]);
        let body = "fn a() {\n// SAFETY: yes.\nif unsafe { b() } {\nunsafe { c() }\n}\n}\n";
        assert_eq!(messages(body), ["4: an unsafe block without a `SAFETY:` comment above it"]);
    }

    #[test]
    fn an_impl_needs_an_answer_also_in_a_macro() {
        let unanswered = ["2: an unsafe `impl` without a `SAFETY:` comment above it"];
        assert_eq!(messages("\nunsafe impl Send for A {}\n"), unanswered);
        assert_eq!(
            messages("macro_rules! m { () => {\nunsafe impl Send for A {}\n} }\n"),
            unanswered
        );
        assert!(messages("// SAFETY: yes.\nunsafe impl Send for A {}\n").is_empty());
    }

    #[test]
    fn functions_and_their_types_need_none() {
        assert!(messages("/// # Safety\n/// Asks.\nunsafe fn a() {}\n").is_empty());
        assert!(messages("type A = unsafe extern \"C\" fn(u8);\n").is_empty());
    }

    #[test]
    fn text_and_comments_are_not_code() {
        assert!(messages("// unsafe { }\nconst A: &str = \"unsafe { }\";\n").is_empty());
    }

    /// The messages for one file under a root that denies unsafe code, or does not.
    fn for_file(root: &str, text: &str) -> Vec<String> {
        let tree = Tree::from_texts(&[("a/src/lib.rs", root), ("a/src/b.rs", text)]);
        check(&tree).into_iter().map(|f| f.message).collect()
    }

    #[test]
    fn a_file_with_unsafe_code_says_so() {
        let (deny, plain) = ("//! Root.\n#![deny(unsafe_code)]\n", "//! Root.\n");
        let allow = "unsafe code in a file without `#![allow(unsafe_code)]` at its top";
        let heading = "unsafe code in a file whose head has no section `# Safety`";
        let code = "unsafe fn a() {}\n";
        let essay = "//! B.\n//! # Safety\n//! Trusted.\n";
        assert_eq!(for_file(deny, &format!("//! B.\n{code}")), [allow, heading]);
        assert_eq!(for_file(deny, &format!("{essay}{code}")), [allow]);
        assert_eq!(for_file(plain, &format!("//! B.\n{code}")), [heading]);
        assert!(for_file(deny, &format!("{essay}#![allow(unsafe_code)]\n{code}")).is_empty());
        assert!(for_file(plain, &format!("{essay}{code}")).is_empty());
    }

    #[test]
    fn a_file_without_unsafe_code_need_not() {
        let deny = "//! Root.\n#![deny(unsafe_code)]\n";
        assert!(for_file(deny, "//! B.\nfn a(f: unsafe fn()) {}\n").is_empty());
    }

    #[test]
    fn the_attribute_belongs_to_modules_and_not_to_integration_tests() {
        let text = "//! T.\n//! # Safety\n//! Trusted.\nunsafe fn a() {}\n";
        let root = "//! Root.\n#![forbid(unsafe_code)]\n";
        let tree = Tree::from_texts(&[("a/src/main.rs", root), ("a/tests/t.rs", text)]);
        assert!(check(&tree).is_empty());
        let tree = Tree::from_texts(&[("a/src/main.rs", root), ("a/src/t.rs", text)]);
        assert_eq!(check(&tree).len(), 1);
    }
}
