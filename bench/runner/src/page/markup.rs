//! Elements, attributes and text, written so that the result is well formed whatever the texts are.
//!
//! An element is opened and closed by the same call, and what is in it is written by a closure in between; so nothing
//! stays open. Texts and attributes are escaped here and nowhere else. HTML is written as XML would be, with every
//! element closed, which browsers read as well and a small program can check.

use std::fmt::Write as _;

/// A page, or a part of one, that is being written.
#[derive(Default)]
pub struct Markup {
    text: String,
}

/// Names and values of attributes.
pub type Attributes<'a> = &'a [(&'a str, &'a str)];

impl Markup {
    /// What has been written.
    pub fn into_text(self) -> String {
        self.text
    }

    /// An element, with what `inside` writes in it.
    pub fn element(
        &mut self,
        name: &str,
        attributes: Attributes<'_>,
        inside: impl FnOnce(&mut Markup),
    ) {
        self.open(name, attributes);
        self.text.push('>');
        inside(self);
        let _ = write!(self.text, "</{name}>");
    }

    /// An element with nothing but text in it.
    pub fn leaf(&mut self, name: &str, attributes: Attributes<'_>, text: &str) {
        self.element(name, attributes, |page| page.text(text));
    }

    /// An element that has no inside, such as a line of a picture.
    pub fn empty(&mut self, name: &str, attributes: Attributes<'_>) {
        self.open(name, attributes);
        self.text.push_str("/>");
    }

    /// Text.
    pub fn text(&mut self, text: &str) {
        escape(text, &mut self.text);
    }

    /// What is markup already, and ours: the style sheet.
    pub fn raw(&mut self, markup: &str) {
        self.text.push_str(markup);
    }

    /// A line end, for who looks at the source.
    pub fn line(&mut self) {
        self.text.push('\n');
    }

    fn open(&mut self, name: &str, attributes: Attributes<'_>) {
        let _ = write!(self.text, "<{name}");
        for (key, value) in attributes {
            let _ = write!(self.text, " {key}=\"");
            escape(value, &mut self.text);
            self.text.push('"');
        }
    }
}

/// Adds `text` to `to` with what has a meaning in markup taken out of it. Control characters have no
/// place in a page at all.
fn escape(text: &str, to: &mut String) {
    for c in text.chars() {
        match c {
            '<' => to.push_str("&lt;"),
            '>' => to.push_str("&gt;"),
            '&' => to.push_str("&amp;"),
            '"' => to.push_str("&quot;"),
            '\n' | '\t' => to.push(c),
            c if c.is_control() => to.push('\u{fffd}'),
            c => to.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Markup;

    #[test]
    fn texts_cannot_break_out() {
        let mut page = Markup::default();
        page.element("p", &[("title", "a\"><b>")], |page| page.text("1 < 2 & </p>\u{7}"));
        page.empty("br", &[]);
        let expected =
            "<p title=\"a&quot;&gt;&lt;b&gt;\">1 &lt; 2 &amp; &lt;/p&gt;\u{fffd}</p><br/>";
        assert_eq!(page.into_text(), expected);
    }
}
