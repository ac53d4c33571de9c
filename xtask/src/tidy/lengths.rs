//! Rule `length`: files and functions that a reader can hold in mind.
//!
//! A file has at most 600 lines, one below a `tests` or `benches` folder 1000. A function has at
//! most 70 lines from its `fn` to its closing brace, in those folders 120. Attributes and
//! documentation are not counted: a long explanation is no reason to cut code up.

use super::tokens::{Kind, Token};
use super::{Finding, Source, Tree};

/// The most lines of a file, outside and inside test folders.
const FILE_LINES: [usize; 2] = [600, 1000];
/// The most lines of a function, outside and inside test folders.
const FUNCTION_LINES: [usize; 2] = [70, 120];

/// Files and functions that are too long.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree.rust() {
        let kind = usize::from(source.is_in_tests());
        let lines = source.text.lines().count();
        if lines > FILE_LINES[kind] {
            findings.push(finding(
                source,
                1,
                format!("{lines} lines, at most {}", FILE_LINES[kind]),
            ));
        }
        for function in functions(source.tokens()) {
            let lines = function.end + 1 - function.line;
            if lines > FUNCTION_LINES[kind] {
                let Function { name, line, .. } = function;
                let message =
                    format!("`{name}` has {lines} lines, at most {}", FUNCTION_LINES[kind]);
                findings.push(finding(source, line, message));
            }
        }
    }
    findings
}

fn finding(source: &Source, line: usize, message: String) -> Finding {
    Finding { path: source.path.clone(), line, rule: "length", message }
}

/// Where a function with a body lies.
struct Function<'a> {
    name: &'a str,
    line: usize,
    end: usize,
}

/// All functions among `tokens`, nested ones and those in macros included.
fn functions(tokens: &[Token]) -> Vec<Function<'_>> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if let Some(inner) = token.inner() {
            found.extend(functions(inner));
        }
        // `fn(` is a type: only a name after `fn` makes a function.
        if let [keyword, name, rest @ ..] = &tokens[at..]
            && keyword.is_ident("fn")
            && let Some(name) = name.ident()
            && let Some(end) = body_end(rest)
        {
            found.push(Function { name, line: keyword.line, end });
        }
    }
    found
}

/// The last line of the body of a function whose parameters `rest` starts with; nothing for a
/// declaration.
fn body_end(rest: &[Token]) -> Option<usize> {
    let stop = rest.iter().enumerate().find(|(at, token)| match token.kind {
        // A brace right after `<` is a constant argument of a type, not a body.
        Kind::Brace(_) => *at == 0 || !rest[at - 1].is_punct('<'),
        Kind::Punct(';') => true,
        _ => false,
    });
    stop.and_then(|(_, token)| token.braced().map(|_| token.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(&Tree::from_texts(&[(path, text)])).into_iter().map(|f| f.message).collect()
    }

    fn function(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    work();\n".repeat(lines - 2))
    }

    #[test]
    fn a_file_may_have_600_lines_or_1000_in_tests() {
        assert!(messages("a/src/b.rs", &"//! x\n".repeat(600)).is_empty());
        assert_eq!(messages("a/src/b.rs", &"//! x\n".repeat(601)), ["601 lines, at most 600"]);
        assert!(messages("a/tests/b.rs", &"//! x\n".repeat(1000)).is_empty());
        assert_eq!(messages("a/tests/b.rs", &"//! x\n".repeat(1001)), ["1001 lines, at most 1000"]);
        assert!(messages("a/docs/b.md", &"x\n".repeat(2000)).is_empty());
    }

    #[test]
    fn a_function_may_have_70_lines_or_120_in_tests() {
        assert!(messages("a/src/b.rs", &function(70)).is_empty());
        assert_eq!(messages("a/src/b.rs", &function(71)), ["`long` has 71 lines, at most 70"]);
        assert!(messages("a/benches/b.rs", &function(120)).is_empty());
        assert_eq!(messages("a/tests/b.rs", &function(121)), ["`long` has 121 lines, at most 120"]);
    }

    #[test]
    fn documentation_and_attributes_do_not_count() {
        let text = format!("{}#[inline]\n{}", "/// Words.\n".repeat(80), function(70));
        assert!(messages("a.rs", &text).is_empty());
    }

    #[test]
    fn methods_and_functions_in_macros_count() {
        let inside =
            format!("impl A {{\n{}}}\nmacro_rules! m {{ () => {{\n{0}}} }}\n", function(71));
        assert_eq!(messages("a.rs", &inside).len(), 2);
    }

    #[test]
    fn the_body_is_found_behind_types_and_declarations_have_none() {
        let spans = |text: &str| {
            let tokens = super::super::tokens::lex(text).expect("lexes");
            functions(&tokens).iter().map(|f| (f.line, f.end)).collect::<Vec<_>>()
        };
        assert_eq!(spans("fn a() -> A<{ 1 }> {\n}\n"), [(1, 2)]);
        assert_eq!(spans("fn a<T>()\nwhere\n  T: B,\n{\n}\n"), [(1, 5)]);
        assert_eq!(spans("trait A {\n fn a();\n fn b() {\n }\n}\n"), [(3, 4)]);
        assert_eq!(spans("type A = fn(u8) -> u8;\nstruct B {\n}\n"), []);
    }
}
