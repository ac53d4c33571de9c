//! Pages in cells: a drawing has no room for every page, so each of its cells stands for some.
//!
//! A cell looks like most of its pages. Where two uses are equally frequent, the one that holds more memory
//! wins, so that what is in use is not hidden by what is free. Rows have a fixed number of cells,
//! [`COLUMNS`], and begin at a multiple of their length in the arena; so a cell of eight pages makes a row of 4 MiB,
//! the unit in which the heap grows.

use spanheap::{PageState, Picture};

/// Cells of a row.
pub(super) const COLUMNS: usize = 64;
/// Pages of a cell, unless the heap is too large for that.
const USUAL_PAGES: usize = 8;
/// So many rows fit a screen, with what else is shown.
const MAX_ROWS: usize = 40;
/// Bytes of a page.
pub(super) const PAGE_BYTES: usize = 8192;

/// What most pages of a cell are. Later ones win when there are equally many.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Look {
    Reserved,
    Returned,
    Free,
    Held,
    Quarantined,
    Arena,
    /// Spans of small objects, with so many quarters of the slots in use, rounded up: 0 to 4.
    Small(u8),
    Large,
}

/// A cell: what it looks like, and the class of most of its spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Cell {
    pub(super) look: Look,
    pub(super) class: Option<u32>,
}

/// How many pages a cell stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Scale {
    /// Pages of a cell.
    pub(super) pages: usize,
}

/// Cells side by side, beginning at a page of an arena.
pub(super) struct Row {
    pub(super) first_page: usize,
    pub(super) cells: Vec<Cell>,
}

impl Scale {
    /// What the user chose, or what makes the picture fit a screen.
    pub(super) fn new(chosen: Option<usize>, picture: &Picture) -> Scale {
        let mut pages = chosen.unwrap_or(USUAL_PAGES);
        if chosen.is_none() {
            let grown = |pages: usize| -> usize {
                let scale = Scale { pages };
                picture.arenas.iter().map(|arena| scale.rows(&arena.pages).len()).sum()
            };
            while grown(pages) > MAX_ROWS && pages * COLUMNS < 8192 {
                pages *= 2;
            }
        }
        Scale { pages }
    }

    /// The rows of an arena, up to the last one with a page that was grown.
    pub(super) fn rows(self, pages: &[PageState]) -> Vec<Row> {
        let row = |(index, part): (usize, &[PageState])| Row {
            first_page: index * self.pages * COLUMNS,
            cells: part.chunks(self.pages).map(cell).collect(),
        };
        let behind = pages.iter().rposition(|&page| page != PageState::Reserved);
        let length = self.pages * COLUMNS;
        let rows = behind.map_or(0, |last| last / length + 1);
        pages.chunks(length).take(rows).enumerate().map(row).collect()
    }
}

/// The cell of some pages, at least one.
fn cell(pages: &[PageState]) -> Cell {
    let (mut small, mut live) = (0, 0);
    // Counts of the kinds, in the order of `Look`.
    let mut counts = [0; 8];
    for page in pages {
        let kind = match page {
            PageState::Reserved => 0,
            PageState::Returned => 1,
            PageState::Free => 2,
            PageState::Held => 3,
            PageState::Quarantined => 4,
            PageState::Arena => 5,
            PageState::Small { live: percent, .. } => {
                small += 1;
                live += usize::from(*percent);
                6
            }
            PageState::Large { .. } => 7,
        };
        counts[kind] += 1;
    }
    // Of equal ones the last.
    let kind = (0..counts.len()).max_by_key(|&kind| counts[kind]).unwrap_or(0);
    let look = match kind {
        0 => Look::Reserved,
        1 => Look::Returned,
        2 => Look::Free,
        3 => Look::Held,
        4 => Look::Quarantined,
        5 => Look::Arena,
        6 => Look::Small((live / small).div_ceil(25).min(4) as u8),
        _ => Look::Large,
    };
    Cell { look, class: class(pages, look) }
}

/// The most frequent class of the pages that give the cell its look.
fn class(pages: &[PageState], look: Look) -> Option<u32> {
    let wanted = |page: &PageState| match (page, look) {
        (PageState::Small { class, .. }, Look::Small(_))
        | (PageState::Large { class }, Look::Large) => Some(*class),
        _ => None,
    };
    let mut classes: Vec<u32> = pages.iter().filter_map(wanted).collect();
    classes.sort_unstable();
    classes.chunk_by(|a, b| a == b).max_by_key(|same| same.len()).map(|same| same[0])
}

#[cfg(test)]
mod tests {
    use spanheap::PageState::{Arena, Free, Held, Large, Quarantined, Reserved, Returned, Small};

    use super::{COLUMNS, Cell, Look, Scale, cell};

    #[test]
    fn a_cell_looks_like_most_of_its_pages() {
        let small = |class, live| Small { class, live };
        for (pages, look, class) in [
            (&[Free, Free, Returned][..], Look::Free, None),
            (&[Reserved, Returned], Look::Returned, None),
            (&[Held, Free], Look::Held, None),
            (&[Held, Quarantined], Look::Quarantined, None),
            (&[Quarantined, Arena, Free], Look::Arena, None),
            (&[Free, small(1, 100)], Look::Small(4), Some(1)),
            (&[small(1, 0), small(2, 30), small(2, 15)], Look::Small(1), Some(2)),
            (&[small(3, 0)], Look::Small(0), Some(3)),
            (&[small(3, 26)], Look::Small(2), Some(3)),
            (&[small(1, 9), Large { class: 7 }], Look::Large, Some(7)),
        ] {
            assert_eq!(cell(pages), Cell { look, class }, "{pages:?}");
        }
    }

    #[test]
    fn rows_end_with_the_last_that_was_grown() {
        let mut pages = vec![Reserved; 8192];
        pages[2 * COLUMNS * 8] = Free;
        let scale = Scale { pages: 8 };
        let rows = scale.rows(&pages);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[2].first_page, 1024);
        assert_eq!(rows[2].cells.len(), COLUMNS);
        // One page of eight does not make a cell.
        assert_eq!(rows[2].cells[0].look, Look::Reserved);
    }
}
