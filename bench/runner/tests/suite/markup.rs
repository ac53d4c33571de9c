//! A check that a page is well formed: every element that is opened is closed, in order; attributes are quoted, and no
//! element has one twice; entities are those that exist everywhere.
//!
//! It reads what the runner writes, HTML as XML would be, and not all of HTML.

/// Elements that HTML never closes; the runner closes them itself.
const ENTITIES: [&str; 4] = ["lt;", "gt;", "amp;", "quot;"];

/// The names of all elements, in the order in which they are opened.
///
/// # Panics
/// When the page is not well formed, with the place.
pub fn check(page: &str) -> Vec<String> {
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a page says what it is");
    let (mut open, mut all): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    while let Some(start) = rest.find('<') {
        check_text(&rest[..start], &open);
        let end = rest.find('>').unwrap_or_else(|| panic!("no end: {}", excerpt(&rest[start..])));
        let tag = &rest[start + 1..end];
        assert!(!tag.contains('<'), "an element within a tag: {tag}");
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "closed before {}", excerpt(rest));
            continue;
        }
        let (tag, is_empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "a name: {name}");
        check_attributes(attributes);
        all.push(name.to_owned());
        if !is_empty {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    assert_eq!(rest.trim(), "", "behind the end");
    all
}

fn check_text(text: &str, open: &[String]) {
    // A style sheet has its own rules.
    if open.last().is_some_and(|name| name == "style") {
        return;
    }
    for (at, _) in text.match_indices('&') {
        let behind = &text[at + 1..];
        assert!(ENTITIES.iter().any(|entity| behind.starts_with(entity)), "{}", excerpt(behind));
    }
    assert!(!text.contains('>'), "{}", excerpt(text));
}

/// Pairs like `name="value"`, with one space between.
fn check_attributes(text: &str) {
    let mut names = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (name, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("unquoted: {text}"));
        let (value, behind) = behind.split_once('"').unwrap_or_else(|| panic!("no end: {text}"));
        check_text(value, &[]);
        assert!(!names.contains(&name), "{name} twice: {text}");
        names.push(name);
        rest = behind.strip_prefix(' ').unwrap_or(behind);
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(60).collect()
}

#[test]
fn what_is_not_well_formed_is_found() {
    assert_eq!(check("<!DOCTYPE html><p a=\"1\" b=\"&lt;\">x<br/></p>"), ["p", "br"]);
    for wrong in [
        "<p>",
        "</p>",
        "<p><b></p></b>",
        "<p a=1></p>",
        "<p>&nbsp;</p>",
        "<p a=\"1\" a=\"2\"></p>",
        "x",
    ] {
        let page = format!("<!DOCTYPE html>{wrong}");
        assert!(std::panic::catch_unwind(|| check(&page)).is_err(), "{wrong}");
    }
}
