//! Rust text as a tree of tokens with lines, in the shape that the rules match on.
//!
//! The lexer is that of `proc-macro2`. Its trees are copied into a plain enum once, because the
//! rules want to match slices of tokens, which opaque streams do not allow.

use super::{Finding, Tree};
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One token, or one bracketed group of them.
#[derive(Debug)]
pub(crate) struct Token {
    /// The line of its first character, counted from one.
    pub(crate) line: usize,
    /// The line of its last character.
    pub(crate) end: usize,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What a token is.
#[derive(Debug)]
pub(crate) enum Kind {
    /// A name or a keyword.
    Ident(String),
    /// One character of punctuation.
    Punct(char),
    /// A number, a string or a character; its value interests no rule.
    Literal,
    /// `{ .. }`
    Brace(Vec<Token>),
    /// `( .. )`
    Paren(Vec<Token>),
    /// `[ .. ]`
    Bracket(Vec<Token>),
}

impl Token {
    /// The name, if it is one.
    pub(crate) fn ident(&self) -> Option<&str> {
        match &self.kind {
            Kind::Ident(name) => Some(name),
            _ => None,
        }
    }

    /// Whether it is this name or keyword.
    pub(crate) fn is_ident(&self, name: &str) -> bool {
        self.ident() == Some(name)
    }

    /// Whether it is this punctuation character.
    pub(crate) fn is_punct(&self, character: char) -> bool {
        matches!(self.kind, Kind::Punct(c) if c == character)
    }

    /// What stands between the brackets, whatever their shape.
    pub(crate) fn inner(&self) -> Option<&[Token]> {
        match &self.kind {
            Kind::Brace(inner) | Kind::Paren(inner) | Kind::Bracket(inner) => Some(inner),
            _ => None,
        }
    }

    /// What stands between braces.
    pub(crate) fn braced(&self) -> Option<&[Token]> {
        match &self.kind {
            Kind::Brace(inner) => Some(inner),
            _ => None,
        }
    }
}

/// Splits a text into tokens.
///
/// # Errors
/// The line and the reason, when the text is not a sequence of Rust tokens.
pub(crate) fn lex(text: &str) -> Result<Vec<Token>, (usize, String)> {
    let stream: TokenStream =
        text.parse().map_err(|e: proc_macro2::LexError| (e.span().start().line, e.to_string()))?;
    Ok(copy(stream))
}

fn copy(stream: TokenStream) -> Vec<Token> {
    stream.into_iter().filter_map(copy_one).collect()
}

fn copy_one(tree: TokenTree) -> Option<Token> {
    let span = tree.span();
    let kind = match tree {
        TokenTree::Ident(ident) => Kind::Ident(ident.to_string()),
        TokenTree::Punct(punct) => Kind::Punct(punct.as_char()),
        TokenTree::Literal(_) => Kind::Literal,
        TokenTree::Group(group) => match group.delimiter() {
            Delimiter::Brace => Kind::Brace(copy(group.stream())),
            Delimiter::Parenthesis => Kind::Paren(copy(group.stream())),
            Delimiter::Bracket => Kind::Bracket(copy(group.stream())),
            // Only macros make groups without brackets; text has none.
            Delimiter::None => return None,
        },
    };
    Some(Token { line: span.start().line, end: span.end().line, kind })
}

/// Whether `tokens` starts with two colons.
pub(crate) fn starts_with_path_separator(tokens: &[Token]) -> bool {
    matches!(tokens, [a, b, ..] if a.is_punct(':') && b.is_punct(':'))
}

/// Rule `lex`: a file that cannot be read is a finding, since no other rule has seen it.
pub(crate) fn check(tree: &Tree) -> Vec<Finding> {
    let finding = |source: &super::Source| {
        let (line, reason) = source.lex_error()?;
        Some(Finding {
            path: source.path.clone(),
            line: *line,
            rule: "lex",
            message: format!("not Rust: {reason}"),
        })
    };
    tree.rust().filter_map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_know_their_first_and_last_line() {
        let tokens = lex("// head\nfn a() {\n  b\n}\n").expect("lexes");
        let body = tokens.last().expect("a body");
        assert_eq!((body.line, body.end), (2, 4));
        assert!(body.braced().is_some_and(|inner| inner[0].is_ident("b") && inner[0].line == 3));
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        let tokens = lex("/* unsafe */ \"unsafe {}\" // unsafe\n").expect("lexes");
        assert!(matches!(tokens.as_slice(), [Token { kind: Kind::Literal, .. }]));
    }

    #[test]
    fn a_text_that_does_not_lex_is_a_finding_with_its_line() {
        let tree = Tree::from_texts(&[("a.rs", "fn a() {\n)\n"), ("b.rs", "fn b() {}\n")]);
        let findings = check(&tree);
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].path.as_str(), findings[0].line), ("a.rs", 2));
    }
}
