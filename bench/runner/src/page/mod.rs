//! The page: the whole comparison at once, for somebody who has never seen the project.
//!
//! The page needs nothing but itself: no network, no scripts; pictures are drawn in it. It says what was run, on
//! what, with what, when, and by which command; then which goals are met and which are missed; then each workload:
//! what it does, how everybody did, with the spread, and the figures below each picture. What failed is at the top
//! and not at the end.
//!
//! | part | file |
//! |---|---|
//! | elements and text, well formed | `markup.rs` |
//! | scales and lines of pictures | `draw.rs` |
//! | bars | `bars.rs` |
//! | distributions, and time against memory | `lines.rs` |
//! | the sections | `sections.rs` |
//! | one workload | `workload.rs` |

mod bars;
mod draw;
mod lines;
mod markup;
mod sections;
mod workload;

use crate::results::Results;
use crate::sheet::Sheet;
use markup::{Attributes, Markup};

/// Colours and type, for light and dark.
const STYLE: &str = include_str!("style.css");

/// The whole file.
pub fn html(results: &Results) -> String {
    let sheets: Vec<Sheet<'_>> =
        results.cases.iter().map(|case| Sheet::of(results, case)).collect();
    let mut page = Markup::default();
    page.raw("<!DOCTYPE html>\n");
    page.element("html", &[("lang", "en")], |page| {
        page.element("head", &[], |page| {
            page.empty("meta", &[("charset", "utf-8")]);
            page.empty(
                "meta",
                &[("name", "viewport"), ("content", "width=device-width, initial-scale=1")],
            );
            page.empty("meta", &[("name", "color-scheme"), ("content", "light dark")]);
            page.leaf("title", &[], "spanheap beside others");
            page.element("style", &[], |page| page.raw(STYLE));
        });
        page.line();
        page.element("body", &[], |page| {
            sections::head(page, results);
            sections::faults(page, results);
            sections::contents(page, results);
            sections::reading(page, results);
            sections::goals(page, results);
            sections::matrix(page, results, &sheets);
            sheets.iter().for_each(|sheet| workload::section(page, results, sheet));
            sections::refusals(page, results);
            sections::method(page, results);
        });
    });
    page.line();
    page.into_text()
}

/// A table: a header, and rows of cells with their class and text. The class of a row is that of its first cell.
struct Table<'a> {
    header: Vec<&'a str>,
    rows: Vec<Vec<(&'static str, String)>>,
}

impl Table<'_> {
    fn write(&self, page: &mut Markup) {
        page.element("div", &[("class", "wide")], |page| {
            page.element("table", &[], |page| {
                page.element("tr", &[], |page| {
                    self.header.iter().for_each(|cell| page.leaf("th", &[], cell));
                });
                for row in &self.rows {
                    let class = row.first().map_or("", |(class, _)| class);
                    page.element("tr", attributes(&[("class", class)]), |page| {
                        for (class, text) in row {
                            page.leaf("td", attributes(&[("class", class)]), text);
                        }
                    });
                }
            });
        });
        page.line();
    }
}

/// A class, or nothing if it is empty.
fn attributes<'a>(class: &'a [(&'a str, &'a str); 1]) -> Attributes<'a> {
    if class[0].1.is_empty() { &[] } else { class }
}
